# shellcheck shell=bash disable=SC2034
# emulated: two hosts, a router l between, in which the link emulator delays, reorders and loses what
# goes through as LINK says (arguments of netns/tools/linkem.rs).
#
#   a  eth0 10.4.1.2/24 fd00:a:1::2/64  ────  la 10.4.1.1/24 fd00:a:1::1/64
#                                                    l: la - ea - linkem - eb - lb
#   b  eth0 10.4.2.2/24 fd00:a:2::2/64  ────  lb 10.4.2.1/24 fd00:a:2::1/64

NODES=(a l b)
CLIENT=a CLIENT4=10.4.1.2 CLIENT6=fd00:a:1::2
SERVER=b SERVER4=10.4.2.2 SERVER6=fd00:a:2::2
WIRE=a:eth0
DAEMONS=(a b)

daemon_args() {
    case $1 in
        a) echo 10.4.2.0/24 fd00:a:2::/64 ;;
        b) echo 10.4.1.0/24 fd00:a:1::/64 ;;
    esac
}

build() {
    local family side table=100
    link a eth0 l la
    link b eth0 l lb
    addr a eth0 10.4.1.2/24 fd00:a:1::2/64
    addr l la 10.4.1.1/24 fd00:a:1::1/64
    addr l lb 10.4.2.1/24 fd00:a:2::1/64
    addr b eth0 10.4.2.2/24 fd00:a:2::2/64
    gateway a 10.4.1.1 fd00:a:1::1
    gateway b 10.4.2.1 fd00:a:2::1
    forwarding l
    # shellcheck disable=SC2086
    ip netns exec "$PREFIX-l" "$LINKEM" ea eb ${LINK:---delay 10} </dev/null >/dev/null 2>&1 &
    disown "$!"
    # What comes in by la goes into ea, comes out of eb and is routed as usual; the same for lb.
    for family in -4 -6; do
        # First what is for l itself.
        ns l ip $family rule add lookup local pref 50
    done
    for side in a b; do
        wait_for 5 ns l ip link show e$side
        ns l ip link set e$side up txqueuelen 10000
        table=$((table + 1))
        for family in -4 -6; do
            ns l ip $family route add default dev e$side table $table
            ns l ip $family rule add iif l$side lookup $table pref 100
        done
    done
}
