# shellcheck shell=bash
# Goodput over an emulated path of 20 ms and 500 Mbit/s that loses packets. Part of scripts/bench.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

# One stream loses so few packets in some seconds that luck decides; of several, none of which gets near the rate, the sum tells more.
STREAMS=8
losses=(0 0.1 1)
for loss in "${losses[@]}"; do
    LINK="--delay 10 --rate 500 --loss $loss"
    for kind in plain enotun; do
        fresh_topology "p$kind$loss" emulated
        serve_iperf b $IPERF
        if [[ $kind == enotun ]]; then
            daemon "$ENOTUN" a ":$IPERF"
            daemon "$ENOTUN" b "local:$IPERF"
        fi
    done
done
long=$((seconds * 2 > 5 ? seconds * 2 : 5))

path() {
    local seconds=$long loss=$1 kind=$2 before='' streams=$STREAMS
    if [[ $loss == 0 ]]; then streams=1; fi
    use "p$kind$loss"
    load_topology emulated
    if [[ $kind == enotun ]]; then before=$(counter a connections_encrypted); fi
    # Without what is slow start: it has nothing to do with loss.
    try stream "path-$loss-$kind" "$SERVER4" $IPERF -P $streams -O 2
    if [[ -n $before ]]; then was_encrypted "$before"; fi
    line+="  $kind, $loss %: $(<"$WORK/rate")"
}
for ((round = 1; round <= rounds; round++)); do
    line="path, round $round:"
    for loss in "${losses[@]}"; do
        for kind in plain enotun; do path "$loss" $kind; done
    done
    say "$line"
done

echo "20 ms, 500 Mbit/s, $STREAMS streams of $long s, cubic"
for loss in "${losses[@]}"; do
    for kind in plain enotun; do show "$kind, $loss % lost" "path-$loss-$kind" Mbit/s; done
done
echo "targets"
for loss in "${losses[@]}"; do
    text="to plain TCP, 20 ms, 500 Mbit/s, $loss % loss"
    if [[ $loss == 0 ]]; then
        echo "  $text: $(ratio path-0-enotun path-0-plain | jq .median), no target; it shows that the emulator keeps up"
    else
        judge 2 "$text" "$(ratio "path-$loss-enotun" "path-$loss-plain")" at_least 0.95
    fi
done
