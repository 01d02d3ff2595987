#!/usr/bin/env bash
# run.sh PROGRAM CORPUS [OPTION...]: replays every seed of the folder CORPUS, then fuzzes from them for FUZZ_SECONDS (10). New inputs go
# to FUZZ_KEEP, if set, or are thrown away; an input that crashes, leaks, or takes longer than 10 seconds or 2 GB is printed in base64.
. "$(dirname "$0")/../check.sh"
program=$1 corpus=$2
shift 2
name=$(basename "$program")
seeds=$(find "$corpus" -type f | wc -l)
new=${FUZZ_KEEP:-$scratch/new}
mkdir -p "$new" "$scratch/findings"
# Replayed one by one first: a corpus is also a list of what once was interesting.
if [ "$seeds" -gt 0 ] && "$program" "$@" -timeout=10 -artifact_prefix="$scratch/findings/" "$corpus"/* >"$scratch/log" 2>&1; then
  pass "$name: $seeds seeds replayed"
else
  fail "$name: replaying $seeds seeds" "$(tail -n 40 "$scratch/log" 2>/dev/null)"
fi
if "$program" "$@" -timeout=10 -rss_limit_mb=2048 -max_total_time="${FUZZ_SECONDS:-10}" -artifact_prefix="$scratch/findings/" \
  -print_final_stats=1 "$new" "$corpus" >"$scratch/log" 2>&1; then
  pass "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/log") inputs in ${FUZZ_SECONDS:-10} s without a finding"
else
  fail "$name: a finding" "$(tail -n 60 "$scratch/log")" "$(for f in "$scratch"/findings/*; do basename "$f"; base64 "$f"; done 2>/dev/null)"
fi
finish
