# shellcheck shell=bash disable=SC2034
# nat: the client is behind a router that masquerades, so its address and port change on the way.
# The server does not know who will come: both select everything.
#
#   a  eth0 192.168.4.2/24 fd00:4::2/64     ────  ra 192.168.4.1/24 fd00:4::1/64
#                                                               r (masquerades out of rb)
#   b  eth0 198.51.100.2/24 2001:db8:4::2/64 ───  rb 198.51.100.1/24 2001:db8:4::1/64

NODES=(a r b)
CLIENT=a CLIENT4=192.168.4.2 CLIENT6=fd00:4::2
SERVER=b SERVER4=198.51.100.2 SERVER6=2001:db8:4::2
WIRE=r:rb
DAEMONS=(a b)

daemon_args() {
    echo 0.0.0.0/0 ::/0
}

build() {
    link a eth0 r ra
    link b eth0 r rb
    addr a eth0 192.168.4.2/24 fd00:4::2/64
    addr r ra 192.168.4.1/24 fd00:4::1/64
    addr r rb 198.51.100.1/24 2001:db8:4::1/64
    addr b eth0 198.51.100.2/24 2001:db8:4::2/64
    gateway a 192.168.4.1 fd00:4::1
    forwarding r
    ns r nft -f - <<'NFT'
table inet nat {
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname "rb" masquerade
    }
}
NFT
}
