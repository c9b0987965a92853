#!/usr/bin/env bash
# Brings a topology up or down: netns/topology.sh up|down NAME [--prefix P] [--daemons]
#
# Namespaces are called P-NODE (P is en-NAME unless given). With --daemons `enotun up` is started
# on the topology's enotun hosts, instance P-NODE, logs in /tmp/P/NODE.log.
# Then: netns/enter NAME NODE COMMAND...
#
# For the cases: netns/topology.sh describe NAME, what it sets; netns/topology.sh call NAME --prefix P FUNCTION ARG..., one
# of its functions.
set -euo pipefail

usage() {
    echo "usage: netns/topology.sh up|down NAME [--prefix P] [--daemons]" >&2
    exit 2
}

(($# >= 2)) || usage
action=$1 name=$2 daemons='' call=()
shift 2
PREFIX=en-$name
while (($#)); do
    case $1 in
        --prefix) PREFIX=${2:?--prefix needs a value}; shift 2 ;;
        --daemons) daemons=yes; shift ;;
        *)
            [[ $action == call ]] || usage
            call=("$@")
            break
            ;;
    esac
done
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/lib.sh"
load_topology "$name"

case $action in
    up)
        trap 'topology_down' ERR INT TERM
        topology_up "$name"
        if [[ -n $daemons ]]; then
            WORK=/tmp/$PREFIX
            mkdir -p "$WORK"
            start_daemons
        fi
        sed -n '/^# [a-z]*:/,/^$/ { s/^# \{0,1\}//; p }' "$NETNS_DIR/topologies/$name.sh"
        if [[ $PREFIX == "en-$name" ]]; then option=''; else option="--prefix $PREFIX "; fi
        echo "up: netns/enter $option$name NODE COMMAND...   (namespaces $PREFIX-NODE)"
        ;;
    down)
        topology_down
        rm -rf "/tmp/$PREFIX"
        ;;
    describe)
        for word in NODES CLIENT CLIENT4 CLIENT6 SERVER SERVER4 SERVER6 FARM4 FARM6 PLAIN4 PLAIN6 WIRE DAEMONS; do
            declare -n value=$word
            echo "$word ${value[*]-}"
        done
        for node in "${DAEMONS[@]}"; do echo "arguments-$node $(daemon_args "$node")"; done
        ;;
    call) "${call[@]}" ;;
    *) usage ;;
esac
