#!/usr/bin/env bash
# Both hosts connect at once, and their SYNs cross on a slow link (RFC 9293, section 3.5): encrypted if one of them is B for it,
# plain if none is (ENO-7).
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
case_begin

# A quarter of a second on the way: time enough for the other program to connect, too.
# shellcheck disable=SC2034 # of the topology
LINK="--delay 250"
topology_up emulated

# cross PORT_A PORT_B FAMILY: both connect at the same time. What they print is in $WORK/cross-a and -b. They stay open
# until `cross_end`. Whoever comes too late on a busy machine is refused, and both try again.
cross() {
    local a=CLIENT$3 b=SERVER$3 at
    a=${!a} b=${!b}
    for _ in 1 2 3 4; do
        rm -f "$WORK/go" "$WORK/cross-a" "$WORK/cross-b" && mkfifo "$WORK/go"
        at=$(awk "BEGIN { printf \"%.3f\", $EPOCHREALTIME + 0.7 }")
        ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" cross "$a" "$1" "$b" "$2" "$at" "$MARKER from a" \
            <"$WORK/go" >"$WORK/cross-a" 2>&1 &
        PID_A=$!
        ns b "$PYTHON" "$NETNS_DIR/tools/tcp.py" cross "$b" "$2" "$a" "$1" "$at" "$MARKER from b" \
            <"$WORK/go" >"$WORK/cross-b" 2>&1 &
        PID_B=$!
        exec 7>"$WORK/go"
        wait_for 20 file_has "$WORK/cross-a" ' ' || true
        wait_for 20 file_has "$WORK/cross-b" ' ' || true
        grep -q 'error ECONNREFUSED' "$WORK/cross-a" "$WORK/cross-b" || return 0
        cross_end
    done
}
# Both close, and have ended.
cross_end() {
    exec 7>&-
    wait "$PID_A" "$PID_B" || true
}
lines() {
    cat "$WORK/cross-a" "$WORK/cross-b"
    file_has "$WORK/cross-a" "got $MARKER from b" && file_has "$WORK/cross-b" "got $MARKER from a"
}
ends() {
    cat "$WORK/cross-a" "$WORK/cross-b"
    file_has "$WORK/cross-a" "end of file" && file_has "$WORK/cross-b" "end of file"
}
# roles ROLE_A ROLE_B PORT: each end has its role and they agree on the session.
roles() {
    [[ $(role a "$3") == "$1" && $(role b "$3") == "$2" ]] && session_ids_agree a b "$3"
}
role() { flows "$1" | jq -r --arg p ":$2" '.[] | select((.local | endswith($p)) or (.remote | endswith($p))) | .role'; }
resumed() { flows "$1" | jq -e --arg p ":$2" 'any(.[]; (.local | endswith($p)) and .resumed)'; }
# The capture has a SYN without ACK from both sides before the first SYN-ACK.
both_syns() {
    tcpdump -nr "$1" 'tcp[tcpflags] & tcp-syn != 0' 2>/dev/null | head -2 | grep -c 'Flags \[S\]' | grep -qx 2
}
no_marker() { ! grep -qaF -- "$MARKER" "$1"; }

capture_start "$WORK/bare.pcap" a eth0
cross 6000 7000 4
check "without enotun: lines go both ways" lines
capture_stop "$WORK/bare.pcap"
check "the SYNs have crossed" both_syns "$WORK/bare.pcap"
cross_end
check "and both see the other's end" ends

if ! plain_mode; then
    start_daemon a "10.4.2.0/24,role-b" "fd00:a:2::/64,role-b"
    start_daemon b "10.4.1.0/24" "fd00:a:1::/64"
    port=6001
    for family in 4 6; do
        capture_start "$WORK/wire$family.pcap" a eth0
        cross $port $((port + 1000)) $family
        check "IPv$family, one is B: lines go both ways" lines
        check "IPv$family: encrypted, a is B" roles B A $port
        capture_stop "$WORK/wire$family.pcap"
        if [[ $family == 4 ]]; then check "the SYNs have crossed" both_syns "$WORK/wire4.pcap"; fi
        check "IPv$family: no plaintext on the wire" no_marker "$WORK/wire$family.pcap"
        cross_end
        check "IPv$family: both see the other's end" ends
        port=$((port + 1))
    done
    # B proposes to resume if another TEP has room beside that: not with timestamps in the SYN.
    for node in a b; do ns $node sysctl -qw net.ipv4.tcp_timestamps=0; done
    cross 6003 7003 4
    check "again without timestamps: lines go both ways" lines
    check "both have proposed the same secret: resumed (TC-19)" \
        eval 'resumed a 6003 && resumed b 7003 && roles B A 6003'
    cross_end
    check "both see the other's end" ends

    check "options change at run time" "$ENOTUN" enable --instance "$(node_ns a)" 10.4.2.0/24
    cross 6004 7004 4
    check "none is B: lines go both ways" lines
    check "none is B: plain" eval 'flows_are a 6004 plain && flows_are b 7004 plain'
    cross_end
    check "none is B: both see the other's end" ends
    check "the daemons still run" eval 'daemon_alive a && daemon_alive b'
fi
