"""What is selected and what is not: ports, local:PORT, enable and disable; traffic that is not selected, and what is not TCP,
is not touched."""

import json
import socket

from harness import Connection, check, check_enotun, echo_server, fails, many, need, plain, same, topology

ENDS = "plain" if plain else "encrypted"
net = topology("pair")
a, b = net.a, net.b
four, six = net.server.values()
for port in (7777, 7778, 7779):
    echo_server(b, port)
a.start(":7777", "10.1.0.2:7778")
b.start("local:7777", "local:7778")


def seen(port, address, expect):
    """One exchange; what the wire shows of it."""
    with a.capture() as wire:
        many(a, address, 1, 5000, port)
    return wire.wire(port, expect=expect)


check("a port of any address, IPv4: selected", seen, 7777, four, ENDS)
check("a port of any address, IPv6: selected", seen, 7777, six, ENDS)
check("a port of one address: selected", seen, 7778, four, ENDS)
check("the same port of another address: not", seen, 7778, six, "plain")
with a.capture() as wire:
    check("another port: not", seen, 7779, four, "plain")
check("not even an option in its SYN", lambda: not any(text in wire.shown("tcp").lower() for text in ("unknown-69", "option 69")))
check_enotun("enable at a", a.enotun, "enable", "10.1.0.0/24:7779")
check_enotun("enable at b", b.enotun, "enable", "local:7779")
check("then it is selected", seen, 7779, four, ENDS)
check_enotun("disable", a.enotun, "disable", "10.1.0.0/24:7779")
check("then it is not", seen, 7779, four, "plain")
for node in (a, b):
    node.restart("0.0.0.0/0", "::/0")
for target in (four, six):
    check(f"everything selected: ping {target}, small and large",
          lambda: all(isinstance(a.run("ping", "-q", "-c1", "-W6", "-s", size, target), str) for size in (56, 4000)))


def datagrams():
    with b.inside():
        there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with a.inside():
        here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with there, here:
        for s in (there, here):
            s.settimeout(15)
        there.bind(("0.0.0.0", 5353))
        here.sendto(b"u" * 4000, (four, 5353))
        text, sender = there.recvfrom(9000)
        there.sendto(text, sender)
        return same(here.recv(9000), b"u" * 4000)


check("everything selected: UDP", datagrams)
for node in (a, b):
    node.stop()

# IPv6 link-local addresses cannot be diverted: where they are required they are refused, and what is open goes on.
addresses = json.loads(b.run("ip", "-j", "-6", "addr", "show", "dev", "eth0", "scope", "link"))[0]["addr_info"]
link_local = next(address["local"] for address in addresses if address) + "%eth0"


def opens(port):
    return a.tool("tcp.py", "many", link_local, port, 1, 100, timeout=15)


before = Connection(a, link_local, 7777)
need(before.says("open"), "no link-local connection")
b.start("--policy", "required", "local:7777")
if not plain:
    check("a required port, link-local: refused", fails, opens, 7777)
    check("another port, link-local: not touched", opens, 7778)
    check("a link-local connection from before goes on", before.says, "more")
    b.stop()
    a.start("--policy", "required", "::/0")
    check("everything required, link-local: refused", fails, opens, 7778)
    a.stop()
    check("nothing is refused any more", opens, 7777)
