#!/usr/bin/env bash
# Runs every fuzz target, one after another, and prints a table of what they did.
#
#     fuzz/run-all.sh SECONDS LOGS [TARGET...]    run, SECONDS each, logs into the directory LOGS
#     fuzz/run-all.sh table LOGS                  the table again, from the logs
#
# New inputs go to fuzz/target/found/TARGET, never into fuzz/corpus; fuzz/corpus.sh chooses among them. A finding
# ends its target's run but not the others'; its input lies in fuzz/artifacts/TARGET, and the exit status is 1.
set -euo pipefail
cd "$(dirname "$0")/.."

# One row: executions, edges reached of those instrumented, libFuzzer's features, and the corpus as it was in the end.
row() {
    awk -v target="$(basename "$1" .log)" '
        /^INFO: Loaded .* PC tables/ { gsub(/[()]/, " "); edges = $6 }
        /^#[0-9]+\t/ {
            runs = substr($1, 2)
            for (i = 2; i < NF; i++) {
                if ($i == "cov:") cov = $(i + 1)
                if ($i == "ft:") ft = $(i + 1)
                if ($i == "corp:") corpus = $(i + 1)
            }
        }
        /^Done / { done = 1; runs = $2; seconds = $5 }
        END {
            gsub("/", " inputs, ", corpus)
            sub(/Kb$/, " KiB", corpus); sub(/Mb$/, " MiB", corpus); sub(/b$/, " B", corpus)
            end = done ? seconds " s" : "**a finding**"
            printf "| `%s` | %s | %s | %s of %s | %s | %s |\n", target, end, runs, cov, edges, ft, corpus
        }' "$1"
}

table() {
    echo "| target | ran | executions | edges | features | corpus |"
    echo "| --- | --- | --- | --- | --- | --- |"
    for log in "$1"/*.log; do row "$log"; done
}

if [ "${1:-}" = table ] && [ $# = 2 ]; then
    table "$2"
    exit
fi
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
seconds=$1 logs=$2
shift 2
mkdir -p "$logs"
[ $# -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)
[ $# -eq 0 ] || targets=("$@")
cargo +nightly fuzz build
status=0
for target in "${targets[@]}"; do
    mkdir -p "fuzz/target/found/$target" "fuzz/corpus/$target"
    # The scratch directory stands first: libFuzzer writes to that one.
    cargo +nightly fuzz run "$target" "fuzz/target/found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
        >"$logs/$target.log" 2>&1 || { status=1; echo "finding: see $logs/$target.log" >&2; }
done
table "$logs"
exit $status
