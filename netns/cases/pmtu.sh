#!/usr/bin/env bash
# A smaller MTU on the way: ICMP errors about ciphertext reach the kernel as ones about plaintext.
# And larger frames at both ends.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up routed
# As if the link behind the router were a narrow one: what is larger is answered with an ICMP error.
for way in "ra 10.2.1.0/24 fd00:2:1::/64" "rb 10.2.2.0/24 fd00:2:2::/64"; do
    read -r dev four six <<<"$way"
    ns r ip route change "$four" dev "$dev" mtu lock 1400
    ns r ip route add "$six" dev "$dev" metric 10 mtu lock 1400
done
start_daemons
start_nginx b
start_echo b
start_sshd b
errors() { ns r nstat -asz IcmpOutDestUnreachs Icmp6OutPktTooBigs | awk '/Icmp/ { n += $2 } END { print n }'; }
for family in 4 6; do
    server=SERVER$family
    server=${!server}
    check "MTU 1400 at the router, IPv$family: curl gets 20 MB" fetch a "$server" 20000000
    check "MTU 1400 at the router, IPv$family: scp there and back" scp_copies a "$server"
done
check "the router did send errors" eval '(($(errors) >= 4))'
# The same, and nobody hears of it: kernels that probe (RFC 4821) find out by themselves, after some timeouts.
ns r nft -f - <<'NFT'
table inet silent {
    chain output {
        type filter hook output priority 0; policy accept;
        icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop
    }
}
NFT
for node in a b; do
    ns $node sysctl -qw net.ipv4.tcp_mtu_probing=1
    ns $node ip route flush cache
    ns $node ip -6 route flush cache
    ns $node ip tcp_metrics flush all
done
for family in 4 6; do
    server=SERVER$family
    server=${!server}
    check "MTU 1400 at a router that is silent, IPv$family: curl gets 100 kB" fetch a "$server" 100000
done
topology_down

topology_up pair
ns a ip link set eth0 mtu 9000
ns b ip link set eth0 mtu 9000
start_daemons
start_nginx b
start_sshd b
for family in 4 6; do
    server=SERVER$family
    server=${!server}
    check "MTU 9000, IPv$family: curl gets 20 MB" fetch a "$server" 20000000
    check "MTU 9000, IPv$family: scp there and back" scp_copies a "$server"
done
