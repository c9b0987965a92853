#!/usr/bin/env bash
# A host with enotun among others: encrypted to those that can, plain to those that cannot, and
# nothing at all to those that cannot where policy requires encryption.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up mixed
for node in a b c; do start_echo $node; done
start_daemons
capture_start "$WORK/plain.pcap" r ra
for family in 4 6; do
    with=SERVER$family without=PLAIN$family
    hold_open a "${!without}" "to-c$family"
    check "IPv$family: a to c, which has no enotun" hold_says "to-c$family" "to-c"
    check_enotun "IPv$family: it is plain" flows_are a "$ECHO" plain
    check_enotun "IPv$family: because the peer has no ENO" eval \
        "[[ \$(flows a | jq -r '.[] | select(.state == \"plain\") | .reason' | sort -u) == peer-no-eno ]]"
    hold_close "to-c$family"
    hold_open c "$([[ $family == 4 ]] && echo "$CLIENT4" || echo "$CLIENT6")" "from-c$family"
    check "IPv$family: c to a" hold_says "from-c$family" "from-c"
    hold_close "from-c$family"
    hold_open a "${!with}" "to-b$family"
    check "IPv$family: a to b" hold_says "to-b$family" "to-b"
    check_enotun "IPv$family: it is encrypted" eval 'session_ids_agree a b "$ECHO"'
    hold_close "to-b$family"
done
capture_stop "$WORK/plain.pcap"
check_enotun "a offered ENO to c" eval \
    "[[ \$(tcpdump -nr '$WORK/plain.pcap' 'dst host $PLAIN4 and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn and tcp[20:4] != 0' 2>/dev/null | grep -ci 'unknown-69\|Unknown Option 69') -ge 1 ]]"

if ! plain_mode; then
    refused() { fails ns "$1" timeout 30 "$PYTHON" "$NETNS_DIR/tools/tcp.py" errno "$2" "$ECHO"; }
    connects() { ns "$1" timeout 30 "$PYTHON" "$NETNS_DIR/tools/tcp.py" errno "$2" "$ECHO"; }
    stop_daemon a
    start_daemon a --policy required 0.0.0.0/0 ::/0
    capture_start "$WORK/required.pcap" r ra port "$ECHO" or port 9
    # A peer without enotun may accept the connection before a says no: what counts is that no
    # data goes either way.
    sends() { ns "$1" timeout 30 "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$2" "$ECHO" 1 1000; }
    for family in 4 6; do
        with=SERVER$family without=PLAIN$family own=CLIENT$family
        check "required, IPv$family: a to c is refused" refused a "${!without}"
        check "required, IPv$family: c to a brings nothing through" fails sends c "${!own}"
        check "required, IPv$family: a to b connects" sends a "${!with}"
    done
    capture_stop "$WORK/required.pcap"
    stop_daemon a

    start_daemon a 0.0.0.0/0 ::/0
    me=$(node_ns a)
    check "enable --policy required at run time" "$ENOTUN" enable --instance "$me" --policy required 10.6.3.0/24
    check "then a to c is refused" refused a "$PLAIN4"
    check "and still plain over IPv6" connects a "$PLAIN6"
    check "disable takes it back" "$ENOTUN" disable --instance "$me" 10.6.3.0/24
    check "then a to c is plain" connects a "$PLAIN4"
fi
