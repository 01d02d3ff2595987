#!/usr/bin/env bash
# kills.sh [N [SEED]]: N times SIGKILL to runs that save after every step: at random moments, and at I/O calls of a save, one after
# the other. After each: every checkpoint that was announced is there, or a newer one; none verifies with other content than an
# undisturbed run's at that step; and the next run continues from the newest. Prints the table of outcomes.
. "$(dirname "$0")/../train/run.sh"
: "${ARBCKPT:?the arbckpt binary}" "${FAULTY:?arbdist with faults}"
kills=${1:-12}
seed=${2:-$(($(date +%s) % 32768))}
RANDOM=$seed
options=(--set train.steps=40 --set checkpoint.every=1 --set checkpoint.keep=2 --set eval.every=0 --set eval.sequences=1
  --set sample.length=0 --set run.threads=1)

# What every step's state is.
train "$scratch/base" one "${options[@]}"
plain "$log" | sed -nE 's/^saved step ([0-9]+): .*, digest ([0-9a-f]{32})$/\1 \2/p' >"$scratch/digests"
same "an undisturbed run announces 40 saves" 40 "$(wc -l <"$scratch/digests")" "$(plain "$log" | tail -n 3)"
digest_of() { awk -v s="$1" '$1 == s { print $2 }' "$scratch/digests"; }

place=$scratch/runs folder=$scratch/runs/tiny/checkpoints
resumed_from=-1 expected=-1   # the newest good step after the kill before
declare -A n=([torn]=0 [ahead]=0 [announced]=0 [first]=0 [finished]=0 [call]=0 [time]=0 [lost]=0 [wrong]=0 [resume]=0)
call=0 # I/O call at which the next process that dies there does

# judge: looks at what a killed process left.
judge() {
  local announced newest=-1 line step state digest
  announced=$(plain "$log" | sed -nE 's/^saved step ([0-9]+): .*/\1/p' | tail -n 1)
  resumed_from=$(resumed_at)
  if [ "$expected" -ge 0 ] && [ -n "$resumed_from" ] && [ "$resumed_from" != "$expected" ]; then
    n[resume]=$((n[resume] + 1))
    fail "resumed at step $resumed_from, the newest good one was $expected" "$(plain "$log" | head -n 5)"
  fi
  # Not started yet: what was there before still has to be.
  [ -n "$announced" ] || announced=$expected
  "$ARBCKPT" verify "$folder" >"$scratch/ls" 2>/dev/null || true
  while read -r step digest; do
    [ "$digest" = "$(digest_of "$step")" ] || { n[wrong]=$((n[wrong] + 1)); fail "step $step verifies with digest $digest" "$(cat "$scratch/ls")"; }
    newest=$step
  done < <(awk '/\/step-[0-9]+$/ { sub(/.*step-/, ""); s = $0 + 0 } /state digest/ { d = substr($3, 1, 32) } /^  verified$/ { print s, d }' "$scratch/ls")
  if grep -q '^  refused' "$scratch/ls"; then n[refused]=$((${n[refused]:-0} + 1)); fi
  if compgen -G "$folder/*.tmp-*" >/dev/null; then n[torn]=$((n[torn] + 1)); fi
  if [ "$newest" -lt "$announced" ]; then
    n[lost]=$((n[lost] + 1))
    fail "step $announced was announced, the newest good one is $newest" "$(cat "$scratch/ls")"
  elif [ "$newest" -lt 0 ]; then n[first]=$((n[first] + 1))
  elif [ "$newest" -gt "$announced" ]; then n[ahead]=$((n[ahead] + 1))
  else n[announced]=$((n[announced] + 1)); fi
  expected=$newest
}
afresh() {
  rm -rf "$place"
  expected=-1
}

done_kills=0
while [ "$done_kills" -lt "$kills" ]; do
  rc=0
  rm -f "$scratch"/pid.*
  kind=$((RANDOM % 20))
  case $kind in
    [0-7]) # at an I/O call
      how=call
      ARB_TEST_FAULT=kill:$call setsid "$FAULTY" "$config" --set run.dir="$place" "${options[@]}" >"$log" 2>&1 &
      pid=$!
      call=$(((call + 1 + RANDOM % 7) % 400))
      ;;
    19)
      how=time
      if [ -n "$MPIRUN" ]; then
        "$MPIRUN" 2 "$here/rank.sh" "$scratch" "$ARBDIST" "$config" --set run.dir="$place" "${options[@]}" --set dist.shard_state=yes \
          >"$log" 2>&1 </dev/null &
      else
        "$ARBDIST" "$config" --set run.dir="$place" "${options[@]}" >"$log" 2>&1 &
      fi
      pid=$!
      ;;
    1[0-4])
      how=time
      "$ARBDIST" "$config" --set run.dir="$place" "${options[@]}" --loopback $((2 + RANDOM % 2)) --set dist.shard_state=yes >"$log" 2>&1 &
      pid=$!
      ;;
    *)
      how=time
      "$ARBDIST" "$config" --set run.dir="$place" "${options[@]}" >"$log" 2>&1 &
      pid=$!
      ;;
  esac
  if [ "$how" = time ]; then
    sleep "0.$(printf %03d $((20 + RANDOM % 600)))"
    victim=$pid
    if [ "$kind" -eq 19 ] && [ -n "$MPIRUN" ]; then
      wait_for 20 test -s "$scratch/pid.$((RANDOM % 2))" || true
      sleep "0.$(printf %03d $((RANDOM % 900)))"
      for r in 1 0; do [ ! -s "$scratch/pid.$r" ] || victim=$(cat "$scratch/pid.$r"); done
    fi
    kill -9 "$victim" 2>/dev/null || true
  fi
  { wait "$pid" || rc=$?; } 2>/dev/null
  if [ "$rc" -eq 0 ]; then # it had come to its end
    n[finished]=$((n[finished] + 1))
    last=$(plain "$log" | tail -n 1)
    [ "$last" = "digest $(digest_of 40)" ] || fail "a run that was killed and resumed ends with $last" "$(digest_of 40)"
    afresh
    continue
  fi
  done_kills=$((done_kills + 1))
  n[$how]=$((n[$how] + 1))
  judge
done

printf '\n%-62s %6d   (seed %d)\n' "kills" "$done_kills" "$seed"
printf '  %-60s %6d\n' "at a random moment" "${n[time]}" "at an I/O call of a save" "${n[call]}"
printf '%-62s\n' "found afterwards"
printf '  %-60s %6d\n' "newest good checkpoint: the last one announced" "${n[announced]}" \
  "a newer one, renamed but not announced yet" "${n[ahead]}" "none yet, and none announced" "${n[first]}" \
  "an unfinished save beside it" "${n[torn]}" "folders that do not verify" "${n[refused]:-0}" \
  "announced checkpoints lost" "${n[lost]}" "checkpoints that verify with wrong content" "${n[wrong]}" \
  "resumed from another one than the newest good one" "${n[resume]}" "runs that came to their end, killed and resumed, all equal" "${n[finished]}"
same "$kills kills: lost, wrong, resumed elsewhere" "0 0 0" "${n[lost]} ${n[wrong]} ${n[resume]}"
finish
