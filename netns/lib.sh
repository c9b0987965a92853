# shellcheck shell=bash
# What topologies and the benchmark share. Sourced, never run.
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
ROOT=$(dirname "$NETNS_DIR")
if [[ -z ${ENOTUN:-} ]]; then
    ENOTUN=$ROOT/target/release/enotun
    [[ -x $ENOTUN ]] || ENOTUN=$ROOT/target/debug/enotun
fi

# The link emulator is an example of the package: `cargo build --example linkem`.
LINKEM=${LINKEM:-$(dirname "$ENOTUN")/examples/linkem}
if [[ ! -x $LINKEM ]]; then LINKEM=$ROOT/target/debug/examples/linkem; fi

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

# process_gone PID: it has ended, whether or not somebody has asked how.
process_gone() { [[ ! -e /proc/$1 ]] || grep -q '^State:[[:space:]]*Z' "/proc/$1/status"; }

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
    if (($#)); then
        args=("$@")
    else
        read -ra args <<<"$(daemon_args "$node")"
    fi
    ip netns exec "$PREFIX-$node" "$ENOTUN" up --tun tun0 --instance "$PREFIX-$node" \
        "${args[@]}" </dev/null >>"$WORK/$node.log" 2>&1 &
    # shellcheck disable=SC2034 # for the benchmark
    DAEMON_PID[$node]=$!
    if ! wait_for 10 daemon_ready "$node"; then
        echo "netns: enotun on $node did not become ready; its log:" >&2
        cat "$WORK/$node.log" >&2
        return 1
    fi
    after_daemon "$node"
}

start_daemons() {
    local n
    for n in "${DAEMONS[@]}"; do start_daemon "$n"; done
}
