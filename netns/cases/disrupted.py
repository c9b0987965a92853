"""An interface that comes back with another address is a sign that this machine may be a copy: the cache of sessions is erased,
once, and status says so. What happens every day erases nothing (docs/clones.md)."""

import re
import time

from harness import HTTP, check, fetch, need, nginx, plain, same, topology, wait_for

if plain:
    raise SystemExit

net = topology("pair")
a, b = net.a, net.b
net.start()
nginx(b)


def seen():
    return a.counter("disruptions")


def settled():
    """Nothing comes of what netlink has told. Bursts of changes are waited for 100 ms at most; then they are acted on at once."""
    before = seen()
    time.sleep(0.5)
    return same(seen(), before)


def none_yet():
    return same(a.json("status")["last_disruption"], None)


def blink(node, address):
    """The link is lost and back, with that address of IPv6."""
    node.ip("link set eth0 down")
    node.ip("link set eth0 up")
    node.ip(f"addr add {address}/64 dev eth0 nodad")


def fetched():
    return fetch(a, net.server[4], 1000)


check("a session is cached", fetched)
check("nothing has happened yet", lambda: none_yet() and same(a.counter("sessions_cached"), 1))

a.ip("addr replace 10.1.0.1/24 dev eth0 valid_lft 1000 preferred_lft 1000")
a.ip("addr add 10.1.0.7/24 dev eth0")
check("a lease renewed, and an address more: no sign", settled)
blink(a, "fd00:1::1")
check("a link lost and back with the same addresses: no sign", settled)
blink(b, "fd00:1::2")
check("the same by the other end of the cable", settled)
check("no sign so far, and the next connection resumes", lambda: fetched() and none_yet() and a.counter("connections_resumed") >= 1)

# A connection that stays open meanwhile; it is of an address that stays.
a.spawn("curl", "-sS", "--limit-rate", "50K", "-o", "/dev/null", f"http://{net.server[4]}/20000000")
check("a connection is open", wait_for, 10, a.flows_are, HTTP, "encrypted")
blink(a, "fd00:1::99")
check("the link is back with another address: noticed", wait_for, 10, lambda: seen() == 1)


def done():
    last = a.json("status")["last_disruption"]
    return need(last["sign"] == "address-change" and last["sessions_flushed"] >= 1 and last["connections_rekeyed"] >= 1
                and last["connections_aborted"] == 0 and last["seconds_ago"] < 60, last)


check("what was done", done)
check("the connection that was open has new keys", wait_for, 20,
      lambda: max(f["generation_local"] for f in a.flows() if f["state"] == "encrypted") >= 1)
check("status says it in words", lambda: re.search(r"(?m)^disrupted.*(\n.*)?another address", a.enotun("status")) is not None)
check("one line in the log", lambda: same(a.log.read_text().count("another address"), 1))
a.ip("addr add fd00:1::98/64 dev eth0 nodad")
check("once", settled)
check("the next connection makes fresh keys", fetched)
