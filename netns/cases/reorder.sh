#!/usr/bin/env bash
# A link with delay, jitter, reordering, duplicates, loss, and a slow one with a short queue:
# everything arrives intact.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

links=(
    "--delay 20 --jitter 5"
    "--delay 10 --reorder 2"
    "--delay 5 --reorder 20 --duplicate 2"
    "--delay 10 --reorder 2 --loss 1 --duplicate 1"
    "--delay 5 --rate 50 --queue 50"
)
for number in "${!links[@]}"; do
    LINK=${links[number]}
    topology_up emulated
    start_daemons
    start_nginx b
    start_sshd b
    start_redis b
    start_iperf b
    start_echo b
    size=20000000
    if [[ $LINK == *--loss* ]]; then size=100000; fi
    capture_start "$WORK/wire$number.pcap" a eth0 port 80 or port 9
    for family in 4 6; do
        server=SERVER$family
        server=${!server}
        check "$LINK: IPv$family: curl gets $size bytes" fetch a "$server" $size
    done
    capture_stop "$WORK/wire$number.pcap"
    # A short queue loses SYNs when too many come at once, and after three lost ones opportunistic connections go plain.
    count=300
    if [[ $LINK == *--queue* ]]; then count=40; fi
    check "$LINK: $count connections at once" \
        ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$SERVER4" "$ECHO" $count 10000
    check "$LINK: ssh runs a command" ssh_says a "$SERVER6"
    check "$LINK: a redis session" redis_session a "$SERVER4"
    check "$LINK: iperf3 both ways at once" iperf a "$SERVER4" 1 --bidir
    hold_open a "$SERVER4" "held$number"
    check "$LINK: an interactive connection" hold_says "held$number" "$MARKER"
    check_enotun "$LINK: it is encrypted" flows_are a "$ECHO" encrypted
    check_enotun "$LINK: resent bytes are the same bytes, and no plaintext" \
        wire "$WORK/wire$number.pcap" --port 80 --expect encrypted
    check "$LINK: the daemons still run" eval 'daemon_alive a && daemon_alive b'
    hold_close "held$number"
    topology_down
done
