"""SYNs in floods from addresses that are not the sender's, with ENO and without, from one and from many; and a local user who
opens connections that nobody answers. Every genuine connection is encrypted, in both directions and both families."""

import json
import subprocess

from harness import ECHO, PYTHON, TOOLS, check, command, echo_server, need, plain, topology

# Small enough for a slow machine with other cases beside it: what is tested is who is encrypted, not how much it can take.
RATE, SECONDS, GENUINE, GAP = 1_000, 2, 10, 0.05

net = topology("pair")
a, b = net.a, net.b
# The flood comes from a third host, which gets what is sent to the forged addresses, and is silent.
c = net.add("c")
command("ip", "link", "add", "eth1", "netns", b.namespace, "type", "veth", "peer", "name", "eth0", "netns", c.namespace)
for node, device, host in ((b, "eth1", 1), (c, "eth0", 2)):
    node.ip(f"link set {device} up")
    node.ip(f"addr add 10.6.0.{host}/24 dev {device}")
    node.ip(f"addr add fd00:6::{host}/64 dev {device} nodad")
b.ip("route add 10.77.0.0/16 via 10.6.0.2")
b.ip("-6 route add fd00:77::/32 via fd00:6::2")
c.ip("route add 10.1.0.0/24 via 10.6.0.1")
c.ip("-6 route add fd00:1::/64 via fd00:6::1")
c.nft("table inet silent { chain in { type filter hook prerouting priority -400; tcp flags & (syn | ack | rst) != 0 drop; } ; }")
b.sysctl("net.ipv4.tcp_syncookies=1")
a.start()
b.start(f"local:{ECHO}", "10.1.0.0/24", "fd00:1::/64")
for node in (a, b):
    echo_server(node)


def tool(node, *words, user=()):
    return subprocess.Popen(["ip", "netns", "exec", node.namespace, *user, PYTHON, "-B", str(TOOLS / "flood.py"), *map(str, words)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def all_encrypted(node, genuine):
    """The connections have brought an echo back, and are listed as encrypted while they are open."""
    opened = json.loads(genuine.stdout.readline())
    need(len(opened) >= GENUINE // 2, f"{len(opened)} connections")
    states = {} if plain else {flow["local"].rpartition(":")[2]: flow["state"] for flow in node.flows(ECHO)}
    for one in opened:
        need(one["error"] is None, str(one))
        need(plain or states.get(str(one["port"])) == "encrypted", f"{one}: {states.get(str(one['port']))}")
    genuine.communicate()
    return True


def beside(text, family, *floods):
    for flood in floods:
        need(flood.stdout.readline() == "ready\n", "the flood")
    genuine = [(a, tool(a, "genuine", net.server[family], ECHO, GENUINE * GAP, GAP)),
               (b, tool(b, "genuine", net.client[family], ECHO, GENUINE * GAP, GAP))]
    for node, connections in genuine:
        check(f"IPv{family}, {text}: all connections of {node} are encrypted", all_encrypted, node, connections)
    for flood in floods:
        flood.communicate()


def forged(family, kind, sources):
    return tool(c, "forged", net.server[family], ECHO, RATE, SECONDS, kind, sources)


for family in net.server:
    beside("before", family)
    beside("ENO from many addresses, bare SYNs from one", family, forged(family, "eno", "many"), forged(family, "bare", "one"))
    beside("ENO from one address, bare SYNs from many", family, forged(family, "eno", "one"), forged(family, "bare", "many"))
    first = "10.1.0.50" if family == 4 else "fd00:1::50"
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    beside("a local user", family, tool(a, "local", first, 2_000, user=nobody))
for node in net.daemons:
    check(f"the daemon of {node} still runs", node.alive)
