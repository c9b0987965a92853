# shellcheck shell=bash
# One more stream and connection beside many that are open and idle, the memory of these, and many selectors. Part of scripts/bench.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

IFS=, read -ra numbers <<<"0,$idle"
selected=(1 100 10000)
# Connections of one process, which may not have more descriptors than the machine lets it.
EACH=$(($(ulimit -Hn) * 3 / 4))

scale_servers() {
    serve_iperf b $IPERF $UNSELECTED
    serve_load b $RESUMED
}

# Buffers, pools and caches are the daemon's, not the connections'; and a session is there to resume.
warm_up() {
    ns a iperf3 -c "$SERVER4" -p $IPERF -t 1 >/dev/null
    ns a "$LOAD" count "$SERVER4" $RESUMED 16 500 >/dev/null
}

resident() { awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$(daemon_pid "$1")/status"; }

declare -A each_a=() each_b=() idle_cpu=()
for number in "${numbers[@]}"; do
    fresh_topology "f$number" pair
    scale_servers
    daemon "$ENOTUN" a ":$IPERF" ":$RESUMED" ":${HELD}0-${HELD}9"
    daemon "$ENOTUN" b "local:$IPERF" "local:$RESUMED" "local:${HELD}0-${HELD}9"
    warm_up
    if ((number == 0)); then continue; fi
    say "opening $number connections"
    # What is free is given back to the kernel when nothing comes for a second.
    sleep 2
    before_a=$(resident a) before_b=$(resident b)
    mkfifo "$WORK/idle-$number.stop"
    for ((opened = 0, port = HELD * 10; opened < number; opened += EACH, port++)); do
        serve_load b $port
        share=$((number - opened < EACH ? number - opened : EACH))
        # They are kept until their namespace goes.
        ip netns exec "$PREFIX-a" "$LOAD" idle "$SERVER4" $port $share <>"$WORK/idle-$number.stop" >"$WORK/idle-$port.out" 2>"$WORK/idle-$port.log" &
        disown $!
        wait_for 180 file_has "$WORK/idle-$port.out" open
        rm "$WORK/idle-$port.out"
    done
    # What they need no more when idle is given back after a while; measured before they are looked at: a list of thousands takes memory of
    # its own.
    sleep 2
    each_a[$number]=$((($(resident a) - before_a) / number))
    each_b[$number]=$((($(resident b) - before_b) / number))
    before=$(daemon_busy a b)
    sleep 2
    idle_cpu[$number]=$(awk -v b="$before" -v a="$(daemon_busy a b)" 'BEGIN { printf "%.1f", (a - b) / 2 * 100 }')
    # Not from what is listed as flows: that takes memory as well.
    if (($(counter a connections_encrypted) < number || $(counter b connections_encrypted) < number)); then
        echo "bench: not all of $number connections are encrypted" >&2
        exit 1
    fi
done

# So many networks, that of the link among them. What is not selected goes between two other addresses of the same hosts.
for number in "${selected[@]}"; do
    fresh_topology "x$number" pair
    addr a eth0 10.1.1.1/24
    addr b eth0 10.1.1.2/24
    scale_servers
    {
        echo '[selectors]'
        echo 'opportunistic = ["10.1.0.0/24",'
        awk -v n="$number" 'BEGIN { for (i = 1; i < n; i++) printf "\"172.%d.%d.%d/30\",\n", 16 + i / 8192, i / 32 % 256, i % 32 * 8 }'
        echo ']'
    } >"$WORK/x$number.toml"
    daemon "$ENOTUN" a --config "$WORK/x$number.toml"
    daemon "$ENOTUN" b --config "$WORK/x$number.toml"
    warm_up
done

for ((round = 1; round <= rounds; round++)); do
    line="scale, round $round:"
    for it in "${numbers[@]/#/f}" "${selected[@]/#/x}"; do
        use "$it"
        before=$(counter a connections_encrypted)
        try stream "$it" "$SERVER4" $IPERF
        was_encrypted "$before"
        line+="  $it $(<"$WORK/rate")"
        try connect "rate-$it" $RESUMED 16 connections_encrypted
        if [[ $it == x* ]]; then try stream "u-$it" 10.1.1.2 $UNSELECTED; fi
    done
    say "$line"
done

for number in "${numbers[@]}"; do
    echo "beside $number idle connections"
    show "one more stream" "f$number" Mbit/s
    show "connections" "rate-f$number" /s
    if ((number)); then
        echo "  memory of each, client and server      ${each_a[$number]} and ${each_b[$number]} bytes"
        echo "  both daemons, all of them idle         ${idle_cpu[$number]} % of a processor"
    fi
done
for number in "${selected[@]}"; do
    echo "with $number prefixes selected"
    show "one stream" "x$number" Mbit/s
    show "connections" "rate-x$number" /s
    show "one stream, not selected" "u-x$number" Mbit/s
done
echo "targets"
for number in "${numbers[@]:1}"; do
    judge 6 "one stream beside $number idle to none" "$(ratio "f$number" f0)" at_least 0.9
    judge 6 "connections/s beside $number idle to none" "$(ratio "rate-f$number" rate-f0)" at_least 0.9
    judge 6 "bytes for each of $number idle, client" "${each_a[$number]}" at_most 2048
    judge 6 "bytes for each of $number idle, server" "${each_b[$number]}" at_most 2048
done
for number in "${selected[@]:1}"; do
    judge 6 "one stream, $number prefixes to 1" "$(ratio "x$number" x1)" at_least 0.9
    judge 6 "connections/s, $number prefixes to 1" "$(ratio "rate-x$number" rate-x1)" at_least 0.9
    judge 6 "one unselected stream, $number prefixes to 1" "$(ratio "u-x$number" u-x1)" at_least 0.9
done
