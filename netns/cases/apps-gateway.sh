#!/usr/bin/env bash
# Real applications through enotun: a gateway that encrypts for the hosts behind it.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up gateway
start_daemons
app_suite
