# shellcheck shell=bash
# What the parts of scripts/bench share. A part prints its report on stdout and its progress with `say`.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topologies

LOAD=${LOAD:-$(dirname "$ENOTUN")/examples/load}
# The enotun that encrypts nothing, see there.
THROUGH=${THROUGH:-$(dirname "$ENOTUN")/examples/passthrough}
IPERF=5201 UNSELECTED=5202 FALLBACK=5203
# For connections: not selected, resumed, fresh, plain because only one end selects it, echo and idle.
PLAIN=7100 RESUMED=7101 FRESH=7102 ONE_END=7103 BYTES=7104 BYTES_PLAIN=7105 HELD=720

say() { echo "$@" >&3; }
cpu_name() { sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1; }
machine() { echo "$(nproc) x $(cpu_name), shared by all; Linux $(uname -r); enotun $(git describe --always --dirty 2>/dev/null || echo unknown)"; }

# flows NODE: the table as JSON.
flows() { "$ENOTUN" flows --instance "$(node_ns "$1")" --json; }
file_has() { grep -qaF -- "$2" "$1"; }

# serve NODE COMMAND...: a server in the background, its output in $WORK/<command>.log.
serve() {
    local node=$1
    shift
    ip netns exec "$PREFIX-$node" "$@" </dev/null >>"$WORK/$(basename "$1").log" 2>&1 &
    disown "$!" # it ends with its namespace
}
listening() { ns "$1" ss -Hltn "sport = :$2" | grep -q .; }

# ---- topologies -------------------------------------------------------------------------

prefixes=()
# The daemons of a part, prefix and node: for the counters at its end.
daemons=()

bench_end() {
    local status=$? prefix
    set +e
    trap '' INT TERM
    if ((status != 0 && status != 130)); then
        tail -n 5 "$WORK"/*.log 2>/dev/null >&2
    fi
    exec 2>/dev/null
    take_down
    rm -rf "$WORK" "/var/run/wireguard/ea$$.sock" "/var/run/wireguard/eb$$.sock"
    exit "$status"
}

take_down() {
    local prefix
    for prefix in "${prefixes[@]}"; do
        PREFIX=$prefix
        topology_down
    done
    prefixes=()
}

# use NAME: what follows is in that topology.
use() { PREFIX=$run$1; }

# fresh_topology NAME TOPOLOGY: a topology of its own under that name; it is taken down at the part's end.
fresh_topology() {
    use "$1"
    prefixes+=("$PREFIX")
    topology_up "$2"
    # So many connections, one after the other.
    ns "$CLIENT" sysctl -qw net.ipv4.ip_local_port_range="10000 65000"
}

# daemon PROGRAM NODE SELECTOR...: start_daemon, of enotun or the pass-through.
daemon() {
    local ENOTUN=$1 node=$2
    shift 2
    start_daemon "$node" "$@"
    daemons+=("$PREFIX $node ${DAEMON_PID[$node]}")
    # Neither is taken for the other.
    local by
    by=$("$ENOTUN" status --instance "$(node_ns "$node")" --json 2>/dev/null | jq -r .protocol.cryptography)
    if [[ $ENOTUN == "$THROUGH" && $by != NOBODY* ]] || [[ $ENOTUN != "$THROUGH" && $by == NOBODY* ]]; then
        echo "bench: cryptography by $by in $ENOTUN" >&2
        return 1
    fi
}

# daemon_pid NODE: of the topology in use.
daemon_pid() {
    local entry prefix node pid
    for entry in "${daemons[@]}"; do
        read -r prefix node pid <<<"$entry"
        if [[ $prefix == "$PREFIX" && $node == "$1" ]]; then echo "$pid"; fi
    done
}

# counter NODE NAME: of the daemon there.
counter() { "$ENOTUN" status --instance "$(node_ns "$1")" --json | jq ".counters.$2"; }

# counters NAMES: `name count` for each count of the part's daemons, packets that the kernel could not queue for them included.
counters() {
    local entry prefix node pid dev
    for entry in "${daemons[@]}"; do
        read -r prefix node pid <<<"$entry"
        "$ENOTUN" status --instance "$prefix-$node" --json | jq -r '
            (.counters | to_entries[]), (.io[] | to_entries[]) | "\(.key) \(.value)"'
        for dev in tun0 tun0-w; do
            ip -n "$prefix-$node" -s -j link show $dev | jq -r '.[0].stats64.tx.dropped | "queue_full \(.)"'
        done
    done | awk '{ sum[$1] += $2 } END { for (name in sum) if (sum[name]) print name, sum[name] }' | sort
}

# Packets that enotun drops, or makes the kernel drop, without being told to.
DROPS='refused_full|refused_down|refused_other|not_split|read_errors|queue_full|limit_flows|limit_memory|limit_pieces|limit_exchanges|evicted_held|held_expired|old_timestamps|bad_acknowledgements|bad_checksum|malformed|fragments|frames_rejected'
# What else tells of something that is not as it should be, or of loss.
ODD='conflicting_segments|out_of_window|own_timeouts|frames_resent|resets_ignored|orphans_refused|connections_aborted'

# out_of_order: segments that the kernels of the topology in use got out of order so far. What does not pass a daemon can be, too: a
# veth link reorders when the sender moves to another processor.
out_of_order() {
    local node
    for node in a b; do ns $node nstat -asz TcpExtTCPOFOQueue; done | awk '/OFOQueue/ { sum += $2 } END { print sum + 0 }'
}

# part_end: what the part's daemons dropped; then its topologies go.
part_end() {
    if ((${#daemons[@]})); then
        counters >"$WORK/$part.counters"
        local dropped odd
        dropped=$(grep -E "^($DROPS) " "$WORK/$part.counters" | paste -sd, | sed 's/,/, /g') || true
        odd=$(grep -E "^($ODD) " "$WORK/$part.counters" | paste -sd, | sed 's/,/, /g') || true
        judge 7 "dropped by daemons in $part${dropped:+ ($dropped)}" \
            "$(awk -v re="^($DROPS)$" '$1 ~ re { sum += $2 } END { print sum + 0 }' "$WORK/$part.counters")" at_most 0
        # On a path that loses packets, those behind the gap are out of order by nature.
        if [[ $part != path && -f $WORK/$part.order ]]; then
            judge 7 "out of order from daemons in $part" "$(awk '{ sum += $1 } END { print sum }' "$WORK/$part.order")" at_most 0
        fi
        if [[ -n $odd ]]; then echo "  counted as well: $odd"; fi
    fi
    take_down
    daemons=()
}

# ---- figures ----------------------------------------------------------------------------

# note NAME VALUE: one round's figure.
note() {
    if [[ ! $2 =~ ^[0-9] ]]; then
        echo "bench: nothing was measured for $1: $2" >&2
        return 1
    fi
    echo "$2" >>"$WORK/$1.results"
}
# spread: of the numbers on stdin: median, minimum, maximum.
spread() { sort -n | jq -s -c '{median: .[length / 2 | floor], min: .[0], max: .[-1]}'; }
results() { spread <"$WORK/$1.results"; }
median() { results "$1" | jq .median; }
# ratio X Y: of both figures of each round, three places.
ratio() { paste "$WORK/$1.results" "$WORK/$2.results" | awk '$2 > 0 { printf "%.3f\n", $1 / $2 }' | spread; }

# show TEXT NAME UNIT: one line of a report.
show() {
    local value
    value=$(results "$2")
    jq -nc --arg name "$2" --arg unit "$3" --argjson value "$value" '{($name): ($value + {unit: $unit})}' >>"$WORK/$part.measured"
    jq -r --arg n "$1" --arg u "$3" '"  \($n + " " * (36 - ($n | length))) \(.median) \($u) (\(.min) to \(.max))"' <<<"$value"
}

# judge NUMBER TEXT VALUE at_least|at_most BOUND: target NUMBER of the issue; VALUE is a number or a spread. Its line is printed and kept.
judge() {
    local verdict
    verdict=$(jq -nc --arg number "$1" --arg text "$2" --argjson value "$3" --arg which "$4" --argjson bound "$5" '
        ($value | if type == "object" then . else {median: .} end) as $v
        | {$number, $text, value: $v, $which, $bound,
            met: (if $which == "at_least" then $v.median >= $bound else $v.median <= $bound end)}')
    echo "$verdict" >>"$WORK/targets.json"
    jq -r '
        def pad($n): . + " " * ([$n - length, 0] | max);
        (.value | "\(.median)" + if .min then " (\(.min) to \(.max))" else "" end) as $measured
        | "  \(.number) \(.text | pad(58)) \($measured | pad(24)) \(.which | sub("_"; " ")) \("\(.bound)" | pad(6)) "
        + if .met then "met" else "MISSED" end' <<<"$verdict" | tee -a "$WORK/targets"
}

# try COMMAND...: once more if it fails, for a machine that was busy.
try() { "$@" || { echo "bench: once more: $*" >&2 && "$@"; }; }

# ---- load -------------------------------------------------------------------------------

# busy: processor seconds that the whole machine has used, interrupts included, and those of other people's processes and of what they have
# waited for: whose process group is neither the benchmark's nor the kernel's. daemon_busy NODE...: those of the daemons there.
own_group=$(ps -o pgid= -p $$)
busy() {
    # A process may end while it is looked at.
    cat /proc/stat /proc/[0-9]*/stat 2>/dev/null | awk -v hz="$(getconf CLK_TCK)" -v own=$((own_group)) '
        /^cpu / { all += $2 + $3 + $4 + $7 + $8 }
        /^[0-9]+ \(/ { sub(/^.*\) /, ""); if ($3 != own && $3 != 0) others += $12 + $13 + $14 + $15 }
        END { printf "%.2f %.2f\n", all / hz, others / hz }'
}
# since BEFORE: what the machine has used since then without the others. These are less than before when one has ended for which nobody waited.
since() { awk -v before="$1" '{ split(before, b); others = $2 - b[2]; print $1 - b[1] - (others > 0 ? others : 0) }' < <(busy); }
daemon_busy() {
    local node
    for node in "$@"; do cat "/proc/$(daemon_pid "$node")/stat"; done |
        awk -v hz="$(getconf CLK_TCK)" '{ sum += $14 + $15 } END { print sum / hz }'
}

# Hosts differ in their default, and not all let a namespace have another: each program is told.
congestion=cubic

# stream NAME TO PORT [iperf3 ARGUMENTS...]: Mbit/s and processor seconds per GB are noted under NAME, of all streams in both
# directions together.
stream() {
    local name=$1 to=$2 port=$3 before spent used disorder=
    shift 3
    if [[ -n $(daemon_pid a) && $port != "$UNSELECTED" ]]; then disorder=$(out_of_order); fi
    before=$(busy)
    used=$(daemon_busy_here)
    ns a timeout $((seconds + 20)) iperf3 -c "$to" -p "$port" -t "$seconds" -C $congestion -J "$@" >"$WORK/iperf.json" || {
        jq -r '.error // empty' "$WORK/iperf.json" >&2
        return 1
    }
    spent=$(since "$before")
    if [[ -n $disorder ]]; then echo $(($(out_of_order) - disorder)) >>"$WORK/$part.order"; fi
    jq '.end | [.sum_received, .sum_received_bidir_reverse // empty] | map(.bits_per_second) | add / 1e6 | floor' \
        "$WORK/iperf.json" >"$WORK/rate"
    note "$name" "$(<"$WORK/rate")"
    jq -r '.end | [.sum_received, .sum_received_bidir_reverse // empty] | map(.bytes) | add / 1e9' "$WORK/iperf.json" >"$WORK/gb"
    note "$name-cpu" "$(awk -v spent="$spent" '{ printf "%.2f", spent / $1 }' "$WORK/gb")"
    note "$name-cpu-daemons" "$(awk -v b="$used" -v a="$(daemon_busy_here)" '{ printf "%.2f", (a - b) / $1 }' "$WORK/gb")"
}
daemon_busy_here() { if [[ -n $(daemon_pid a) ]]; then daemon_busy a b; else echo 0; fi; }

# encrypted PORT BEFORE: that a daemon's streams were what they are said to be.
was_encrypted() {
    local now
    now=$(counter a connections_encrypted)
    if ((now <= $1)); then
        echo "bench: a stream was not encrypted" >&2
        return 1
    fi
}

# serve_all NODE PORT...: iperf3 there.
serve_iperf() {
    local node=$1 port
    shift
    for port in "$@"; do
        serve "$node" iperf3 -s -p "$port"
        wait_for 10 listening "$node" "$port"
    done
}

# serve_load NODE PORT...: load there. What closes first is at b, so that the client's ports are free again at once.
serve_load() {
    local node=$1 port what
    shift
    for port in "$@"; do
        case $port in
            "$BYTES" | "$BYTES_PLAIN") what='echo' ;;
            "$HELD"*) what='hold' ;;
            *) what='serve' ;;
        esac
        serve "$node" "$LOAD" $what "$port"
        wait_for 10 listening "$node" "$port"
    done
}

# connect NAME PORT THREADS [COUNTER]: connections per second are noted under NAME; COUNTER of the client's daemon must have counted
# them, where it is given.
connect() {
    local name=$1 port=$2 threads=$3 counter=${4:-} before='' made used
    if [[ -n $counter ]]; then before=$(counter a "$counter"); fi
    used=$(daemon_busy_here)
    ns a "$LOAD" run "$SERVER4" "$port" "$threads" "$seconds" >"$WORK/load.json" || return 1
    made=$(jq .connections "$WORK/load.json")
    if (($(jq .errors "$WORK/load.json") > made / 1000)); then return 1; fi
    if [[ -n $counter ]] && (($(counter a "$counter") - before < made * 95 / 100)); then
        echo "bench: only $(($(counter a "$counter") - before)) of $made connections are $counter" >&2
        return 1
    fi
    note "$name" "$(jq '.connections / .seconds | floor' "$WORK/load.json")"
    note "$name-cpu" "$(awk -v b="$used" -v a="$(daemon_busy_here)" -v n="$made" 'BEGIN { printf "%.0f", (a - b) / n * 1e6 }')"
}
