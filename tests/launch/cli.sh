#!/usr/bin/env bash
# cli.sh: what is shipped works as it says: help, version, every config, and the files of a run folder.
. "$(dirname "$0")/../train/run.sh"
root=$(cd "$here/../.." && pwd)

"$ARBDIST" "$config" --set run.dir="$scratch/runs" --set train.steps=6 --set eval.every=2 --set sample.length=12 \
  --set sample.prompt=Hello >"$log" 2>&1 || rc=$?
first=$(digest)
contains "a run: start, steps, sample and digest" "$(cat "$log")"$'\n'"exit code $rc" '^104288 ternary weights' \
  '^start: digest [0-9a-f]{32}$' '^step 6/6  bpb [0-9.]+  val [0-9.]+' '^--- sample after step 6$' '^Hello' '^exit code 0$'
same "a run: the digest is the last line" "digest $first" "$(tail -n 1 "$log")"
same "metrics.jsonl: a line a step, three with an evaluation" "6 3" \
  "$(wc -l <"$scratch/runs/tiny/metrics.jsonl") $(grep -c '"val_bpb": [0-9]' "$scratch/runs/tiny/metrics.jsonl")"

# The resolved config is a config, and the same run.
cp "$scratch/runs/tiny/config.ini" "$scratch/again.ini"
"$ARBDIST" "$scratch/again.ini" >"$log" 2>&1 || rc=$?
same "config.ini of a run gives that run again" "$first" "$(digest)" "$(tail -n 5 "$log")"

# Every key is in the help. The resolved config has them all, as src/config/config.h counts them.
keys() { awk '/^\[/ { section = $1 } /^ *[a-z_0-9]+ =/ { print section, $1 }'; }
resolved=$(keys <"$scratch/again.ini")
helped=$("$ARBDIST" --help | keys)
same "--help lists every key, in order" "$resolved" "$helped"
counted=$(sed -nE 's/.*ARB_CONFIG_KEYS[ =]+([0-9]+).*/\1/p' "$root/src/config/config.h")
same "the resolved config holds every key" "$counted" "$(wc -l <<<"$resolved")"
contains "--help names the commands and exit codes" "$("$ARBDIST" --help)" '^  train ' '^  eval ' '^  generate ' '^  audit ' \
  '^exit codes: 0 .*, 2 .*, 3 .*, 4 .*, 5 .*, 6 .*, 7 ' '75 '
contains "--version" "$("$ARBDIST" --version)" '^arbdist [0-9]+\.[0-9]+\.[0-9]+$'

for shipped in "$root"/configs/*.ini; do
  rc=0
  if [ "${shipped##*/}" = large.ini ]; then # for one large GPU: planned, not allocated
    "$ARBDIST" plan "$shipped" --set run.device=cuda >"$log" 2>&1 || rc=$?
    contains "plan large.ini: more than 100 billion weights in less than 141 GB" "$(cat "$log")"$'\n'"exit code $rc" \
      '^1[0-9]{11} ternary weights on 1 rank' '^  sum +1[0-3][0-9]{10}|^  sum +14[0-6][0-9]{9} bytes +1\.1' '^exit code 0$'
    continue
  fi
  timeout 120 "$ARBDIST" audit "$shipped" --set run.device=cpu >"$log" 2>&1 || rc=$?
  contains "audit ${shipped##*/}: all state is integer" "$(cat "$log")"$'\n'"exit code $rc" \
    '^trainable float parameters +0$' '^float buffers +0 ' '^exit code 0$'
  [ "${shipped##*/}" = books.ini ] && contains "audit books.ini: the counts of the specification" "$(cat "$log")" \
    '^logical ternary weights +19888896$' '^norm exponents +18944$'
done

# The exchange of votes beside MPI's own call; the ratio is a measurement, that there is one is not.
if [ -n "$MPIRUN" ]; then
  for shard in no yes; do
    rc=0
    ASAN_OPTIONS=detect_leaks=0 timeout 120 "$MPIRUN" 2 "$ARBDIST" bench votes "$config" --set dist.shard_state=$shard >"$log" 2>&1 || rc=$?
    contains "bench votes, sharded $shard" "$(plain "$log")"$'\n'"exit code $rc" '^votes: mpi, 2 ranks, (replicated|sharded) state, 10[0-9]{4} bytes' \
      'ms +[0-9.]+ GB/s \([0-9.]+ - [0-9.]+\), bus +[0-9.]+ GB/s: [0-9.]+ of the bare call \([0-9.]+ - [0-9.]+\)' 'bare (all_reduce|reduce_scatter)' '^exit code 0$'
  done
else
  skip "bench votes" "no MPI in this build"
fi
rc=0
"$ARBDIST" bench votes "$config" >"$log" 2>&1 || rc=$?
contains "bench votes on one rank" "$(cat "$log")"$'\n'"exit code $rc" 'one rank exchanges nothing; start more: mpirun' '^exit code 2$'
finish
