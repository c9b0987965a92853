#!/usr/bin/env bash
# Runs the cases: netns/run.sh [CASE...]   (all of netns/cases without arguments; see harness/__main__.py)
PYTHONPATH=$(cd "$(dirname "$0")" && pwd) exec /usr/bin/python3 -B -m harness "$@"
