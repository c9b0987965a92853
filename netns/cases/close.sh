#!/usr/bin/env bash
# Connections end with enotun as they end without it: half-close, SO_LINGER, resets, refusals,
# timeouts, keep-alives. netns/tools/closes.py runs plain and through enotun; its report is compared.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
case_begin

BASE=9000
read -r last refused unanswered prohibited < <("$PYTHON" "$NETNS_DIR/tools/closes.py" ports $BASE)

# closes NAME ADDRESS: runs the program; both reports in $WORK/NAME.report.
closes() {
    local fifo=$WORK/$1.stop
    ns b nft -f - <<NFT
table inet closes
delete table inet closes
table inet closes {
    chain cut { type filter hook prerouting priority raw - 10; }
    chain input {
        type filter hook input priority filter
        tcp dport $unanswered drop
        tcp dport $prohibited reject with icmpx type admin-prohibited
    }
}
NFT
    mkfifo "$fifo"
    ns b "$PYTHON" "$NETNS_DIR/tools/closes.py" server $BASE <"$fifo" >"$WORK/$1.server" &
    local server=$!
    exec 7>"$fifo"
    wait_for 5 file_has "$WORK/$1.server" ready
    ns a "$PYTHON" "$NETNS_DIR/tools/closes.py" client "$2" $BASE >"$WORK/$1.client"
    exec 7>&-
    wait "$server"
    cat "$WORK/$1.client" "$WORK/$1.server" >"$WORK/$1.report"
    ns b nft delete table inet closes
}

# as_expected REPORT: the scenarios did what they are named for: no error that the program itself
# did not provoke, no damage, nothing left hanging.
as_expected() {
    local line
    if grep -E 'STILL|DAMAGED|unexpected|close took' "$1"; then return 1; fi
    while read -r line; do
        if ! grep -qE "$line" "$1"; then
            echo "not there: $line"
            cat "$1"
            return 1
        fi
    done <<'END'
half_close_client client: 2000000 bytes intact then end of file
half_close_server server: 2000000 bytes intact then end of file
zero_window server: 2000000 bytes intact then end of file
linger_zero_client server: 0 bytes then ECONNRESET
linger_zero_server client: 0 bytes then ECONNRESET
unread client: 0 bytes then ECONNRESET
dead_keepalive client: ETIMEDOUT
refused client: connect: ECONNREFUSED at once
unanswered client: connect: ETIMEDOUT later
prohibited client: connect: (EHOSTUNREACH|EACCES)
END
}

topology_up pair
for family in 4 6; do
    server=SERVER$family
    closes "plain$family" "${!server}"
    check "IPv$family: plain TCP ends connections as expected" as_expected "$WORK/plain$family.report"
done

start_daemons
for family in 4 6; do
    server=SERVER$family
    capture_start "$WORK/wire$family.pcap" a eth0
    closes "enotun$family" "${!server}"
    capture_stop "$WORK/wire$family.pcap"
    check "IPv$family: connections end with enotun as without" \
        diff "$WORK/plain$family.report" "$WORK/enotun$family.report"
    ports=()
    for ((p = BASE; p <= last; p++)); do ports+=(--port "$p"); done
    check_enotun "IPv$family: they were encrypted" \
        wire "$WORK/wire$family.pcap" "${ports[@]}" --expect encrypted --min $((last - BASE + 1))
done
: "$refused"
check "the daemons still run" eval 'daemon_alive a && daemon_alive b'
