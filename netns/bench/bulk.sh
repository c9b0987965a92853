# shellcheck shell=bash
# Streams, beside plain TCP, the pass-through, stunnel and boringtun. Part of scripts/bench.
# shellcheck disable=SC2034,SC2153,SC2154 # of scripts/bench and the topology

boringtun=$PWD/target/bench-tools/bin/boringtun-cli
if [[ ! -x $boringtun ]]; then
    say "building boringtun-cli"
    cargo install -q --locked --root target/bench-tools boringtun-cli
fi

# Each kind has a pair of its own, so that rounds differ in nothing else; those that do not measure are idle.
for kind in plain enotun through boringtun stunnel; do
    fresh_topology s$kind pair
    serve_iperf b $IPERF
done
for kind in enotun through; do
    program=$ENOTUN
    if [[ $kind == through ]]; then program=$THROUGH; fi
    use s$kind
    daemon "$program" a ":$IPERF"
    daemon "$program" b "local:$IPERF"
done

# boringtun: a tunnel 10.99.0.1 - 10.99.0.2 between the two hosts. Its control sockets are
# shared by all namespaces, hence the device names.
use sboringtun
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
use sstunnel
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench \
    -keyout "$WORK/tls.key" -out "$WORK/tls.crt" 2>/dev/null
for node in a b; do
    cat >"$WORK/stunnel-$node.conf" <<CONF
foreground = yes
pid =
sslVersion = TLSv1.3
ciphersuites = TLS_AES_128_GCM_SHA256
CONF
done
cat >>"$WORK/stunnel-b.conf" <<CONF
cert = $WORK/tls.crt
key = $WORK/tls.key
[iperf]
accept = 0.0.0.0:5300
connect = 127.0.0.1:$IPERF
CONF
cat >>"$WORK/stunnel-a.conf" <<CONF
client = yes
[iperf]
accept = 127.0.0.1:5400
connect = $SERVER4:5300
CONF
for node in a b; do serve $node stunnel4 "$WORK/stunnel-$node.conf"; done
wait_for 10 listening b 5300
wait_for 10 listening a 5400

# stunnel_congestion: stunnel has no option for it, so its routes say which one it uses.
stunnel_congestion() {
    local node
    use sstunnel
    for node in a b; do
        ip -n "$PREFIX-$node" route change 10.1.0.0/24 dev eth0 congctl $congestion
        ip -n "$PREFIX-$node" route change local 127.0.0.0/8 dev lo table local congctl $congestion
    done
}

# kind NAME KIND [iperf3 ARGUMENTS...]: streams of that kind, noted as NAME-KIND.
kind() {
    local name=$1-$2 kind=$2 to=$SERVER4 port=$IPERF before=''
    case $1 in
        ipv6) to=$SERVER6 ;;
    esac
    case $kind in
        boringtun) to=10.99.0.2 ;;
        stunnel) to=127.0.0.1 port=5400 ;;
    esac
    shift 2
    use "s$kind"
    if [[ $kind == enotun || $kind == through ]]; then before=$(counter a connections_encrypted); fi
    try stream "$name" "$to" "$port" "$@"
    if [[ -n $before ]]; then was_encrypted "$before"; fi
    line+="  $name $(<"$WORK/rate")"
}

# everywhere KINDS COMMAND...: at both ends of the pairs of those kinds.
everywhere() {
    local kinds=$1 kind node
    shift
    for kind in $kinds; do
        use "s$kind"
        for node in a b; do ns $node "$@" >/dev/null; done
    done
}

shapes=(one eight both ipv6 cut)
if sysctl -n net.ipv4.tcp_available_congestion_control | grep -qw bbr; then shapes+=(bbr); fi
declare -A kinds_of=([one]='plain enotun through stunnel boringtun' [eight]='plain enotun through stunnel' [both]='plain enotun'
    [ipv6]='plain enotun through' [cut]='plain enotun' [bbr]='plain enotun through stunnel')
for ((round = 1; round <= rounds; round++)); do
    for shape in "${shapes[@]}"; do
        line="bulk, round $round:" arguments=() congestion=cubic
        case $shape in
            eight) arguments=(-P 8) ;;
            both) arguments=(--bidir) ;;
            cut) everywhere "${kinds_of[cut]}" ethtool -K eth0 tso off gso off gro off tx off rx off ;;
            bbr) congestion=bbr ;;
        esac
        stunnel_congestion
        for it in ${kinds_of[$shape]}; do kind $shape $it "${arguments[@]}"; done
        # veth has no GRO unless asked for it.
        if [[ $shape == cut ]]; then everywhere "${kinds_of[cut]}" ethtool -K eth0 tx on rx on tso on gso on; fi
        say "$line"
    done
done
congestion=cubic

declare -A title=([one]="one stream, cubic" [eight]="eight streams" [both]="both directions at once, sum" [ipv6]="one stream, IPv6"
    [cut]="one stream, the link's offloads off (tso, gso, gro, tx, rx)" [bbr]="one stream, bbr")
declare -A kind_title=([plain]="plain TCP" [through]="enotun's pass-through" [enotun]=enotun [stunnel]=stunnel [boringtun]=boringtun)
for shape in "${shapes[@]}"; do
    echo "${title[$shape]}"
    for it in ${kinds_of[$shape]}; do show "${kind_title[$it]}" "$shape-$it" Mbit/s; done
    for it in ${kinds_of[$shape]}; do show "${kind_title[$it]}, processors" "$shape-$it-cpu" s/GB; done
    for it in enotun through; do
        if [[ " ${kinds_of[$shape]} " == *" $it "* ]]; then show "of that ${kind_title[$it]}'s daemons" "$shape-$it-cpu-daemons" s/GB; fi
    done
done
if [[ ${shapes[*]} != *bbr* ]]; then echo "this kernel has no bbr: not measured"; fi
echo "targets"
judge 1 "one stream to stunnel" "$(ratio one-enotun one-stunnel)" at_least 1.3
if [[ ${shapes[*]} == *bbr* ]]; then judge 1 "one stream to stunnel, bbr" "$(ratio bbr-enotun bbr-stunnel)" at_least 1.5; fi
judge 1 "one stream to enotun's pass-through" "$(ratio one-enotun one-through)" at_least 0.6
judge 1 "eight streams to stunnel's eight" "$(ratio eight-enotun eight-stunnel)" at_least 1.2
judge 1 "both directions' sum to one direction" "$(ratio both-enotun one-enotun)" at_least 0.9
judge 1 "CPU s/GB, whole machine" "$(results one-enotun-cpu)" at_most 1.2
judge 1 "IPv6 to IPv4" "$(ratio ipv6-enotun one-enotun)" at_least 0.95
judge 1 "to plain TCP, offloads off" "$(ratio cut-enotun cut-plain)" at_least 0.5
echo "without a target: to plain TCP $(ratio one-enotun one-plain | jq .median), to boringtun $(ratio one-enotun one-boringtun | jq .median)"
