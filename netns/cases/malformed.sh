#!/usr/bin/env bash
# Malformed packets, into both devices of the TUN and from the wire: the daemon lives and other
# connections go on undisturbed.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up pair
start_daemons
start_nginx b
start_echo b
hold_open a "$SERVER4" held4
hold_open a "$SERVER6" held6
check "a connection over IPv4" hold_says held4 before
check "a connection over IPv6" hold_says held6 before
check_enotun "they are encrypted" flows_are a "$ECHO" encrypted
port4=$(awk '/^open/ { print $4 }' "$WORK/held4.held")
port6=$(awk '/^open/ { print $4 }' "$WORK/held6.held")
hostile() {
    ns "$1" "$PYTHON" "$NETNS_DIR/tools/hostile.py" "$2" 3000 \
        "$CLIENT4:$port4" "$SERVER4:$ECHO" "$CLIENT6:$port6" "$SERVER6:$ECHO"
}
for where in "a tun0" "a tun0-w" "b tun0" "b tun0-w" "b eth0" "a eth0"; do
    read -r node dev <<<"$where"
    if plain_mode && [[ $dev == tun0* ]]; then continue; fi
    check "3000 malformed packets into $dev of $node" hostile "$node" "$dev"
    check "the daemons still run" eval 'daemon_alive a && daemon_alive b'
    check "a connection over IPv4 goes on" hold_says held4 "after-$node-$dev"
    check "a connection over IPv6 goes on" hold_says held6 "after-$node-$dev"
    check "curl gets 20 MB" fetch a "$SERVER4" 20000000
done
check_enotun "the same connections are still encrypted" session_ids_agree a b "$ECHO"
