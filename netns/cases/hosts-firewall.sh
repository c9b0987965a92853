#!/usr/bin/env bash
# Hosts with a stateful firewall: connection tracking sees each connection twice, as plain and as
# ciphertext, and must find neither invalid.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up pair
# firewall NODE: loads it.
firewall() {
    ns "$1" nft -f - <<'NFT'
table inet filter {
    counter invalid { }
    chain input {
        type filter hook input priority filter; policy drop;
        ct state invalid counter name invalid drop
        ct state established,related accept
        iif lo accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport { 80, 2222, 7777 } ct state new accept
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state invalid counter name invalid drop
    }
    chain output {
        type filter hook output priority filter; policy accept;
        ct state invalid counter name invalid drop
    }
}
NFT
}
for node in a b; do firewall $node; done
start_daemons
start_nginx b
start_sshd b
start_echo b
for family in 4 6; do
    server=SERVER$family
    server=${!server}
    check "IPv$family: curl gets 20 MB" fetch a "$server" 20000000
    check "IPv$family: all files over one connection" fetch_kept_alive a "$server"
    check "IPv$family: ssh runs a command" ssh_says a "$server"
    check "IPv$family: 100 connections at once" \
        ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$server" "$ECHO" 100 20000
    hold_open a "$server" "held$family"
    check "IPv$family: a connection" hold_says "held$family" "$MARKER"
    check_enotun "IPv$family: it is encrypted at a" flows_are a "$ECHO" encrypted
    check_enotun "IPv$family: it is encrypted at b" flows_are b "$ECHO" encrypted
    check "IPv$family: a port that the firewall closes stays closed" \
        eval '! ns a timeout 10 "$PYTHON" "$NETNS_DIR/tools/tcp.py" errno "$server" 5999'
    hold_close "held$family"
done
# What arrives after a connection is gone (the last ACKs) may be invalid, as without enotun.
few_invalid() {
    local n
    n=$(ns "$1" nft -j list counter inet filter invalid | jq '.nftables[1].counter.packets')
    echo "$n packets found invalid at $1"
    ((n <= 20))
}
check "connection tracking finds next to nothing invalid at a" few_invalid a
check "connection tracking finds next to nothing invalid at b" few_invalid b

# A firewall that comes later: until then nothing is tracked on our account, and then the legs are kept apart at once.
if ! plain_mode; then
    for node in a b; do
        stop_daemon $node
        ns $node nft delete table inet filter
    done
    start_daemons
    has_zone() { ns "$1" nft list ruleset | grep -q 'ct zone set'; }
    for node in a b; do check "$node: no zone without other filters" fails has_zone $node; done
    hold_open a "$SERVER4" later
    check "a connection before the firewall" hold_says later before
    for node in a b; do firewall $node; done
    for node in a b; do check "$node: a zone with the firewall" wait_for 5 has_zone $node; done
    check "the connection goes on" hold_says later behind
    check "a new one" fetch a "$SERVER4" 100000
    check "it is still encrypted" flows_are a "$ECHO" encrypted
    hold_close later
    for node in a b; do ns $node nft delete table inet filter; done
    for node in a b; do check "$node: without the firewall no zone" wait_for 5 fails has_zone $node; done
fi
