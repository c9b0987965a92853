# shellcheck shell=bash disable=SC2034
# overlay: applications use addresses of an overlay prefix, which is selected with `ip route`.
#
#   a  eth0 10.5.0.1/24 fd00:5::1/64  ────  eth0 10.5.0.2/24 fd00:5::2/64  b
#   a  lo   10.77.0.1/32 fd77::1/128        lo   10.77.0.2/32 fd77::2/128  b
#
# The main table routes the peer's overlay address by its NIC address; table `enotun` selects
# the prefix: `ip route add 10.77.0.0/24 dev tun0 table enotun`.

NODES=(a b)
CLIENT=a CLIENT4=10.77.0.1 CLIENT6=fd77::1
SERVER=b SERVER4=10.77.0.2 SERVER6=fd77::2
WIRE=a:eth0
DAEMONS=(a b)

# No selector on the command line: the routes below select.
daemon_args() {
    :
}

build() {
    link a eth0 b eth0
    addr a eth0 10.5.0.1/24 fd00:5::1/64
    addr b eth0 10.5.0.2/24 fd00:5::2/64
    addr a lo 10.77.0.1/32 fd77::1/128
    addr b lo 10.77.0.2/32 fd77::2/128
    ns a ip route add 10.77.0.2 via 10.5.0.2 src 10.77.0.1
    ns b ip route add 10.77.0.1 via 10.5.0.1 src 10.77.0.2
    ns a ip route add fd77::2 via fd00:5::2 src fd77::1
    ns b ip route add fd77::1 via fd00:5::1 src fd77::2
}

# after_daemon NODE: called when the daemon of NODE is ready.
after_daemon() {
    ns "$1" ip route add 10.77.0.0/24 dev tun0 table enotun
    ns "$1" ip route add fd77::/64 dev tun0 table enotun
    wait_for 5 overlay_selected "$1"
}

overlay_selected() {
    local rules
    rules=$(ns "$1" nft list ruleset)
    [[ $rules == *10.77.0.0/24* && $rules == *fd77::/64* ]]
}
