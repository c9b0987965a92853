"""While the rules that divert packets are replaced, because selectors or the rules of another firewall change, not one packet
of an encrypted connection gets by."""

import threading

from harness import ECHO, check, echo_server, many, need, plain, topology

if plain:
    raise SystemExit

net = topology("pair")
a, b = net.a, net.b
net.start()
echo_server(b)
over = threading.Event()
changes = {a: 0, b: 0}
wrong = []


def changing(node):
    """Until it is over, selectors and somebody else's rules come and go."""
    try:
        while not over.is_set():
            node.enotun("enable", "192.0.2.0/24:4000-5000")
            node.run("nft", "add table inet other; add chain inet other input { type filter hook input priority 0; }")
            node.enotun("disable", "192.0.2.0/24:4000-5000")
            node.run("nft", "delete table inet other")
            changes[node] += 2
    except Exception as error:
        wrong.append(error)


def traffic():
    """Connections full of data until both have changed their rules many times."""
    for _ in range(100):
        many(a, net.server[4], 12, 300_000)
        many(a, net.server[6], 4, 300_000)
        need(not wrong, wrong)
        if min(changes.values()) >= 30:
            return True
    return False


with a.capture(only=f"tcp port {ECHO}") as wire:
    changers = [threading.Thread(target=changing, args=(node,)) for node in (a, b)]
    for changer in changers:
        changer.start()
    check("connections arrive intact while rules change", traffic)
    over.set()
    for changer in changers:
        changer.join()
check("all that was on the wire is frames", wire.encrypted, ECHO)
for node in (a, b):
    check(f"{node}: no table stands in any more", lambda: "next" not in node.run("nft", "list", "tables"))
check("the daemons still run", net.alive)
