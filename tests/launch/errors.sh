#!/usr/bin/env bash
# errors.sh: mistakes of users end with the documented exit code and one message that says what is wrong and where, on one rank,
# with ranks as threads, and under mpirun, whether all ranks meet the mistake or one.
. "$(dirname "$0")/../train/run.sh"
root=$(cd "$here/../.." && pwd)
text=$root/configs/text
quick=(--set run.dir="$scratch/runs" --set train.steps=6 --set train.warmup=2)

# expect NAME CODE PATTERN COMMAND...: the exit code (or a choice of them, 2|3), one message, and in the message the pattern. When a
# rank other than 0 is at fault, rank 0 may point to it in a line of its own.
distinct=cat
expect() {
  local name=$1 code=$2 pattern=$3 rc=0 messages
  shift 3
  timeout -k 5 60 "$@" >"$log" 2>&1 </dev/null || rc=$?
  messages=$(grep '^arbdist: ' "$log" | $distinct | grep -cvE '^arbdist: [a-z]+: rank [0-9]+ failed: [a-z]+$' || true)
  if [[ "|$code|" != *"|$rc|"* ]]; then
    fail "$name: exit code $rc, expected $code" "$(plain "$log" | tail -n 8)"
  elif [ "$messages" -ne 1 ]; then
    fail "$name: $messages messages, expected one" "$(grep '^arbdist: ' "$log")"
  elif ! grep -qE -e "$pattern" "$log"; then
    fail "$name: the message lacks: $pattern" "$(grep '^arbdist: ' "$log")"
  else
    pass "$name"
  fi
}
one() { local name=$1 code=$2 pattern=$3; shift 3; expect "$name" "$code" "$pattern" "$ARBDIST" "$config" "${quick[@]}" "$@"; }
bare() { local name=$1 code=$2 pattern=$3; shift 3; expect "$name" "$code" "$pattern" "$ARBDIST" "$config" "$@"; }

# The command line: 2
expect "no arguments" 2 'no configuration file given; see arbdist --help' "$ARBDIST"
expect "unknown option" 2 'unknown option --wrong' "$ARBDIST" "$config" --wrong
expect "two configs" 2 'one configuration file expected' "$ARBDIST" "$config" "$config"
expect "--set without a value" 2 '--set' "$ARBDIST" "$config" --set
for n in 0 65 x ''; do expect "--loopback '$n'" 2 'expected 1 to 64 ranks' "$ARBDIST" "$config" --loopback "$n"; done

# The configuration: 2, with the place
expect "a config that is not there" 2 'nowhere.ini: cannot open the config: No such file' "$ARBDIST" "$scratch/nowhere.ini"
expect "a folder as config" 2 "$scratch" "$ARBDIST" "$scratch"
one "unknown key" 2 '--set train.grain=3: unknown key; did you mean train.grains\?' --set train.grain=3
one "the same key twice" 2 '--set run.seed=9: given twice; the first was --set run.seed=8' --set run.seed=8 --set run.seed=9
one "bad number" 2 '--set run.seed=1e3: expected a whole number' --set run.seed=1e3
one "out of range" 2 '--set train.grains=32: expected a whole number from 1 to 31' --set train.grains=32
one "not in the list" 2 '--set run.isa=sse: expected .*avx2' --set run.isa=sse
one "between keys: grains" 2 'train.sequences = 16 is not a multiple of train.grains = 7' --set train.grains=7
bare "between keys: warmup" 2 'train.warmup = 7 is more than train.steps = 6' --set train.steps=6 --set train.warmup=7
printf '[run]\nname = x\nnmae = y\n[trian]\n[train]\nsteps = many\nsteps = 3\n' >"$scratch/wrong.ini"
expect "several mistakes at once: file and line of each" 2 'wrong.ini:3: .*did you mean name\?' "$ARBDIST" "$scratch/wrong.ini"
contains "several mistakes at once: all are listed" "$(cat "$log")" 'wrong.ini:4: .*did you mean \[train\]\?' \
  'wrong.ini:6: .*expected a whole number' 'wrong.ini:7: '
one "no training text" 2 'data.train: needed for training' --set data.train=
one "more ranks than grains, threads" 2 'train.grains = 8, but 9 ranks were started' --loopback 9
one "dist.transport = mpi without a launcher" 2 'dist.transport = mpi, but' --set dist.transport=mpi

# Data: 3, naming key and file
: >"$scratch/empty.txt"
head -c 20 "$text/README.md" >"$scratch/short.txt"
head -c 5000 "$text/smoke.valid.txt.xz" >"$scratch/cut.txt.xz"
{ head -c 40000 "$text/smoke.valid.txt.xz"; printf 'corrupt!'; tail -c +40009 "$text/smoke.valid.txt.xz"; } >"$scratch/corrupt.txt.xz"
for key in data.train data.valid; do
  one "$key is missing" 3 "$key.*nowhere.txt: cannot be opened: No such file" --set $key="$scratch/nowhere.txt"
  one "$key is a folder" 3 "$key.*is a directory" --set $key="$scratch"
  one "$key is empty" 3 "$key.*empty.txt: is empty" --set $key="$scratch/empty.txt"
  one "$key is cut off" 3 "$key.*cut.txt.xz: truncated" --set $key="$scratch/cut.txt.xz"
  one "$key is corrupt" 3 "$key.*corrupt.txt.xz: corrupt" --set $key="$scratch/corrupt.txt.xz"
  one "$key is too short" 3 "$key.*20 bytes" --set $key="$scratch/short.txt"
done
one "an error of one of three threads" 3 'nowhere.txt: cannot be opened' --loopback 3 --set data.train="$scratch/nowhere.txt"

# Checkpoints: 4
train "$scratch/runs" one "${quick[@]:2}" --set checkpoint.every=3
[ "$rc" -eq 0 ] || fail "a run that saves" "$(tail -n 5 "$log")"
one "another seed and step size than the checkpoint's" 4 \
  'run.seed: checkpoint 7, this run 8; train.peak: checkpoint 0\.2[0-9]*, this run 0\.1' --set run.seed=8 --set train.peak=0.1
if grep -q 'model.dim' "$log"; then fail "settings that agree are listed too" "$(cat "$log")"; else pass "only settings that differ are listed"; fi
one "another text than the checkpoint's" 4 'data.train.fingerprint' --set data.train="$text/smoke.valid.txt.xz"
expect "eval without a checkpoint" 4 'no checkpoint in .*/none/tiny/checkpoints' "$ARBDIST" eval "$config" --set run.dir="$scratch/none"
for file in "$scratch"/runs/tiny/checkpoints/step-*/rank-00000.h5; do truncate -s 5000 "$file"; done
one "nothing but damaged checkpoints" 4 'checkpoint' --set checkpoint.every=3
contains "nothing but damaged checkpoints: each is named" "$(cat "$log")" 'skipped checkpoint: .*step-00000003' \
  'skipped checkpoint: .*step-00000006'
if [ "$(ls "$scratch/runs/tiny/checkpoints" | xargs)" = "step-00000003 step-00000006" ]; then
  pass "nothing but damaged checkpoints: all are left as they were"
else
  fail "damaged checkpoints were touched" "$(ls "$scratch/runs/tiny/checkpoints")"
fi

# The machine: 7
if [ -e /dev/nvidiactl ]; then
  skip "run.device = cuda without CUDA" "this machine may have it"
else
  one "run.device = cuda without CUDA" 7 'run.device = cuda' --set run.device=cuda
fi
bare "a run folder that cannot be made" 7 'cannot make the run folder' --set run.dir=/proc/nowhere

# Under mpirun. mpirun itself may drop what a rank writes just before it exits, if the rank never joined the job.
if [ -z "$MPIRUN" ]; then
  skip "errors under mpirun" "no MPI in this build"
  finish
fi
export ASAN_OPTIONS=detect_leaks=0
quick+=(--set dist.timeout_s=10)
# ranks NAME CODE PATTERN N OPTION...: all ranks get these options.
ranks() {
  local name=$1 code=$2 pattern=$3 n=$4
  shift 4
  expect "mpirun, all ranks: $name" "$code" "$pattern" "$MPIRUN" "$n" "$ARBDIST" "$config" "${quick[@]}" "$@"
}
# Ranks that cannot talk yet hold their tongue for a moment, in which mpirun ends them; on a busy machine that takes it longer.
distinct='sort -u'
ranks "unknown key" 2 'unknown key; did you mean train.grains' 2 --set train.grain=3
distinct=cat
ranks "more ranks than grains" 2 'train.grains = 2, but 3 ranks were started' 3 --set train.grains=2
ranks "no text" 3 'nowhere.txt: cannot be opened' 2 --set data.train="$scratch/nowhere.txt"
for file in "$scratch"/runs/tiny/checkpoints/step-*/rank-00000.h5; do truncate -s 5000 "$file"; done
ranks "nothing but damaged checkpoints" 4 'checkpoint' 2 --set checkpoint.every=3

# rank NAME CODE PATTERN OPTION...: rank 1 of three gets these options, and all start afresh.
cat >"$scratch/rank1.sh" <<'EOF'
#!/usr/bin/env bash
[ "$OMPI_COMM_WORLD_RANK" = 1 ] || set -- "${@:1:$COMMON}"
exec "$@"
EOF
chmod +x "$scratch/rank1.sh"
quick+=(--set run.name=afresh --set checkpoint.resume=no)
export COMMON=$((2 + ${#quick[@]}))
rank() {
  local name=$1 code=$2 pattern=$3
  shift 3
  expect "mpirun, one rank of three: $name" "$code" "$pattern" \
    "$MPIRUN" 3 "$scratch/rank1.sh" "$ARBDIST" "$config" "${quick[@]}" "$@"
}
rank "unknown key" 2 'unknown key; did you mean train.grains' --set train.grain=3
rank "no text" 3 'nowhere.txt: cannot be opened' --set data.train="$scratch/nowhere.txt"
rank "an empty text" 3 'empty.txt: is empty' --set data.valid="$scratch/empty.txt"
[ -e /dev/nvidiactl ] || rank "no CUDA" 7 'run.device = cuda' --set run.device=cuda

# Ranks with different settings or texts would train, and train wrongly: refused before the first step, naming what differs.
rank "another seed" '2|5' 'run.seed' --set run.seed=8
rank "another width" '2|5' 'model.dim' --set model.dim=96
rank "evaluates more often" '2|5' 'eval.every' --set eval.every=2
rank "another training text" '2|3|5' 'data.train' --set data.train="$text/smoke.valid.txt.xz"
rank "another validation text" '2|3|5' 'data.valid' --set data.valid="$text/smoke.train.txt.xz"
finish
