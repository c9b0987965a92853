# shellcheck shell=bash disable=SC2034
# mixed: a and b have enotun, c has not; a router joins the three. a and b select everything.
#
#   a  eth0 10.6.1.2/24 fd00:6:1::2/64  ────  ra 10.6.1.1/24 fd00:6:1::1/64
#   b  eth0 10.6.2.2/24 fd00:6:2::2/64  ────  rb 10.6.2.1/24 fd00:6:2::1/64  r
#   c  eth0 10.6.3.2/24 fd00:6:3::2/64  ────  rc 10.6.3.1/24 fd00:6:3::1/64

NODES=(a b c r)
CLIENT=a CLIENT4=10.6.1.2 CLIENT6=fd00:6:1::2
SERVER=b SERVER4=10.6.2.2 SERVER6=fd00:6:2::2
PLAIN=c PLAIN4=10.6.3.2 PLAIN6=fd00:6:3::2
WIRE=r:ra
DAEMONS=(a b)

daemon_args() {
    echo 0.0.0.0/0 ::/0
}

build() {
    local n i=0
    for n in a b c; do
        i=$((i + 1))
        link $n eth0 r r$n
        addr $n eth0 10.6.$i.2/24 fd00:6:$i::2/64
        addr r r$n 10.6.$i.1/24 fd00:6:$i::1/64
        gateway $n 10.6.$i.1 fd00:6:$i::1
    done
    forwarding r
}
