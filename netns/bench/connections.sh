# shellcheck shell=bash
# Connections per second: plain TCP, resumed sessions, fresh key exchanges. Part of scripts/bench.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

PLAIN=7100 RESUMED=7101 FRESH=7102
THREADS=4

# load_servers: at b, which closes first, so that the client's ports are free again at once.
load_servers() {
    local port
    for port in $PLAIN $RESUMED $FRESH; do
        serve b "$LOAD" serve $port
        wait_for 10 listening b $port
    done
    ns a sysctl -qw net.ipv4.ip_local_port_range="10000 65000"
}

fresh_topology cplain pair
load_servers
fresh_topology cenotun pair
load_servers
start_daemon a ":$RESUMED" ":$FRESH,no-resume"
start_daemon b "local:$RESUMED" "local:$FRESH,no-resume"

# cpu NODE: microseconds of processor time that the daemon there has used. It does not depend on what else is running.
cpu() { awk '{ print ($14 + $15) * 1000000 / '"$(getconf CLK_TCK)"' }' "/proc/${DAEMON_PID[$1]}/stat"; }

# rate KIND: connections per second; what they were is looked up in the daemon's counters.
rate() {
    local port=$PLAIN before now made counter=connections_encrypted
    case $1 in
        plain) PREFIX=${run}cplain ;;
        unselected) PREFIX=${run}cenotun ;;
        resumed) PREFIX=${run}cenotun port=$RESUMED counter=connections_resumed ;;
        fresh) PREFIX=${run}cenotun port=$FRESH ;;
    esac
    local used_a used_b
    if [[ $1 == resumed || $1 == fresh ]]; then before=$(counter a $counter) used_a=$(cpu a) used_b=$(cpu b); fi
    ns a "$LOAD" run "$SERVER4" $port $THREADS "$seconds" >"$WORK/load.json" || return 1
    made=$(jq .connections "$WORK/load.json")
    if [[ -n ${before:-} ]]; then
        now=$(counter a $counter)
        if ((now - before < made * 95 / 100)); then
            echo "bench: only $((now - before)) of $made connections were $1" >&2
            return 1
        fi
        note "cpu-$1-client" $((($(cpu a) - used_a) / made))
        note "cpu-$1-server" $((($(cpu b) - used_b) / made))
    fi
    if (($(jq .errors "$WORK/load.json") > made / 1000)); then return 1; fi
    jq '.connections / .seconds | floor' "$WORK/load.json"
}

# Sessions to resume, and everything warm.
PREFIX=${run}cenotun
ns a "$LOAD" count "$SERVER4" $RESUMED 1 50 >/dev/null
kinds=(plain resumed fresh unselected)

for ((round = 1; round <= rounds; round++)); do
    line="connections, round $round:"
    for kind in "${kinds[@]}"; do
        value=$(rate "$kind")
        note "rate-$kind" "$value"
        line+="  $kind $value"
    done
    echo "$line"
done

{
    echo "connections, one byte each way, $THREADS threads, median (min to max) of $rounds rounds of $seconds s"
    for kind in "${kinds[@]}"; do show "$kind" "rate-$kind" /s; done
    target "resumed to plain" "$(ratio rate-resumed rate-plain)" "at least 0.5"
    for kind in resumed fresh; do
        for side in client server; do show "$kind, daemon's CPU, $side" "cpu-$kind-$side" us; done
    done
    target "fresh to plain" "$(ratio rate-fresh rate-plain)" "no target"
    target "unselected to plain" "$(ratio rate-unselected rate-plain)" "no target"
} >"$WORK/connections.report"
{
    for kind in "${kinds[@]}"; do
        jq -n --arg kind "$kind" --argjson value "$(results "rate-$kind")" '{($kind): $value}'
    done
    for name in cpu-{resumed,fresh}-{client,server}; do
        jq -n --arg name "${name//-/_}_us" --argjson value "$(results "$name")" '{($name): $value}'
    done
} | jq -s '{unit: "connections/s"} + add' >"$WORK/connections.json"
