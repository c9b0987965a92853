# shellcheck shell=bash disable=SC2034
# routed: two hosts with a router between, enotun at both hosts. The wire is the router's.
#
#   a  eth0 10.2.1.2/24 fd00:2:1::2/64  ────  ra 10.2.1.1/24 fd00:2:1::1/64
#                                                          r
#   b  eth0 10.2.2.2/24 fd00:2:2::2/64  ────  rb 10.2.2.1/24 fd00:2:2::1/64

NODES=(a r b)
CLIENT=a CLIENT4=10.2.1.2 CLIENT6=fd00:2:1::2
SERVER=b SERVER4=10.2.2.2 SERVER6=fd00:2:2::2
WIRE=r:rb
DAEMONS=(a b)

daemon_args() {
    case $1 in
        a) echo 10.2.2.0/24 fd00:2:2::/64 ;;
        b) echo 10.2.1.0/24 fd00:2:1::/64 ;;
    esac
}

build() {
    link a eth0 r ra
    link b eth0 r rb
    addr a eth0 10.2.1.2/24 fd00:2:1::2/64
    addr r ra 10.2.1.1/24 fd00:2:1::1/64
    addr r rb 10.2.2.1/24 fd00:2:2::1/64
    addr b eth0 10.2.2.2/24 fd00:2:2::2/64
    gateway a 10.2.1.1 fd00:2:1::1
    gateway b 10.2.2.1 fd00:2:2::1
    forwarding r
}
