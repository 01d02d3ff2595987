#!/usr/bin/env bash
# builds.sh ARBDIST NAME COMMAND...  [-- NAME COMMAND...]...: other builds (compilers, instruction sets of the reference, optimisation
# levels) train to the digest and the losses of the first. A command is a binary and options: build-clang/arbdist --set run.device=ref
ARBDIST=$1
. "$(dirname "$0")/run.sh"
shift
train "$scratch/base" one
base=$(digest)
curve "$scratch/base" >"$scratch/base.curve"
if [ "$rc" -eq 0 ] && [ -n "$base" ]; then pass "$ARBDIST: $base"; else fail "$ARBDIST" "$(tail -n 20 "$log")"; fi
while [ $# -gt 0 ]; do
  name=$1 command=()
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do command+=("$1"); shift; done
  [ $# -eq 0 ] || shift
  rc=0
  rm -rf "$scratch/run"
  timeout -k 5 120 "${command[0]}" "$config" "${command[@]:1}" --set run.dir="$scratch/run" >"$log" 2>&1 || rc=$?
  same "$name: digest" "0 $base" "$rc $(digest)" "$(tail -n 5 "$log")"
  if curve "$scratch/run" | cmp -s - "$scratch/base.curve"; then pass "$name: losses"; else fail "$name: losses differ"; fi
done
finish
