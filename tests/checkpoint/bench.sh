#!/usr/bin/env bash
# bench.sh [FOLDER]: what a save costs. First how long training stands still for it, against a step, on a model with few bytes a
# step, so that a save takes several of them. Then how fast 256 MiB (MIB) are saved, beside dd with conv=fsync of as many into
# the same folder, in turn. Expects ARBDIST and SAVE_BENCH. Prints one table; judges nothing but that a save took more than three steps.
. "$(dirname "$0")/../train/run.sh"
folder=${1:-$scratch}/bench
mkdir -p "$folder"
median() { sort -g | awk '{ v[NR] = $1 } END { print NR ? (NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2) : "none" }'; }
spread() { sort -g | awk 'NR == 1 { a = $1 } { b = $1 } END { print a " - " b }'; }
options=(--set model.dim=${DIM:-32} --set model.embed_channels=64 --set model.layers=6 --set model.glu_hidden=$((4 * ${DIM:-32}))
  --set train.sequences=1 --set train.grains=1 --set train.context=8 --set train.steps=${STEPS:-120} --set train.peak=0.01
  --set eval.every=0 --set eval.sequences=1 --set sample.length=0 --set checkpoint.every=10 --set checkpoint.keep=1
  --set checkpoint.resume=no)
: "${SAVE_BENCH:?the program save_bench}"
: >"$scratch/dd" >"$scratch/stall" >"$scratch/written" >"$scratch/rate" >"$scratch/step"
for round in 1 2 3; do
  rm -rf "$folder/runs"
  "$ARBDIST" "$config" --set run.dir="$folder/runs" "${options[@]}" >"$log" 2>&1 || { fail "a run" "$(tail -n 5 "$log")"; finish; }
  bytes=$(cat "$folder"/runs/tiny/checkpoints/*/* | wc -c)
  # Steps without a save in them: the two before each one that saves.
  plain "$log" | sed -nE 's/^step [0-9]*[89]\/.* ([0-9]+) ms\/step.*/\1/p' >>"$scratch/step"
  plain "$log" | sed -nE 's/^saved step .*: stall ([0-9.]+) ms, written in ([0-9.]+) s, ([0-9.]+) MB\/s.*/\1 \2 \3/p' | sed '$d' >"$scratch/saves"
  cut -d' ' -f1 "$scratch/saves" | sed 1d >>"$scratch/stall" # the first one also allocates the copy
  cut -d' ' -f1 "$scratch/saves" | sed -n 1p >>"$scratch/first"
  cut -d' ' -f2 "$scratch/saves" >>"$scratch/written"
done
mib=${MIB:-256}
for i in 1 2 3 4 5; do
  rm -rf "$folder"/*
  "$SAVE_BENCH" "$folder" "$mib" | awk -v m="$mib" '{ print m * 1.048576 / $1 }' >>"$scratch/rate"
  rm -rf "$folder"/*
  begin=$(now_ms)
  dd if=/dev/zero of="$folder/dd" bs=1M count="$mib" conv=fsync 2>/dev/null
  awk -v m="$mib" -v t=$(($(now_ms) - begin)) 'BEGIN { print m * 1048.576 / (t > 0 ? t : 1) }' >>"$scratch/dd"
done
rm -rf "$folder"
step=$(median <"$scratch/step") stall=$(median <"$scratch/stall") written=$(median <"$scratch/written") rate=$(median <"$scratch/rate") dd=$(median <"$scratch/dd")
printf '%-44s %10s   %s\n' "median of $(wc -l <"$scratch/written") saves of $((bytes / 1000)) kB" "" "spread" \
  "a step, ms" "$step" "$(spread <"$scratch/step")" \
  "training stands still for a save, ms" "$stall" "$(spread <"$scratch/stall")" \
  "  the first save, which allocates the copy" "$(median <"$scratch/first")" "$(spread <"$scratch/first")" \
  "a save is written in, ms" "$(awk -v w="$written" 'BEGIN { print 1000 * w }')" "$(spread <"$scratch/written") s" \
  "a save of $mib MiB, MB/s" "$rate" "$(spread <"$scratch/rate")" \
  "dd conv=fsync, MB/s" "$dd" "$(spread <"$scratch/dd")"
awk -v s="$step" -v h="$stall" -v w="$written" -v r="$rate" -v d="$dd" 'BEGIN {
  printf "stall %.2f steps; a save takes %.1f steps; %.2f x dd\n", h / s, 1000 * w / s, r / d }'
if awk -v s="$step" -v w="$written" 'BEGIN { exit !(1000 * w > 3 * s) }'; then pass "a save takes more than three steps"; else
  skip "a save takes more than three steps" "this disk is too fast for DIM=${DIM:-32}"; fi
finish
