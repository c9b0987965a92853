#!/usr/bin/env bash
# Runs the cases: netns/run.sh [CASE...]   (all of netns/cases without arguments)
#
# One line per check; the last line is 'N passed, N failed'. As root. JOBS cases run side by
# side (3). Set KEEP=1 to keep captures and logs, ENOTUN_MODE=plain to run without enotun.
set -euo pipefail

dir=$(cd "$(dirname "$0")" && pwd)
if ((EUID != 0)); then
    echo "netns/run.sh: must be root (it makes network namespaces)" >&2
    exit 1
fi
cases=("$@")
if ((${#cases[@]} == 0)); then
    for file in "$dir"/cases/*.sh; do cases+=("$(basename "$file" .sh)"); done
fi
for name in "${cases[@]}"; do
    if [[ ! -f $dir/cases/$name.sh ]]; then
        echo "netns/run.sh: no case $name" >&2
        exit 2
    fi
done

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# one NAME: a case with a limit on its time; its output appears as a whole when it ends.
one() {
    local name=$1 start=$SECONDS status=0
    timeout --kill-after=20 "${CASE_LIMIT:-600}" bash "$dir/cases/$name.sh" \
        >"$out/$name.out" 2>&1 </dev/null || status=$?
    if ! grep -q '^# ' "$out/$name.out"; then
        echo "not ok - $name: ended with status $status before its end" >>"$out/$name.out"
        echo "# $name 0 1" >>"$out/$name.out"
    fi
    sed '/^# /d' "$out/$name.out"
    echo "   ($name: $((SECONDS - start)) s)"
}
export -f one
export dir out
# shellcheck disable=SC2016 # expanded by the inner shell
printf '%s\n' "${cases[@]}" |
    xargs -P "${JOBS:-3}" -I{} bash -c 'SECONDS=0; text=$(one "{}"); flock "$out" printf "%s\n" "$text"'

awk '/^# / { passed += $3; failed += $4 }
    END { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 }' "$out"/*.out
