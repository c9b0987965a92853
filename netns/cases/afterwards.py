"""A connection that was encrypted is never continued in plain: not after a crash, whatever is selected when the daemon is up
again, nor when that comes down; not when its selector is disabled; not when the kernel misses that it was reset."""

from harness import ECHO, MARKER, Connection, check, echo_server, plain, same, topology, wait_for

if plain:
    raise SystemExit

net = topology("pair")
a, b = net.a, net.b
NETS = ("10.1.0.0/24", "fd00:1::/64")
ELSEWHERE = "192.0.2.0/24"


def afterwards(name, happens):
    """Encrypted connections over both families; then it happens, the applications write, and nothing of that is on the wire."""
    held = [Connection(a, server) for server in net.server.values()]
    for family, connection in zip(net.server, held):
        check(f"{name}: an encrypted connection over IPv{family}", connection.says, "before")
    wait_for(5, a.flows_are, ECHO, "encrypted")
    with b.capture() as wire:
        happens()
        for connection in held:
            connection.send(f"{MARKER}-{name}")
        # Long enough for several retransmissions.
        a.ping(net.server[4], count=6, interval=0.25)
    check(f"{name}: nothing of it is on the wire", lambda: not wire.has(MARKER))
    check(f"{name}: nothing of it came back", lambda: all(MARKER.encode() not in connection.got() for connection in held))
    for connection in held:
        connection.close()


def disable():
    a.enotun("disable", *NETS)


def closed():
    return not {f["state"] for f in a.flows(ECHO)} - {"closed"}


def elsewhere():
    a.kill()
    a.start(ELSEWHERE)


def crash_up_down():
    a.kill()
    a.start()
    a.stop()


def kept_crash():
    disable()
    a.kill()
    check("kept-crash: down", a.enotun, "down")


def kept_crash_up():
    disable()
    a.kill()
    a.start(ELSEWHERE)


def deaf():
    """The kernel does not hear of resets."""
    a.nft("""table inet deaf {
        chain in { type filter hook input priority 0; tcp flags & rst == rst drop; }
    }""")


def deaf_down():
    deaf()
    a.stop()


def deaf_disable():
    deaf()
    # The peer ends them all.
    b.stop()
    check("deaf-disable: they are closed at a", wait_for, 10, closed)
    disable()


net.start()
echo_server(b)
afterwards("elsewhere", elsewhere)
a.restart()
afterwards("crash-up-down", crash_up_down)
a.start()
afterwards("kept-crash", kept_crash)
a.start()
afterwards("kept-crash-up", kept_crash_up)
a.restart()
afterwards("deaf-down", deaf_down)
a.nft("delete table inet deaf")
a.start()
afterwards("deaf-disable", deaf_disable)
a.nft("delete table inet deaf")
a.enotun("enable", *NETS)
b.start()

# A probe of what is not selected: the end of its connection is diverted, too.
disable()
with b.capture(only=f"tcp port {ECHO}") as probe:
    check("a probe finds encryption", lambda: same(a.json("probe", f"{net.server[4]}:{ECHO}")["result"], "encrypted"))
    check("its connection ends", wait_for, 20, closed)
check("all of it was encrypted on the wire", probe.encrypted, ECHO)
check("the daemons still run", net.alive)
