# shellcheck shell=bash
# One stream beside plain TCP, boringtun and stunnel, and an unselected connection. Part of scripts/bench.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

boringtun=$PWD/target/bench-tools/bin/boringtun-cli
if [[ ! -x $boringtun ]]; then
    echo "building boringtun-cli"
    cargo install -q --locked --root target/bench-tools boringtun-cli
fi

# Each kind has a pair of its own, so that rounds differ in nothing else; those that do not measure are idle.
for kind in plain enotun boringtun stunnel; do
    fresh_topology s$kind pair
    start_iperf b
done

PREFIX=${run}senotun
start_daemon a ":$IPERF"
start_daemon b "local:$IPERF"
unselected=5202
serve b iperf3 -s -p $unselected
wait_for 10 listening b $unselected

# boringtun: a tunnel 10.99.0.1 - 10.99.0.2 between the two hosts. Its control sockets are
# shared by all namespaces, hence the device names.
PREFIX=${run}sboringtun
declare -A wg=([a]=ea$$ [b]=eb$$)
for node in a b; do
    (umask 077 && wg genkey >"$WORK/$node.key")
    wg pubkey <"$WORK/$node.key" >"$WORK/$node.pub"
    serve $node "$boringtun" --foreground --disable-drop-privileges "${wg[$node]}"
    wait_for 10 ns $node wg show "${wg[$node]}"
done
ns a wg set "${wg[a]}" private-key "$WORK/a.key" listen-port 51820 \
    peer "$(<"$WORK/b.pub")" endpoint "$SERVER4:51820" allowed-ips 10.99.0.2/32
ns b wg set "${wg[b]}" private-key "$WORK/b.key" listen-port 51820 \
    peer "$(<"$WORK/a.pub")" endpoint "$CLIENT4:51820" allowed-ips 10.99.0.1/32
addr a "${wg[a]}" 10.99.0.1/24
addr b "${wg[b]}" 10.99.0.2/24
for node in a b; do ns $node ip link set "${wg[$node]}" up mtu 1420; done
wait_for 10 ns a ping -q -c1 -W1 10.99.0.2

# stunnel: 127.0.0.1:5400 at a leads to iperf3 at b.
PREFIX=${run}sstunnel
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench \
    -keyout "$WORK/tls.key" -out "$WORK/tls.crt" 2>/dev/null
cat >"$WORK/stunnel-b.conf" <<CONF
foreground = yes
pid =
cert = $WORK/tls.crt
key = $WORK/tls.key
sslVersion = TLSv1.3
ciphersuites = TLS_AES_128_GCM_SHA256
[iperf]
accept = 0.0.0.0:5300
connect = 127.0.0.1:$IPERF
CONF
cat >"$WORK/stunnel-a.conf" <<CONF
foreground = yes
pid =
client = yes
sslVersion = TLSv1.3
ciphersuites = TLS_AES_128_GCM_SHA256
[iperf]
accept = 127.0.0.1:5400
connect = $SERVER4:5300
CONF
for node in a b; do
    ns $node ip link set lo up
    serve $node stunnel4 "$WORK/stunnel-$node.conf"
done
wait_for 10 listening b 5300
wait_for 10 listening a 5400

# stream KIND: Mbit/s of one stream.
stream() {
    local to=$SERVER4 port=$IPERF
    case $1 in
        plain | enotun) PREFIX=${run}s$1 ;;
        unselected) PREFIX=${run}senotun port=$unselected ;;
        boringtun) PREFIX=${run}sboringtun to=10.99.0.2 ;;
        stunnel) PREFIX=${run}sstunnel to=127.0.0.1 port=5400 ;;
    esac
    ns a timeout $((seconds + 20)) iperf3 -c "$to" -p "$port" -t "$seconds" -J >"$WORK/iperf.json" &
    local pid=$!
    # The figure is worth something only if the stream is what it is said to be.
    if [[ $1 == enotun ]]; then
        wait_for 10 flows_are a "$IPERF" encrypted || return 1
    fi
    wait "$pid" || { jq -r '.error // empty' "$WORK/iperf.json" >&2; return 1; }
    jq '.end.sum_received.bits_per_second / 1e6 | floor' "$WORK/iperf.json"
}

kinds=(plain enotun boringtun stunnel unselected)
for ((round = 1; round <= rounds; round++)); do
    line="stream, round $round:"
    for kind in "${kinds[@]}"; do
        value=$(stream "$kind")
        note "stream-$kind" "$value"
        line+="  $kind $value"
    done
    echo "$line"
done

{
    echo "one stream, median (min to max) of $rounds rounds of $seconds s"
    for kind in "${kinds[@]}"; do show "$kind" "stream-$kind" Mbit/s; done
    target "enotun to boringtun" "$(ratio stream-enotun stream-boringtun)" "at least 5"
    target "enotun to stunnel" "$(ratio stream-enotun stream-stunnel)" "at least 0.7"
    target "unselected to plain" "$(ratio stream-unselected stream-plain)" "at least 0.95"
    target "enotun to plain" "$(ratio stream-enotun stream-plain)" "no target"
} >"$WORK/stream.report"
for kind in "${kinds[@]}"; do
    jq -n --arg kind "$kind" --argjson value "$(results "stream-$kind")" '{($kind): $value}'
done | jq -s '{unit: "Mbit/s"} + add' >"$WORK/stream.json"
