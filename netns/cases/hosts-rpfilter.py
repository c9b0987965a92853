"""Hosts with strict reverse path filtering everywhere."""

from harness import ECHO, MARKER, Connection, check, check_enotun, echo_server, fetch, many, nginx, same, topology

net = topology("pair")
a, b = net.a, net.b
for node in (a, b):
    node.sysctl(*(f"net.ipv4.conf.{name}.rp_filter=1" for name in ("all", "default", "eth0")))
net.start()
nginx(b)
echo_server(b)
check("curl gets 20 MB", fetch, a, net.server[4], 20_000_000)
check("100 connections at once", many, a, net.server[4], 100, 20_000)
held = Connection(a, net.server[4])
check("a connection", held.says, MARKER)
for node in (a, b):
    check_enotun(f"it is encrypted at {node}", node.flows_are, ECHO, "encrypted")
held.close()
for node in (a, b):
    node.stop()
for node in (a, b):
    for name in ("all", "default", "eth0"):
        check(f"{node}: rp_filter of {name} is 1 again", lambda: same(node.run("sysctl", "-n", f"net.ipv4.conf.{name}.rp_filter"), "1\n"))
