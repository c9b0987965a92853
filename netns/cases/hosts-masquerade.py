"""Masquerading where enotun runs: at the hosts themselves, and at a gateway that hides the hosts behind it."""

from harness import ECHO, MARKER, Connection, check, check_enotun, down, echo_server, fetch, many, nginx, topology


def masquerade(node, device):
    node.nft(f"""table inet nat {{
        chain prerouting {{ type nat hook prerouting priority dstnat; }}
        chain postrouting {{
            type nat hook postrouting priority srcnat
            oifname "{device}" masquerade
        }}
    }}""")


def through(what, net):
    nginx(net.b)
    echo_server(net.b)
    for family, server in net.server.items():
        name = f"{what}, IPv{family}"
        check(f"{name}: curl gets 20 MB", fetch, net.a, server, 20_000_000)
        check(f"{name}: 100 connections at once", many, net.a, server, 100, 20_000)
        held = Connection(net.a, server)
        check(f"{name}: a connection", held.says, MARKER)
        check_enotun(f"{name}: it is encrypted", net.b.flows_are, ECHO, "encrypted")
        held.close()


net = topology("pair")
masquerade(net.a, "eth0")
masquerade(net.b, "eth0")
net.start()
through("hosts", net)
down()

net = topology("gateway")
masquerade(net.g, "out0")
net.g.start()
net.b.start("0.0.0.0/0", "::/0")
through("gateway", net)
