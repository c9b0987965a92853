#!/usr/bin/env bash
# Exported keys decrypt a capture: both daemons export, the wire loses packets, sessions are resumed and rekeyed, urgent
# data is sent; netns/tools/decrypt.py, which shares no code with enotun, gives what the applications sent. Keys go to
# memory only (TC-21), and only if asked for.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin
if plain_mode; then exit 0; fi # nothing to decrypt

KEYS=$(mktemp -d /dev/shm/enotun-keys.XXXXXX)
trap 'rm -rf "$KEYS"; case_end' EXIT

# decrypts WITH KEYS OUT: $WORK/OUT.json has a line for each connection.
decrypts() {
    "$PYTHON" "$NETNS_DIR/tools/decrypt.py" --keys "$1" --out "$WORK/$2" "$WORK/wire.pcap" >"$WORK/$2.json" ||
        { grep error "$WORK/$2.json" || cat "$WORK/$2.json"; return 1; }
}

# reports OUT FILTER: the JSON lines fulfil it.
reports() { jq -se "$2" "$WORK/$1.json" >/dev/null || { jq -c . "$WORK/$1.json"; return 1; }; }

# body_is SIZE: a stream of a web server has that file as its body.
body_is() {
    "$PYTHON" - "$WORK/out" "$WORK/www/$1" <<'PY'
import glob, sys
body = open(sys.argv[2], "rb").read()
streams = [open(path, "rb").read() for path in glob.glob(sys.argv[1] + "/*:80.server")]
sys.exit(not any(stream.partition(b"\r\n\r\n")[2] == body for stream in streams))
PY
}

# echoes_are PORT COUNT SIZE: COUNT connections sent what tcp.py many sends, and the same came back.
echoes_are() {
    "$PYTHON" - "$WORK/out" "$@" <<'PY'
import glob, hashlib, sys
out, port, count, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
sent = sorted((hashlib.sha256(b"%d" % n).digest() * (size // 32 + 1))[:size] for n in range(count))
for side in "client", "server":
    found = [open(path, "rb").read() for path in glob.glob("%s/*:%s.%s" % (out, port, side))]
    found = sorted(text for text in found if len(text) == size)
    if found != sent:
        print("%s: %d streams of %d bytes, %d expected, or not the same" % (side, len(found), size, count))
        sys.exit(1)
PY
}

refused_on_disk() {
    local file=$NETNS_DIR/keys.$$ status=0
    if [[ $(stat -f -c %T "$NETNS_DIR") =~ ^(tmpfs|ramfs)$ ]]; then return 0; fi
    ns a "$ENOTUN" up --instance "$PREFIX-a" --export-keys "$file" 10.1.0.0/24 2>"$WORK/refused" || status=$?
    [[ $status == 1 && ! -e $file ]] && grep -q 'not in memory' "$WORK/refused" && ! ns a ip link show tun0
}

topology_up pair
no_offloads a eth0
no_offloads b eth0
start_nginx b
start_echo b

check "keys are not exported to a disk" refused_on_disk
touch "$KEYS/old"
check "nor to a file that is there already" fails ns a "$ENOTUN" up --instance "$PREFIX-a" --export-keys "$KEYS/old" :80
for node in a b; do
    start_daemon $node --export-keys "$KEYS/$node" 10.1.0.0/24 fd00:1::/64
    check "$node: status and log say that keys are exported" eval \
        '"$ENOTUN" status --instance "$PREFIX-$node" | grep -q "KEYS OF ALL CONNECTIONS to $KEYS/$node" &&
        grep -q "keys of every connection are written to $KEYS/$node" "$WORK/$node.log"'
done
check "only the owner can read them" test "$(stat -c %a "$KEYS/a")" = 600

capture_start "$WORK/wire.pcap" a eth0
for node in a b; do
    ns $node nft -f - <<'NFT'
table inet loss {
    chain ingress {
        type filter hook prerouting priority raw - 10
        iifname "eth0" meta l4proto tcp numgen random mod 100 < 1 drop
    }
}
NFT
done
for family in 4 6; do
    server=SERVER$family
    server=${!server}
    check "IPv$family: curl gets 100 kB over a wire that loses 1 %" fetch a "$server" 100000
    check "IPv$family: 30 connections at once" \
        ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$server" "$ECHO" 30 30000
    hold_open a "$server" "held$family"
    check "IPv$family: a connection" hold_says "held$family" "$MARKER-1"
    read -r _ _ address port <"$WORK/held$family.held"
    ends=("$(bracket "$address"):$port" "$(bracket "$server"):$ECHO")
    check "IPv$family: rekeyed by the client" "$ENOTUN" rekey --instance "$PREFIX-a" "${ends[0]}" "${ends[1]}"
    check "IPv$family: goes on" hold_says "held$family" "$MARKER-2"
    check "IPv$family: rekeyed by the server" "$ENOTUN" rekey --instance "$PREFIX-b" "${ends[1]}" "${ends[0]}"
    check "IPv$family: goes on still" hold_says "held$family" "$MARKER-3"
    hold_close "held$family"
done
check "curl gets 1448 bytes" fetch a "$SERVER4" 1448
for node in a b; do ns $node nft delete table inet loss; done
closed() { [[ -z $(flow_states a "$ECHO") ]]; }
check "all connections are closed" wait_for 15 closed
capture_stop "$WORK/wire.pcap"

check "the marker is not on the wire" fails file_has "$WORK/wire.pcap" "$MARKER"
check "the client's keys decrypt all of it" decrypts "$KEYS/a" out
check "65 connections, both streams of each to their FINp" \
    reports out 'length == 65 and all(.error == null and .client.finp and .server.finp)'
check "some of them resumed" reports out 'map(select(.resumed)) | length > 5'
check "those that were rekeyed reached generation 2 both ways" \
    reports out 'map(select(.client.generations >= 2 and .server.generations >= 2)) | length == 2'
check "what curl got is what nginx sent: 100 kB" body_is 100000
check "what curl got is what nginx sent: 1448 bytes" body_is 1448
check "what the 60 connections sent, and got back" eval \
    'cp -r "$WORK/out" "$WORK/both" && rm "$WORK"/out/fd00* && echoes_are $ECHO 30 30000 &&
    rm -r "$WORK/out" && cp -r "$WORK/both" "$WORK/out" && rm "$WORK"/out/10.* && echoes_are $ECHO 30 30000'
rm -r "$WORK/out" && cp -r "$WORK/both" "$WORK/out"
lines() { printf '%s\n' "$MARKER-1" "$MARKER-2" "$MARKER-3"; }
check "what the connection that was rekeyed said" eval \
    '[[ $(grep -lF "$MARKER-1" "$WORK"/out/*.client | wc -l) == 2 ]] &&
    for file in $(grep -lF "$MARKER-1" "$WORK"/out/*); do lines | cmp - "$file" || exit 1; done'
check "the server's keys are the same" decrypts "$KEYS/b" server
check "and give the same" diff -r "$WORK/out" "$WORK/server"
cut() { jq -r '"\(.session_id) \(.master_key)"' "$KEYS/$1" | sort; }
check "of every session" eval 'diff <(cut a) <(cut b)'

# The same with one bit of each key changed, and with a damaged capture: what does not authenticate is noticed.
jq -c '.master_key |= (if startswith("0") then "1" + .[1:] else "0" + .[1:] end)' "$KEYS/a" >"$KEYS/wrong"
check "other keys decrypt nothing" fails decrypts "$KEYS/wrong" wrong
check "of no connection" reports wrong 'length == 65 and all(.error != null)'

mkdir "$WORK/plain"
stop_daemon a
check "the file stays after down" test -s "$KEYS/a"
start_daemon a 10.1.0.0/24
check "without being asked, no keys are exported" eval \
    '! "$ENOTUN" status --instance "$PREFIX-a" | grep -q KEYS && [[ $(ls "$KEYS") == $(printf "a\nb\nold\nwrong") ]]'
