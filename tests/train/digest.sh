#!/usr/bin/env bash
# digest.sh: the same config gives the same state and the same losses, bit for bit, on any number of ranks, over any
# transport, with the state replicated or sharded, on any backend, instruction set and thread count, whatever work memory held before.
. "$(dirname "$0")/run.sh"

train "$scratch/base" one
base=$(digest)
[ -n "$base" ] || fail "a run on one rank" "exit code $rc"$'\n'"$(tail -n 20 "$log")"
curve "$scratch/base" >"$scratch/base.curve"
flipping=$(awk '$4 > 0' "$scratch/base.curve" | wc -l)
if [ "$flipping" -ge 50 ]; then pass "trits flip in $flipping of 60 steps"; else fail "trits flip in $flipping steps, fewer than 50"; fi

# equal NAME RANKS OPTION...
equal() {
  local name=$1 ranks=$2 place=$scratch/run
  shift 2
  rm -rf "$place"
  train "$place" "$ranks" "$@"
  same "$name: digest" "$base" "$(digest)" "$(tail -n 5 "$log")"
  if [ "$rc" -eq 0 ] && curve "$place" | cmp -s - "$scratch/base.curve"; then
    pass "$name: loss, flips and saturation of every step"
  else
    fail "$name: loss, flips or saturation differ" "exit code $rc" "$(curve "$place" | diff "$scratch/base.curve" - | head -n 4)"
  fi
}
for n in 1 2 3 8; do equal "loopback, $n ranks" "loopback $n"; done
for n in 1 2 3 4; do
  if [ -n "$MPIRUN" ]; then equal "mpirun, $n ranks" "mpi $n"; else skip "mpirun, $n ranks" "no MPI in this build"; fi
done
shard=(--set dist.shard_state=yes)
for n in 2 4; do equal "sharded, loopback, $n ranks" "loopback $n" "${shard[@]}"; done
for n in 1 2 3 4; do
  if [ -n "$MPIRUN" ]; then equal "sharded, mpirun, $n ranks" "mpi $n" "${shard[@]}"; else skip "sharded, mpirun, $n ranks" "no MPI in this build"; fi
done
equal "sharded, the reference backend, 3 ranks, poisoned" "loopback 3" "${shard[@]}" --set run.device=ref --set debug.poison=yes
equal "the reference backend, 2 ranks, poisoned work memory" "loopback 2" --set run.device=ref --set debug.poison=yes
for isa in scalar avx2 avx512; do
  flag=$isa
  [ "$isa" = avx512 ] && flag=avx512bw
  if [ "$isa" = scalar ] || grep -qw "$flag" /proc/cpuinfo; then
    equal "run.isa = $isa" one --set run.isa="$isa"
  else
    skip "run.isa = $isa" "this processor does not have it"
  fi
done
for n in 1 2 5; do equal "$n threads" one --set run.threads="$n"; done
equal "poisoned work memory" one --set debug.poison=yes

# And the digest is no constant: whatever belongs to the identity of a run changes it.
for other in run.seed=8 train.peak=0.19 train.grains=4 train.steps=59; do
  rm -rf "$scratch/run"
  train "$scratch/run" one --set "$other"
  got=$(digest)
  if [ "$rc" -eq 0 ] && [ -n "$got" ] && [ "$got" != "$base" ]; then pass "$other gives another digest"; else fail "$other gives the digest '$got'"; fi
done
finish
