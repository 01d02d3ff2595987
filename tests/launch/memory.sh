#!/usr/bin/env bash
# memory.sh: plan, and what happens when memory runs out: the table in the message, exit code 7, nothing begun.
. "$(dirname "$0")/../train/run.sh"
root=$(cd "$here/../.." && pwd)
command_line() { rc=0; "$@" >"$log" 2>&1 </dev/null || rc=$?; }

command_line "$ARBDIST" plan "$config" --assume-ranks 3 --set run.device=cuda --set run.dir="$scratch/none"
contains "plan for GPUs on a machine without one" "$(cat "$log")"$'\n'"exit code $rc" '^104288 ternary weights on 3 ranks, device cuda' \
  'rank 0 has 3, 3 at a time' 'do not divide evenly' '^  state +[0-9]+ bytes' '^  votes ' '^  activations ' '^  work memory of kernels ' \
  '^  transport buffers ' '^payload of rank 0 a step' '^  agreement ' '^exit code 0$'
planned=$(cat "$log")
command_line "$ARBDIST" "$config" --dry-run --assume-ranks 3 --set run.device=cuda --set run.dir="$scratch/none"
same "--dry-run says the same" "$planned" "$(cat "$log")"
[ -e "$scratch/none" ] && fail "a plan makes a run folder" || pass "a plan makes no run folder"
command_line "$ARBDIST" plan "$config" --assume-ranks 9
contains "plan: more ranks than grains" "$(cat "$log")"$'\n'"exit code $rc" 'train.grains = 8, but 9 ranks' '^exit code 2$'
command_line "$ARBDIST" eval "$config" --assume-ranks 2
contains "--assume-ranks without a plan" "$(cat "$log")"$'\n'"exit code $rc" 'only plan and --dry-run suppose ranks' '^exit code 2$'
command_line "$ARBDIST" plan "$config" --assume-ranks many
contains "--assume-ranks many" "$(cat "$log")"$'\n'"exit code $rc" 'expected 1 to' '^exit code 2$'

# The plan that a run prints before its first step is that of `plan`.
few=(--set train.steps=2 --set train.warmup=1 --set run.threads=2)
command_line "$ARBDIST" plan "$config" "${few[@]}"
sum=$(awk '/^  sum/ { printf "%.1f", $2 / 1e6; exit }' "$log")
train "$scratch/runs" one "${few[@]}"
contains "a run prints its plan before step 1" "$(plain "$log" | sed '/^step 1/,$d')" "^memory: .* on rank 0, $sum MB: state 0\.1, votes" '^wire: 1\.0'

# The path of configs/large.ini with a small model: no votes but those of one matrix, and as much held as planned.
small=(--set model.dim=64 --set model.embed_channels=32 --set model.layers=3 --set model.glu_hidden=96 --set train.context=64
  --set run.device=cpu --set run.threads=1)
command_line "$ARBDIST" bench step "$root/configs/large.ini" "${small[@]}"
held=$(sed -nE 's/.* ([0-9]+) bytes held.* ([0-9]+) planned.*/\1 \2/p' "$log")
[ -n "$held" ] && [ "${held% *}" = "${held#* }" ] && pass "bench step of large.ini: holds what was planned" ||
  fail "bench step of large.ini" "$(cat "$log")"
command_line "$ARBDIST" plan "$root/configs/large.ini" "${small[@]}"
same "large.ini: the plan's sum, and votes of the largest stack alone" "${held#* } 19200" \
  "$(awk '/^  sum/ { print $2; exit }' "$log") $(awk '/^  votes/ { print $2; exit }' "$log")"

# More than the machine has: refused before anything is allocated.
huge=(--set model.dim=65536 --set model.layers=1000)
train "$scratch/runs" one "${huge[@]}"
contains "more than the machine's memory" "$(cat "$log")"$'\n'"exit code $rc" 'out of host memory before the first step: [0-9]+ bytes are needed' \
  '^  state +[0-9]+ bytes' '^  sum ' '^exit code 7$'
# Less than the machine has, more than the process may take. Sanitizers need all of the address space.
if [ -n "$SANITIZE" ]; then
  skip "memory runs out under a limit" "sanitizer build"
  finish
fi
limited() { (ulimit -v 700000 && "$@"); }
large=(--set model.dim=4096 --set model.layers=16 --set train.steps=1 --set train.warmup=1 --set run.name=large --set run.threads=1)
command_line limited "$ARBDIST" "$config" --set run.dir="$scratch/runs" "${large[@]}"
contains "memory runs out under a limit" "$(cat "$log")"$'\n'"exit code $rc" 'out of host memory: [0-9]+ bytes asked for; before the first step; the plan:' \
  '^  state +[0-9]+ bytes' '^  sum ' '^exit code 7$'
[ -e "$scratch/runs/large" ] && fail "a run that does not fit leaves a folder" || pass "a run that does not fit leaves nothing"
if [ -n "$MPIRUN" ]; then
  command_line limited "$MPIRUN" 2 "$ARBDIST" "$config" --set run.dir="$scratch/runs" "${large[@]}"
  contains "memory runs out on ranks" "$(cat "$log")"$'\n'"exit code $rc" 'the plan:' '^  sum ' '^exit code 7$'
else
  skip "memory runs out on ranks" "no MPI in this build"
fi
finish
