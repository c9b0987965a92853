"""A host with enotun among others: encrypted to those that can, plain to those that cannot, and nothing at all to those that
cannot where policy requires encryption."""

from harness import (ECHO, Connection, check, check_enotun, echo_server, fails, many, plain, same, sessions_agree, topology)

net = topology("mixed")
a, b, c = net.a, net.b, net.c
without = {family: net.addresses[f"PLAIN{family}"] for family in (4, 6)}
for node in (a, b, c):
    echo_server(node)
net.start()
with net.nodes["r"].capture("ra") as wire:
    for family in (4, 6):
        name = f"IPv{family}"
        held = Connection(a, without[family])
        check(f"{name}: a to c, which has no enotun", held.says, "to-c")
        check_enotun(f"{name}: it is plain", a.flows_are, ECHO, "plain")
        check_enotun(f"{name}: because the peer has no ENO",
                     lambda: same({f["reason"] for f in a.flows() if f["state"] == "plain"}, {"peer-no-eno"}))
        held.close()
        held = Connection(c, net.client[family])
        check(f"{name}: c to a", held.says, "from-c")
        held.close()
        held = Connection(a, net.server[family])
        check(f"{name}: a to b", held.says, "to-b")
        check_enotun(f"{name}: it is encrypted", sessions_agree, a, b, ECHO)
        held.close()
SYN_WITH_OPTIONS = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn and tcp[20:4] != 0"
check_enotun("a offered ENO to c", lambda: "unknown-69" in wire.shown(f"dst host {without[4]} and {SYN_WITH_OPTIONS}").lower())

if not plain:
    def connects(node, address, **status):
        return node.tool("tcp.py", "errno", address, ECHO, timeout=60, **status)

    def sends(node, address):
        """A peer without enotun may accept the connection before a says no: what counts is that no data goes either way."""
        return node.tool("tcp.py", "many", address, ECHO, 1, 1000, timeout=90)

    a.restart("--policy", "required", "0.0.0.0/0", "::/0")
    for family in (4, 6):
        name = f"required, IPv{family}"
        check(f"{name}: a to c is refused", connects, a, without[family], status=1)
        check(f"{name}: c to a brings nothing through", fails, sends, c, net.client[family])
        check(f"{name}: a to b connects", sends, a, net.server[family])
    a.restart("0.0.0.0/0", "::/0")
    check("enable --policy required at run time", a.enotun, "enable", "--policy", "required", "10.6.3.0/24")
    check("then a to c is refused", connects, a, without[4], status=1)
    check("and still plain over IPv6", connects, a, without[6])
    check("disable takes it back", a.enotun, "disable", "10.6.3.0/24")
    check("then a to c is plain", connects, a, without[4])
