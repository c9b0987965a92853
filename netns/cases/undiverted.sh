#!/usr/bin/env bash
# Others take away, or get before, what diverts packets: nothing of an encrypted connection gets by undiverted, and what can
# be put back is.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin
if plain_mode; then exit 0; fi

# both FAMILIES-COMMAND...: for IPv4 and IPv6.
both() { ip -n "$PREFIX-a" -4 "$@" && ip -n "$PREFIX-a" -6 "$@"; }

# What /etc/nftables.conf of Debian begins with.
flush_ruleset() { ns a nft flush ruleset; }
# As systemd-networkd does with rules that it does not know.
delete_rules() { both rule del pref 1 && both rule del pref 2; }
flush_routes() { both route flush table 8547 && both route flush table 8548; }
device_down() { ip -n "$PREFIX-a" link set tun0 down; }
rule_before() { both rule add pref 0 lookup main; }
no_rule_before() { both rule del pref 0 lookup main; }
overwrite_marks() {
    ns a nft 'add table inet other
        add chain inet other pre { type filter hook prerouting priority -200; }
        add chain inet other out { type route hook output priority 10; }
        add rule inet other pre meta mark set 0
        add rule inet other out meta mark set 0'
}
leave_marks() { ns a nft delete table inet other; }
# As others do who know no marks but their own: ours are set behind that.
other_marks() {
    ns a nft 'add table inet mangle
        add chain inet mangle out { type route hook output priority mangle; }
        add rule inet mangle out meta mark set ct mark'
}
# What is connected to is not selected, but where that leads is.
translate() {
    ip -n "$PREFIX-a" route add 192.0.2.0/24 via "$SERVER4"
    ns a nft "add table ip nat
        add chain ip nat out { type nat hook output priority -100; }
        add rule ip nat out ip daddr 192.0.2.80 dnat to $SERVER4"
}

# undone NAME WHAT COMMAND [UNDO]: connections over IPv4 and IPv6; COMMAND, and at once the applications write. They go on
# when it is put right, by enotun or by UNDO.
undone() {
    local name=$1 what=$2 act=$3 undo=${4:-} family server
    for family in 4 6; do
        server=SERVER$family
        hold_open a "${!server}" "$name$family"
        check "$what, IPv$family: a connection" hold_says "$name$family" before
    done
    check "$what: they are encrypted" wait_for 5 flows_are a $ECHO encrypted
    capture_start "$WORK/$name.pcap" b eth0
    check "$what" "$act"
    for family in 4 6; do echo "$MARKER-$name" >&"${HOLD[$name$family]}"; done
    if [[ -n $undo ]]; then
        # Its first retransmissions.
        ns a ping -q -i 0.25 -c 4 "$SERVER4" >/dev/null || true
        check "$what: that is over" "$undo"
    fi
    for family in 4 6; do
        check "$what, IPv$family: the connection goes on" wait_for 20 file_has "$WORK/$name$family.held" "reply $MARKER"
        hold_close "$name$family"
    done
    capture_stop "$WORK/$name.pcap"
    check "$what: nothing of it is on the wire" fails file_has "$WORK/$name.pcap" "$MARKER"
}

topology_up pair
start_daemons
start_echo b
undone flush "nft flush ruleset" flush_ruleset
undone rules "the rules are deleted" delete_rules
undone routes "the routes are deleted" flush_routes
undone down "a device is set down" device_down
undone before "a rule before ours" rule_before no_rule_before
undone marks "another firewall overwrites marks" overwrite_marks leave_marks
undone mangle "another firewall sets marks of its own" other_marks
capture_start "$WORK/translated.pcap" b eth0
check "an address that is translated into a selected one" translate
hold_open a 192.0.2.80 translated
check "a connection to it" hold_says translated "$MARKER"
capture_stop "$WORK/translated.pcap"
check "it is encrypted" wire "$WORK/translated.pcap" --port $ECHO --expect encrypted
hold_open a "$SERVER4" last4
hold_open a "$SERVER6" last6
check "new connections are encrypted" eval 'hold_says last4 text && hold_says last6 text && flows_are a $ECHO encrypted'
check "the daemons still run" eval 'daemon_alive a && daemon_alive b'
