#!/usr/bin/env bash
# What can be negotiated, between two real daemons: every TEP and AEAD, what the ends say of the session, resumption switched off and
# flushed; and sockets with TCP options of their own: Fast Open, MPTCP, signed segments.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

TOOL=$NETNS_DIR/tools/options.py
topology_up pair
me=$(node_ns a) peer=$(node_ns b)
serve b "$PYTHON" "$TOOL" serve plain "$SERVER4" 8000 "$CLIENT4"
serve b "$PYTHON" "$TOOL" serve fastopen "$SERVER4" 8001 "$CLIENT4"
serve b "$PYTHON" "$TOOL" serve mptcp "$SERVER4" 8002 "$CLIENT4"
serve b "$PYTHON" "$TOOL" serve md5 "$SERVER4" 8003 "$CLIENT4"
for port in 8000 8001 8002 8003; do wait_for 10 listening b $port; done

# open KIND PORT: a connection from a to b that stays open; its ends are in LOCAL and REMOTE.
open() {
    rm -f "$WORK/go" "$WORK/asked" && mkfifo "$WORK/go"
    ns a "$PYTHON" "$TOOL" ask "$1" "$SERVER4" "$2" "$MARKER" <"$WORK/go" >"$WORK/asked" 2>&1 &
    ASKED=$!
    exec 7>"$WORK/go"
    wait_for 20 file_has "$WORK/asked" ' ' || true
    read -r _ address port <"$WORK/asked" || true
    LOCAL=$address:$port REMOTE=$SERVER4:$2
}
answered() { cat "$WORK/asked" && file_has "$WORK/asked" "$MARKER"; }
close() {
    exec 7>&-
    wait "$ASKED" || true
}
# field NODE FIELD: of the open connection.
field() {
    local at=$LOCAL
    if [[ $1 == b ]]; then at=$REMOTE; fi
    flows "$1" | jq -r --arg l "$at" --arg p "$port" --arg f "$2" \
        '.[] | select(.local == $l and ((.local + .remote) | contains(":" + $p))) | .[$f] | tostring'
}
is() { [[ $(field a "$1") == "$2" && $(field b "$1") == "$2" ]] || { flows a && flows b && false; }; }
session() { "$ENOTUN" session --json --instance "$1" "${@:2}"; }
# Both ends tell the same of the session, and each its own of what differs (ENO-19).
sessions_agree() {
    session "$me" "$LOCAL" "$REMOTE" >"$WORK/a.json" && session "$peer" "$REMOTE" "$LOCAL" >"$WORK/b.json" &&
        cat "$WORK/a.json" "$WORK/b.json" &&
        jq -es '.[0] as $a | .[1] as $b | $a.session_id == $b.session_id and $a.transcript == $b.transcript
            and $a.self_name == $b.peer_name and $b.self_name == $a.peer_name and $a.self_name != $a.peer_name
            and $a.tep_byte == $b.tep_byte and $a.aead == $b.aead and [$a.role, $b.role] == ["A", "B"]
            and [$a.self_gopt, $a.peer_gopt] == [$b.peer_gopt, $b.self_gopt]' "$WORK/a.json" "$WORK/b.json"
}
sessions() { "$ENOTUN" cache list --json --instance "$1" | jq length; }
flush() { "$ENOTUN" cache flush --json --instance "$@" | jq -e ".flushed == $WANTED"; }
# daemons ARGUMENTS_A ARGUMENTS_B, instead of those that run.
daemons() {
    local node
    for node in a b; do if [[ -n ${DAEMON_PID[$node]:-} ]]; then stop_daemon $node; fi; done
    # shellcheck disable=SC2086
    start_daemon a $1 && start_daemon b $2
}

if ! plain_mode; then
    all=10.1.0.0/24
    while read -r tep aead; do
        # The other end offers all, and what is preferred here is not what is there.
        daemons "--tep $tep --aead $aead $all" "--tep P521,Curve448,P256,Curve25519 $all"
        open plain 8000
        check "$tep with $aead: an answer" answered
        check "$tep with $aead: that is what is negotiated" is tep "ECDHE-$tep"
        check "$tep with $aead: cipher" is aead "AEAD_${aead//-/_}"
        check "$tep with $aead: the ends agree" sessions_agree
        close
        open plain 8000
        check "$tep with $aead: resumed" is resumed true
        check "$tep with $aead: the ends agree about the resumed session" sessions_agree
        close
    done <<<"P256 AES-256-GCM
P521 CHACHA20-POLY1305
Curve25519 AES-128-GCM
Curve448 AES-128-GCM"

    daemons "--tep Curve25519,P521 $all" "--tep P521,P256 $all"
    open plain 8000
    check "B's order decides among what both have (ENO-10)" is tep ECDHE-P521
    close
    daemons "--tep Curve448 $all" "--tep P256 $all"
    open plain 8000
    check "nothing in common: an answer" answered
    check "nothing in common: plain" eval '[[ $(field a reason) == peer-no-eno && $(field b reason) == no-common-tep ]]'
    check "nothing in common: no session ID, status 1" eval '! session "$me" "$LOCAL" "$REMOTE"'
    close

    daemons "$all,aware" "$all,aware,mandatory-aware"
    open plain 8000
    check "application-aware on both sides, mandatory on one: an answer" answered
    check "it is encrypted, and both know of the other" eval \
        'sessions_agree && jq -es "all(.self_aware and .peer_aware)" "$WORK/a.json" "$WORK/b.json"'
    close
    check "mandatory and not aware at the other end" "$ENOTUN" enable --instance "$me" $all
    open plain 8000
    check "plain, for that reason" eval '[[ $(field a reason) == peer-no-eno && $(field b reason) == not-aware ]]' && close

    daemons "$all" "$all"
    open plain 8000
    check "a session is kept at both ends" eval '[[ $(sessions "$me") == 1 && $(sessions "$peer") == 1 ]]'
    WANTED=1
    check "what a connection made is flushed" flush "$me" --connection "$LOCAL" "$REMOTE"
    check "and is gone there" eval '[[ $(sessions "$me") == 0 && $(sessions "$peer") == 1 ]]'
    close
    open plain 8000
    check "the next one is fresh" is resumed false
    close
    check "resumption is switched off at run time" "$ENOTUN" enable --instance "$peer" "$all,no-resume"
    open plain 8000
    check "then it is refused, at the price of fresh keys" is resumed false
    close
    check "and on again" "$ENOTUN" enable --instance "$peer" "$all"
    check "a host is flushed" eval 'WANTED=$(sessions "$me") flush "$me" "$SERVER4" && [[ $(sessions "$me") == 0 ]]'

    # Nothing of the application's is in the SYN beside ENO, nor a Fast Open option (ENO-16).
    for node in a b; do stop_daemon $node; done
fi
for node in a b; do ns $node sysctl -qw net.ipv4.tcp_fastopen=3; done
open fastopen 8001
check "Fast Open without enotun: a cookie is got" answered
close
capture_start "$WORK/bare.pcap" a eth0
open fastopen 8001
check "and used" answered
close
capture_stop "$WORK/bare.pcap"
syn_data() { tcpdump -Anr "$1" 'tcp[tcpflags] == tcp-syn' 2>/dev/null | grep -aF -- "$MARKER"; }
check "there is data in its SYN" syn_data "$WORK/bare.pcap"
if ! plain_mode; then
    daemons "$all" "$all"
    capture_start "$WORK/fastopen.pcap" a eth0
    open fastopen 8001
    check "Fast Open with enotun: an answer" answered
    check "Fast Open with enotun: encrypted" is state encrypted
    close
    capture_stop "$WORK/fastopen.pcap"
    check "nothing of it is on the wire in plain" fails grep -aF -- "$MARKER" "$WORK/fastopen.pcap"
    check "and no cookie" fails eval 'tcpdump -nr "$WORK/fastopen.pcap" 2>/dev/null | grep -i tfo'

    open mptcp 8002
    check "MPTCP: an answer" answered
    check "MPTCP: left alone" eval '[[ $(field a reason) == mptcp ]]'
    check "MPTCP: it is MPTCP" eval 'ns a ss -Htni "dport = :8002" | grep -q tcp-ulp-mptcp'
    close
    open md5 8003
    check "signed segments: an answer" answered
    check "signed segments: left alone" eval '[[ $(field a reason) == signed-segments ]]'
    close
    check "the daemons still run" eval 'daemon_alive a && daemon_alive b'
fi
