#!/usr/bin/env bash
# Packet loss: 0, 1 and 2 % in each direction, at the router, so that the wire loses packets of
# at most an MTU. Everything arrives intact; the capture is of the side before the loss.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up routed
no_offloads a eth0
no_offloads b eth0
no_offloads r ra rb
start_daemons
start_nginx b
start_sshd b
start_redis b
start_iperf b
start_echo b

for percent in 0 1 2; do
    ns r nft -f - <<NFT
table inet loss
delete table inet loss
table inet loss {
    chain forward {
        type filter hook forward priority filter
        numgen random mod 100 < $percent drop
    }
}
NFT
    for family in 4 6; do
        server=SERVER$family
        server=${!server}
        check "$percent % loss, IPv$family: curl gets 20 MB" fetch a "$server" 20000000
        check "$percent % loss, IPv$family: 300 connections at once" \
            ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$server" "$ECHO" 300 20000
    done
    check "$percent % loss: scp copies there and back" scp_copies a "$SERVER6"
    check "$percent % loss: ssh runs a command" ssh_says a "$SERVER4"
    check "$percent % loss: a redis session" redis_session a "$SERVER4"
    check "$percent % loss: iperf3 there" iperf a "$SERVER4" 1
    check "$percent % loss: iperf3 back" iperf a "$SERVER6" 1 -R
    check "$percent % loss: iperf3 both ways at once" iperf a "$SERVER4" 1 --bidir
    hold_open a "$SERVER4" "held$percent"
    check "$percent % loss: an interactive connection" hold_says "held$percent" "$MARKER"
    check_enotun "$percent % loss: it is encrypted" flows_are a "$ECHO" encrypted
    hold_close "held$percent"
done

ns r nft delete table inet loss
ns r nft -f - <<'NFT'
table inet loss {
    chain forward {
        type filter hook forward priority filter
        numgen random mod 100 < 1 drop
    }
}
NFT
capture_start "$WORK/wire.pcap" a eth0
check "1 % loss: curl gets 100 kB, captured" fetch a "$SERVER4" 100000
check "1 % loss: 20 connections, captured" \
    ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$SERVER6" "$ECHO" 20 50000
capture_stop "$WORK/wire.pcap"
check "on the wire: ENO, frames, the same bytes when they are sent again, no plaintext" \
    wire "$WORK/wire.pcap" --port 80 --port "$ECHO" --min 21 --expect "$(plain_mode && echo plain || echo encrypted)"
check "the daemons still run" eval 'daemon_alive a && daemon_alive b'
