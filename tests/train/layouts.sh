#!/usr/bin/env bash
# layouts.sh: a run whose state is sharded among ranks is saved, stopped or killed, and goes on among other ranks, sharded or not;
# it ends with the bits of a run on one rank that nothing disturbed.
. "$(dirname "$0")/run.sh"
save=(--set checkpoint.every=5 --set checkpoint.keep=20)
shard=(--set dist.shard_state=yes)

train "$scratch/base" one "${save[@]}"
base=$(digest)
[ -n "$base" ] || fail "an undisturbed run" "exit code $rc"$'\n'"$(tail -n 20 "$log")"
curve "$scratch/base" >"$scratch/base.curve"

# forget WHERE STEP: as if the run had been stopped after STEP.
forget() {
  local folder
  for folder in "$1"/tiny/checkpoints/step-*; do
    [ "$((10#${folder##*-}))" -le "$2" ] || rm -rf "$folder"
  done
}
# goes_on NAME WHERE STEP RANKS OPTION...: stopped after STEP, to the end on other ranks.
goes_on() {
  local name=$1 place=$2 step=$3 ranks=$4
  shift 4
  forget "$place" "$step"
  train "$place" "$ranks" "${save[@]}" "$@"
  same "$name: from step $step on $ranks: digest" "$step $base" "$(resumed_at) $(digest)" "$(tail -n 5 "$log")"
  if curve "$place" | cmp -s - "$scratch/base.curve"; then pass "$name: from step $step on $ranks: metrics"; else
    fail "$name: from step $step on $ranks: metrics.jsonl differs" "$(curve "$place" | diff "$scratch/base.curve" - | head -n 4)"
  fi
}

four="loopback 4" three="loopback 3"
[ -z "$MPIRUN" ] || four="mpi 4" three="mpi 3"
train "$scratch/a" "$four" "${save[@]}" "${shard[@]}"
same "sharded, $four, with checkpoints: digest" "$base" "$(digest)" "$(tail -n 5 "$log")"
goes_on "sharded 4, 1, 3" "$scratch/a" 20 one "${shard[@]}"
goes_on "sharded 4, 1, 3" "$scratch/a" 40 "$three" "${shard[@]}"
goes_on "sharded 3 to replicated" "$scratch/a" 45 "loopback 2"
goes_on "replicated to sharded" "$scratch/base" 10 "loopback 8" "${shard[@]}" --set run.device=ref --set debug.poison=yes
for command in eval generate; do
  rc=0
  "$ARBDIST" "$command" "$config" --set run.dir="$scratch/a" --loopback 3 "${shard[@]}" --set sample.length=40 >"$log" 2>&1 || rc=$?
  sharded=$(plain "$log")
  "$ARBDIST" "$command" "$config" --set run.dir="$scratch/a" --set sample.length=40 >"$log" 2>&1 || rc=$?
  same "$command with sharded state" "0 $(plain "$log")" "$rc $sharded"
done
# What is sent, by kind: a byte of votes a weight (blocks may be padded), a third of a fifth of trits.
train "$scratch/b" "loopback 3" "${shard[@]}"
last=$(tail -n 1 "$scratch/b/tiny/metrics.jsonl")
contains "payload by kind in metrics.jsonl" "$last" '"wire_bytes": \{"votes": 10[0-9]{4}, "trits": 7[0-9]{3}, "rows": [0-9]+, "stats": [0-9]+, "agreement": [0-9]+,'
train "$scratch/b" "loopback 3" --set checkpoint.resume=no
contains "payload by kind, replicated" "$(tail -n 1 "$scratch/b/tiny/metrics.jsonl")" '"wire_bytes": \{"votes": 10[0-9]{4}, "trits": 0, "rows": 0, "stats": 0, "agreement": [0-9]+,'
rc=0
"$ARBDIST" audit "$config" --loopback 4 "${shard[@]}" >"$log" 2>&1 || rc=$?
contains "audit of sharded state" "$(cat "$log")"$'\n'"exit code $rc" 'sharded: rank 0 of 4' 'state bytes \(trit and accumulator\) +26120 bytes +0\.2505 a weight' \
  'packed trits, 5 a byte' '^exit code 0$'

if [ -n "$MPIRUN" ]; then
  ASAN_OPTIONS=detect_leaks=0 "$MPIRUN" 4 "$here/rank.sh" "$scratch" "$ARBDIST" "$config" --set run.dir="$scratch/killed" \
    --set run.device=ref "${save[@]}" "${shard[@]}" >"$log" 2>&1 &
  pid=$!
  has_checkpoint() { compgen -G "$scratch/killed/tiny/checkpoints/step-????????" >/dev/null; }
  wait_for 60 has_checkpoint || fail "no checkpoint within 60 s" "$(tail -n 20 "$log")"
  kill -9 "$(cat "$scratch/pid.2")"
  rc=0
  { wait "$pid" || rc=$?; } 2>/dev/null
  if [ "$rc" -ne 0 ]; then pass "kill -9 of a rank that owns rows ends the job, code $rc"; else fail "kill -9 of rank 2: exit code 0"; fi
  train "$scratch/killed" "mpi 3" "${save[@]}" "${shard[@]}"
  at=$(resumed_at)
  if [ "${at:-0}" -gt 0 ]; then pass "after kill -9: resumed at step $at on 3 ranks"; else fail "after kill -9: not resumed" "$(tail -n 5 "$log")"; fi
  same "after kill -9: digest" "$base" "$(digest)" "$(tail -n 5 "$log")"

  # One rank that was started with another setting is named before anything is trained.
  cat >"$scratch/odd.sh" <<'END'
[ "$OMPI_COMM_WORLD_RANK" = 1 ] && exec "$@" --set dist.shard_state=no
exec "$@" --set dist.shard_state=yes
END
  rc=0
  "$MPIRUN" 2 bash "$scratch/odd.sh" "$ARBDIST" "$config" --set run.dir="$scratch/odd" >"$log" 2>&1 || rc=$?
  contains "ranks that disagree about sharding" "$(plain "$log")"$'\n'"exit code $rc" 'rank 1 differs from rank 0 in dist.shard_state' '^exit code 2$'
else
  skip "a sharded rank killed under mpirun" "no MPI in this build"
  skip "ranks that disagree about sharding" "no MPI in this build"
fi
finish
