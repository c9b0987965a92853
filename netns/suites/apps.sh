# shellcheck shell=bash
# Real applications in one topology, IPv4 and IPv6: nginx and curl, OpenSSH, redis, iperf3, and
# 300 connections at once. Sourced by cases/apps-*.sh; other cases use its servers and clients.
# shellcheck disable=SC2153 # CLIENT, SERVER, .. are the topology's

HTTP=80 SSH=2222 REDIS=6379 IPERF=5201 ECHO=7777
SIZES=(0 1 1000 1448 100000 20000000)

bracket() { if [[ $1 == *:* ]]; then echo "[$1]"; else echo "$1"; fi; }

# serve NODE COMMAND...: a server in the background, its output in $WORK/<command>.log.
serve() {
    local node=$1
    shift
    ip netns exec "$PREFIX-$node" "$@" </dev/null >>"$WORK/$(basename "$1").log" 2>&1 &
    disown "$!" # it ends with its namespace
}

listening() { ns "$1" ss -Hltn "sport = :$2" | grep -q .; }

start_nginx() {
    local size
    mkdir -p "$WORK/www"
    for size in "${SIZES[@]}"; do make_file "$WORK/www/$size" "$size"; done
    cat >"$WORK/nginx.conf" <<EOF
user root;
daemon off;
master_process off;
pid $WORK/nginx.pid;
error_log $WORK/nginx.log;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path $WORK/body;
    proxy_temp_path $WORK/proxy;
    fastcgi_temp_path $WORK/fastcgi;
    uwsgi_temp_path $WORK/uwsgi;
    scgi_temp_path $WORK/scgi;
    sendfile on;
    server { listen 80; listen [::]:80; root $WORK/www; }
}
EOF
    serve "$1" nginx -c "$WORK/nginx.conf"
    wait_for 10 listening "$1" $HTTP
}

start_sshd() {
    mkdir -p "$WORK/ssh" /run/sshd
    local key
    for key in host user; do
        if [[ ! -f $WORK/ssh/$key ]]; then ssh-keygen -q -t ed25519 -N '' -f "$WORK/ssh/$key"; fi
    done
    cp "$WORK/ssh/user.pub" "$WORK/ssh/authorized"
    cat >"$WORK/ssh/sshd_config" <<EOF
Port $SSH
HostKey $WORK/ssh/host
PidFile none
AuthorizedKeysFile $WORK/ssh/authorized
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
Subsystem sftp internal-sftp
EOF
    serve "$1" /usr/sbin/sshd -D -e -f "$WORK/ssh/sshd_config"
    wait_for 10 listening "$1" $SSH
    SSH_OPTIONS=(-q -F none -i "$WORK/ssh/user" -o BatchMode=yes -o StrictHostKeyChecking=no
        -o UserKnownHostsFile=/dev/null -o ConnectTimeout=10)
}

start_redis() {
    serve "$1" redis-server --port $REDIS --bind 0.0.0.0 :: --protected-mode no --save '' \
        --dir "$WORK"
    wait_for 10 listening "$1" $REDIS
}

start_iperf() {
    serve "$1" iperf3 -s -p $IPERF
    wait_for 10 listening "$1" $IPERF
}

start_echo() {
    serve "$1" "$PYTHON" "$NETNS_DIR/tools/tcp.py" echo $ECHO
    wait_for 10 listening "$1" $ECHO
}

# fetch NODE ADDRESS SIZE: a file over HTTP is what it was.
fetch() {
    ns "$1" curl -sS --fail --max-time 60 -o "$WORK/fetched" "http://$(bracket "$2")/$3" &&
        same_hash "$WORK/fetched" "$WORK/www/$3"
}

# fetch_kept_alive NODE ADDRESS: all files over one connection, twice.
fetch_kept_alive() {
    local size args=() round
    for round in 1 2; do
        for size in "${SIZES[@]}"; do
            args+=(-o "$WORK/kept-$round-$size" "http://$(bracket "$2")/$size")
        done
    done
    [[ $(ns "$1" curl -sS --fail --max-time 60 -w '%{num_connects}\n' "${args[@]}" |
        awk '{ n += $1 } END { print n }') == 1 ]] || return 1
    for round in 1 2; do
        for size in "${SIZES[@]}"; do
            same_hash "$WORK/kept-$round-$size" "$WORK/www/$size" || return 1
        done
    done
}

# ssh_says NODE ADDRESS: a command's output and exit status come through.
ssh_says() {
    local out status=0
    out=$(ns "$1" ssh "${SSH_OPTIONS[@]}" -p $SSH "$2" 'cat; exit 7' <<<hello) || status=$?
    [[ $out == hello && $status == 7 ]]
}

scp_copies() {
    local file=$WORK/www/20000000
    rm -f "$WORK/copied" "$WORK/copied-back"
    ns "$1" scp "${SSH_OPTIONS[@]}" -P $SSH "$file" "$(bracket "$2"):$WORK/copied" &&
        ns "$1" scp "${SSH_OPTIONS[@]}" -P $SSH "$(bracket "$2"):$WORK/copied" "$WORK/copied-back" &&
        same_hash "$file" "$WORK/copied-back"
}

# redis_session NODE ADDRESS: a large value, many small commands in one pipeline.
redis_session() {
    local cli=(ns "$1" timeout 60 redis-cli -h "$2" -p "$REDIS") i
    [[ $("${cli[@]}" FLUSHALL) == OK ]] &&
        [[ $("${cli[@]}" -x SET file <"$WORK/www/100000") == OK ]] &&
        [[ $("${cli[@]}" --raw GET file | head -c 100000 | sha256sum) == \
            $(sha256sum <"$WORK/www/100000") ]] || return 1
    for ((i = 0; i < 10000; i++)); do
        printf 'INCRBY counter %d\r\n' "$i"
    done | "${cli[@]}" --pipe >/dev/null || return 1
    [[ $("${cli[@]}" GET counter) == 49995000 ]]
}

# all_flows_are PORT STATE: at every daemon.
all_flows_are() {
    local node
    for node in "${DAEMONS[@]}"; do flows_are "$node" "$1" "$2" || return 1; done
}

# iperf NODE ADDRESS SECONDS ARGS...: bytes arrived in each direction asked for; while it ran,
# its connections were encrypted at both ends.
iperf() {
    local node=$1 address=$2 seconds=$3 pid try seen_encrypted
    shift 3
    for try in {1..20}; do
        ns "$node" timeout 60 iperf3 -c "$address" -p $IPERF -t "$seconds" -J "$@" >"$WORK/iperf.json" &
        pid=$!
        wait_for 10 encrypted_or_ended "$pid" || true
        if [[ -z $seen_encrypted ]] && process_gone "$pid"; then
            wait "$pid" || true
            # The server takes one test at a time, and is a moment longer at the one before than its client.
            if jq -e '.error // "" | test("busy")' "$WORK/iperf.json" >/dev/null; then
                sleep 0.2
                continue
            fi
            echo "it ended before its connections were seen to be encrypted (try $try)"
            jq -r '.error // empty' "$WORK/iperf.json"
            return 1
        fi
        break
    done
    wait "$pid" || { jq -r '.error // empty' "$WORK/iperf.json"; return 1; }
    if [[ -z $seen_encrypted ]]; then
        echo "its connections were not all encrypted"
        return 1
    fi
    jq -r '"\(.end.sum_received.bits_per_second / 1e6 | floor) Mbit/s, \(.end.sum_sent.retransmits) resent"' \
        "$WORK/iperf.json"
    jq -e '.end | [.sum_received, .sum_received_bidir_reverse] | map(select(. != null))
        | all(.bytes > 100000)' "$WORK/iperf.json" >/dev/null
}
encrypted_or_ended() {
    seen_encrypted=''
    if all_flows_are $IPERF encrypted; then seen_encrypted=yes; else process_gone "$1"; fi
}

# hold_open NODE ADDRESS NAME [LOCAL]: a connection to the echo server that stays open; lines
# for it go to descriptor HOLD[NAME], what it says to $WORK/NAME.held.
declare -A HOLD=()
hold_open() {
    local fd
    mkfifo "$WORK/$3.lines"
    ip netns exec "$PREFIX-$1" "$PYTHON" "$NETNS_DIR/tools/tcp.py" hold "$2" $ECHO "${@:4}" \
        <"$WORK/$3.lines" >"$WORK/$3.held" 2>&1 &
    exec {fd}>"$WORK/$3.lines"
    HOLD[$3]=$fd
    # A connection that does not open fails the check that uses it, not the case.
    wait_for 15 file_has "$WORK/$3.held" open || true
}

# hold_says NAME TEXT: the text goes to the server and comes back.
hold_says() {
    echo "$2" >&"${HOLD[$1]}" && wait_for "${3:-15}" file_has "$WORK/$1.held" "reply $2"
}

hold_close() {
    local fd=${HOLD[$1]}
    exec {fd}>&-
    unset "HOLD[$1]"
}

start_servers() {
    start_nginx "$1"
    start_sshd "$1"
    start_redis "$1"
    start_iperf "$1"
    start_echo "$1"
}

# app_suite: all of it from CLIENT to SERVER over both families, then a look at the capture.
app_suite() {
    local family server size wire_node=${WIRE%:*} wire_dev=${WIRE#*:} daemon
    start_servers "$SERVER"
    capture_start "$WORK/wire.pcap" "$wire_node" "$wire_dev" not port $IPERF
    for family in 4 6; do
        server=SERVER$family
        server=${!server}
        for size in "${SIZES[@]}"; do
            check "IPv$family: curl gets $size bytes from nginx" fetch "$CLIENT" "$server" "$size"
        done
        check "IPv$family: curl gets all of them over one connection" fetch_kept_alive "$CLIENT" "$server"
        check "IPv$family: ssh runs a command" ssh_says "$CLIENT" "$server"
        check "IPv$family: scp copies there and back" scp_copies "$CLIENT" "$server"
        check "IPv$family: a redis session" redis_session "$CLIENT" "$server"
        check "IPv$family: 300 connections at once" \
            ns "$CLIENT" "$PYTHON" "$NETNS_DIR/tools/tcp.py" many "$server" $ECHO 300 20000
        check "IPv$family: iperf3 forward" iperf "$CLIENT" "$server" 2
        check "IPv$family: iperf3 reverse" iperf "$CLIENT" "$server" 2 -R
        check "IPv$family: iperf3 both ways at once, 3 streams" iperf "$CLIENT" "$server" 2 --bidir -P 3
        hold_open "$CLIENT" "$server" "held$family"
        check "IPv$family: a connection that stays open" hold_says "held$family" "$MARKER"
        for daemon in "${DAEMONS[@]}"; do
            check_enotun "IPv$family: $daemon lists it as encrypted" flows_are "$daemon" $ECHO encrypted
        done
        check_enotun "IPv$family: both ends have the same session IDs" \
            wait_for 5 session_ids_agree "${DAEMONS[@]}" $ECHO
        hold_close "held$family"
    done
    capture_stop "$WORK/wire.pcap"
    if plain_mode; then
        check "the capture is of plain TCP" wire "$WORK/wire.pcap" --port $HTTP --port $ECHO --expect plain
        check "the capture shows the data" fails wire "$WORK/wire.pcap" --port $HTTP --port $ECHO --expect encrypted
    else
        check "on the wire: ENO in every SYN, frames, no plaintext" wire "$WORK/wire.pcap" \
            --port $HTTP --port $SSH --port $REDIS --port $ECHO --expect encrypted --min 630
    fi
    for daemon in "${DAEMONS[@]}"; do check "the daemon of $daemon still runs" daemon_alive "$daemon"; done
}
