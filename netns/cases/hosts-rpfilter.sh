#!/usr/bin/env bash
# Hosts with strict reverse path filtering everywhere.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up pair
for node in a b; do
    ns $node sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 \
        net.ipv4.conf.eth0.rp_filter=1
done
start_daemons
start_nginx b
start_echo b
check "curl gets 20 MB" fetch a "$SERVER4" 20000000
check "100 connections at once" \
    ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$SERVER4" "$ECHO" 100 20000
hold_open a "$SERVER4" held
check "a connection" hold_says held "$MARKER"
check_enotun "it is encrypted at a" flows_are a "$ECHO" encrypted
check_enotun "it is encrypted at b" flows_are b "$ECHO" encrypted
hold_close held
stop_daemon a
stop_daemon b
for node in a b; do
    for name in all default eth0; do
        check "$node: rp_filter of $name is 1 again" \
            eval "[[ \$(ns $node sysctl -n net.ipv4.conf.$name.rp_filter) == 1 ]]"
    done
done
