# shellcheck shell=bash
# Memory: the daemon's resident size before and after connections that then do nothing. Part of scripts/bench.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

fresh_topology idle pair
start_daemon a ":$ECHO"
start_daemon b "local:$ECHO"
start_echo b
resident() { awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/${DAEMON_PID[$1]}/status"; }
mkfifo "$WORK/idle.stop"
echo "opening $connections idle connections"
before_a=$(resident a) before_b=$(resident b)
ip netns exec "$PREFIX-a" "$PYTHON" "$NETNS_DIR/tools/tcp.py" idle "$SERVER4" "$ECHO" "$connections" \
    <"$WORK/idle.stop" >"$WORK/idle.out" &
exec 8>"$WORK/idle.stop"
wait_for 120 file_has "$WORK/idle.out" open
# Measured before the connections are looked at: a list of thousands takes memory of its own.
each_a=$((($(resident a) - before_a) / connections)) each_b=$((($(resident b) - before_b) / connections))
count() { flows "$1" | jq '[.[] | select(.state == "encrypted")] | length'; }
for node in a b; do
    if (($(count $node) < connections)); then
        echo "bench: only $(count $node) of $connections connections are encrypted at $node" >&2
        exit 1
    fi
done
exec 8>&-

{
    echo "idle connections: $connections"
    target "bytes each, client" $each_a "at most 4096"
    target "bytes each, server" $each_b "at most 4096"
} >"$WORK/idle.report"
jq -n --argjson n "$connections" --argjson a $each_a --argjson b $each_b \
    '{connections: $n, bytes_each_client: $a, bytes_each_server: $b}' >"$WORK/idle.json"
