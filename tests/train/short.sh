#!/usr/bin/env bash
# short.sh: a few steps through every command, on one rank, several threads and MPI; cheap enough for sanitizers.
. "$(dirname "$0")/run.sh"
few=(--set train.steps=8 --set train.warmup=2 --set train.sequences=8 --set eval.every=4 --set eval.sequences=5 --set run.threads=2
  --set checkpoint.every=3 --set sample.length=20 --set sample.prompt=It)

train "$scratch/one" one "${few[@]}"
base=$(digest)
if [ "$rc" -eq 0 ] && [ -n "$base" ]; then pass "one rank"; else fail "one rank" "exit code $rc"$'\n'"$(tail -n 30 "$log")"; fi
places=("loopback 3" "loopback 3 --set dist.shard_state=yes" "loopback 2 --set run.device=ref --set debug.poison=yes")
[ -n "$MPIRUN" ] && places+=("mpi 2")
for place in "${places[@]}"; do
  read -r kind ranks options <<<"$place"
  rm -rf "$scratch/$kind"
  # shellcheck disable=SC2086 # options are several words
  train "$scratch/$kind" "$kind $ranks" "${few[@]}" $options
  same "$place: digest" "0 $base" "$rc $(digest)" "$(tail -n 30 "$log")"
  rm -rf "$scratch/$kind/tiny/checkpoints/step-00000008"
  # shellcheck disable=SC2086
  train "$scratch/$kind" "$kind $ranks" "${few[@]}" $options
  same "$place: resumed at step 6, digest" "0 6 $base" "$rc $(resumed_at) $(digest)" "$(tail -n 30 "$log")"
done
# Updates during the backward pass: the same bits, also across a checkpoint, in both directions.
train "$scratch/fused" one "${few[@]}" --set train.fused_update=yes
same "train.fused_update: digest" "0 $base" "$rc $(digest)" "$(tail -n 30 "$log")"
for next in no yes; do
  rm -rf "$scratch/fused/tiny/checkpoints/step-00000008"
  train "$scratch/fused" one "${few[@]}" --set train.fused_update=$next
  same "train.fused_update = $next after a checkpoint: digest" "0 6 $base" "$rc $(resumed_at) $(digest)" "$(tail -n 30 "$log")"
done
for command in eval generate audit; do
  rc=0
  "$ARBDIST" "$command" "$config" --set run.dir="$scratch/one" "${few[@]}" >"$log" 2>&1 || rc=$?
  case $command in
    eval) want='^step 8: [0-9.]+ bits per byte' ;;
    generate) want='^It' ;;
    audit) want='^trainable float parameters +0$' ;;
  esac
  contains "$command, exit code 0" "$(cat "$log")"$'\n'"exit code $rc" "$want" '^exit code 0$'
done
finish
