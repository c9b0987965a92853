#!/usr/bin/env bash
# A connection that was encrypted is never continued in plain: not after a crash, whatever is selected when the daemon is up
# again, nor when that comes down; not when its selector is disabled; not when the kernel misses that it was reset.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin
if plain_mode; then exit 0; fi

me=$(node_ns a)
NETS=(10.1.0.0/24 fd00:1::/64)

# opened NAME: encrypted connections over both families, NAME4 and NAME6, and a capture of what follows.
opened() {
    local family server
    for family in 4 6; do
        server=SERVER$family
        hold_open a "${!server}" "$1$family"
        check "$1: an encrypted connection over IPv$family" hold_says "$1$family" before
    done
    wait_for 5 flows_are a $ECHO encrypted
    capture_start "$WORK/$1.pcap" b eth0
}

# silent NAME: the applications write, and nothing of that is on the wire.
silent() {
    local family
    for family in 4 6; do echo "$MARKER-$1" >&"${HOLD[$1$family]}" || true; done
    # Long enough for several retransmissions.
    ns a ping -q -i 0.25 -c 6 "$SERVER4" >/dev/null || true
    capture_stop "$WORK/$1.pcap"
    check "$1: nothing of it is on the wire" fails file_has "$WORK/$1.pcap" "$MARKER"
    check "$1: nothing of it came back" eval '! grep -a "reply $MARKER" "$WORK/$1"?.held'
    for family in 4 6; do hold_close "$1$family"; done
}
# The kernel does not hear of resets.
deaf() {
    ns a nft 'add table inet deaf
        add chain inet deaf in { type filter hook input priority 0; }
        add rule inet deaf in tcp flags & rst == rst drop'
}
hearing() { ns a nft delete table inet deaf; }

topology_up pair
start_daemons
start_echo b

opened elsewhere
kill_daemon a
start_daemon a 192.0.2.0/24
silent elsewhere
stop_daemon a

start_daemon a
opened crash-up-down
kill_daemon a
start_daemon a
stop_daemon a
silent crash-up-down

start_daemon a
opened kept-crash
"$ENOTUN" disable --instance "$me" "${NETS[@]}" >/dev/null
kill_daemon a
check "kept-crash: down" "$ENOTUN" down --instance "$me"
silent kept-crash

start_daemon a
opened kept-crash-up
"$ENOTUN" disable --instance "$me" "${NETS[@]}" >/dev/null
kill_daemon a
start_daemon a 192.0.2.0/24
silent kept-crash-up
stop_daemon a

start_daemon a
opened deaf-down
deaf
stop_daemon a
silent deaf-down
hearing

start_daemon a
opened deaf-disable
deaf
# The peer ends them all.
stop_daemon b
check "deaf-disable: they are closed at a" wait_for 10 eval '[[ -z $(flow_states a $ECHO) ]]'
"$ENOTUN" disable --instance "$me" "${NETS[@]}" >/dev/null
silent deaf-disable
hearing
"$ENOTUN" enable --instance "$me" "${NETS[@]}" >/dev/null
start_daemon b

# A probe of what is not selected: the end of its connection is diverted, too.
"$ENOTUN" disable --instance "$me" "${NETS[@]}" >/dev/null
capture_start "$WORK/probe.pcap" b eth0 tcp port $ECHO or port 9
check "a probe finds encryption" eval '"$ENOTUN" probe --instance "$me" "$SERVER4:$ECHO" | grep -i encrypted'
check "its connection ends" wait_for 20 eval '[[ -z $(flow_states a $ECHO) ]]'
capture_stop "$WORK/probe.pcap"
check "all of it was encrypted on the wire" wire "$WORK/probe.pcap" --port $ECHO --expect encrypted
check "the daemons still run" eval 'daemon_alive a && daemon_alive b'
