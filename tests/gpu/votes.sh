#!/usr/bin/env bash
# votes.sh BUILD ROOT LOGS [DATA]: votes that are sent during the backward pass, on the GPUs of one node: equal digests with and
# without, in one batch of grains and in several, replicated and sharded; a rank that is killed or stopped ends the job in time.
# Prints a line a check and totals.
set -uo pipefail
build=$1 root=$2 logs=$3 data=${4:-}
here=$(cd "$(dirname "$0")" && pwd)
mpirun=$here/mpirun.sh
[ -x "$mpirun" ] || mpirun=$here/../mpirun.sh
arbdist=$build/arbdist
passed=0 failed=0 skipped=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
pass() { passed=$((passed + 1)); echo "ok       $1"; }
fail() { failed=$((failed + 1)); echo "FAILED   $1"; }
digest_of() { sed -n 's/^digest \([0-9a-f]*\)$/\1/p' "$1" | tail -n 1; }
same() { if [ -n "$2" ] && [ "$2" = "$3" ]; then pass "$1 ($2)"; else fail "$1: $2 against $3"; fi; }
now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 1000)); }
finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
  exit
}
gpus=$(nvidia-smi -L | grep -c GPU)
if [ "$gpus" -lt 2 ]; then
  echo "skipped  votes between GPUs: this machine has one"
  skipped=1
  finish
fi
# bucket_mb=0: in parts, however small the votes
quick=(--set run.dir="$scratch/runs" --set run.device=cuda --set dist.bucket_mb=0 --set train.warmup=5 --set eval.every=0 --set eval.sequences=16 --set sample.length=0)
text=()
[ -n "$data" ] && text=(--set data.train="$data/books.train.txt.xz" --set data.valid="$data/books.valid.txt.xz")

# ---- digests
for config in smoke books; do
  args=(--set train.steps=20 --set checkpoint.every=0)
  [ "$config" = books ] && args+=("${text[@]}")
  "$arbdist" "$root/configs/$config.ini" "${quick[@]}" --set run.name=one "${args[@]}" >"$logs/votes-$config-1.log" 2>&1
  want=$(digest_of "$logs/votes-$config-1.log")
  for n in 2 3 4; do
    [ "$n" -le "$gpus" ] || continue
    for shard in no yes; do
      for overlap in yes no; do
        for at_once in 0 1; do
          name=$config-$n-shard_$shard-overlap_$overlap-at_once_$at_once
          "$mpirun" "$n" "$arbdist" "$root/configs/$config.ini" "${quick[@]}" --set run.name="$name" "${args[@]}" --set dist.shard_state=$shard \
            --set dist.overlap=$overlap --set run.grains_at_once=$at_once >"$logs/votes-$name.log" 2>&1
          same "$config on $n GPUs, sharded $shard, overlap $overlap, grains at once $at_once" "$want" "$(digest_of "$logs/votes-$name.log")"
        done
      done
    done
  done
  [ "$config" = books ] || continue
  for debug in poison guards synchronous; do
    "$mpirun" 2 "$arbdist" "$root/configs/$config.ini" "${quick[@]}" --set run.name="$config-$debug" "${args[@]}" --set debug.$debug=yes >"$logs/votes-$config-$debug.log" 2>&1
    same "$config on 2 GPUs, overlap, debug.$debug" "$want" "$(digest_of "$logs/votes-$config-$debug.log")"
  done
done

# ---- bad luck: within timeout + 10 s
cat >"$scratch/rank.sh" <<'END'
echo $$ >"$1/pid.$OMPI_COMM_WORLD_RANK"
shift
exec "$@"
END
for shard in no yes; do
  for signal in KILL STOP; do
    rm -f "$scratch"/pid.*
    log=$logs/votes-$signal-shard_$shard.log
    "$mpirun" 2 bash "$scratch/rank.sh" "$scratch" "$arbdist" "$root/configs/books.ini" "${quick[@]}" "${text[@]}" --set run.name="$signal-$shard" \
      --set train.steps=100000 --set checkpoint.every=0 --set dist.timeout_s=5 --set dist.shard_state=$shard >"$log" 2>&1 &
    job=$!
    for _ in $(seq 600); do grep -qE 'step +[0-9]*0/100000' "$log" && break; sleep 0.1; done
    sleep 1.37
    start=$(now_ms)
    kill -$signal "$(cat "$scratch/pid.1")"
    (sleep 60; kill -9 $job) 2>/dev/null &
    guard=$!
    wait $job 2>/dev/null
    rc=$?
    took=$(($(now_ms) - start))
    kill $guard 2>/dev/null
    kill -KILL "$(cat "$scratch/pid.0")" "$(cat "$scratch/pid.1")" 2>/dev/null
    said=$(grep -oE 'rank 1 has not entered [a-z_]+ #[0-9]+ \([a-z]+\)' "$log" | head -n 1)
    if [ "$rc" -ne 0 ] && [ "$took" -lt 15000 ] && { [ $signal = KILL ] || { [ -n "$said" ] && [ "$rc" -eq 5 ]; }; }; then
      pass "SIG$signal of a rank, sharded $shard: code $rc after $took ms; $said"
    else
      fail "SIG$signal of a rank, sharded $shard: code $rc after $took ms; $said"
    fi
  done
done
finish
