#!/usr/bin/env bash
# Connections that are open when enotun comes up go on untouched; those that are encrypted when it
# goes down end, and do not go on in plain text.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up pair
start_echo b
hold_open a "$SERVER4" old4
hold_open a "$SERVER6" old6
check "before: a connection over IPv4" hold_says old4 before
check "before: a connection over IPv6" hold_says old6 before
start_daemons
capture_start "$WORK/old.pcap" a eth0
check "with enotun: the IPv4 connection goes on" hold_says old4 "$MARKER-old4"
check "with enotun: the IPv6 connection goes on" hold_says old6 "$MARKER-old6"
capture_stop "$WORK/old.pcap"
for node in a b; do
    check_enotun "$node lists both as plain, pre-existing" \
        eval '[[ $(flows $node | jq -r --arg p ":$ECHO" "[.[] | select((.local + \" \" + .remote) | contains(\$p)) | .state + \" \" + .reason] | join(\",\")") == "plain pre-existing,plain pre-existing" ]]'
done
check "it goes on in plain text, as it began" file_has "$WORK/old.pcap" "$MARKER-old4"
hold_open a "$SERVER4" new4
hold_open a "$SERVER6" new6
check "new connections" eval 'hold_says new4 during && hold_says new6 during'
check_enotun "two new connections are encrypted" \
    eval '[[ $(session_ids a "$ECHO" | wc -l) == 2 ]] && session_ids_agree a b "$ECHO"'

capture_start "$WORK/down.pcap" a eth0
stop_daemon a
check "after down: the old connection goes on" hold_says old4 after
if ! plain_mode; then
    echo "$MARKER-new4" >&"${HOLD[new4]}" || true
    echo "$MARKER-new6" >&"${HOLD[new6]}" || true
    check "after down: what was encrypted ends with an error" \
        wait_for 20 grep -E 'error|end of file' "$WORK/new4.held"
    check "after down: a new connection is plain" eval 'hold_open a "$SERVER4" last && hold_says last plain'
fi
capture_stop "$WORK/down.pcap"
check_enotun "after down: nothing of it is on the wire" fails file_has "$WORK/down.pcap" "$MARKER"
