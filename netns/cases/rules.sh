#!/usr/bin/env bash
# While the rules that divert packets are replaced, because selectors or the rules of another firewall change, not one
# packet of an encrypted connection gets by.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin
if plain_mode; then exit 0; fi

# changing NODE: until $WORK/stop is there, selectors and somebody else's rules come and go.
changing() {
    local me
    me=$(node_ns "$1")
    while [[ ! -e $WORK/stop ]]; do
        "$ENOTUN" enable --instance "$me" 192.0.2.0/24:4000-5000
        ns "$1" nft 'add table inet other; add chain inet other input { type filter hook input priority 0; }'
        "$ENOTUN" disable --instance "$me" 192.0.2.0/24:4000-5000
        ns "$1" nft delete table inet other
    done
}

changes() { grep -c '192.0.2.0/24' "$WORK/$1.changes"; }
# traffic: connections full of data until both have changed their rules many times.
traffic() {
    local rounds=0
    until (($(changes a) >= 30 && $(changes b) >= 30)); do
        ns a timeout 60 "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$SERVER4" $ECHO 12 300000 &&
            ns a timeout 60 "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$SERVER6" $ECHO 4 300000 || return 1
        ((++rounds <= 100)) || return 1
    done
}

topology_up pair
start_daemons
start_echo b
capture_start "$WORK/wire.pcap" a eth0 tcp port $ECHO or port 9
changers=()
for node in a b; do
    changing $node >"$WORK/$node.changes" 2>&1 &
    changers+=($!)
done
check "connections arrive intact while rules change" traffic
touch "$WORK/stop"
wait "${changers[@]}"
capture_stop "$WORK/wire.pcap"
check "all that was on the wire is frames" wire "$WORK/wire.pcap" --port $ECHO --expect encrypted
for node in a b; do
    check "$node: no table stands in any more" eval '! ns "$node" nft list tables | grep next'
done
check "the daemons still run" eval 'daemon_alive a && daemon_alive b'
