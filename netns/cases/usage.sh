#!/usr/bin/env bash
# Wrong usage and missing means: one clear line, exit status 1 or 2, nothing changed.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

if plain_mode; then exit 0; fi
topology_up pair
me=$(node_ns a)
state() { ns a "$NETNS_DIR/tools/hoststate"; }
state >"$WORK/before"

# says STATUS COMMAND...: ends by itself with that status; says something, in one line where it is
# not the usage (2).
says() {
    local status=0 want=$1
    shift
    timeout 15 "$@" >"$WORK/out" 2>"$WORK/err" </dev/null || status=$?
    echo "status $status; said:"
    cat "$WORK/out" "$WORK/err"
    [[ $status == "$want" && -s $WORK/err ]] || return 1
    if [[ $want == 1 ]]; then (($(wc -l <"$WORK/err") == 1)); fi
}
up() { ns a "$ENOTUN" up --instance "$me" "$@"; }
enotun_up=(ip netns exec "$me" "$ENOTUN" up --instance "$me")

check "no command" says 2 "$ENOTUN"
check "an unknown command" says 2 "$ENOTUN" frobnicate
check "an unknown option" says 2 "${enotun_up[@]}" --frobnicate 10.1.0.0/24
check "a policy that does not exist" says 2 "${enotun_up[@]}" --policy perhaps 10.1.0.0/24
for selector in 10.1.0.0/33 10.1.0.0/24:99999 '[fd00::/64' ':' local:0x50 'a b'; do
    check "the selector '$selector'" says 2 "${enotun_up[@]}" "$selector"
done
check "a host name that does not resolve" says 1 "${enotun_up[@]}" does-not-exist.invalid:80
check "a device name that is too long" eval \
    'says 2 "${enotun_up[@]}" --tun a-name-of-more-than-15 10.1.0.0/24 || says 1 "${enotun_up[@]}" --tun a-name-of-more-than-15 10.1.0.0/24'
check "a configuration file that is not there" says 1 "${enotun_up[@]}" --config /nonexistent.toml
check "a selector to a daemon that does not run" says 1 "$ENOTUN" enable --instance "$me" 10.0.0.0/8
for command in status flows down doctor; do
    if [[ $command != doctor ]]; then
        check "$command without a daemon" says 1 "$ENOTUN" $command --instance "$me"
    fi
done
check "session without a daemon" says 1 "$ENOTUN" session --instance "$me" 10.1.0.1:1 10.1.0.2:2
check "nothing was changed" eval 'state >"$WORK/now"; diff "$WORK/before" "$WORK/now"'

# As root without capabilities; without /dev/net/tun; with the device's name taken.
check "no capability" says 1 ip netns exec "$me" setpriv --bounding-set=-all --inh-caps=-all \
    "$ENOTUN" up --instance "$me" 10.1.0.0/24
check "no /dev/net/tun" says 1 ip netns exec "$me" unshare -m bash -c \
    "mount -t tmpfs tmpfs /dev/net && exec '$ENOTUN' up --instance '$me' 10.1.0.0/24"
ns a ip link add tun0 type bridge
check "the device's name is in use" says 1 "${enotun_up[@]}" 10.1.0.0/24
ns a ip link del tun0
ns a ip link add tun0-w type bridge
check "the second device's name is in use" says 1 "${enotun_up[@]}" 10.1.0.0/24
ns a ip link del tun0-w
check "nothing was changed" eval 'state >"$WORK/now"; diff "$WORK/before" "$WORK/now"'

start_daemon a
state >"$WORK/up"
check "a second daemon with the same instance" says 1 "${enotun_up[@]}" 10.1.0.0/24
check "a second daemon with the same device" says 1 ip netns exec "$me" "$ENOTUN" up \
    --instance "$me-2" --tun tun0 10.1.0.0/24
check "the first one is not disturbed" eval 'daemon_alive a && daemon_ready a && state >"$WORK/now" && diff "$WORK/up" "$WORK/now"'
check "session of a connection that is not there" says 1 "$ENOTUN" session --instance "$me" 10.1.0.1:1 10.1.0.2:2
check "a wrong selector at run time" says 2 "$ENOTUN" enable --instance "$me" 10.1.0.0/99
check "status --json is JSON" eval '"$ENOTUN" status --instance "$me" --json | jq -e . '
check "flows --json is an array" eval '"$ENOTUN" flows --instance "$me" --json | jq -e "type == \"array\""'
check "doctor --json is JSON" eval 'ns a "$ENOTUN" doctor --instance "$me" --json | jq -e .'
stop_daemon a
check "the host is as before" eval 'state >"$WORK/now"; diff "$WORK/before" "$WORK/now"'
