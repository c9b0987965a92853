#!/usr/bin/env bash
# Real applications through enotun: hosts with enotun beside one without.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up mixed
start_daemons
app_suite
