#!/usr/bin/env bash
# Two hosts behind one address: a resumption that reaches the other one costs nothing but the fresh exchange, at any rate of
# connections, and is counted.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin
if plain_mode; then exit 0; fi

many() { ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$1" $ECHO "$2" "${3:-2000}"; }
status() { "$ENOTUN" status --instance "$(node_ns "$1")" --json; }
counter() { status "$1" | jq --arg c "$2" '.counters[$c]'; }
# one_by_one ADDRESS COUNT: each is over before the next begins.
one_by_one() {
    ns a timeout 60 "$PYTHON" - "$1" $ECHO "$2" <<'PY'
import socket, sys
for n in range(int(sys.argv[3])):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as s:
        s.sendall(b"%d" % n)
        s.shutdown(socket.SHUT_WR)
        got = b""
        while data := s.recv(100):
            got += data
        assert got == b"%d" % n, got
PY
}

# at_least COUNTER NUMBER COMMAND...: while it runs, a's counter goes up by that at least.
at_least() {
    local name=$1 least=$2 before after
    shift 2
    before=$(counter a "$name")
    "$@" || return 1
    after=$(counter a "$name")
    echo "$name: $((after - before))"
    ((after - before >= least))
}
# at_most: the same, at most.
at_most() {
    local name=$1 most=$2 before after
    shift 2
    before=$(counter a "$name")
    "$@" || return 1
    after=$(counter a "$name")
    echo "$name: $((after - before))"
    ((after - before <= most))
}

topology_up farm
start_daemons
start_echo b
start_echo c

capture_start "$WORK/wire.pcap" r ra tcp port $ECHO or port 9
for family in 4 6; do
    farm=FARM$family
    farm=${!farm}
    spread 'numgen inc mod 2'
    check "IPv$family, by turns: 40 connections one by one, some resume" at_least connections_resumed 12 one_by_one "$farm" 40
    check "IPv$family, by turns: others reach the other member" at_least resumptions_refused 8 one_by_one "$farm" 40
    spread 'numgen random mod 2'
    check "IPv$family, at random: 40 connections one by one, some resume" at_least connections_resumed 8 one_by_one "$farm" 40
    check "IPv$family, at random: 300 connections at once, some resume" at_least connections_resumed 40 many "$farm" 300
    check "IPv$family, at random: again, and none is aborted" at_most connections_aborted 0 many "$farm" 300
    check "IPv$family, at random: nor plain" at_most connections_plain 0 many "$farm" 100
    spread 'numgen inc mod 1'
    check "IPv$family, one member is left: after some connections" one_by_one "$farm" 30
    check "IPv$family, one member is left: most resume" at_least connections_resumed 15 one_by_one "$farm" 20
done
capture_stop "$WORK/wire.pcap"
check "all of it is encrypted" wire_encrypted "$WORK/wire.pcap" $ECHO
check "both members had their share" eval '(($(counter b connections_encrypted) > 100 && $(counter c connections_encrypted) > 100))'
check "the members count identifiers that they do not know" eval '(($(counter b resumptions_unknown) + $(counter c resumptions_unknown) > 50))'
check "for people, too" eval '"$ENOTUN" status --instance "$(node_ns a)" | grep -E "resum.*refused"'
check "the cache is bounded" eval '(($("$ENOTUN" cache list --instance "$(node_ns a)" --json | jq length) <= 256))'

"$ENOTUN" enable --instance "$(node_ns a)" "$FARM4,no-resume" >/dev/null 2>"$WORK/enable.err" || true
spread 'numgen random mod 2'
check "a selector says not to try" at_most resumptions_proposed 0 one_by_one "$FARM4" 20
check "and nothing else is different" at_least connections_encrypted 20 one_by_one "$FARM4" 20
check "the daemons still run" eval 'daemon_alive a && daemon_alive b && daemon_alive c'
