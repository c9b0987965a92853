# shellcheck shell=bash
# What topologies, cases, the demo and the benchmark share. Sourced, never run.
#
# A topology (netns/topologies/NAME.sh) sets
#   NODES     its nodes; node N lives in the network namespace $PREFIX-N
#   CLIENT, SERVER, CLIENT4, CLIENT6, SERVER4, SERVER6
#             the nodes where applications run, and the addresses they use
#   WIRE      node:device where packets are as they are on the wire
#   DAEMONS   the nodes that run enotun
# and the functions build (links, addresses, routes) and daemon_args NODE (arguments of
# `enotun up`, one line), optionally after_daemon NODE.
#
# Nothing here waits for a fixed time: wait_for polls a condition up to a deadline.

NETNS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034
ROOT=$(dirname "$NETNS_DIR")
PYTHON=/usr/bin/python3
# shellcheck disable=SC2034
TCP="$PYTHON $NETNS_DIR/tools/tcp.py"
# The same text in every test file: what must never be seen on an encrypted wire.
MARKER=THIS-IS-PLAINTEXT-THAT-MUST-NOT-BE-ON-THE-WIRE

# ENOTUN: the program under test. ENOTUN_MODE=plain: nothing is started, topologies and
# cases run over ordinary TCP (to test the tests).
ENOTUN_MODE=${ENOTUN_MODE:-enotun}
if [[ -z ${ENOTUN:-} ]]; then
    ENOTUN=$ROOT/target/release/enotun
    [[ -x $ENOTUN ]] || ENOTUN=$ROOT/target/debug/enotun
fi
if [[ $ENOTUN_MODE != plain && ! -x $ENOTUN ]]; then
    echo "netns: no enotun at $ENOTUN: run 'cargo build' or set ENOTUN" >&2
    exit 1
fi

# The link emulator is an example of the package: `cargo build --example linkem`.
LINKEM=${LINKEM:-$(dirname "$ENOTUN")/examples/linkem}
if [[ ! -x $LINKEM ]]; then LINKEM=$ROOT/target/debug/examples/linkem; fi

plain_mode() { [[ $ENOTUN_MODE == plain ]]; }

# ---- conditions -------------------------------------------------------------------------

# wait_for SECONDS COMMAND...: polls COMMAND until it succeeds; 1 at the deadline. The seconds are what it may take on a machine
# that has the time; on a busy one it has three times that.
wait_for() {
    local deadline=$((SECONDS + 3 * $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > deadline)); then
            echo "netns: gave up waiting for: $*" >&2
            return 1
        fi
        sleep 0.05
    done
}

process_gone() { ! kill -0 "$1" 2>/dev/null; }
file_has() { grep -qaF -- "$2" "$1"; }
same_hash() { [[ $(sha256sum <"$1") == "$(sha256sum <"$2")" ]]; }

# ---- namespaces -------------------------------------------------------------------------

node_ns() { echo "$PREFIX-$1"; }

# ns NODE COMMAND...: runs COMMAND on NODE.
ns() {
    local node=$1
    shift
    ip netns exec "$PREFIX-$node" "$@"
}

# link NODE DEVICE NODE DEVICE: a cable between two nodes.
link() {
    ip link add "$2" netns "$PREFIX-$1" type veth peer name "$4" netns "$PREFIX-$3"
    ip -n "$PREFIX-$1" link set "$2" up
    ip -n "$PREFIX-$3" link set "$4" up
}

# addr NODE DEVICE ADDRESS/LENGTH...: `nodad` makes IPv6 addresses usable at once.
addr() {
    local node=$1 dev=$2 a
    shift 2
    for a in "$@"; do
        if [[ $a == *:* ]]; then
            ip -n "$PREFIX-$node" addr add "$a" dev "$dev" nodad
        else
            ip -n "$PREFIX-$node" addr add "$a" dev "$dev"
        fi
    done
}

# gateway NODE ADDRESS...: default routes.
gateway() {
    local node=$1 a
    shift
    for a in "$@"; do ip -n "$PREFIX-$node" route add default via "$a"; done
}

forwarding() {
    ns "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

# no_offloads NODE DEVICE...: packets of at most an MTU, so that each is lost or kept alone.
no_offloads() {
    local node=$1 dev
    shift
    for dev in "$@"; do ns "$node" ethtool -K "$dev" tso off gso off gro off >/dev/null; done
}

load_topology() {
    local file=$NETNS_DIR/topologies/$1.sh
    if [[ ! -f $file ]]; then
        echo "netns: no topology $1; there are: $(topology_names)" >&2
        return 2
    fi
    # shellcheck disable=SC2317 # the topology may define it
    after_daemon() { :; }
    # shellcheck source=/dev/null
    source "$file"
    # shellcheck disable=SC2034
    TOPOLOGY=$1
}

topology_names() {
    local f
    for f in "$NETNS_DIR"/topologies/*.sh; do basename "$f" .sh; done | paste -sd ' '
}

# topology_up NAME: builds it under $PREFIX; waits until the server answers, both families.
topology_up() {
    local n
    load_topology "$1"
    for n in "${NODES[@]}"; do
        ip netns add "$PREFIX-$n"
        ip -n "$PREFIX-$n" link set lo up
        # Link-local addresses are there at once, too.
        ns "$n" sysctl -qw net.ipv6.conf.default.accept_dad=0
    done
    build
    wait_for 10 ns "$CLIENT" ping -q -c1 -W1 "$SERVER4"
    wait_for 10 ns "$CLIENT" ping -q -c1 -W1 "$SERVER6"
}

# topology_down: stops what runs in the namespaces of $PREFIX and removes them.
topology_down() {
    local n pid name
    for n in $(ip netns list | awk -v p="$PREFIX-" 'index($1, p) == 1 { print $1 }'); do
        if [[ -x $ENOTUN ]]; then "$ENOTUN" down --instance "$n" >/dev/null 2>&1 || true; fi
        for pid in $(ip netns pids "$n" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
        for pid in $(ip netns pids "$n" 2>/dev/null); do
            wait_for 5 process_gone "$pid" || true
        done
        ip netns del "$n"
        # What a killed daemon left of its control socket and state record.
        for name in /run/enotun/"$n" /run/enotun/"$n".*; do
            if [[ -e $name ]]; then rm -rf -- "$name"; fi
        done
    done
}

# ---- daemons ----------------------------------------------------------------------------

daemon_ready() { "$ENOTUN" status --instance "$(node_ns "$1")"; }

# start_daemon NODE [ARGS...]: `enotun up` on NODE, with the topology's arguments unless others
# are given; returns when it is ready. Its pid is in DAEMON_PID[NODE], its log in $WORK/NODE.log.
declare -A DAEMON_PID=()
start_daemon() {
    local node=$1 args
    shift
    plain_mode && return 0
    if (($#)); then
        args=("$@")
    else
        read -ra args <<<"$(daemon_args "$node")"
    fi
    ip netns exec "$PREFIX-$node" "$ENOTUN" up --tun tun0 --instance "$PREFIX-$node" \
        "${args[@]}" </dev/null >>"$WORK/$node.log" 2>&1 &
    DAEMON_PID[$node]=$!
    if ! wait_for 10 daemon_ready "$node"; then
        echo "netns: enotun on $node did not become ready; its log:" >&2
        cat "$WORK/$node.log" >&2
        return 1
    fi
    after_daemon "$node"
}

# daemon_alive NODE: the daemon that was started on NODE still runs.
daemon_alive() { plain_mode || kill -0 "${DAEMON_PID[$1]}"; }

# stop_daemon NODE: `enotun down`, and waits for the process to end.
stop_daemon() {
    plain_mode && return 0
    "$ENOTUN" down --instance "$(node_ns "$1")" >/dev/null
    wait_for 10 process_gone "${DAEMON_PID[$1]}"
    wait "${DAEMON_PID[$1]}" 2>/dev/null || true
    unset "DAEMON_PID[$1]"
}

# kill_daemon NODE: kill -9.
kill_daemon() {
    plain_mode && return 0
    kill -9 "${DAEMON_PID[$1]}"
    wait "${DAEMON_PID[$1]}" 2>/dev/null || true
    unset "DAEMON_PID[$1]"
}

start_daemons() {
    local n
    for n in "${DAEMONS[@]}"; do start_daemon "$n"; done
}

# flows NODE: the table as JSON.
flows() { "$ENOTUN" flows --instance "$(node_ns "$1")" --json; }

# flow_states NODE PORT: the states of the flows with that local or remote port, each once,
# without those that are closed.
flow_states() {
    flows "$1" | jq -r --arg p ":$2" '
        [.[] | select((.local | endswith($p)) or (.remote | endswith($p))) | .state]
        | map(select(. != "closed")) | unique | join(" ")'
}

# flows_are NODE PORT STATE: there are flows with that port and all are in STATE.
flows_are() {
    plain_mode && return 0
    [[ $(flow_states "$1" "$2") == "$3" ]]
}

# session_ids NODE PORT: session IDs of encrypted flows with that port, sorted.
session_ids() {
    flows "$1" | jq -r --arg p ":$2" '
        .[] | select((.local | endswith($p)) or (.remote | endswith($p)))
        | select(.state == "encrypted") | .session_id' | sort
}

# session_ids_agree NODE NODE PORT: both tables hold the same IDs, at least one, none empty.
session_ids_agree() {
    local one two
    plain_mode && return 0
    one=$(session_ids "$1" "$3")
    two=$(session_ids "$2" "$3")
    [[ -n $one && $one != *null* && $one == "$two" ]]
}

# ---- captures ---------------------------------------------------------------------------

declare -A CAPTURE_PID=()

# capture_start FILE NODE DEVICE [FILTER...]: returns when tcpdump listens.
capture_start() {
    local file=$1 node=$2 dev=$3
    shift 3
    # Of an earlier capture of that name: it would be taken for ready before it is.
    rm -f "$file" "$file.err"
    ip netns exec "$PREFIX-$node" tcpdump -i "$dev" -n -U --immediate-mode -B 131072 -s 0 -Z root -w "$file" "$@" \
        2>"$file.err" &
    CAPTURE_PID[$file]="$! $node $dev"
    wait_for 20 file_has "$file.err" "listening on"
}

# capture_stop FILE: a packet with known text is sent over the captured device last, and waited
# for, so the file holds all that came before. The filter must let UDP port 9 through.
capture_stop() {
    local file=$1 pid node dev text
    read -r pid node dev <<<"${CAPTURE_PID[$file]}"
    text=end-of-capture-$RANDOM$RANDOM
    wait_for 20 sentinel_seen "$file" "$node" "$dev" "$text"
    kill "$pid"
    wait "$pid" || true
    unset "CAPTURE_PID[$file]"
    # A busy machine: what tcpdump lost must not be taken for what was not sent.
    if ! grep -q '^0 packets dropped by kernel' "$file.err"; then
        touch "$file.incomplete"
        echo "# $(basename "$file"): $(grep 'dropped by kernel' "$file.err")"
    fi
}

sentinel_seen() {
    ns "$2" "$PYTHON" "$NETNS_DIR/tools/sentinel.py" "$3" "$4"
    grep -qaF -- "$4" "$1"
}

# wire FILE ARGS...: netns/tools/wirecheck.py on a capture.
wire() { "$PYTHON" "$NETNS_DIR/tools/wirecheck.py" --marker "$MARKER" "$@"; }

# wire_encrypted FILE PORT: every connection to PORT is ENO and frames; no plaintext anywhere.
wire_encrypted() {
    if plain_mode; then wire "$1" --port "$2" --expect plain; else wire "$1" --port "$2" --expect encrypted; fi
}

# ---- test data --------------------------------------------------------------------------

# make_file PATH BYTES: recognisable and different in every line.
make_file() {
    "$PYTHON" - "$1" "$2" "$MARKER" <<'PY'
import sys
path, size, marker = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(path, "wb") as f:
    n = 0
    while n < size:
        block = b"".join(b"%s %012d\n" % (marker.encode(), n + i) for i in range(1000))[: size - n]
        f.write(block)
        n += len(block)
PY
}

# ---- checks -----------------------------------------------------------------------------

PASSED=0
FAILED=0

# check TEXT COMMAND...: one line per check; the command's output is shown if it fails.
check() {
    local text=$1 out
    shift
    if out=$("$@" 2>&1); then
        PASSED=$((PASSED + 1))
        echo "ok - $CASE: $text"
    else
        FAILED=$((FAILED + 1))
        echo "not ok - $CASE: $text"
        echo "    command: $*"
        tail -n 30 <<<"$out" | sed 's/^/    /'
    fi
}

# check_enotun: like check, but left out in plain mode.
check_enotun() { if ! plain_mode; then check "$@"; fi; }

# fails COMMAND...: succeeds if COMMAND fails.
fails() { ! "$@"; }

# case_begin: every case calls this first.
case_begin() {
    CASE=$(basename "$0" .sh)
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/enotun-$CASE.XXXXXX")
    PREFIX=${PREFIX:-en$$}
    trap case_end EXIT
    trap '' PIPE # a program that has ended is for the checks to notice
    trap 'exit 130' INT TERM
}

# case_end: logs are shown if anything failed; namespaces and files go; the last line is for run.sh.
case_end() {
    local status=$? log
    trap '' INT TERM
    set +e
    if ((status != 0)); then
        FAILED=$((FAILED + 1))
        echo "not ok - $CASE: ended with status $status"
    fi
    if ((FAILED > 0)); then
        for log in "$WORK"/*.log; do
            [[ -s $log ]] || continue
            echo "    --- $(basename "$log"), last lines:"
            tail -n 25 "$log" | sed 's/^/    /'
        done
    fi
    exec 2>/dev/null # bash would report each server that is killed here
    topology_down
    if [[ -n ${KEEP:-} ]]; then echo "    kept: $WORK"; else rm -rf "$WORK"; fi
    echo "# $CASE $PASSED $FAILED"
    exit $((FAILED > 0))
}
