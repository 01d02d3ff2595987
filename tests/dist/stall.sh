#!/usr/bin/env bash
# stall.sh MPIRUN.SH STALL: a stopped rank ends the job in time, with the exit code of a lost peer and a report naming it.
set -u
start=$SECONDS
out=$(timeout -k 5 60 "$1" 3 "$2" 2>&1)
rc=$?
took=$((SECONDS - start))
printf '%s\n' "$out"
fail() { echo "FAILED: $1"; exit 1; }
[ "$rc" -eq 5 ] || fail "exit code $rc, expected 5"
[ "$took" -le 15 ] || fail "took $took s: timeout 2 s and at most 10 s more, plus the start"
grep -q 'rank 2 has not entered all_reduce #2 (votes), last seen leaving #1 (barrier, control)' <<<"$out" ||
  fail "the report does not name the stopped rank"
