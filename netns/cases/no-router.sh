#!/usr/bin/env bash
# enotun needs forwarding, but never makes a host forward what it did not forward before.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up pair
ip netns add "$PREFIX-c"
link a eth1 c eth0
addr a eth1 10.7.0.1/24 fd00:7::1/64
addr c eth0 10.7.0.2/24 fd00:7::2/64
gateway c 10.7.0.1 fd00:7::1
gateway b 10.1.0.1 fd00:1::1
wait_for 10 ns c ping -q -c1 -W1 10.7.0.1
wait_for 10 ns c ping -q -c1 -W1 fd00:7::1
start_echo b
start_daemon a 0.0.0.0/0 ::/0
start_daemon b
hold_open a "$SERVER4" held
check "a connection of its own" hold_says held text
check_enotun "is encrypted" flows_are a "$ECHO" encrypted
for target in "$SERVER4" "$SERVER6"; do
    check "ping from c to $target is not forwarded" fails ns c ping -q -c2 -i 0.2 -W1 "$target"
    check "TCP from c to $target is not forwarded" \
        fails ns c timeout 4 "$PYTHON" "$NETNS_DIR/tools/tcp.py" errno "$target" "$ECHO"
done
stop_daemon a
forwarding a
start_daemon a 10.1.0.0/24 fd00:1::/64
for target in "$SERVER4" "$SERVER6"; do
    check "what was forwarded before still is: ping to $target" wait_for 10 ns c ping -q -c1 -W1 "$target"
    check "and TCP to $target" ns c timeout 10 "$PYTHON" "$NETNS_DIR/tools/tcp.py" errno "$target" "$ECHO"
done
