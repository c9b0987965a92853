"""Middleboxes that take ENO out of segments, drop SYNs that have it, or send it back; that change the MSS or cut segments.
Connections work, plain or encrypted as the rules say, nothing wrong is delivered, and `probe` and `status` tell it."""

import json
import socket

from harness import ECHO, Failed, bracket, check, down, echo_server, fails, many, need, note, plain, same, topology

if plain:
    raise SystemExit

# nftables' words for what middleboxes do.
STRIPS_THERE = "iifname mr tcp flags & (syn|ack) == syn reset tcp option 69"
STRIPS_BACK = "iifname ms tcp flags & (syn|ack) == (syn|ack) reset tcp option 69"
DROPS_SYNS = "tcp flags & (syn|ack) == syn tcp option 69 exists drop"
STRIPS_OTHERS = "tcp flags & syn == 0 reset tcp option 69"
CLAMPS = "tcp flags & syn != 0 tcp option maxseg size set 700"

net = topology("path")
a, b = net.a, net.b
net.start()
echo_server(b)


def middlebox(rule="accept"):
    """What m does to what it forwards from here on. Both daemons forget what they have learnt of paths."""
    net.m.nft(f"""
table inet box
delete table inet box
table inet box {{
    chain forward {{
        type filter hook forward priority filter
        {rule}
    }}
}}""")
    for node in (a, b):
        node.enotun("probe", "--forget")


def forget(node):
    """Paths, and the sessions that make it doubt what a path seems to do (docs/paths.md)."""
    node.enotun("probe", "--forget")
    node.enotun("cache", "flush")


def probe(result, address, port=ECHO):
    """What a's probe says; its exit status is 0 only for `encrypted`."""
    return json.loads(a.enotun("probe", "--json", f"{bracket(address)}:{port}", status=0 if result == "encrypted" else 1))


def probed(result, certainty, address):
    found = probe(result, address)
    note(found)
    return same((found["result"], found["certainty"]), (result, certainty))


def between_which_routers(address):
    hops = probe("stripped-there", address)["hops"]
    note(hops)
    return hops[1]["eno"] is True and not hops[2]["eno"]


def remembers(node, finding):
    """Its status says so, for programs and for people."""
    need(finding in node.enotun("status"), "status does not say it")
    paths = node.json("status")["paths"]["list"]
    return need(any(path["finding"] == finding for path in paths), paths)


def opens(address, seconds=60):
    """One connection."""
    try:
        with a.inside():
            socket.create_connection((address, ECHO), timeout=seconds).close()
    except OSError as error:
        raise Failed(f"not open: {error}") from error
    return True


def opens_at_once(address):
    """With its first SYN; the second would come after a second."""
    def repeated():
        return a.run("nstat", "-asz", "TcpExtTCPSynRetrans").split()[-2]

    before = repeated()
    return opens(address) and same(repeated(), before)


def plain_because(reason):
    """Why a's plain flows are plain, those that are over included."""
    reasons = {f.get("reason") for f in a.flows() if f["state"] in ("plain", "closed")}
    return need(reason in reasons, reasons)


def connections(address, count=5, size=20_000):
    return many(a, address, count, size)


for family, server in net.server.items():
    name = f"IPv{family}, nothing in the way"
    middlebox()
    check(f"{name}: probe", probed, "encrypted", "seen", server)
    with net.capture(f"tcp port {ECHO}") as wire:
        check(f"{name}: connections", connections, server)
    check(f"{name}: encrypted", wire.encrypted, ECHO)

    name = f"IPv{family}, removed on the way there"
    middlebox(STRIPS_THERE)
    check(f"{name}: connections", connections, server)
    check(f"{name}: probe", probed, "stripped-there", "seen", server)
    check(f"{name}: between which routers", between_which_routers, server)
    check(f"{name}: a remembers", remembers, a, "stripped-there")
    check(f"{name}: b knows from the probe", remembers, b, "stripped-here")

    name = f"IPv{family}, removed on the way back"
    middlebox(STRIPS_BACK)
    check(f"{name}: connections", connections, server)
    check(f"{name}: probe", probed, "stripped-back", "inferred", server)
    check(f"{name}: a remembers", remembers, a, "stripped-back")

    name = f"IPv{family}, SYNs with ENO vanish"
    middlebox(DROPS_SYNS)
    check(f"{name}: probe", probed, "syn-dropped", "inferred", server)
    check(f"{name}: a remembers", remembers, a, "syn-dropped")
    forget(a)
    check(f"{name}: connections after a while", connections, server, 3)
    check(f"{name}: learnt from that", remembers, a, "syn-dropped")
    check(f"{name}: the next ones at once", opens_at_once, server)
    check(f"{name}: which is counted", lambda: a.counter("paths_avoided") >= 1)

    name = f"IPv{family}, only removed from segments without SYN"
    middlebox(STRIPS_OTHERS)
    forget(a)
    check(f"{name}: one connection is reset", fails, connections, server, 1)
    check(f"{name}: the next are plain", connections, server)
    check(f"{name}: for that reason", plain_because, "path-strips-eno")
    check(f"{name}: a remembers", remembers, a, "non-syn-stripped")
    check(f"{name}: so does b", remembers, b, "non-syn-stripped")
    forget(a)
    check(f"{name}: b denies nobody encryption for it", fails, connections, server, 1)
    check(f"{name}: a has learnt it again", connections, server)
    forget(b)
    check(f"{name}: probe", probed, "non-syn-stripped", "told", server)

    name = f"IPv{family}, MSS clamped to 700"
    middlebox(CLAMPS)
    with net.capture(f"tcp port {ECHO}") as wire:
        check(f"{name}: connections", connections, server, 5, 200_000)
    check(f"{name}: encrypted", wire.encrypted, ECHO)

server = net.server[4]
SELECTED = "10.8.4.0/24"


def probe_unselected():
    a.enotun("disable", SELECTED)
    middlebox()
    return probed("encrypted", "seen", server)


def left_alone():
    with a.capture() as wire:
        connections(server, 1)
    return wire.wire(ECHO, expect="plain")


check("a host that is not selected can be probed", probe_unselected)
check("and is left alone after that", left_alone)
a.enotun("enable", SELECTED)
check("a closed port", lambda: same(probe("refused", server, 9999)["result"], "refused"))

# Policy required: never plain, and ENO in every SYN.
a.enotun("enable", "--policy", "required", SELECTED)
middlebox(DROPS_SYNS)
check("required, SYNs with ENO vanish: no connection", fails, opens, server, 9)
middlebox(STRIPS_THERE)
check("required, removed on the way there: no connection carries data", fails, connections, server, 1)
check("required: the probe tells why", probed, "stripped-there", "seen", server)
middlebox()
check("required, nothing in the way: encrypted again", connections, server)
a.enotun("enable", SELECTED)

b.stop()
a.enotun("probe", "--forget")
check("a peer without enotun: connections", connections, server)
check("a peer without enotun: probe", probed, "no-eno", "inferred", server)
down()


def emulated(middlebox):
    """Another topology, where the emulator is the middlebox."""
    net = topology("emulated", LINK=f"--middlebox {middlebox}")
    net.start()
    echo_server(net.b)
    return net


net = emulated("echo")
a, server = net.a, net.server[4]
check("the option is echoed: connections", connections, server)
check("the option is echoed: plain", plain_because, "same-role")
check("the option is echoed: probe", probed, "echoed", "seen", server)
check("the option is echoed: a remembers", remembers, a, "echoed")
down()

net = emulated("resegment")
a = net.a
for family, server in net.server.items():
    name = f"IPv{family}, every segment cut in two"
    with a.capture(only=f"tcp port {ECHO}") as wire:
        check(f"{name}: connections", connections, server, 10, 200_000)
    check(f"{name}: encrypted", wire.encrypted, ECHO)
check("the daemons still run", net.alive)
