#!/usr/bin/env bash
# Runs every fuzz target for a while, starting from its committed corpus:
# scripts/fuzz.sh [SECONDS-EACH] [TARGET...]
#
# With the stable toolchain and without cargo-fuzz: the coverage that libFuzzer steers by comes
# from LLVM's own pass, the sanitizers (nightly only) are left out; overflow checks and debug
# assertions are on. New inputs go to a scratch directory, not into the corpus.
set -euo pipefail
cd "$(dirname "$0")/../tests/fuzz"

seconds=${1:-30}
if (($#)); then shift; fi
targets=("$@")
if ((${#targets[@]} == 0)); then
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# With --target the flags are not applied to build scripts and procedural macros.
cargo build -q --release --target "$host" --bins

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0
for target in "${targets[@]}"; do
    corpus=(corpus/"$target")
    [[ -d ${corpus[0]} ]] || corpus=()
    mkdir -p "$scratch/$target" "artifacts/$target"
    if target/"$host"/release/"$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="artifacts/$target/" "$scratch/$target" "${corpus[@]}" >"$scratch/log" 2>&1; then
        echo "ok - $target: $(sed -n 's/^Done \([0-9]*\) runs.*/\1 runs/p' "$scratch/log")"
    else
        tail -n 40 "$scratch/log"
        echo "not ok - $target"
        failed=1
    fi
done
exit $failed
