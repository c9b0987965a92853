# shellcheck shell=bash
# The regression guard, scripts/bench --quick: ratios, which do not depend much on the machine, of the best of several rounds, which
# depend least on who else uses it: what has become slower is slow in all of them. The bounds leave room for a busy machine all the same;
# when something has become faster, make them closer. They are not the targets; those are in the other parts.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

rounds=6 seconds=2
for kind in plain enotun through; do
    fresh_topology q$kind pair
    serve_iperf b $IPERF
    serve_load b $RESUMED $FRESH $BYTES
    if [[ $kind == plain ]]; then continue; fi
    program=$ENOTUN
    if [[ $kind == through ]]; then program=$THROUGH; fi
    daemon "$program" a ":$IPERF" ":$RESUMED" ":$BYTES" ":$FRESH,no-resume"
    daemon "$program" b "local:$IPERF" "local:$RESUMED" "local:$BYTES" "local:$FRESH,no-resume"
    ns a "$LOAD" count "$SERVER4" $RESUMED 16 200 >/dev/null
done

quick() {
    local counted='' before=0
    use "q$1"
    if [[ $1 == enotun ]]; then counted=connections_resumed before=$(counter a connections_encrypted); fi
    try stream "q-$1" "$SERVER4" $IPERF
    if [[ $1 == through ]]; then return; fi
    if [[ $1 == enotun ]]; then was_encrypted "$before"; fi
    try connect "q-resumed-$1" $RESUMED 16 $counted
    ns a "$LOAD" rtt "$SERVER4" $BYTES 5000 >"$WORK/load.json"
    note "q-rtt-$1" "$(jq .rtt_us.median "$WORK/load.json")"
    if [[ $1 == enotun ]]; then try connect q-fresh-enotun $FRESH 16 connections_encrypted; fi
}
for ((round = 1; round <= rounds; round++)); do
    for kind in plain enotun through; do quick $kind; done
    say "quick, round $round of $rounds: done"
done

# best max|min X Y: the ratio of the best of X to the best of Y.
best() { jq -n --arg which "$1" --argjson x "$(results "$2")" --argjson y "$(results "$3")" '1000 * $x[$which] / $y[$which] | round / 1000'; }

for kind in plain through enotun; do
    show "$kind, one stream" "q-$kind" Mbit/s
    show "$kind, one stream, processors" "q-$kind-cpu" s/GB
done
show "plain, connections" q-resumed-plain /s
show "resumed" q-resumed-enotun /s
show "fresh" q-fresh-enotun /s
for kind in plain enotun; do show "$kind, a byte there and back" "q-rtt-$kind" us; done
echo "bounds, best of $rounds rounds to best of $rounds rounds"
judge - "one stream to plain TCP" "$(best max q-enotun q-plain)" at_least 0.1
judge - "one stream to enotun's pass-through" "$(best max q-enotun q-through)" at_least 0.5
judge - "processors for a stream to plain TCP's" "$(best min q-enotun-cpu q-plain-cpu)" at_most 12
judge - "resumed connections/s to plain TCP" "$(best max q-resumed-enotun q-resumed-plain)" at_least 0.1
judge - "fresh to resumed connections/s" "$(best max q-fresh-enotun q-resumed-enotun)" at_least 0.4
judge - "a byte there and back to plain TCP" "$(best min q-rtt-enotun q-rtt-plain)" at_most 8
