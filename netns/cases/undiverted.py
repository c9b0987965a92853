"""Others take away, or get before, what diverts packets: nothing of an encrypted connection gets by undiverted, and what can be
put back is."""

from harness import ECHO, MARKER, Connection, check, echo_server, plain, topology, wait_for

if plain:
    raise SystemExit

net = topology("pair")
a, b = net.a, net.b
net.start()
echo_server(b)


def both(words):
    """For IPv4 and IPv6."""
    return a.ip("-4 " + words) + a.ip("-6 " + words)


def flush_ruleset():
    """What /etc/nftables.conf of Debian begins with."""
    return a.nft("flush ruleset")


def delete_rules():
    """As systemd-networkd does with rules that it does not know."""
    return both("rule del pref 1") + both("rule del pref 2")


def flush_routes():
    return both("route flush table 8547") + both("route flush table 8548")


def device_down():
    return a.ip("link set tun0 down")


def rule_before():
    return both("rule add pref 0 lookup main")


def no_rule_before():
    return both("rule del pref 0 lookup main")


def overwrite_marks():
    return a.nft("""table inet other {
        chain pre { type filter hook prerouting priority -200; meta mark set 0; }
        chain out { type route hook output priority 10; meta mark set 0; }
    }""")


def leave_marks():
    return a.nft("delete table inet other")


def other_marks():
    """As others do who know no marks but their own: ours are set behind that."""
    return a.nft("""table inet mangle {
        chain out { type route hook output priority mangle; meta mark set ct mark; }
    }""")


def translate():
    """What is connected to is not selected, but where that leads is."""
    a.ip(f"route add 192.0.2.0/24 via {net.server[4]}")
    return a.nft(f"""table ip nat {{
        chain out {{ type nat hook output priority -100; ip daddr 192.0.2.80 dnat to {net.server[4]}; }}
    }}""")


def undone(what, act, undo=None):
    """Connections over IPv4 and IPv6; `act`, and at once the applications write. They go on when it is put right, by enotun or by `undo`."""
    held = {family: Connection(a, server) for family, server in net.server.items()}
    for family, connection in held.items():
        check(f"{what}, IPv{family}: a connection", connection.says, "before")
    check(f"{what}: they are encrypted", wait_for, 5, a.flows_are, ECHO, "encrypted")
    with b.capture() as wire:
        check(what, act)
        for connection in held.values():
            connection.send(MARKER)
        if undo:
            # Its first retransmissions.
            a.run("ping", "-q", "-i", "0.25", "-c", "4", "-W1", net.server[4], status=None)
            check(f"{what}: that is over", undo)
        for family, connection in held.items():
            check(f"{what}, IPv{family}: the connection goes on", connection.comes, MARKER, 20)
            connection.close()
    check(f"{what}: nothing of it is on the wire", lambda: not wire.has(MARKER))


undone("nft flush ruleset", flush_ruleset)
undone("the rules are deleted", delete_rules)
undone("the routes are deleted", flush_routes)
undone("a device is set down", device_down)
undone("a rule before ours", rule_before, no_rule_before)
undone("another firewall overwrites marks", overwrite_marks, leave_marks)
undone("another firewall sets marks of its own", other_marks)
with b.capture() as wire:
    check("an address that is translated into a selected one", translate)
    translated = Connection(a, "192.0.2.80")
    check("a connection to it", translated.says, MARKER)
check("it is encrypted", wire.encrypted, ECHO)
last = [Connection(a, server) for server in net.server.values()]
check("new connections are encrypted", lambda: all(connection.says("text") for connection in last) and a.flows_are(ECHO, "encrypted"))
check("the daemons still run", net.alive)
