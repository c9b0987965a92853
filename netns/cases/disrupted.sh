#!/usr/bin/env bash
# An interface that comes back with another address is a sign that this machine may be a copy: the cache of sessions is
# erased, once, and status says so. What happens every day erases nothing (docs/clones.md).
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

if plain_mode; then exit 0; fi
topology_up pair
start_daemons
start_nginx b
status() { "$ENOTUN" status --instance "$(node_ns a)" --json | jq -e "$1"; }
count() { status .counters.disruptions; }
seen() { (($(count) == $1)); }
# settled: nothing comes of what netlink has told.
settled() {
    local before
    before=$(count)
    # Bursts of changes are waited for 100 ms at most; then they are acted on at once.
    sleep 0.5
    (($(count) == before))
}

check "a session is cached" fetch a "$SERVER4" 1000
check "nothing has happened yet" status '.last_disruption == null and .counters.sessions_cached == 1'

ip -n "$(node_ns a)" addr replace 10.1.0.1/24 dev eth0 valid_lft 1000 preferred_lft 1000
ip -n "$(node_ns a)" addr add 10.1.0.7/24 dev eth0
check "a lease renewed, and an address more: no sign" settled
ip -n "$(node_ns a)" link set eth0 down
ip -n "$(node_ns a)" link set eth0 up
addr a eth0 fd00:1::1/64
check "a link lost and back with the same addresses: no sign" settled
ip -n "$(node_ns b)" link set eth0 down
ip -n "$(node_ns b)" link set eth0 up
addr b eth0 fd00:1::2/64
check "the same by the other end of the cable" settled
check "no sign so far, and the next connection resumes" \
    eval 'fetch a "$SERVER4" 1000 && status ".last_disruption == null and .counters.connections_resumed >= 1"'

# A connection that stays open meanwhile; it is of an address that stays.
ip netns exec "$(node_ns a)" curl -sS --limit-rate 50K -o /dev/null "http://$SERVER4/20000000" 2>/dev/null &
check "a connection is open" wait_for 10 flows_are a "$HTTP" encrypted
ip -n "$(node_ns a)" link set eth0 down
ip -n "$(node_ns a)" link set eth0 up
addr a eth0 fd00:1::99/64
check "the link is back with another address: noticed" wait_for 10 seen 1
check "what was done" status '.last_disruption | .sign == "address-change" and .sessions_flushed >= 1 and .connections_rekeyed >= 1
    and .connections_aborted == 0 and .seconds_ago < 60'
rekeyed() { flows a | jq -e '[.[] | select(.state == "encrypted") | .generation_local] | max >= 1'; }
check "the connection that was open has new keys" wait_for 20 rekeyed
check "status says it in words" eval '"$ENOTUN" status --instance "$(node_ns a)" | grep -A1 "^disrupted.*another address"'
check "one line in the log" test "$(grep -c 'another address' "$WORK/a.log")" = 1
addr a eth0 fd00:1::98/64
check "once" settled
check "the next connection makes fresh keys" fetch a "$SERVER4" 1000
