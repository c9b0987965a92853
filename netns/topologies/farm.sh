# shellcheck shell=bash disable=SC2034
# farm: two members b and c behind one address, which router r spreads new connections over, and a host a. enotun at a
# and at both members. SPREAD says how r chooses (nftables): by turns unless it says something else.
#
#   a  eth0 10.9.1.2/24 fd00:9:1::2/64  ────  ra 10.9.1.1/24 fd00:9:1::1/64
#                                              r   198.51.100.80 and 2001:db8:9::80 are the farm's
#   b  eth0 10.9.2.2/24 fd00:9:2::2/64  ────  rb 10.9.2.1/24 fd00:9:2::1/64
#   c  eth0 10.9.3.2/24 fd00:9:3::2/64  ────  rc 10.9.3.1/24 fd00:9:3::1/64

NODES=(a r b c)
CLIENT=a CLIENT4=10.9.1.2 CLIENT6=fd00:9:1::2
SERVER=b SERVER4=10.9.2.2 SERVER6=fd00:9:2::2
FARM4=198.51.100.80 FARM6=2001:db8:9::80
WIRE=r:ra
DAEMONS=(a b c)

daemon_args() {
    case $1 in
        a) echo 198.51.100.80 2001:db8:9::80 ;;
        *) echo 10.9.1.0/24 fd00:9:1::/64 ;;
    esac
}

# spread EXPRESSION: how r chooses a member for a new connection.
spread() {
    ns r nft -f - <<NFT
table inet farm
delete table inet farm
table inet farm {
    chain prerouting {
        type nat hook prerouting priority dstnat
        ip daddr 198.51.100.80 meta l4proto tcp dnat ip to $1 map { 0 : 10.9.2.2, 1 : 10.9.3.2 }
        ip6 daddr 2001:db8:9::80 meta l4proto tcp dnat ip6 to $1 map { 0 : fd00:9:2::2, 1 : fd00:9:3::2 }
    }
}
NFT
}

build() {
    local n node
    for n in 1:a 2:b 3:c; do
        node=${n#*:} n=${n%:*}
        link "$node" eth0 r "r$node"
        addr "$node" eth0 "10.9.$n.2/24" "fd00:9:$n::2/64"
        addr r "r$node" "10.9.$n.1/24" "fd00:9:$n::1/64"
        gateway "$node" "10.9.$n.1" "fd00:9:$n::1"
    done
    forwarding r
    spread "${SPREAD:-numgen inc mod 2}"
}
