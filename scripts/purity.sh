#!/bin/sh
# The protocol crate and the packet rewriter stay functions of (input, time, randomness):
# - tcpcrypt/ is no_std, has no unsafe code, and no dependency that reaches the operating system;
# - src/wire, src/store, src/flow and src/engine read no clock, take no randomness of their own, and never sleep;
# - the packets of an encrypted connection leave in one place.
# Exit status 1 and the offending lines if not.
set -eu
cd "$(dirname "$0")/.."
failed=0

# forbid WHAT PATTERN PATH...: no line of Rust code (comments aside) under PATH matches PATTERN.
forbid() {
    what=$1 pattern=$2
    shift 2
    found=$(grep -rnE --include='*.rs' "$pattern" "$@" | grep -vE '^[^:]+:[0-9]+:[[:space:]]*//' || true)
    if [ -n "$found" ]; then
        printf 'purity: %s:\n%s\n' "$what" "$found" >&2
        failed=1
    fi
}

for attribute in '#![no_std]' '#![forbid(unsafe_code)]'; do
    if ! grep -qxF "$attribute" tcpcrypt/src/lib.rs; then
        echo "purity: tcpcrypt/src/lib.rs lacks $attribute" >&2
        failed=1
    fi
done
forbid 'std in tcpcrypt' '\bextern crate std\b|\bstd::' tcpcrypt/src
forbid 'unsafe in tcpcrypt' '\bunsafe[[:space:]]*(\{|fn|impl|extern|trait)' tcpcrypt/src

clock='\b(Instant|SystemTime)::now\b|\bUtc::now\b|\bclock_gettime\b'
random='\bgetrandom\b|\brand::(rng|random|fill|make_rng)|\bthread_rng\b|\b(OsRng|SysRng|ThreadRng)\b|\bfrom_os_rng\b'
sleep='\b(thread|time)::sleep\b|\bpark_timeout\b'
pure='tcpcrypt/src'
for folder in src/wire src/store src/flow src/engine; do
    if [ -d "$folder" ]; then pure="$pure $folder"; fi
done
# shellcheck disable=SC2086 # a list of folders without blanks
forbid 'clock, randomness or sleeping' "$clock|$random|$sleep" $pure

# What a packet of an encrypted connection causes is decided first and carried out then, in one place.
# shellcheck disable=SC2046 # files without blanks
forbid 'a packet that leaves past emit.rs' '\.emit\(|\benv\.forward\(' \
    $(find src/flow/connection -name '*.rs' ! -name emit.rs ! -name closed.rs)

# What tcpcrypt depends on must not bring in what it may not do itself.
tree=$(cargo tree --locked -p tcpcrypt -e normal,features --prefix none)
if found=$(printf '%s\n' "$tree" | grep -E '^(getrandom|libc|rand|std|tokio|mio|chrono|time) |feature "(std|getrandom|os_rng|sys_rng)"'); then
    printf 'purity: tcpcrypt depends on\n%s\n' "$found" >&2
    failed=1
fi

# The proof by compilation, where a target without an operating system is installed.
target=x86_64-unknown-none
if rustup target list --installed 2>/dev/null | grep -qx "$target"; then
    # check, not build: SIMD code does not get through code generation for a soft-float target.
    cargo check --quiet --locked -p tcpcrypt --target "$target" || failed=1
else
    echo "purity: target $target is not installed, compilation for it skipped" >&2
fi
exit "$failed"
