#!/usr/bin/env bash
# Runs every fuzz target for a while, starting from its committed corpus:
# scripts/fuzz.sh [SECONDS-EACH] [TARGET...]
#
# With the stable toolchain and without cargo-fuzz: coverage of the workspace's own crates comes from LLVM's own pass
# (scripts/fuzz-rustc), the sanitizers (nightly only) are left out; overflow checks and debug assertions are on.
# Everything else is shared with `cargo build`. New inputs go to a scratch directory, not into the corpus; one that fails
# is kept in tests/fuzz/artifacts. tests/fuzz/README.md says how to use cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
# Override the user's setting: the programs are expected there.
export CARGO_TARGET_DIR=$PWD/target

seconds=${1:-30}
if (($#)); then shift; fi
targets=("$@")
if ((${#targets[@]} == 0)); then
    for file in tests/fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

began=$SECONDS
RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/fuzz-rustc cargo build -q -p enotun-fuzz "${targets[@]/#/--bin=}"
echo "built in $((SECONDS - began)) s"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export scratch seconds

# one TARGET: its corpus first, then libFuzzer's mutations of it.
one() {
    local target=$1 log=$scratch/$1.log inputs seeds
    inputs=tests/fuzz/artifacts/$target
    mkdir -p "$scratch/$target" "$inputs"
    seeds=$(find "tests/fuzz/corpus/$target" -type f | wc -l)
    if ((seeds == 0)); then
        echo "not ok - $target: no corpus"
        return 1
    fi
    if "target/debug/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=8192 \
        -artifact_prefix="$inputs/" "$scratch/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
        echo "ok - $target: $seeds seeds, $(sed -n 's/^Done \([0-9]*\) runs.*/\1 runs/p' "$log"), coverage" \
            "$(sed -n 's/.*INITED cov: \([0-9]*\).*/\1/p' "$log") at first and" \
            "$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1) at last"
    else
        tail -n 40 "$log"
        echo "not ok - $target: the input is in $inputs"
        return 1
    fi
}
export -f one
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'one {}'
