"""A host with two links and several addresses on each: the kernel chooses source addresses as it does without enotun, and any
address can be bound."""

from harness import ECHO, MARKER, Connection, check, check_enotun, echo_server, same, topology, wait_for

net = topology("pair")
a, b = net.a, net.b
a.ip(f"link add eth1 type veth peer name eth1 netns {b.namespace}")
for node, addresses in ((a, "10.8.0.1/24 10.8.0.11/24 fd00:8::1/64"), (b, "10.8.0.2/24 fd00:8::2/64")):
    node.ip("link set eth1 up")
    for address in addresses.split():
        node.ip(f"addr add {address} dev eth1" + " nodad" * (":" in address))
a.ip("addr add 10.1.0.11/24 dev eth0")
a.ip("addr add fd00:1::11/64 dev eth0 nodad")
a.ip("route add 10.9.0.0/24 via 10.8.0.2 src 10.8.0.11")
b.ip("addr add 10.9.0.2/24 dev lo")
a.ip("route add default via 10.1.0.2")
wait_for(10, a.ping, "10.8.0.2")
wait_for(10, a.ping, "fd00:8::2")
echo_server(b)


def source(target):
    """The address that the kernel chooses."""
    connection = Connection(a, target)
    connection.close()
    return connection.address


targets = ("10.1.0.2", "10.8.0.2", "10.9.0.2", "fd00:1::2", "fd00:8::2")
before = {target: source(target) for target in targets}
for node in (a, b):
    node.start("0.0.0.0/0", "::/0")
held = []
for target in targets:
    check(f"to {target} the source is {before[target]}, as without enotun", lambda: same(source(target), before[target]))
    held.append(Connection(a, target))
    check(f"to {target}: a connection", held[-1].says, MARKER)
for node in (a, b):
    check_enotun(f"all are encrypted at {node}", node.flows_are, ECHO, "encrypted")
# Weak and strong cases: an address of the link that is used, and of the other link.
for target, local in (("10.1.0.2", "10.1.0.11"), ("10.8.0.2", "10.8.0.11"), ("10.8.0.2", "10.1.0.1"), ("fd00:1::2", "fd00:1::11")):
    held.append(Connection(a, target, local=local))
    check(f"from {local} to {target}: a connection", held[-1].says, MARKER)
    check(f"from {local} to {target}: the address is kept", same, held[-1].address, local)
check_enotun("all are encrypted at a", a.flows_are, ECHO, "encrypted")


def loopback():
    echo_server(a)
    return same(source("10.1.0.1"), "10.1.0.1")


check("a connection to an own address stays on loopback", loopback)
check("127.0.0.1 works", lambda: same(source("127.0.0.1"), "127.0.0.1"))
