#!/bin/bash
# Runs the independent peer's scenarios against a host with the enotun daemon.
#
#   tests/peer/run.sh [PATTERN...]
#
#   namespace penotun-hN                              namespace penotun-pN
#   application (app.py) - kernel TCP - enotun         peer.py, a TCP of its own
#   10.66.1.1  fd66:1::1   veth0 ------------- veth0   pt (TUN): 10.67.0.0/16  fd67::/64
#
# Environment: ENOTUN (the binary; "none": no daemon, for the rig itself), SELECTORS (default: the peer's two networks),
# PEER_POLICY (the daemon's policy; `required` for the scenarios required_*), PEER_OUT (directory for traces of failed
# scenarios; kept), OFFLOAD=on (leaves the veth's offloads on), ENOTUN_ARGS (more arguments for `enotun up`).
# Prints one line for each scenario and at last "N passed, N failed". Needs root. Exit status 0: all passed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
ENOTUN=${ENOTUN:-$top/target/debug/enotun}
SELECTORS=${SELECTORS:-"10.67.0.0/16 fd67::/64"}
PY=/usr/bin/python3
n=$$
host=penotun-h$n
peer=penotun-p$n
instance=penotun-h$n
work=$(mktemp -d "${TMPDIR:-/tmp}/penotun.XXXXXX")
out=${PEER_OUT:-$work/out}
daemon='' agent=''

cleanup() {
    trap - EXIT INT TERM
    if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
        kill "$daemon"
        for _ in $(seq 50); do kill -0 "$daemon" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$daemon" 2>/dev/null
        wait "$daemon" 2>/dev/null
    fi
    [ -n "$agent" ] && kill "$agent" 2>/dev/null && wait "$agent" 2>/dev/null
    ip netns del "$host" 2>/dev/null
    ip netns del "$peer" 2>/dev/null
    [ "${keep:-}" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() { echo "run.sh: $*" >&2; keep=; exit 2; }

[ "$(id -u)" = 0 ] || fail "needs root"
[ "$ENOTUN" = none ] || [ -x "$ENOTUN" ] || fail "no enotun at $ENOTUN"

in_host() { ip netns exec "$host" "$@"; }
in_peer() { ip netns exec "$peer" "$@"; }

ip netns add "$host" && ip netns add "$peer" || fail "cannot make namespaces"
ip -n "$host" link add veth0 type veth peer name veth0 netns "$peer" || fail "cannot make the veth pair"
for ns in "$host" "$peer"; do
    ip -n "$ns" link set lo up
    ip netns exec "$ns" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
        net.ipv6.conf.veth0.accept_dad=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.veth0.rp_filter=0
    ip -n "$ns" link set veth0 up
    # The peer wants packets as they are on a real wire: no super-packets, real checksums. With OFFLOAD=on the daemon's
    # super-packets cross the veth whole, and the kernel cuts them up before the peer's TUN.
    [ "${OFFLOAD:-}" = on ] || ip netns exec "$ns" ethtool -K veth0 tso off gso off gro off tx off rx off >/dev/null 2>&1
done
ip -n "$host" addr add 10.66.1.1/24 dev veth0
ip -n "$host" addr add fd66:1::1/64 dev veth0 nodad
ip -n "$peer" addr add 10.66.1.2/24 dev veth0
ip -n "$peer" addr add fd66:1::2/64 dev veth0 nodad
ip -n "$host" route add 10.67.0.0/16 via 10.66.1.2
ip -n "$host" route add fd67::/64 via fd66:1::2
in_host sysctl -qw net.ipv4.tcp_ecn=1 net.ipv4.tcp_no_metrics_save=1
in_peer sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.veth0.send_redirects=0
ip -n "$peer" tuntap add name pt mode tun
ip -n "$peer" link set pt up mtu 1500 txqueuelen 10000
ip -n "$peer" route add 10.67.0.0/16 dev pt
ip -n "$peer" route add fd67::/64 dev pt
in_peer sysctl -qw net.ipv4.conf.pt.rp_filter=0 net.ipv4.conf.pt.send_redirects=0

if [ "$ENOTUN" != none ]; then
    # shellcheck disable=SC2086
    [ -z "${PEER_POLICY:-}" ] || ENOTUN_ARGS="${ENOTUN_ARGS:-} --policy $PEER_POLICY"
    # All key agreements, those that are off by default too.
    ip netns exec "$host" "$ENOTUN" up --tun tun0 --instance "$instance" --tep P521,Curve448,P256,Curve25519 ${ENOTUN_ARGS:-} $SELECTORS >"$work/daemon.log" 2>&1 &
    daemon=$!
    for _ in $(seq 300); do
        "$ENOTUN" status --instance "$instance" >/dev/null 2>&1 && break
        kill -0 "$daemon" 2>/dev/null || { cat "$work/daemon.log" >&2; fail "the daemon ended"; }
        sleep 0.1
    done
    "$ENOTUN" status --instance "$instance" >/dev/null 2>&1 || { tail -20 "$work/daemon.log" >&2; fail "the daemon is not ready after 30 s"; }
fi
ip netns exec "$host" "$PY" -B "$here/app.py" "$work/app.sock" &
agent=$!
for _ in $(seq 150); do [ -S "$work/app.sock" ] && break; sleep 0.1; done

daemon_args=()
[ "$ENOTUN" = none ] || daemon_args=(--enotun "$ENOTUN" --instance "$instance")
in_peer "$PY" "$here/peer.py" run "$@" --tun pt --local 10.67.0.2,fd67::2 --remote 10.66.1.1,fd66:1::1 \
    --app "$work/app.sock" --out "$out" "${daemon_args[@]}"
status=$?
if [ "$ENOTUN" != none ]; then
    if ! kill -0 "$daemon" 2>/dev/null; then
        echo "run.sh: the daemon died:"
        tail -30 "$work/daemon.log"
        daemon=
        status=1
    fi
    if grep -n 'panicked at' "$work/daemon.log"; then
        echo "run.sh: the daemon panicked"
        status=1
    fi
fi
if [ "$status" != 0 ]; then
    keep=1
    echo "run.sh: traces in $out, daemon's log $work/daemon.log"
fi
exit $status
