# shellcheck shell=bash disable=SC2034
# gateway: hosts a and h have no enotun; their router g encrypts for them towards b.
#
#   a  eth0 10.3.1.2/24 fd00:3:1::2/64 ──┐
#                                        ├── in0 10.3.1.1/24 fd00:3:1::1/64 (bridge)
#   h  eth0 10.3.1.3/24 fd00:3:1::3/64 ──┘                g
#   b  eth0 10.3.2.2/24 fd00:3:2::2/64 ───── out0 10.3.2.1/24 fd00:3:2::1/64

NODES=(a h g b)
CLIENT=a CLIENT4=10.3.1.2 CLIENT6=fd00:3:1::2
SERVER=b SERVER4=10.3.2.2 SERVER6=fd00:3:2::2
WIRE=g:out0
DAEMONS=(g b)

daemon_args() {
    case $1 in
        g) echo --gateway in0 10.3.2.0/24 fd00:3:2::/64 ;;
        b) echo 10.3.1.0/24 fd00:3:1::/64 ;;
    esac
}

build() {
    ns g ip link add in0 type bridge
    ns g ip link set in0 up
    link a eth0 g port1
    link h eth0 g port2
    link b eth0 g out0
    ns g ip link set port1 master in0
    ns g ip link set port2 master in0
    addr a eth0 10.3.1.2/24 fd00:3:1::2/64
    addr h eth0 10.3.1.3/24 fd00:3:1::3/64
    addr g in0 10.3.1.1/24 fd00:3:1::1/64
    addr g out0 10.3.2.1/24 fd00:3:2::1/64
    addr b eth0 10.3.2.2/24 fd00:3:2::2/64
    gateway a 10.3.1.1 fd00:3:1::1
    gateway h 10.3.1.1 fd00:3:1::1
    gateway b 10.3.2.1 fd00:3:2::1
    forwarding g
}
