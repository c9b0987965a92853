#!/usr/bin/env bash
# A host with two links and several addresses on each: the kernel chooses source addresses as it
# does without enotun, and any address can be bound.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up pair
link a eth1 b eth1
addr a eth1 10.8.0.1/24 10.8.0.11/24 fd00:8::1/64
addr b eth1 10.8.0.2/24 fd00:8::2/64
addr a eth0 10.1.0.11/24 fd00:1::11/64
ns a ip route add 10.9.0.0/24 via 10.8.0.2 src 10.8.0.11
ns b ip addr add 10.9.0.2/24 dev lo
ns a ip route add default via 10.1.0.2
wait_for 10 ns a ping -q -c1 -W1 10.8.0.2
wait_for 10 ns a ping -q -c1 -W1 fd00:8::2
start_echo b

targets=(10.1.0.2 10.8.0.2 10.9.0.2 fd00:1::2 fd00:8::2)
source_of() { ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" source "$1" "$ECHO"; }
declare -A before=()
for target in "${targets[@]}"; do before[$target]=$(source_of "$target"); done

start_daemon a 0.0.0.0/0 ::/0
start_daemon b 0.0.0.0/0 ::/0
for target in "${targets[@]}"; do
    check "to $target the source is ${before[$target]}, as without enotun" \
        eval "[[ \$(source_of $target) == ${before[$target]} ]]"
    name=held-${target//:/-}
    hold_open a "$target" "$name"
    check "to $target: a connection" hold_says "$name" "$MARKER"
done
check_enotun "all are encrypted at a" flows_are a "$ECHO" encrypted
check_enotun "all are encrypted at b" flows_are b "$ECHO" encrypted
# Weak and strong cases: an address of the link that is used, and of the other link.
for pair in 10.1.0.2=10.1.0.11 10.8.0.2=10.8.0.11 10.8.0.2=10.1.0.1 fd00:1::2=fd00:1::11; do
    target=${pair%=*} local=${pair#*=}
    name=bound-${pair//[:=]/-}
    hold_open a "$target" "$name" "$local"
    check "from $local to $target: a connection" hold_says "$name" "$MARKER"
    check "from $local to $target: the address is kept" file_has "$WORK/$name.held" "open from $local"
done
check_enotun "all are encrypted at a" flows_are a "$ECHO" encrypted
check "a connection to an own address stays on loopback" \
    eval 'serve a "$PYTHON" "$NETNS_DIR/tools/tcp.py" echo "$ECHO"; wait_for 5 listening a "$ECHO"; [[ $(ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" source 10.1.0.1 "$ECHO") == 10.1.0.1 ]]'
check "127.0.0.1 works" \
    eval '[[ $(ns a "$PYTHON" "$NETNS_DIR/tools/tcp.py" source 127.0.0.1 "$ECHO") == 127.0.0.1 ]]'
