#!/usr/bin/env bash
# stop.sh: a rank that stops answering, as SIGSTOP or a broken node would make it, ends the job within the timeout and 10 s,
# with the exit code of a lost peer and a report that names the rank.
. "$(dirname "$0")/../train/run.sh"
[ -n "$MPIRUN" ] || { skip "a stopped rank" "no MPI in this build"; finish; }
not_running() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null; }
stepping() { plain "$log" | grep -q '^step 3/'; }

for victim in 0 1; do
  rm -f "$scratch"/pid.*
  : >"$log"
  # 3 grains on 2 ranks, and the slow backend: rank 1 waits for rank 0 most of the time.
  "$MPIRUN" 2 "$here/rank.sh" "$scratch" "$ARBDIST" "$config" --set run.dir="$scratch/runs" --set run.device=ref \
    --set train.grains=3 --set train.sequences=48 --set train.steps=100000 --set dist.timeout_s=2 --set eval.every=0 \
    >"$log" 2>&1 </dev/null &
  pid=$!
  wait_for 60 stepping || fail "no step within 60 s" "$(plain "$log" | tail -n 5)"
  begin=$(now_ms)
  kill -STOP "$(cat "$scratch/pid.$victim")"
  rc=0
  if ! wait_for 30 not_running "$pid"; then kill -9 "$pid" "$(cat "$scratch/pid.0")" "$(cat "$scratch/pid.1")" 2>/dev/null || true; fi
  took=$(($(now_ms) - begin))
  { wait "$pid" || rc=$?; } 2>/dev/null
  same "rank $victim stopped: exit code" 5 "$rc" "$(plain "$log" | tail -n 10)"
  if [ "$took" -le 12000 ]; then pass "rank $victim stopped: the job ended after $took ms"; else fail "rank $victim stopped: $took ms"; fi
  contains "rank $victim stopped: the report names it" "$(plain "$log" | grep '^error: ')" \
    "^error: \[rank $((1 - victim))\] comm: .*; rank $victim "
  for r in 0 1; do
    if not_running "$(cat "$scratch/pid.$r")"; then :; else
      fail "rank $victim stopped: rank $r is still there"
      kill -9 "$(cat "$scratch/pid.$r")" || true
    fi
  done
done
finish
