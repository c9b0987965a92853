# shellcheck shell=bash disable=SC2034
# failover: host a has no enotun; g1 encrypts for it towards b, and g2 takes g1's place when a and b change their routes.
#
#   a  eth0 10.12.1.9/24 fd00:12:1::9/64 ──┬── in0 10.12.1.1/24 fd00:12:1::1/64  g1  out0 10.12.2.1/24 fd00:12:2::1/64 ──┬── b  eth0 10.12.2.9/24
#                           (bridge lan) s └── in0 10.12.1.2/24 fd00:12:1::2/64  g2  out0 10.12.2.2/24 fd00:12:2::2/64 ──┘ s (bridge wan)  fd00:12:2::9/64

NODES=(a s g1 g2 b)
CLIENT=a CLIENT4=10.12.1.9 CLIENT6=fd00:12:1::9
SERVER=b SERVER4=10.12.2.9 SERVER6=fd00:12:2::9
WIRE=b:eth0
DAEMONS=(g1 g2 b)

daemon_args() {
    case $1 in
        g1 | g2) echo --gateway in0 --policy required 10.12.2.0/24 fd00:12:2::/64 ;;
        b) echo 10.12.1.0/24 fd00:12:1::/64 ;;
    esac
}

# through GATEWAY: what a and b send each other goes by it from now on.
through() {
    local n=${1#g}
    ip -n "$PREFIX-a" route replace 10.12.2.0/24 via "10.12.1.$n"
    ip -n "$PREFIX-a" -6 route replace fd00:12:2::/64 via "fd00:12:1::$n"
    ip -n "$PREFIX-b" route replace 10.12.1.0/24 via "10.12.2.$n"
    ip -n "$PREFIX-b" -6 route replace fd00:12:1::/64 via "fd00:12:2::$n"
}

build() {
    local bridge port
    for bridge in lan wan; do
        ns s ip link add $bridge type bridge
        ns s ip link set $bridge up
    done
    link a eth0 s lan0
    link g1 in0 s lan1
    link g2 in0 s lan2
    link b eth0 s wan0
    link g1 out0 s wan1
    link g2 out0 s wan2
    for port in lan0 lan1 lan2 wan0 wan1 wan2; do ns s ip link set $port master "${port%?}"; done
    addr a eth0 10.12.1.9/24 fd00:12:1::9/64
    addr g1 in0 10.12.1.1/24 fd00:12:1::1/64
    addr g2 in0 10.12.1.2/24 fd00:12:1::2/64
    addr b eth0 10.12.2.9/24 fd00:12:2::9/64
    addr g1 out0 10.12.2.1/24 fd00:12:2::1/64
    addr g2 out0 10.12.2.2/24 fd00:12:2::2/64
    forwarding g1
    forwarding g2
    through g1
}
