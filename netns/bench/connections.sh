# shellcheck shell=bash
# Connections per second: plain TCP, resumed sessions, fresh key exchanges. Part of scripts/bench.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

# Clients that each open one connection after the other. Few of them wait more than they work: MANY show the rate, which is the target's.
FEW=4 MANY=16

fresh_topology cplain pair
serve_load b $PLAIN
fresh_topology cenotun pair
serve_load b $RESUMED $FRESH
daemon "$ENOTUN" a ":$RESUMED" ":$FRESH,no-resume"
daemon "$ENOTUN" b "local:$RESUMED" "local:$FRESH,no-resume"
# Sessions to resume, and everything warm.
ns a "$LOAD" count "$SERVER4" $RESUMED $MANY 200 >/dev/null

kinds=(plain resumed fresh)
for ((round = 1; round <= rounds; round++)); do
    line="connections, round $round:"
    for threads in $FEW $MANY; do
        for kind in "${kinds[@]}"; do
            use cenotun
            case $kind in
                plain) use cplain; port=$PLAIN counter='' ;;
                resumed) port=$RESUMED counter=connections_resumed ;;
                fresh) port=$FRESH counter=connections_encrypted ;;
            esac
            try connect "rate-$threads-$kind" $port $threads $counter
            line+="  $kind, $threads threads: $(tail -n 1 "$WORK/rate-$threads-$kind.results")"
        done
    done
    say "$line"
done

for threads in $FEW $MANY; do
    echo "connections, one byte each way, $threads clients"
    for kind in "${kinds[@]}"; do show "$kind" "rate-$threads-$kind" /s; done
    for kind in resumed fresh; do show "$kind, both daemons' processor time" "rate-$threads-$kind-cpu" us; done
done
echo "targets ($MANY clients)"
judge 3 "resumed connections/s" "$(results rate-$MANY-resumed)" at_least 6000
judge 3 "resumed connections/s to plain TCP" "$(ratio rate-$MANY-resumed rate-$MANY-plain)" at_least 0.5
judge 3 "fresh connections/s" "$(results rate-$MANY-fresh)" at_least 3500
