#!/usr/bin/env bash
# disk.sh: a run whose disk is full, or fails at one call, in the middle of training: a clear error and the last good checkpoint
# intact, or, with checkpoint.on_error = continue, a warning and training to the end. And a real small file system.
. "$(dirname "$0")/../train/run.sh"
: "${ARBCKPT:?the arbckpt binary}" "${FAULTY:?arbdist with faults}"
options=(--set train.steps=12 --set train.warmup=2 --set checkpoint.every=4 --set eval.every=0 --set eval.sequences=1 --set sample.length=0)
train "$scratch/base" one "${options[@]}"
base=$(digest)
[ -n "$base" ] || fail "an undisturbed run" "$(tail -n 5 "$log")"
newest() { "$ARBCKPT" ls "$1" 2>/dev/null | awk '/ verified$/ { s = $1 } END { print s + 0 }'; }

# Which calls belong to the second save of three: the first save's are counted by letting each of them fail.
# faulty FAULT NAME PATTERN: the second save fails.
first_calls() { # CALL: how many a save makes
  local n=0
  rm -rf "$scratch/count"
  while ARB_TEST_FAULT=$1:$n:EIO:once "$FAULTY" "$config" --set run.dir="$scratch/count" "${options[@]/train.steps=12/train.steps=4}" \
    >/dev/null 2>&1; [ $? -eq 4 ]; do n=$((n + 1)); rm -rf "$scratch/count"; done
  echo "$n"
}
fsyncs=$(first_calls fsync)
renames=$(first_calls rename)
if [ "$fsyncs" -ge 4 ] && [ "$renames" -ge 1 ]; then pass "every one of $fsyncs fsyncs and $renames renames of a save matters"; else
  fail "a save ends well although one of its calls fails" "$fsyncs fsyncs, $renames renames"
fi
# both FAULT NAME REASON
both() {
  local fault=$1 name=$2 reason=$3
  rm -rf "$scratch/runs"
  rc=0
  ARB_TEST_FAULT=$fault "$FAULTY" "$config" --set run.dir="$scratch/runs" "${options[@]}" >"$log" 2>&1 || rc=$?
  same "$name: ends the run" "4 4" "$rc $(newest "$scratch/runs/tiny")" "$(plain "$log" | tail -n 5)"
  contains "$name: says why" "$(plain "$log")" "^arbdist: checkpoint: .*$reason"
  same "$name: leaves nothing behind" 1 "$(ls "$scratch/runs/tiny/checkpoints" | wc -l)" "$(ls "$scratch/runs/tiny/checkpoints")"
  train "$scratch/runs" one "${options[@]}"
  same "$name: then continues from the last good one" "0 4 $base" "$rc $(resumed_at) $(digest)" "$(plain "$log" | tail -n 5)"
  rm -rf "$scratch/runs"
  rc=0
  ARB_TEST_FAULT=$fault:once "$FAULTY" "$config" --set run.dir="$scratch/runs" "${options[@]}" --set checkpoint.on_error=continue \
    >"$log" 2>&1 || rc=$?
  same "$name, on_error = continue: trains to the end" "0 $base" "$rc $(digest)" "$(plain "$log" | tail -n 5)"
  contains "$name, on_error = continue: warns" "$(plain "$log")" "^warning: .*step 8 was not saved, training goes on: .*$reason" \
    '^warning: .*the last checkpoint is that of step 4'
  same "$name, on_error = continue: saves again later" 12 "$(newest "$scratch/runs/tiny")"
}
both "fsync:$fsyncs:EIO" "fsync fails" 'fsync: Input/output error'
both "reserve:1:ENOSPC" "no room" 'no room for [0-9]+ bytes: No space left on device'
both "rename:$renames:EIO" "rename fails" 'cannot be renamed to .*: Input/output error'

# One rank of two cannot write: no rank keeps the save, and all go on, or none.
rm -rf "$scratch/runs"
rc=0
ARB_TEST_FAULT=pwrite:230:EIO:once "$FAULTY" "$config" --set run.dir="$scratch/runs" "${options[@]}" --loopback 2 --set dist.shard_state=yes \
  --set checkpoint.on_error=continue >"$log" 2>&1 || rc=$?
same "one of two ranks cannot write, on_error = continue: trains to the end" "0 $base 12" "$rc $(digest) $(newest "$scratch/runs/tiny")" \
  "$(plain "$log" | tail -n 5)"
same "one of two ranks cannot write: one warning of it" 1 "$(plain "$log" | grep -c 'was not saved, training goes on: .*Input/output error')"
same "one of two ranks cannot write: nothing is left of that save" 0 "$(compgen -G "$scratch/runs/tiny/checkpoints/*.tmp-*" | wc -l)"

# A file system that is really full. Only root may mount one.
small=$scratch/small
mkdir "$small"
if ! mount -t tmpfs -o size=420k tmpfs "$small" 2>/dev/null; then
  skip "A FULL FILE SYSTEM WAS NOT TRIED" "no tmpfs can be mounted here"
  finish
fi
trap 'code=$?; umount -l "$small" 2>/dev/null || true; set +e; (exit "$code"); leave' EXIT
# Room for one checkpoint of about 165 kB and the run's own files, then for a part of the next one; with the early notice, and in
# the middle of a dataset, as where space cannot be reserved.
for how in stop continue; do for fault in slow:0 reserve:0; do
  rc=0
  rm -rf "${small:?}"/*
  head -c 140000 /dev/zero >"$small/other"
  ARB_TEST_FAULT=$fault "$FAULTY" "$config" --set run.dir="$small" "${options[@]}" --set checkpoint.on_error=$how >"$log" 2>&1 || rc=$?
  case $fault in slow*) why='no room for [0-9]+ bytes: No space left' ;; *) why='cannot write [a-z0-9.]+: No space left' ;; esac
  contains "a full file system, on_error = $how: says so" "$(plain "$log")" "$why"
  same "a full file system, on_error = $how: the last good checkpoint is there" 4 "$(newest "$small/tiny")" "$(plain "$log" | tail -n 5)"
  same "a full file system, on_error = $how: nothing half-written stays" 1 "$(ls "$small/tiny/checkpoints" | wc -l)"
  if [ "$how" = stop ]; then same "a full file system: exit code" 4 "$rc"; else
    contains "a full file system, on_error = continue: trains on, and ends with the code of the last save" \
      "$(plain "$log")"$'\n'"code $rc" '^step 12/12' '^code 4$' 'step 8 was not saved, training goes on'
  fi
done; done
rm "$small/other"
rm -rf "$small/tiny/checkpoints/"*.tmp-*
mount -o remount,size=4m "$small"
train "$small" one "${options[@]}"
same "room again: continues from the last good one" "0 4 $base" "$rc $(resumed_at) $(digest)" "$(plain "$log" | tail -n 5)"
finish
