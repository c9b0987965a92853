#!/usr/bin/env bash
# Real applications through enotun: a router between the hosts.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up routed
start_daemons
app_suite
