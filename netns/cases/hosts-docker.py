"""Hosts where Docker has set the FORWARD policy to DROP (iptables-nft), rules as Docker makes them."""

from harness import ECHO, MARKER, Connection, check, check_enotun, echo_server, fetch, many, nginx, same, topology

RULES = """
-P FORWARD DROP
-N DOCKER
-N DOCKER-USER
-A DOCKER-USER -j RETURN
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
"""

net = topology("pair")
a, b = net.a, net.b
before = {}
for node in (a, b):
    for program in ("iptables-nft", "ip6tables-nft"):
        for rule in RULES.strip().splitlines():
            node.run(program, *rule.split())
    node.run("iptables-nft", *"-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE".split())
    before[node] = node.run("nft", "list", "ruleset")
net.start()
nginx(b)
echo_server(b)
for family, server in net.server.items():
    name = f"IPv{family}"
    check(f"{name}: curl gets 20 MB", fetch, a, server, 20_000_000)
    check(f"{name}: 100 connections at once", many, a, server, 100, 20_000)
    held = Connection(a, server)
    check(f"{name}: a connection", held.says, MARKER)
    for node in (a, b):
        check_enotun(f"{name}: it is encrypted at {node}", node.flows_are, ECHO, "encrypted")
    held.close()
check("the FORWARD policy is still DROP", lambda: "-P FORWARD DROP\n" in a.run("iptables-nft", "-S", "FORWARD"))
for node in (a, b):
    node.stop()
for node in (a, b):
    check(f"{node}: the rule set is as before", lambda: same(node.run("nft", "list", "ruleset"), before[node]))
