# shellcheck shell=bash
# What enotun costs those that it does not encrypt: connections that are not selected, and those that are selected here and plain
# because the peer does not answer ENO. Part of scripts/bench.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

for kind in plain enotun through; do
    fresh_topology u$kind pair
    serve_iperf b $IPERF $UNSELECTED $FALLBACK
    serve_load b $PLAIN $RESUMED $ONE_END
done
use uenotun
daemon "$ENOTUN" a ":$IPERF" ":$RESUMED" ":$FALLBACK" ":$ONE_END"
daemon "$ENOTUN" b "local:$IPERF" "local:$RESUMED"
use uthrough
daemon "$THROUGH" a ":$IPERF" ":$RESUMED"
daemon "$THROUGH" b "local:$IPERF" "local:$RESUMED"
ns a "$LOAD" count "$SERVER4" $RESUMED 16 200 >/dev/null

kinds=(plain unselected fallback through)
for ((round = 1; round <= rounds; round++)); do
    line="unselected, round $round:"
    for kind in "${kinds[@]}"; do
        counter='' use=uenotun
        case $kind in
            plain) use=uplain stream=$UNSELECTED port=$PLAIN ;;
            unselected) stream=$UNSELECTED port=$PLAIN ;;
            fallback) stream=$FALLBACK port=$ONE_END counter=connections_plain ;;
            through) use=uthrough stream=$IPERF port=$RESUMED counter=connections_resumed ;;
        esac
        use $use
        try stream "u-$kind" "$SERVER4" $stream
        try connect "u-rate-$kind" $port 16 $counter
        line+="  $kind $(tail -n 1 "$WORK/u-$kind.results") Mbit/s $(tail -n 1 "$WORK/u-rate-$kind.results") /s"
    done
    say "$line"
done

declare -A title=([plain]="no enotun" [unselected]="not selected" [fallback]="plain, selected at one end" [through]="enotun's pass-through, resumed")
echo "one stream, and connections of 16 clients"
for kind in "${kinds[@]}"; do show "${title[$kind]}" "u-$kind" Mbit/s; done
for kind in "${kinds[@]}"; do show "${title[$kind]}" "u-rate-$kind" /s; done
echo "targets"
judge 5 "unselected to no enotun, one stream" "$(ratio u-unselected u-plain)" at_least 0.98
judge 5 "unselected to no enotun, connections/s" "$(ratio u-rate-unselected u-rate-plain)" at_least 0.98
judge 5 "plain by fallback to the pass-through, one stream" "$(ratio u-fallback u-through)" at_least 0.9
judge 5 "plain by fallback to the pass-through, connections/s" "$(ratio u-rate-fallback u-rate-through)" at_least 0.9
