#!/usr/bin/env bash
# kill -9 of a daemon: no plaintext of an encrypted connection reaches the wire, no ciphertext
# reaches an application; afterwards `up` and `down` find their way back.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

if plain_mode; then exit 0; fi
topology_up pair
state() { ns "$1" "$NETNS_DIR/tools/hoststate"; }
state a >"$WORK/before"
start_daemons
start_echo b
serve a "$PYTHON" "$NETNS_DIR/tools/tcp.py" sink 7778 "$WORK/sunk"
wait_for 5 listening a 7778
hold_open a "$SERVER4" out4
hold_open a "$SERVER6" out6
check "a connection over IPv4" hold_says out4 before
check "a connection over IPv6" hold_says out6 before
mkfifo "$WORK/in.lines"
ip netns exec "$PREFIX-b" "$PYTHON" "$NETNS_DIR/tools/tcp.py" hold "$CLIENT4" 7778 \
    <"$WORK/in.lines" >"$WORK/in.held" 2>&1 &
exec 9>"$WORK/in.lines"
echo first >&9
check "a connection from b" wait_for 10 file_has "$WORK/sunk" first
check "all are encrypted" eval 'flows_are a "$ECHO" encrypted && flows_are a 7778 encrypted'

capture_start "$WORK/crash.pcap" b eth0
kill_daemon a
echo "$MARKER-out4" >&"${HOLD[out4]}"
echo "$MARKER-out6" >&"${HOLD[out6]}"
echo "$MARKER-in" >&9
# Long enough for several retransmissions: the capture grows or the connections end.
for ((i = 0; i < 8; i++)); do ns a ping -q -i 0.25 -c 2 "$SERVER4" >/dev/null || true; done
capture_stop "$WORK/crash.pcap"
check "no plaintext of them is on the wire" fails file_has "$WORK/crash.pcap" "$MARKER"
check "the application at a got nothing but plaintext" \
    eval '[[ $(tr -d "[:alnum:]\n-" <"$WORK/sunk" | wc -c) == 0 ]]'
check "the applications' output is clean" \
    eval '! grep -aP "reply .*[^[:print:]]" "$WORK/out4.held" "$WORK/out6.held"'

capture_start "$WORK/again.pcap" b eth0
start_daemon a
hold_open a "$SERVER4" again4
hold_open a "$SERVER6" again6
check "up again: a new connection over IPv4" hold_says again4 "$MARKER"
check "up again: a new connection over IPv6" hold_says again6 "$MARKER"
check "up again: they are encrypted" eval 'wait_for 5 flows_are a "$ECHO" encrypted'
capture_stop "$WORK/again.pcap"
check "up again: no plaintext is on the wire" fails file_has "$WORK/again.pcap" "$MARKER"

kill_daemon a
check "down cleans up after a crash" "$ENOTUN" down --instance "$(node_ns a)"
check "the host is as before" eval 'state a >"$WORK/after"; diff "$WORK/before" "$WORK/after"'
hold_open a "$SERVER4" plain
check "and speaks plain TCP" hold_says plain text
