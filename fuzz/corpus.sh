#!/usr/bin/env bash
# Makes the corpora anew: the fewest, shortest inputs that reach all that the present corpora, the transcripts of
# core/testdata and what earlier runs have found reach together.
#
#     fuzz/corpus.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
work=fuzz/target/corpus
rm -rf "$work"
mkdir -p "$work"
(cd fuzz && cargo +nightly run --quiet --example seed -- target/corpus/seeds)
[ $# -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)
[ $# -eq 0 ] || targets=("$@")
for target in "${targets[@]}"; do
    mkdir -p "$work/seeds/$target" "$work/kept/$target" "fuzz/target/found/$target" "fuzz/corpus/$target"
    # -merge=1 goes by length and keeps what reaches an edge that no shorter input does. How often an edge is passed
    # counts while fuzzing, not here: it would keep ten times as many.
    cargo +nightly fuzz run "$target" "$work/kept/$target" \
        "fuzz/corpus/$target" "$work/seeds/$target" "fuzz/target/found/$target" -- \
        -merge=1 -use_counters=0 -max_len=2100 -timeout=20 -rss_limit_mb=4096 >"$work/$target.log" 2>&1 ||
        { tail -n 40 "$work/$target.log" >&2; exit 1; }
    rm -rf "fuzz/corpus/$target"
    mv "$work/kept/$target" "fuzz/corpus/$target"
    printf '%s: %s inputs, %s bytes\n' "$target" "$(ls "fuzz/corpus/$target" | wc -l)" \
        "$(cat "fuzz/corpus/$target"/* | wc -c)"
done
