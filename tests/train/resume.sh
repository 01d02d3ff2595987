#!/usr/bin/env bash
# resume.sh: a run that was killed, asked to stop, or left with damaged checkpoints continues on another rank count and ends
# with the bits of a run that nothing disturbed.
. "$(dirname "$0")/run.sh"
save=(--set checkpoint.every=5)
slow=(--set run.device=ref) # long enough to be interrupted; the other backends continue it

train "$scratch/base" "loopback 2" "${save[@]}" --set checkpoint.keep=20
base=$(digest)
[ -n "$base" ] || fail "an undisturbed run" "exit code $rc"$'\n'"$(tail -n 20 "$log")"
curve "$scratch/base" >"$scratch/base.curve"

has_checkpoint() { compgen -G "$1/tiny/checkpoints/step-????????" >/dev/null; }
# start WHERE RANKS OPTION...: in the background; pid is that of arbdist or mpirun, $scratch/pid.N those of ranks.
start() {
  local place=$1 ranks=$2
  shift 2
  rm -f "$scratch"/pid.*
  case $ranks in
    loopback*) "$ARBDIST" "$config" --set run.dir="$place" --loopback "${ranks#* }" "$@" >"$log" 2>&1 & ;;
    mpi*) ASAN_OPTIONS=detect_leaks=0 "$MPIRUN" "${ranks#* }" "$here/rank.sh" "$scratch" "$ARBDIST" "$config" \
      --set run.dir="$place" "$@" >"$log" 2>&1 & ;;
  esac
  pid=$!
  wait_for 60 has_checkpoint "$place" || fail "no checkpoint within 60 s" "$(tail -n 20 "$log")"
}
# ended NAME: waits for the job; its exit code is in rc.
ended() {
  rc=0
  if wait_for 30 not_running "$pid"; then :; else
    fail "$1: the job did not end within 30 s" "$(plain "$log" | tail -n 5)"
    kill -9 "$pid" || true
  fi
  { wait "$pid" || rc=$?; } 2>/dev/null # the shell's own "Killed"
}
not_running() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null; }
# continues NAME WHERE RANKS: resumes after step 0 and before the end, and ends like the undisturbed run.
continues() {
  local name=$1 place=$2 ranks=$3 at
  train "$place" "$ranks" "${save[@]}"
  at=$(resumed_at)
  if [ "${at:-0}" -gt 0 ] && [ "$at" -lt 60 ]; then
    pass "$name: resumed at step $at on $ranks"
  else
    fail "$name: not resumed between step 0 and 60" "exit code $rc" "$(plain "$log" | tail -n 5)"
  fi
  same "$name: digest" "$base" "$(digest)" "$(plain "$log" | tail -n 5)"
  if curve "$place" | cmp -s - "$scratch/base.curve"; then pass "$name: metrics"; else
    fail "$name: metrics.jsonl differs" "$(curve "$place" | diff "$scratch/base.curve" - | head -n 4)"
  fi
}

start "$scratch/killed" "loopback 2" "${slow[@]}" "${save[@]}"
kill -9 "$pid"
ended "kill -9"
same "kill -9 of a process with two ranks: exit code" 137 "$rc"
continues "after kill -9" "$scratch/killed" "loopback 3"

if [ -n "$MPIRUN" ]; then
  for victim in 1 0; do
    place=$scratch/rank$victim
    start "$place" "mpi 2" "${slow[@]}" "${save[@]}"
    kill -9 "$(cat "$scratch/pid.$victim")"
    ended "kill -9 of rank $victim"
    if [ "$rc" -ne 0 ]; then pass "kill -9 of rank $victim ends the job, code $rc"; else fail "kill -9 of rank $victim: exit code 0"; fi
    if [ "$victim" -eq 1 ]; then continues "after kill -9 of rank 1" "$place" "mpi 3"; else continues "after kill -9 of rank 0" "$place" one; fi
  done
  start "$scratch/usr1" "mpi 2" "${slow[@]}" "${save[@]}" # mpirun passes SIGUSR1 on to its ranks
  kill -USR1 "$pid"
  ended SIGUSR1
  same "SIGUSR1 to mpirun: exit code" 75 "$rc" "$(plain "$log" | tail -n 20)"
  contains "SIGUSR1 to mpirun: says how to go on" "$(plain "$log")" '^stopped after step [0-9]+ on request; run the same command again'
  continues "after SIGUSR1 to mpirun" "$scratch/usr1" "loopback 4"
else
  skip "ranks killed under mpirun" "no MPI in this build"
fi

for signal in USR1 TERM; do
  place=$scratch/$signal
  start "$place" "loopback 2" "${slow[@]}" --set checkpoint.every=7
  kill "-$signal" "$pid" || true
  ended "SIG$signal"
  same "SIG$signal: exit code" 75 "$rc" "$(tail -n 5 "$log")"
  stopped=$(sed -n 's/^stopped after step \([0-9]*\) on request; run the same command again.*/\1/p' "$log")
  train "$place" one "${save[@]}"
  same "SIG$signal: continues where it stopped" "${stopped:-nowhere}" "$(resumed_at)" "$(tail -n 5 "$log")"
  same "SIG$signal: digest" "$base" "$(digest)"
done

# damage WHERE STEP: one bit, or with a third argument everything from that byte on.
damage() {
  local file=$1/tiny/checkpoints/step-$(printf %08d "$2")/rank-00000.h5 byte
  if [ $# -eq 3 ]; then truncate -s "$3" "$file"; return; fi
  byte=$(od -An -tu1 -j70000 -N1 "$file")
  printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$file" bs=1 seek=70000 conv=notrunc 2>/dev/null
}
for kind in "a flipped bit" "a truncated file" "both, and a save that did not finish"; do
  rm -rf "$scratch/damaged"
  cp -r "$scratch/base" "$scratch/damaged"
  why=() at=55
  case $kind in
    "a flipped"*) damage "$scratch/damaged" 60; why=('skipped checkpoint: .*step-00000060.*damaged') ;;
    "a truncated"*) damage "$scratch/damaged" 60 5000; why=('skipped checkpoint: .*step-00000060/rank-00000.h5') ;;
    *)
      damage "$scratch/damaged" 60; damage "$scratch/damaged" 55 0; at=50
      mkdir "$scratch/damaged/tiny/checkpoints/step-00000061.tmp-99999999"
      why=('skipped checkpoint: .*step-00000060.*damaged' 'skipped checkpoint: .*step-00000055/rank-00000.h5'
        'skipped checkpoint: .*step-00000061.tmp-99999999: a save that did not finish') ;;
  esac
  train "$scratch/damaged" "loopback 2" "${save[@]}" --set checkpoint.keep=20
  contains "$kind: says what it skipped and why" "$(cat "$log")" "${why[@]}"
  same "$kind: continues from the newest good checkpoint" "$at" "$(resumed_at)" "$(tail -n 5 "$log")"
  same "$kind: digest" "$base" "$(digest)"
done

train "$scratch/base" one "${save[@]}"
same "a finished run, started again: resumes at its end" 60 "$(resumed_at)"
same "a finished run, started again: digest" "$base" "$(digest)"
train "$scratch/base" one --set checkpoint.resume=no
same "checkpoint.resume = no: starts afresh" "0 no" "$rc no$(resumed_at)"
same "checkpoint.resume = no: digest" "$base" "$(digest)"
finish
