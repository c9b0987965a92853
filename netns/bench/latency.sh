# shellcheck shell=bash
# Time from connect to the first byte back: on a link, and over a path of 20 ms, where it shows the round trips. Round trips of
# one byte on an open connection. Part of scripts/bench.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

RTT=20
# Plain TCP goes through the same topology; the daemons do not select its port.
fresh_topology llink pair
LINK="--delay $((RTT / 2))"
fresh_topology lfar emulated
for path in link far; do
    use l$path
    if [[ $path == link ]]; then load_topology pair; else load_topology emulated; fi
    serve_load b $PLAIN $RESUMED $FRESH $BYTES $BYTES_PLAIN
    daemon "$ENOTUN" a ":$RESUMED" ":$BYTES" ":$FRESH,no-resume"
    daemon "$ENOTUN" b "local:$RESUMED" "local:$BYTES" "local:$FRESH,no-resume"
    # A session to resume.
    ns a "$LOAD" count "$SERVER4" $RESUMED 1 3 >/dev/null
done

# latency PATH KIND: connections one after the other; the medians are noted, in microseconds.
latency() {
    local port number=400 before counter=connections_encrypted
    use "l$1"
    if [[ $1 == far ]]; then number=20; load_topology emulated; else load_topology pair; fi
    case $2 in
        plain) port=$PLAIN ;;
        resumed) port=$RESUMED counter=connections_resumed ;;
        fresh) port=$FRESH ;;
    esac
    before=$(counter a $counter)
    ns a "$LOAD" count "$SERVER4" "$port" 1 $number >"$WORK/load.json" || return 1
    if [[ $2 != plain ]] && (($(counter a $counter) - before < number)); then
        echo "bench: not all of $number connections were $2" >&2
        return 1
    fi
    note "connect-$1-$2" "$(jq .connect_us.median "$WORK/load.json")"
    note "answer-$1-$2" "$(jq .answer_us.median "$WORK/load.json")"
}

# bytes KIND PORT: round trips of one byte.
bytes() {
    use llink
    load_topology pair
    ns a "$LOAD" rtt "$SERVER4" "$2" 20000 >"$WORK/load.json" || return 1
    note "rtt-$1" "$(jq .rtt_us.median "$WORK/load.json")"
    note "rtt-p99-$1" "$(jq .rtt_us.p99 "$WORK/load.json")"
}

kinds=(plain resumed fresh)
for ((round = 1; round <= rounds; round++)); do
    for path in link far; do
        for kind in "${kinds[@]}"; do try latency $path "$kind"; done
    done
    try bytes plain $BYTES_PLAIN
    before=$(counter a connections_encrypted)
    try bytes enotun $BYTES
    was_encrypted "$before"
    say "latency, round $round: round trip of a byte, plain $(tail -n 1 "$WORK/rtt-plain.results") us, enotun $(tail -n 1 "$WORK/rtt-enotun.results") us"
done

# trips KIND: round trips until the first byte is back; of the fastest round, for waiting is no round trip.
trips() { results "answer-far-$1" | jq --argjson rtt "$RTT" '.min / 1000 / $rtt | round'; }
for path in link far; do
    if [[ $path == link ]]; then echo "on a link, medians of 400 connections"; else echo "over $RTT ms, medians of 20 connections"; fi
    for kind in "${kinds[@]}"; do show "$kind, connected" "connect-$path-$kind" us; done
    for kind in "${kinds[@]}"; do show "$kind, first byte back" "answer-$path-$kind" us; done
done
echo "a byte there and back on an open connection, 20,000 times"
for kind in plain enotun; do
    show "$kind, median" "rtt-$kind" us
    show "$kind, 99th percentile" "rtt-p99-$kind" us
done
echo "targets"
judge 3 "set-up to plain TCP: connected, resumed" "$(ratio connect-link-resumed connect-link-plain)" at_most 1.5
judge 3 "set-up to plain TCP: first byte back, resumed" "$(ratio answer-link-resumed answer-link-plain)" at_most 1.5
judge 3 "round trips to the first byte over $RTT ms, resumed" "$(trips resumed)" at_most "$(trips plain)"
judge 3 "round trips to the first byte over $RTT ms, fresh" "$(trips fresh)" at_most $(($(trips plain) + 1))
judge 4 "a byte there and back to plain TCP, p50" "$(ratio rtt-enotun rtt-plain)" at_most 1.35
judge 4 "a byte there and back to plain TCP, p99" "$(ratio rtt-p99-enotun rtt-p99-plain)" at_most 1.5
