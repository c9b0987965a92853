#!/usr/bin/env bash
# Hosts where Docker has set the FORWARD policy to DROP (iptables-nft), rules as Docker makes them.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up pair
for node in a b; do
    for ipt in iptables-nft ip6tables-nft; do
        ns $node $ipt -P FORWARD DROP
        ns $node $ipt -N DOCKER
        ns $node $ipt -N DOCKER-USER
        ns $node $ipt -A DOCKER-USER -j RETURN
        ns $node $ipt -A FORWARD -j DOCKER-USER
        ns $node $ipt -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        ns $node $ipt -A FORWARD -o docker0 -j DOCKER
        ns $node $ipt -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
    done
    ns $node iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    ns $node nft list ruleset >"$WORK/$node.before"
done
start_daemons
start_nginx b
start_echo b
for family in 4 6; do
    server=SERVER$family
    server=${!server}
    check "IPv$family: curl gets 20 MB" fetch a "$server" 20000000
    check "IPv$family: 100 connections at once" \
        ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$server" "$ECHO" 100 20000
    hold_open a "$server" "held$family"
    check "IPv$family: a connection" hold_says "held$family" "$MARKER"
    check_enotun "IPv$family: it is encrypted at a" flows_are a "$ECHO" encrypted
    check_enotun "IPv$family: it is encrypted at b" flows_are b "$ECHO" encrypted
    hold_close "held$family"
done
check "the FORWARD policy is still DROP" eval "ns a iptables-nft -S FORWARD | grep -qx -- '-P FORWARD DROP'"
stop_daemon a
stop_daemon b
for node in a b; do
    ns $node nft list ruleset >"$WORK/$node.after"
    check "$node: the rule set is as before" diff "$WORK/$node.before" "$WORK/$node.after"
done
