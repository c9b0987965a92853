# shellcheck shell=bash disable=SC2034
# path: two hosts, enotun at both, and three routers between; the one in the middle is the middlebox, which does what
# a case tells it with nftables.
#
#   a  eth0 10.8.1.2  ──  10.8.1.1 r 10.8.2.1  ──  10.8.2.2 m 10.8.3.1  ──  10.8.3.2 s 10.8.4.1  ──  eth0 10.8.4.2  b
#   (and fd00:8:N::/64 like 10.8.N.0/24)

NODES=(a r m s b)
CLIENT=a CLIENT4=10.8.1.2 CLIENT6=fd00:8:1::2
SERVER=b SERVER4=10.8.4.2 SERVER6=fd00:8:4::2
WIRE=s:sb
DAEMONS=(a b)

daemon_args() {
    case $1 in
        a) echo 10.8.4.0/24 fd00:8:4::/64 ;;
        b) echo 10.8.1.0/24 fd00:8:1::/64 ;;
    esac
}

build() {
    local nets=(a:eth0 r:ra r:rm m:mr m:ms s:sm s:sb b:eth0) n left right
    for n in 1 2 3 4; do
        left=${nets[2 * n - 2]} right=${nets[2 * n - 1]}
        link "${left%:*}" "${left#*:}" "${right%:*}" "${right#*:}"
        # The hosts are number 2 of their networks.
        if ((n == 1)); then
            addr a eth0 10.8.1.2/24 fd00:8:1::2/64
            addr r ra 10.8.1.1/24 fd00:8:1::1/64
        else
            addr "${left%:*}" "${left#*:}" "10.8.$n.1/24" "fd00:8:$n::1/64"
            addr "${right%:*}" "${right#*:}" "10.8.$n.2/24" "fd00:8:$n::2/64"
        fi
    done
    gateway a 10.8.1.1 fd00:8:1::1
    gateway b 10.8.4.1 fd00:8:4::1
    for n in r m s; do forwarding $n; done
    gateway r 10.8.2.2 fd00:8:2::2
    gateway s 10.8.3.1 fd00:8:3::1
    ns m ip route add 10.8.1.0/24 via 10.8.2.1
    ns m ip route add fd00:8:1::/64 via fd00:8:2::1
    ns m ip route add 10.8.4.0/24 via 10.8.3.2
    ns m ip route add fd00:8:4::/64 via fd00:8:3::2
}
