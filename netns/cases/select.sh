#!/usr/bin/env bash
# What is selected and what is not: ports, local:PORT, enable and disable; traffic that is not
# selected, and what is not TCP, is not touched.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up pair
ENDS='--expect plain'
plain_mode || ENDS='--expect encrypted'
for port in 7777 7778 7779; do serve b "$PYTHON" "$NETNS_DIR/tools/tcp.py" echo $port; done
for port in 7777 7778 7779; do wait_for 10 listening b $port; done
start_daemon a ':7777' '10.1.0.2:7778'
start_daemon b local:7777 local:7778
me=$(node_ns a) peer=$(node_ns b)

# seen PORT ADDRESS EXPECT: one exchange; what the wire shows of it.
seen() {
    local file=$WORK/$RANDOM.pcap
    capture_start "$file" a eth0
    ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$2" "$1" 1 5000 || return 1
    capture_stop "$file"
    # shellcheck disable=SC2086
    wire "$file" --port "$1" $3
}
no_eno() { ! tcpdump -nr "$1" tcp 2>/dev/null | grep -i 'unknown-69\|option 69'; }

check "a port of any address, IPv4: selected" seen 7777 "$SERVER4" "$ENDS"
check "a port of any address, IPv6: selected" seen 7777 "$SERVER6" "$ENDS"
check "a port of one address: selected" seen 7778 "$SERVER4" "$ENDS"
check "the same port of another address: not" seen 7778 "$SERVER6" "--expect plain"
capture_start "$WORK/other.pcap" a eth0
check "another port: not" seen 7779 "$SERVER4" "--expect plain"
capture_stop "$WORK/other.pcap"
check "not even an option in its SYN" no_eno "$WORK/other.pcap"
check_enotun "enable at a" "$ENOTUN" enable --instance "$me" "10.1.0.0/24:7779"
check_enotun "enable at b" "$ENOTUN" enable --instance "$peer" local:7779
check "then it is selected" seen 7779 "$SERVER4" "$ENDS"
check_enotun "disable" "$ENOTUN" disable --instance "$me" "10.1.0.0/24:7779"
check "then it is not" seen 7779 "$SERVER4" "--expect plain"
stop_daemon a
stop_daemon b
start_daemon a 0.0.0.0/0 ::/0
start_daemon b 0.0.0.0/0 ::/0
for target in "$SERVER4" "$SERVER6"; do
    check "everything selected: ping $target, small and large" \
        eval "ns a ping -q -c1 -W2 $target && ns a ping -q -c1 -W2 -s 4000 $target"
done
check "everything selected: UDP" eval '
    ip netns exec "$PREFIX-b" timeout 20 "$PYTHON" -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"0.0.0.0\", 5353))
d, a = s.recvfrom(9000); s.sendto(d, a)" &
    wait_for 5 eval "ns b ss -Hlun sport = :5353 | grep -q ."
    ns a timeout 10 "$PYTHON" -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.sendto(b\"u\" * 4000, (\"$SERVER4\", 5353)); assert s.recv(9000) == b\"u\" * 4000"'
stop_daemon a
stop_daemon b

# IPv6 link-local addresses cannot be diverted: where they are required they are refused, and what is open goes on.
link_local=$(ns b ip -6 -o addr show dev eth0 scope link | awk '{print $4}' | cut -d/ -f1)%eth0
opens() { ns a timeout 5 "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$link_local" "$1" 1 100; }
mkfifo "$WORK/more"
ns a "$PYTHON" -c '
import socket, sys
s = socket.create_connection((sys.argv[1], 7777), 5)
print("open", flush=True)
sys.stdin.readline()
s.settimeout(5); s.sendall(b"more"); print(s.recv(9).decode(), flush=True)' "$link_local" <"$WORK/more" >"$WORK/open" &
exec 3>"$WORK/more"
wait_for 5 grep -q open "$WORK/open"
start_daemon b --policy required local:7777
plain_mode || {
    check "a required port, link-local: refused" fails opens 7777
    check "another port, link-local: not touched" opens 7778
    echo >&3
    check "a link-local connection from before goes on" wait_for 5 grep -q more "$WORK/open"
    stop_daemon b
    start_daemon a --policy required ::/0
    check "everything required, link-local: refused" fails opens 7778
    stop_daemon a
    check "nothing is refused any more" opens 7777
}
exec 3>&-
