#!/usr/bin/env bash
# `down`, SIGTERM, SIGINT and `down` after kill -9 leave the host exactly as it was; --dry-run
# changes nothing.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

if plain_mode; then exit 0; fi
topology_up pair
# A host with settings of its own.
ns a sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.eth0.send_redirects=0
ns a ip rule add from 10.1.0.1 lookup 77 pref 900
ns a ip route add 203.0.113.0/24 via 10.1.0.2 table 77
ns a nft -f - <<'NFT'
table inet mine {
    chain input { type filter hook input priority filter; policy accept; tcp dport 1 drop; }
}
NFT
state() { ns a "$NETNS_DIR/tools/hoststate"; }
as_before() { state >"$WORK/now" && diff "$WORK/before" "$WORK/now"; }
# The netfilter sysctls appear with the first use of conntrack: let it be used before.
ns a nft add rule inet mine input ct state invalid counter
ns b nft add table inet mine
state >"$WORK/before"
me=$(node_ns a)

# shellcheck disable=SC2046
check "up --dry-run" ns a "$ENOTUN" up --dry-run --instance "$me" $(daemon_args a)
check "up --dry-run changes nothing" as_before
check "up --dry-run says what would be set" eval \
    'ns a "$ENOTUN" up --dry-run --instance "$me" 10.1.0.0/24 | grep -q tcp_early_demux'

start_daemon a
state >"$WORK/up"
check "up changes the host" fails diff "$WORK/before" "$WORK/up"
stop_daemon a
check "after down the host is as before" as_before
for signal in TERM INT; do
    start_daemon a
    pid=${DAEMON_PID[a]}
    # A background job of a script ignores SIGINT unless the program asks for it: enotun does.
    kill -$signal "$pid"
    check "SIG$signal ends it" wait_for 10 process_gone "$pid"
    check "after SIG$signal the host is as before" as_before
done
start_daemon a
kill_daemon a
check "down after kill -9" "$ENOTUN" down --instance "$me"
check "after it the host is as before" as_before
start_daemon a
kill_daemon a
start_daemon a
stop_daemon a
check "after kill -9, up and down the host is as before" as_before
start_daemon a
check "an enable at run time" "$ENOTUN" enable --instance "$me" 198.18.0.0/15:443
check "a disable at run time" "$ENOTUN" disable --instance "$me" 198.18.0.0/15:443
ns a ip route add 198.51.100.0/24 dev tun0 table enotun
stop_daemon a
check "after changes at run time and down the host is as before" as_before
check "down when nothing runs is an error" fails "$ENOTUN" down --instance "$me"
