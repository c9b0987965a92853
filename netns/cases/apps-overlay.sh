#!/usr/bin/env bash
# Real applications through enotun: an overlay prefix selected by a route.
set -euo pipefail
# shellcheck source=netns/lib.sh
source "$(dirname "$0")/../lib.sh"
# shellcheck source=netns/suites/apps.sh
source "$NETNS_DIR/suites/apps.sh"
case_begin

topology_up overlay
start_daemons
app_suite
