# shellcheck shell=bash
# Time from connect to the first byte back: on a link, and over a path of 20 ms, where it shows the round trips. Part of
# scripts/bench.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

PLAIN=7100 RESUMED=7101 FRESH=7102
RTT=20
# Plain TCP goes through the same topology; the daemons do not select its port.
fresh_topology llink pair
links=(link)
# shellcheck disable=SC2034 # of the topology
LINK="--delay $((RTT / 2))"
for path in link far; do
    if [[ $path == far ]]; then
        fresh_topology lfar emulated
        links+=(far)
    fi
    for port in $PLAIN $RESUMED $FRESH; do
        serve b "$LOAD" serve $port
        wait_for 10 listening b $port
    done
    start_daemon a ":$RESUMED" ":$FRESH,no-resume"
    start_daemon b "local:$RESUMED" "local:$FRESH,no-resume"
    # A session to resume.
    ns a "$LOAD" count "$SERVER4" $RESUMED 1 3 >/dev/null
done

# latency PATH KIND: connections one after the other; the medians are noted, in microseconds.
latency() {
    local port number=200 before now counter=connections_encrypted topology=pair
    if [[ $1 == far ]]; then number=20 topology=emulated; fi
    case $2 in
        plain) port=$PLAIN ;;
        resumed) port=$RESUMED counter=connections_resumed ;;
        fresh) port=$FRESH ;;
    esac
    PREFIX=${run}l$1
    load_topology $topology
    before=$(counter a $counter)
    ns a "$LOAD" count "$SERVER4" "$port" 1 $number >"$WORK/load.json" || return 1
    now=$(counter a $counter)
    if [[ $2 != plain ]] && ((now - before < number)); then
        echo "bench: only $((now - before)) of $number connections were $2" >&2
        return 1
    fi
    note "connect-$1-$2" "$(jq .connect_us.median "$WORK/load.json")"
    note "answer-$1-$2" "$(jq .answer_us.median "$WORK/load.json")"
}

kinds=(plain resumed fresh)
for ((round = 1; round <= rounds; round++)); do
    for path in "${links[@]}"; do
        for kind in "${kinds[@]}"; do latency "$path" "$kind"; done
    done
    echo "latency, round $round: done"
done

# trips KIND: round trips until the first byte is back, in tenths; the fastest round, for waiting is no round trip.
trips() { results "answer-far-$1" | jq --argjson rtt "$RTT" '.min / 100 / $rtt | round / 10'; }
{
    for path in "${links[@]}"; do
        if [[ $path == link ]]; then echo "on a link, medians of $rounds rounds of 200 connections"; fi
        if [[ $path == far ]]; then echo "over $RTT ms, medians of $rounds rounds of 20 connections"; fi
        for kind in "${kinds[@]}"; do show "$kind, connected" "connect-$path-$kind" us; done
        for kind in "${kinds[@]}"; do show "$kind, first byte back" "answer-$path-$kind" us; done
    done
    target "round trips to the first byte, plain" "$(trips plain)" "2 by nature"
    target "round trips to the first byte, resumed" "$(trips resumed)" "2, as plain TCP"
    target "round trips to the first byte, fresh" "$(trips fresh)" "at most 3, one more"
} >"$WORK/latency.report"
for path in "${links[@]}"; do
    for kind in "${kinds[@]}"; do
        jq -n --arg name "$path-$kind" --argjson connect "$(results "connect-$path-$kind")" \
            --argjson answer "$(results "answer-$path-$kind")" '{($name): {connect: $connect, answer: $answer}}'
    done
done | jq -s --argjson rtt $RTT '{unit: "us", rtt_ms: $rtt} + add' >"$WORK/latency.json"
