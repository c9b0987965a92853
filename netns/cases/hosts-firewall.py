"""Hosts with a stateful firewall: connection tracking sees each connection twice, as plain and as ciphertext, and must find
neither invalid."""

import json

from harness import (ECHO, MARKER, Connection, check, check_enotun, echo_server, fails, fetch, fetch_kept_alive, many, nginx, note, plain,
                     ssh_says, sshd, topology, wait_for)

FIREWALL = """
table inet filter {
    counter invalid { }
    chain input {
        type filter hook input priority filter; policy drop;
        ct state invalid counter name invalid drop
        ct state established,related accept
        iif lo accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport { 80, 2222, 7777 } ct state new accept
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state invalid counter name invalid drop
    }
    chain output {
        type filter hook output priority filter; policy accept;
        ct state invalid counter name invalid drop
    }
}
"""

net = topology("pair")
a, b = net.a, net.b
for node in (a, b):
    node.nft(FIREWALL)
net.start()
nginx(b)
sshd(b)
echo_server(b)
for family, server in net.server.items():
    name = f"IPv{family}"
    check(f"{name}: curl gets 20 MB", fetch, a, server, 20_000_000)
    check(f"{name}: all files over one connection", fetch_kept_alive, a, server)
    check(f"{name}: ssh runs a command", ssh_says, a, server)
    check(f"{name}: 100 connections at once", many, a, server, 100, 20_000)
    held = Connection(a, server)
    check(f"{name}: a connection", held.says, MARKER)
    for node in (a, b):
        check_enotun(f"{name}: it is encrypted at {node}", node.flows_are, ECHO, "encrypted")
    check(f"{name}: a port that the firewall closes stays closed", a.tool, "tcp.py", "errno", server, 5999, status=1)
    held.close()


def few_invalid(node):
    """What arrives after a connection is gone (the last ACKs) may be invalid, as without enotun."""
    listed = json.loads(node.run("nft", "-j", "list", "counter", "inet", "filter", "invalid"))
    count = listed["nftables"][1]["counter"]["packets"]
    note(f"{count} packets found invalid at {node}")
    return count <= 20


for node in (a, b):
    check(f"connection tracking finds next to nothing invalid at {node}", few_invalid, node)

# A firewall that comes later: until then nothing is tracked on our account, and then the legs are kept apart at once.
if not plain:
    def has_zone(node):
        return "ct zone set" in node.run("nft", "list", "ruleset")

    for node in (a, b):
        node.stop()
        node.nft("delete table inet filter")
    net.start()
    for node in (a, b):
        check(f"{node}: no zone without other filters", fails, has_zone, node)
    later = Connection(a, net.server[4])
    check("a connection before the firewall", later.says, "before")
    for node in (a, b):
        node.nft(FIREWALL)
    for node in (a, b):
        check(f"{node}: a zone with the firewall", wait_for, 5, has_zone, node)
    check("the connection goes on", later.says, "behind")
    check("a new one", fetch, a, net.server[4], 100_000)
    check("it is still encrypted", a.flows_are, ECHO, "encrypted")
    later.close()
    for node in (a, b):
        node.nft("delete table inet filter")
    for node in (a, b):
        check(f"{node}: without the firewall no zone", wait_for, 5, fails, has_zone, node)
