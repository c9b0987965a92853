"""enotun needs forwarding, but never makes a host forward what it did not forward before."""

from harness import ECHO, Connection, check, check_enotun, echo_server, fails, topology, wait_for

net = topology("pair")
a, b, c = net.a, net.b, net.add("c")
a.ip(f"link add eth1 type veth peer name eth0 netns {c.namespace}")
for node, device, number in ((a, "eth1", 1), (c, "eth0", 2)):
    node.ip(f"link set {device} up")
    node.ip(f"addr add 10.7.0.{number}/24 dev {device}")
    node.ip(f"addr add fd00:7::{number}/64 dev {device} nodad")
for node, net4, net6 in ((c, "10.7.0", "fd00:7"), (b, "10.1.0", "fd00:1")):
    node.ip(f"route add default via {net4}.1")
    node.ip(f"route add default via {net6}::1")
wait_for(10, c.ping, "10.7.0.1")
wait_for(10, c.ping, "fd00:7::1")
echo_server(b)
a.start("0.0.0.0/0", "::/0")
b.start()
held = Connection(a, net.server[4])
check("a connection of its own", held.says, "text")
check_enotun("is encrypted", a.flows_are, ECHO, "encrypted")
for target in net.server.values():
    check(f"ping from c to {target} is not forwarded", fails, c.ping, target, count=2)
    check(f"TCP from c to {target} is not forwarded", fails, c.tool, "tcp.py", "errno", target, ECHO, timeout=4)
a.stop()
a.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
a.start("10.1.0.0/24", "fd00:1::/64")
for target in net.server.values():
    check(f"what was forwarded before still is: ping to {target}", wait_for, 10, c.ping, target)
    check(f"and TCP to {target}", c.tool, "tcp.py", "errno", target, ECHO, timeout=30)
