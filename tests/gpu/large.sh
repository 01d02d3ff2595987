#!/usr/bin/env bash
# large.sh BUILD ROOT LOGS: memory and bad luck on GPUs. Fused updates give the same bits; what is planned is what is held; the largest
# model that the card takes makes real steps (configs/large.ini); more than the card has is refused before step 1; a killed and a
# stopped rank end the job in time and lose nothing. Run by run.sh; prints its own totals last.
set -uo pipefail
build=$1 root=$2 logs=$3
here=$(cd "$(dirname "$0")" && pwd)
arbdist=$build/arbdist mpirun=$here/mpirun.sh
[ -x "$mpirun" ] || mpirun=$here/../mpirun.sh
passed=0 failed=0 skipped=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
note() { printf '%s\n' "$*"; }
pass() { passed=$((passed + 1)); note "ok       $1"; }
fail() { failed=$((failed + 1)); note "FAILED   $1"; }
skip() { skipped=$((skipped + 1)); note "skipped  $1"; }
digest_of() { sed -n 's/^digest \([0-9a-f]*\)$/\1/p' "$1" | tail -n 1; }
quiet=(--set run.dir="$scratch/runs" --set eval.every=0 --set eval.sequences=8 --set sample.length=0 --set checkpoint.every=0)

for config in smoke books; do
  steps=(--set train.steps=6 --set train.warmup=3)
  "$arbdist" "$root/configs/$config.ini" "${quiet[@]}" "${steps[@]}" --set run.device=cuda >"$logs/plain-$config.log" 2>&1
  "$arbdist" "$root/configs/$config.ini" "${quiet[@]}" "${steps[@]}" --set run.device=cuda --set train.fused_update=yes >"$logs/fused-$config.log" 2>&1
  want=$(digest_of "$logs/plain-$config.log") got=$(digest_of "$logs/fused-$config.log")
  if [ -n "$want" ] && [ "$want" = "$got" ]; then pass "$config: fused updates, digest $got"; else fail "$config: fused updates: $got, expected $want"; fi
done

# The GPU beside the reference, every value looked at, guard zones around every array; the digest is the CPU's, without any of it.
timeout 300 "$arbdist" "$root/configs/debug.ini" --set run.dir="$scratch/runs" --set run.device=cuda >"$logs/debug-cuda.log" 2>&1
rc=$?
"$arbdist" "$root/configs/debug.ini" --set run.dir="$scratch/runs" --set run.device=cpu --set debug.lockstep=no --set debug.synchronous=no --set debug.guards=no >"$logs/debug-cpu.log" 2>&1
want=$(digest_of "$logs/debug-cpu.log") got=$(digest_of "$logs/debug-cuda.log")
if [ "$rc" -eq 0 ] && [ -n "$want" ] && [ "$want" = "$got" ]; then pass "debug.ini: lockstep with the reference, guards, digest $got"; else fail "debug.ini: exit code $rc, digest '$got', expected '$want'"; grep '^arbdist:' "$logs/debug-cuda.log"; fi

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    log=$logs/sanitizer-$tool.log
    timeout 120 compute-sanitizer --tool $tool --target-processes all --error-exitcode 9 "$arbdist" "$root/configs/smoke.ini" "${quiet[@]}" --set run.device=cuda --set train.steps=2 \
      --set train.warmup=1 --set train.sequences=2 --set train.grains=2 --set data.valid= --set train.fused_update=yes >"$log" 2>&1
    rc=$?
    if [ "$rc" -eq 124 ]; then skip "compute-sanitizer $tool: not done within 120 s"; continue; fi
    if [ "$rc" -eq 0 ] && grep -qE 'ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards' "$log"; then pass "two steps under compute-sanitizer, $tool"; else fail "compute-sanitizer $tool: exit code $rc"; fi
  done
else
  skip "compute-sanitizer: not on this machine"
fi

# held NAME LOG: bench step printed as much held as planned.
held() {
  local line
  line=$(grep '^memory: ' "$2")
  note "$1: $line"
  if [ -n "$line" ] && [ "$(sed -E 's/.*; ([0-9]+) bytes held.*/\1/' <<<"$line")" = "$(sed -E 's/.*; ([0-9]+) planned.*/\1/' <<<"$line")" ]; then
    pass "$1: the plan is what is held"
  else
    fail "$1: planned and held"
  fi
}
"$arbdist" bench step "$root/configs/books.ini" --set run.device=cuda --set run.dir="$scratch/runs" >"$logs/bench-books-memory.log" 2>&1
held books "$logs/bench-books-memory.log"

mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | head -n 1)
layers=$((mib >= 140000 ? 65 : mib >= 80000 ? 36 : 0))
if [ "$layers" -gt 0 ]; then
  "$arbdist" plan "$root/configs/large.ini" --set run.device=cuda --set model.layers=$layers >"$logs/plan-large.log" 2>&1
  timeout 300 "$arbdist" bench step "$root/configs/large.ini" --set run.device=cuda --set model.layers=$layers >"$logs/bench-large.log" 2>&1
  rc=$?
  note "$(cat "$logs/bench-large.log")"
  if [ "$rc" -eq 0 ]; then pass "large.ini with $layers layers takes steps"; else fail "large.ini with $layers layers: exit code $rc"; fi
  held large "$logs/bench-large.log"
else
  skip "large.ini: this card has $mib MiB"
fi

rc=0
timeout 120 "$arbdist" "$root/configs/large.ini" --set run.device=cuda --set run.dir="$scratch/runs" --set model.layers=400 >"$logs/too-large.log" 2>&1 || rc=$?
if [ "$rc" -eq 7 ] && grep -q 'out of device memory before the first step: [0-9]* bytes are needed' "$logs/too-large.log" && grep -q '^  votes ' "$logs/too-large.log"; then
  pass "more than the card has: exit code 7 and the plan"
else
  fail "more than the card has: exit code $rc"
fi

# ---- a lost rank
gpus=$(nvidia-smi -L | grep -c GPU)
cat >"$scratch/rank.sh" <<'RANK'
#!/usr/bin/env bash
echo $$ >"$PIDS/pid.${OMPI_COMM_WORLD_RANK:-0}"
exec "$@"
RANK
chmod +x "$scratch/rank.sh"
export PIDS=$scratch
saving=("${quiet[@]/checkpoint.every=0/checkpoint.every=20}")
gone() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null; }
run_two() { # LOG ARGS...: continues run "lost"
  local log=$1
  shift
  "$mpirun" 2 "$scratch/rank.sh" "$arbdist" "$root/configs/smoke.ini" "${saving[@]}" --set run.name=lost --set run.device=cuda --set train.steps=100000 \
    --set dist.timeout_s=5 "$@" >"$log" 2>&1
}
for signal in KILL STOP; do
  if [ "$gpus" -lt 2 ]; then skip "SIG$signal of one of two GPU ranks: this machine has one GPU"; continue; fi
  log=$logs/lost-$signal.log
  rm -f "$scratch"/pid.*
  run_two "$log" &
  job=$!
  for _ in $(seq 600); do grep -q 'saved step' "$log" 2>/dev/null && break; sleep 0.1; done
  begin=$(date +%s%N)
  kill -$signal "$(cat "$scratch/pid.1")"
  for _ in $(seq 300); do gone $job && break; sleep 0.1; done
  took=$((($(date +%s%N) - begin) / 1000000))
  rc=0
  wait $job || rc=$?
  left=
  for r in 0 1; do gone "$(cat "$scratch/pid.$r")" || { left="$left rank $r"; kill -9 "$(cat "$scratch/pid.$r")"; }; done
  if [ "$rc" -ne 0 ] && [ "$took" -le 15000 ] && [ -z "$left" ]; then pass "SIG$signal of rank 1: the job ended after $took ms, code $rc"; else fail "SIG$signal of rank 1: $took ms, code $rc, left:$left"; fi
  if [ "$signal" = STOP ]; then
    if [ "$rc" -eq 5 ] && grep -qE '\[rank 0\] comm: .*rank 1 has not entered' "$log"; then pass "the report names the stopped rank"; else fail "the report of a stopped rank: code $rc"; fi
  fi
  grep -hE '^error|arbdist:' "$log" | head -n 3
  at=$(sed -n 's/^saved step \([0-9]*\).*/\1/p' "$log" | tail -n 1)
  "$arbdist" "$root/configs/smoke.ini" "${saving[@]}" --set run.name=lost --set run.device=cuda --set train.steps=100000 >"$log.again" 2>&1 &
  job=$!
  for _ in $(seq 300); do grep -q '^resumed at step' "$log.again" && break; sleep 0.1; done
  kill -9 $job 2>/dev/null
  wait $job 2>/dev/null
  resumed=$(sed -n 's/^resumed at step \([0-9]*\)$/\1/p' "$log.again")
  if [ -n "$resumed" ] && [ "$resumed" -ge "${at:-1}" ]; then pass "SIG$signal: resumed at step $resumed, the last saved was $at"; else fail "SIG$signal: resumed at '${resumed}', the last saved was '${at}'"; fi
done
note "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
