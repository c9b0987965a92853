"""Two hosts behind one address: a resumption that reaches the other one costs nothing but the fresh exchange, at any rate of
connections, and is counted."""

import re
import socket

from harness import ECHO, check, echo_server, many, need, note, plain, same, topology

if plain:
    raise SystemExit

net = topology("farm")
a, b, c = net.a, net.b, net.c
net.start()
echo_server(b)
echo_server(c)


def one_by_one(address, count):
    """Each is over before the next begins."""
    for n in range(count):
        with a.inside():
            s = socket.create_connection((address, ECHO), timeout=30)
        with s:
            s.sendall(b"%d" % n)
            s.shutdown(socket.SHUT_WR)
            same(s.makefile("rb").read(), b"%d" % n)
    return True


def counted(counter, act, *arguments):
    before = a.counter(counter)
    act(*arguments)
    more = a.counter(counter) - before
    note(f"{counter}: {more}")
    return more


def at_least(counter, least, act, *arguments):
    """While it runs, a's counter goes up by that at least."""
    return counted(counter, act, *arguments) >= least


def none(counter, act, *arguments):
    return counted(counter, act, *arguments) == 0


with net.capture(f"tcp port {ECHO}") as wire:
    for family in (4, 6):
        farm, name = net.addresses[f"FARM{family}"], f"IPv{family}"
        net.call("spread", "numgen inc mod 2")
        check(f"{name}, by turns: 40 connections one by one, some resume", at_least, "connections_resumed", 12, one_by_one, farm, 40)
        check(f"{name}, by turns: others reach the other member", at_least, "resumptions_refused", 8, one_by_one, farm, 40)
        net.call("spread", "numgen random mod 2")
        check(f"{name}, at random: 40 connections one by one, some resume", at_least, "connections_resumed", 8, one_by_one, farm, 40)
        check(f"{name}, at random: 300 connections at once, some resume", at_least, "connections_resumed", 40, many, a, farm, 300, 2000)
        check(f"{name}, at random: again, and none is aborted", none, "connections_aborted", many, a, farm, 300, 2000)
        check(f"{name}, at random: nor plain", none, "connections_plain", many, a, farm, 100, 2000)
        net.call("spread", "numgen inc mod 1")
        check(f"{name}, one member is left: after some connections", one_by_one, farm, 30)
        check(f"{name}, one member is left: most resume", at_least, "connections_resumed", 15, one_by_one, farm, 20)
check("all of it is encrypted", wire.encrypted, ECHO)
check("both members had their share", lambda: all(need(n.counter("connections_encrypted") > 100, n) for n in (b, c)))
check("the members count identifiers that they do not know", lambda: sum(n.counter("resumptions_unknown") for n in (b, c)) > 50)
check("for people, too", lambda: re.search("resum.*refused", a.enotun("status")) is not None)
check("the cache is bounded", lambda: len(a.json("cache", "list")) <= 256)

farm = net.addresses["FARM4"]
a.enotun("enable", f"{farm},no-resume")
net.call("spread", "numgen random mod 2")
check("a selector says not to try", none, "resumptions_proposed", one_by_one, farm, 20)
check("and nothing else is different", at_least, "connections_encrypted", 20, one_by_one, farm, 20)
check("the daemons still run", net.alive)
