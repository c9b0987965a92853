"""Connections end with enotun as they end without it: half-close, SO_LINGER, resets, refusals, timeouts, keep-alives.
netns/tools/closes.py runs plain and through enotun; its report is compared."""

import re
import subprocess

from harness import PYTHON, TOOLS, Failed, check, check_enotun, command, need, note, same, topology

BASE = 9000
PROGRAM = (PYTHON, "-B", TOOLS / "closes.py")
last, refused, unanswered, prohibited = map(int, command(*PROGRAM, "ports", BASE).split())
RULES = f"""
table inet closes
delete table inet closes
table inet closes {{
    chain cut {{ type filter hook prerouting priority raw - 10; }}
    chain input {{
        type filter hook input priority filter
        tcp dport {unanswered} drop
        tcp dport {prohibited} reject with icmpx type admin-prohibited
    }}
}}
"""
# No error that the program itself did not provoke, no damage, nothing left hanging.
NEVER = "STILL|DAMAGED|unexpected|close took"
EXPECTED = """
half_close_client client: 2000000 bytes intact then end of file
half_close_server server: 2000000 bytes intact then end of file
zero_window server: 2000000 bytes intact then end of file
linger_zero_client server: 0 bytes then ECONNRESET
linger_zero_server client: 0 bytes then ECONNRESET
unread client: 0 bytes then ECONNRESET
dead_keepalive client: ETIMEDOUT
refused client: connect: ECONNREFUSED at once
unanswered client: connect: ETIMEDOUT later
prohibited client: connect: (EHOSTUNREACH|EACCES)
"""

net = topology("pair")
a, b = net.a, net.b


def closes(address):
    """What both ends of the program say."""
    b.nft(RULES)
    server = b.spawn(*PROGRAM, "server", BASE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    same(server.stdout.readline(), "ready\n")
    client = a.run(*PROGRAM, "client", address, BASE)
    return client + server.communicate()[0]


def as_expected(report):
    """The scenarios did what they are named for."""
    note(report)
    need(not re.search(NEVER, report), "something went wrong")
    return all(need(re.search(line, report), f"not there: {line}") for line in EXPECTED.strip().splitlines())


def alike(one, two):
    if one == two:
        return True
    flows = [f"{node}: {flow}" for node in (a, b) if node.daemon for flow in node.flows() if flow["state"] != "closed"]
    differ = [f"without: {x}\nwith:    {y}" for x, y in zip(one.splitlines(), two.splitlines()) if x != y]
    raise Failed("\n".join([*flows, *differ]))


reports = {}
for family, server in net.server.items():
    reports[family] = closes(server)
    check(f"IPv{family}: plain TCP ends connections as expected", as_expected, reports[family])
net.start()
for family, server in net.server.items():
    with a.capture() as wire:
        report = closes(server)
    check(f"IPv{family}: connections end with enotun as without", alike, reports[family], report)
    check_enotun(f"IPv{family}: they were encrypted", wire.encrypted, *range(BASE, last + 1), minimum=last - BASE + 1)
check("the daemons still run", net.alive)
