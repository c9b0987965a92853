"""A smaller MTU on the way: ICMP errors about ciphertext reach the kernel as ones about plaintext. And larger frames at both
ends."""

from harness import check, down, echo_server, fetch, nginx, scp_copies, sshd, topology

net = topology("routed")
a, b, r = net.a, net.b, net.r
# As if the link behind the router were a narrow one: what is larger is answered with an ICMP error.
for device, four, six in (("ra", "10.2.1.0/24", "fd00:2:1::/64"), ("rb", "10.2.2.0/24", "fd00:2:2::/64")):
    r.ip(f"route change {four} dev {device} mtu lock 1400")
    r.ip(f"route add {six} dev {device} metric 10 mtu lock 1400")
net.start()
for server in (nginx, echo_server, sshd):
    server(b)


def errors():
    rows = [line.split() for line in r.run("nstat", "-asz", "IcmpOutDestUnreachs", "Icmp6OutPktTooBigs").splitlines()]
    return sum(int(row[1]) for row in rows if row[0].startswith("Icmp"))


for family, server in net.server.items():
    check(f"MTU 1400 at the router, IPv{family}: curl gets 20 MB", fetch, a, server, 20_000_000)
    check(f"MTU 1400 at the router, IPv{family}: scp there and back", scp_copies, a, server)
check("the router did send errors", lambda: errors() >= 4)
# The same, and nobody hears of it: kernels that probe (RFC 4821) find out by themselves, after some timeouts.
r.nft("""table inet silent {
    chain output {
        type filter hook output priority 0; policy accept;
        icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop
    }
}""")
for node in (a, b):
    node.sysctl("net.ipv4.tcp_mtu_probing=1")
    for words in ("route flush cache", "-6 route flush cache", "tcp_metrics flush all"):
        node.run("ip", *words.split())
for family, server in net.server.items():
    check(f"MTU 1400 at a router that is silent, IPv{family}: curl gets 100 kB", fetch, a, server, 100_000)
down()

net = topology("pair")
for node in (net.a, net.b):
    node.ip("link set eth0 mtu 9000")
net.start()
for server in (nginx, sshd):
    server(net.b)
for family, server in net.server.items():
    check(f"MTU 9000, IPv{family}: curl gets 20 MB", fetch, net.a, server, 20_000_000)
    check(f"MTU 9000, IPv{family}: scp there and back", scp_copies, net.a, server)
