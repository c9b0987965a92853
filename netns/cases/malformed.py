"""Malformed packets, into both devices of the TUN and from the wire: the daemon lives and other connections go on
undisturbed."""

from harness import ECHO, Connection, check, check_enotun, echo_server, fetch, nginx, plain, sessions_agree, topology

net = topology("pair")
a, b = net.a, net.b
net.start()
nginx(b)
echo_server(b)
held = {family: Connection(a, server) for family, server in net.server.items()}
for family, connection in held.items():
    check(f"a connection over IPv{family}", connection.says, "before")
check_enotun("they are encrypted", a.flows_are, ECHO, "encrypted")
ends = [f"{address}:{port}" for family, connection in held.items()
        for address, port in ((net.client[family], connection.port), (net.server[family], ECHO))]
for node, device in ((a, "tun0"), (a, "tun0-w"), (b, "tun0"), (b, "tun0-w"), (b, "eth0"), (a, "eth0")):
    if plain and device != "eth0":
        continue
    check(f"3000 malformed packets into {device} of {node}", node.tool, "hostile.py", device, 3000, *ends)
    check("the daemons still run", net.alive)
    for family, connection in held.items():
        check(f"a connection over IPv{family} goes on", connection.says, f"after-{node}-{device}")
    check("curl gets 20 MB", fetch, a, net.server[4], 20_000_000)
check_enotun("the same connections are still encrypted", sessions_agree, a, b, ECHO)
