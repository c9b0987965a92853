#!/usr/bin/env bash
# Middleboxes that take ENO out of segments, drop SYNs that have it, or send it back; that change the MSS or cut segments.
# Connections work, plain or encrypted as the rules say, nothing wrong is delivered, and `probe` and `status` tell it.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin
if plain_mode; then exit 0; fi

many() { ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$1" $ECHO "${2:-5}" "${3:-20000}"; }
me() { node_ns "$1"; }
target() { echo "$(bracket "$1"):$ECHO"; }

# middlebox RULE...: what m does to what it forwards from here on. Both daemons forget what they have learnt of paths.
middlebox() {
    ns m nft -f - <<NFT
table inet box
delete table inet box
table inet box {
    chain forward {
        type filter hook forward priority filter
        $(printf '%s\n' "$@")
    }
}
NFT
    "$ENOTUN" probe --forget --instance "$(me a)" >/dev/null
    "$ENOTUN" probe --forget --instance "$(me b)" >/dev/null
}

# forget NODE: paths, and the sessions that make it doubt what a path seems to do (docs/paths.md).
forget() {
    "$ENOTUN" probe --forget --instance "$(me "$1")" >/dev/null
    "$ENOTUN" cache flush --instance "$(me "$1")" >/dev/null
}

# probed RESULT CERTAINTY ADDRESS: what a's probe says; its exit status is 0 only for `encrypted`.
probed() {
    local status=0 out
    out=$("$ENOTUN" probe --instance "$(me a)" --json "$(target "$3")") || status=$?
    # Of what a failed check printed the end is shown.
    jq '{hops, remembered} , {result, certainty, evidence}' <<<"$out"
    [[ $(jq -r .result <<<"$out") == "$1" && $(jq -r .certainty <<<"$out") == "$2" ]] || return 1
    [[ $status == "$([[ $1 == encrypted ]] && echo 0 || echo 1)" ]]
}

# remembers NODE FINDING: its status says so, for programs and for people.
remembers() {
    local text
    text=$("$ENOTUN" status --instance "$(me "$1")")
    echo "$text"
    grep -q "$2" <<<"$text" || return 1
    "$ENOTUN" status --instance "$(me "$1")" --json | jq -e --arg f "$2" '.paths.list | any(.finding == $f)'
}

# opens_within MS ADDRESS: one connection, open in that time.
opens_within() {
    ns a timeout 30 "$PYTHON" - "$1" "$2" $ECHO <<'PY'
import socket, sys, time
start = time.monotonic()
socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=20)
took = (time.monotonic() - start) * 1000
print(f"{took:.0f} ms")
sys.exit(took > int(sys.argv[1]))
PY
}

# reasons NODE: why its plain flows are plain, those that are over included.
reasons() { flows "$1" | jq -r '[.[] | select(.state == "plain" or .state == "closed") | .reason // empty] | unique | join(" ")'; }
counted() { "$ENOTUN" status --instance "$(me "$1")" --json | jq -e --arg c "$2" --argjson n "$3" '.counters[$c] >= $n'; }

topology_up path
start_daemons
start_echo b
for family in 4 6; do
    server=SERVER$family
    server=${!server}

    middlebox accept
    check "IPv$family, nothing in the way: probe" probed encrypted seen "$server"
    capture_start "$WORK/free$family.pcap" s sb tcp port $ECHO or port 9
    check "IPv$family, nothing in the way: connections" many "$server"
    capture_stop "$WORK/free$family.pcap"
    check "IPv$family, nothing in the way: encrypted" wire_encrypted "$WORK/free$family.pcap" $ECHO

    middlebox 'iifname mr tcp flags & (syn|ack) == syn reset tcp option 69'
    check "IPv$family, removed on the way there: connections" many "$server"
    check "IPv$family, removed on the way there: probe" probed stripped-there seen "$server"
    check "IPv$family, removed on the way there: between which routers" eval \
        'probed stripped-there seen "$server" | jq -se ".[0] | .hops[1].eno and (.hops[2].eno | not)"'
    check "IPv$family, removed on the way there: a remembers" remembers a stripped-there
    check "IPv$family, removed on the way there: b knows from the probe" remembers b stripped-here

    middlebox 'iifname ms tcp flags & (syn|ack) == (syn|ack) reset tcp option 69'
    check "IPv$family, removed on the way back: connections" many "$server"
    check "IPv$family, removed on the way back: probe" probed stripped-back inferred "$server"
    check "IPv$family, removed on the way back: a remembers" remembers a stripped-back

    middlebox 'tcp flags & (syn|ack) == syn tcp option 69 exists drop'
    check "IPv$family, SYNs with ENO vanish: probe" probed syn-dropped inferred "$server"
    check "IPv$family, SYNs with ENO vanish: a remembers" remembers a syn-dropped
    forget a
    check "IPv$family, SYNs with ENO vanish: connections after a while" many "$server" 3
    check "IPv$family, SYNs with ENO vanish: learnt from that" remembers a syn-dropped
    check "IPv$family, SYNs with ENO vanish: the next ones at once" opens_within 500 "$server"
    check "IPv$family, SYNs with ENO vanish: which is counted" counted a paths_avoided 1

    middlebox 'tcp flags & syn == 0 reset tcp option 69'
    forget a
    check "IPv$family, only removed from segments without SYN: one connection is reset" fails many "$server" 1
    check "IPv$family, only removed from segments without SYN: the next are plain" many "$server"
    check "IPv$family, only removed from segments without SYN: for that reason" eval '[[ $(reasons a) == *path-strips-eno* ]]'
    check "IPv$family, only removed from segments without SYN: a remembers" remembers a non-syn-stripped
    check "IPv$family, only removed from segments without SYN: so does b" remembers b non-syn-stripped
    forget a
    check "IPv$family, only removed from segments without SYN: b denies nobody encryption for it" fails many "$server" 1
    check "IPv$family, only removed from segments without SYN: a has learnt it again" many "$server"
    forget b
    check "IPv$family, only removed from segments without SYN: probe" probed non-syn-stripped told "$server"

    middlebox 'tcp flags & syn != 0 tcp option maxseg size set 700'
    capture_start "$WORK/mss$family.pcap" s sb tcp port $ECHO or port 9
    check "IPv$family, MSS clamped to 700: connections" many "$server" 5 200000
    capture_stop "$WORK/mss$family.pcap"
    check "IPv$family, MSS clamped to 700: encrypted" wire_encrypted "$WORK/mss$family.pcap" $ECHO
done

check "a host that is not selected can be probed" eval '
    "$ENOTUN" disable --instance "$(me a)" 10.8.4.0/24 && middlebox accept && probed encrypted seen "$SERVER4"'
check "and is left alone after that" eval '
    capture_start "$WORK/off.pcap" a eth0 && many "$SERVER4" 1 && capture_stop "$WORK/off.pcap" &&
    wire "$WORK/off.pcap" --port $ECHO --expect plain'
"$ENOTUN" enable --instance "$(me a)" 10.8.4.0/24 >/dev/null
check "a closed port" eval '! "$ENOTUN" probe --instance "$(me a)" --json "$SERVER4:9999" | jq -e ".result != \"refused\""'

# Policy required: never plain, and ENO in every SYN.
"$ENOTUN" enable --instance "$(me a)" --policy required 10.8.4.0/24 >/dev/null
middlebox 'tcp flags & (syn|ack) == syn tcp option 69 exists drop'
check "required, SYNs with ENO vanish: no connection" fails opens_within 9000 "$SERVER4"
middlebox 'iifname mr tcp flags & (syn|ack) == syn reset tcp option 69'
check "required, removed on the way there: no connection carries data" fails many "$SERVER4" 1
check "required: the probe tells why" probed stripped-there seen "$SERVER4"
middlebox accept
check "required, nothing in the way: encrypted again" many "$SERVER4"
"$ENOTUN" enable --instance "$(me a)" 10.8.4.0/24 >/dev/null

stop_daemon b
"$ENOTUN" probe --forget --instance "$(me a)" >/dev/null
check "a peer without enotun: connections" many "$SERVER4"
check "a peer without enotun: probe" probed no-eno inferred "$SERVER4"
topology_down

LINK='--middlebox echo' topology_up emulated
start_daemons
start_echo b
check "the option is echoed: connections" many "$SERVER4"
check "the option is echoed: plain" eval '[[ $(reasons a) == *same-role* ]]'
check "the option is echoed: probe" probed echoed seen "$SERVER4"
check "the option is echoed: a remembers" remembers a echoed
topology_down

LINK='--middlebox resegment' topology_up emulated
start_daemons
start_echo b
for family in 4 6; do
    server=SERVER$family
    server=${!server}
    capture_start "$WORK/cut$family.pcap" a eth0 tcp port $ECHO or port 9
    check "IPv$family, every segment cut in two: connections" many "$server" 10 200000
    capture_stop "$WORK/cut$family.pcap"
    check "IPv$family, every segment cut in two: encrypted" wire_encrypted "$WORK/cut$family.pcap" $ECHO
done
check "the daemons still run" eval 'daemon_alive a && daemon_alive b'
