"""`down`, SIGTERM, SIGINT and `down` after kill -9 leave the host exactly as it was; --dry-run changes nothing."""

import signal

from harness import ENOTUN, check, fails, plain, same, topology, wait_for

if plain:
    raise SystemExit

net = topology("pair")
a, b = net.a, net.b
# A host with settings of its own.
a.sysctl("net.ipv4.conf.all.rp_filter=2", "net.ipv4.conf.eth0.send_redirects=0")
a.ip("rule add from 10.1.0.1 lookup 77 pref 900")
a.ip("route add 203.0.113.0/24 via 10.1.0.2 table 77")
# The netfilter sysctls appear with the first use of conntrack: let it be used before.
a.nft("""table inet mine {
    chain input { type filter hook input priority filter; policy accept; tcp dport 1 drop; ct state invalid counter; }
}""")
b.nft("add table inet mine")
before = a.state()


def as_before():
    return same(a.state(), before)


def dry_run(*selectors):
    return a.run(ENOTUN, "up", "--dry-run", "--instance", a.namespace, *selectors)


check("up --dry-run", dry_run, *net.arguments["a"])
check("up --dry-run changes nothing", as_before)
check("up --dry-run says what would be set", lambda: "tcp_early_demux" in dry_run("10.1.0.0/24"))

a.start()
check("up changes the host", fails, as_before)
a.stop()
check("after down the host is as before", as_before)
for number in (signal.SIGTERM, signal.SIGINT):
    a.start()
    a.daemon.send_signal(number)
    check(f"{number.name} ends it", wait_for, 10, a.ended)
    check(f"after {number.name} the host is as before", as_before)
a.start()
a.kill()
check("down after kill -9", a.enotun, "down")
check("after it the host is as before", as_before)
a.start()
a.kill()
a.start()
a.stop()
check("after kill -9, up and down the host is as before", as_before)
a.start()
check("an enable at run time", a.enotun, "enable", "198.18.0.0/15:443")
check("a disable at run time", a.enotun, "disable", "198.18.0.0/15:443")
a.ip("route add 198.51.100.0/24 dev tun0 table enotun")
a.stop()
check("after changes at run time and down the host is as before", as_before)
check("down when nothing runs is an error", fails, a.enotun, "down")
