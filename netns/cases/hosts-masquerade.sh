#!/usr/bin/env bash
# Masquerading where enotun runs: at the hosts themselves, and at a gateway that hides the hosts
# behind it.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

masquerade() {
    ns "$1" nft -f - <<NFT
table inet nat {
    chain prerouting { type nat hook prerouting priority dstnat; }
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname "$2" masquerade
    }
}
NFT
}

through() {
    local family server
    for family in 4 6; do
        server=SERVER$family
        server=${!server}
        check "$1, IPv$family: curl gets 20 MB" fetch a "$server" 20000000
        check "$1, IPv$family: 100 connections at once" \
            ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$server" "$ECHO" 100 20000
        hold_open a "$server" "$1$family"
        check "$1, IPv$family: a connection" hold_says "$1$family" "$MARKER"
        check_enotun "$1, IPv$family: it is encrypted" flows_are b "$ECHO" encrypted
        hold_close "$1$family"
    done
}

topology_up pair
masquerade a eth0
masquerade b eth0
start_daemons
start_nginx b
start_echo b
through hosts
topology_down

topology_up gateway
masquerade g out0
start_daemon g
start_daemon b 0.0.0.0/0 ::/0
start_nginx b
start_echo b
through gateway
