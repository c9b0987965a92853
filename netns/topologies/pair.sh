# shellcheck shell=bash disable=SC2034
# pair: two hosts, one link, enotun at both.
#
#   a  eth0 10.1.0.1/24 fd00:1::1/64  ────  eth0 10.1.0.2/24 fd00:1::2/64  b

NODES=(a b)
CLIENT=a CLIENT4=10.1.0.1 CLIENT6=fd00:1::1
SERVER=b SERVER4=10.1.0.2 SERVER6=fd00:1::2
WIRE=a:eth0
DAEMONS=(a b)

daemon_args() {
    echo 10.1.0.0/24 fd00:1::/64
}

build() {
    link a eth0 b eth0
    addr a eth0 10.1.0.1/24 fd00:1::1/64
    addr b eth0 10.1.0.2/24 fd00:1::2/64
}
