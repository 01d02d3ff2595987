#!/usr/bin/env bash
# run.sh [--quick] [--peer SCRIPT] [--data FOLDER] [BUILD]: everything that needs a GPU, in one go: kernel tests, digests on the CPU and
# on one and two GPUs, resume across devices, measurements, and (with --peer and --data) quality and speed beside PyTorch.
# BUILD holds arbdist and the test programs: a build folder, or one made by pack.sh on another machine. Logs go to $OUT, or
# BUILD/gpu-logs. Prints plain totals last. Without a GPU it says so and exits 77: it never passes there.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
quick=0 peer= data= build=
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1 ;;
    --peer) peer=$2; shift ;;
    --data) data=$2; shift ;;
    *) build=$1 ;;
  esac
  shift
done
build=$(cd "${build:-$here/../../build}" && pwd)
root=$build
[ -d "$root/configs" ] || root=$(cd "$here/../.." && pwd)
logs=${OUT:-$build/gpu-logs}
mkdir -p "$logs"
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L | grep -q GPU; then
  echo "NO GPU ON THIS MACHINE: nothing was tested"
  exit 77
fi
gpus=$(nvidia-smi -L | grep -c GPU)
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$logs/gpus.txt"
passed=0 failed=0 skipped=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
note() { printf '%s\n' "$*" | tee -a "$logs/table.txt"; }
pass() { passed=$((passed + 1)); note "ok       $1"; }
fail() { failed=$((failed + 1)); note "FAILED   $1"; }
skip() { skipped=$((skipped + 1)); note "skipped  $1"; }
arbdist=$build/arbdist
mpirun=$here/mpirun.sh
[ -x "$mpirun" ] || mpirun=$here/../mpirun.sh
run_ranks() { "$mpirun" "$@"; }
digest_of() { sed -n 's/^digest \([0-9a-f]*\)$/\1/p' "$1" | tail -n 1; }
same() { if [ -n "$2" ] && [ "$2" = "$3" ]; then pass "$1 ($2)"; else fail "$1: $2 against $3"; fi; }

# ---- kernel tests: each prints "N passed, N failed[, N skipped]"
for t in "$build"/test_*cuda "$build"/gemm_check "$build"/tests/gpu/test_*cuda "$build"/tests/gpu/gemm_check; do
  [ -x "$t" ] || continue
  name=$(basename "$t")
  LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} timeout 300 "$t" >"$logs/$name.log" 2>&1
  rc=$?
  line=$(grep -oE '[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?' "$logs/$name.log" | tail -n 1)
  note "$name: ${line:-no totals} (exit $rc)"
  if [ -z "$line" ]; then fail "$name"; continue; fi
  read -r p f s <<<"$(sed -E 's/([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?/\1 \2 \4/' <<<"$line")"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
  [ "$rc" -eq 0 ] || [ "$f" -gt 0 ] || fail "$name: exit $rc"
done

# ---- digests
run() { # NAME CONFIG STEPS NP ARGS...
  local name=$1 config=$2 steps=$3 np=$4
  shift 4
  local text=()
  [ -n "$data" ] && [ "$config" = books ] && text=(--set data.train="$data/books.train.txt.xz" --set data.valid="$data/books.valid.txt.xz")
  run_ranks "$np" "$arbdist" "$root/configs/$config.ini" --set run.dir="$scratch/runs" --set run.name="$name" --set train.steps="$steps" \
    --set train.warmup=5 --set eval.every=0 --set eval.sequences=16 --set sample.length=0 --set checkpoint.every=0 "${text[@]}" "$@" >"$logs/run-$name.log" 2>&1
}
for c in smoke:50 books:20; do
  config=${c%:*} steps=${c#*:}
  run "$config-cpu" "$config" "$steps" 1 --set run.device=cpu
  run "$config-gpu" "$config" "$steps" 1 --set run.device=cuda
  want=$(digest_of "$logs/run-$config-cpu.log")
  same "$config, $steps steps: CPU = 1 GPU" "$want" "$(digest_of "$logs/run-$config-gpu.log")"
  if [ "$gpus" -ge 2 ]; then
    run "$config-gpu2" "$config" "$steps" 2 --set run.device=cuda
    same "$config, $steps steps: CPU = 2 GPUs (NCCL)" "$want" "$(digest_of "$logs/run-$config-gpu2.log")"
    for n in 2 3 4; do
      [ "$n" -le "$gpus" ] || continue
      run "$config-gpu$n-shard" "$config" "$steps" "$n" --set run.device=cuda --set dist.shard_state=yes
      same "$config, $steps steps: CPU = $n GPUs, sharded" "$want" "$(digest_of "$logs/run-$config-gpu$n-shard.log")"
    done
  else
    skip "$config: 2 GPUs (this machine has one)"
  fi
done
# the digests that CI checks on the CPU
for config in smoke books; do
  "$here/../train/golden.sh" "$root/configs/$config.ini" "$here/../golden/$config.digest" "$arbdist" --set run.device=cuda >"$logs/golden-$config.log" 2>&1
  if [ $? -eq 0 ] && grep -qE '^[1-9][0-9]* passed, 0 failed' "$logs/golden-$config.log"; then pass "golden digests of $config"; else fail "golden digests of $config"; fi
done
# saved on one device, resumed on the other, against the uninterrupted run
for pair in cpu:cuda cuda:cpu; do
  a=${pair%:*} b=${pair#*:}
  "$arbdist" "$root/configs/smoke.ini" --set run.dir="$scratch/runs" --set run.name="resume-$a" --set train.steps=30 --set train.warmup=5 --set eval.every=0 \
    --set eval.sequences=16 --set sample.length=0 --set checkpoint.every=10 --set run.device="$a" >"$logs/resume-$a-1.log" 2>&1 &
  pid=$!
  for _ in $(seq 200); do grep -q 'saved step 10' "$logs/resume-$a-1.log" && break; sleep 0.05; done
  kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
  "$arbdist" "$root/configs/smoke.ini" --set run.dir="$scratch/runs" --set run.name="resume-$a" --set train.steps=30 --set train.warmup=5 --set eval.every=0 \
    --set eval.sequences=16 --set sample.length=0 --set checkpoint.every=10 --set run.device="$b" >"$logs/resume-$a-2.log" 2>&1
  run "straight-$a" smoke 30 1 --set run.device="$b"
  same "killed on $a, $(grep -o 'resumed at step [0-9]*' "$logs/resume-$a-2.log" || echo 'NOT resumed'), on $b" "$(digest_of "$logs/run-straight-$a.log")" "$(digest_of "$logs/resume-$a-2.log")"
done

# ---- frozen encoders: training on their features, encoded live on either device
if [ -r "$data/digits.tar.xz" ] && [ -r "$data/cifar10.tar.xz" ]; then
  tar -xf "$data/digits.tar.xz" -C "$scratch" && tar -xf "$data/cifar10.tar.xz" -C "$scratch"
  mkdir -p "$scratch"/{speech,images/cat,images/ship}
  for digit in 0 1 2 3; do cp "$scratch"/digits/train/${digit}_{theo,jackson}_5.wav "$scratch/speech"; done
  for class in cat ship; do find "$scratch/cifar10/test/$class" -name '*.jpg' | sort | head -n 4 | xargs -I{} cp {} "$scratch/images/$class"; done
  "$root/configs/manifest.sh" digits "$scratch/speech" >"$logs/manifest-speech.log" 2>&1
  "$root/configs/manifest.sh" images "$scratch/images" >"$logs/manifest-images.log" 2>&1
  for kind in speech images; do
    encoded=(--set data.pairs="$scratch/$kind/manifest.jsonl" --set data.valid_pairs="$scratch/$kind/manifest.jsonl" --set data.feature_cache=
      --set train.grains=4 --set train.sequences=4)
    for device in cpu cuda; do run "$kind-$device" "$kind" 6 1 "${encoded[@]}" --set run.device=$device; done
    want=$(digest_of "$logs/run-$kind-cpu.log")
    same "$kind, 6 steps, encoded live: CPU = 1 GPU" "$want" "$(digest_of "$logs/run-$kind-cuda.log")"
    if [ "$gpus" -ge 2 ]; then
      run "$kind-cuda2" "$kind" 6 2 "${encoded[@]}" --set run.device=cuda
      same "$kind, 6 steps, encoded live: CPU = 2 GPUs" "$want" "$(digest_of "$logs/run-$kind-cuda2.log")"
    fi
  done
  # the VAE's files
  picture=$(find "$scratch/images/cat" -name '*.jpg' | head -n 1)
  for device in cpu cuda; do
    vae=(--set sidecars.vae=synthetic --set run.device=$device)
    "$arbdist" sidecar encode "$picture" "${vae[@]}" --out "$scratch/$device.safetensors" >"$logs/vae-$device.log" 2>&1 &&
      "$arbdist" sidecar decode "$scratch/$device.safetensors" "${vae[@]}" --out "$scratch/$device.png" >>"$logs/vae-$device.log" 2>&1
  done
  for file in safetensors png; do
    if cmp "$scratch/cpu.$file" "$scratch/cuda.$file" >>"$logs/vae-cuda.log" 2>&1; then pass "the VAE's .$file: CPU = 1 GPU"; else fail "the VAE's .$file: CPU = 1 GPU"; fi
  done
else
  skip "training on live features (digits.tar.xz and cifar10.tar.xz are not in the folder of --data)"
fi

# ---- memory, votes on the wire, bad luck
script() { # NAME ARGS...
  local name=$1 p= f= s=
  shift
  "$here/$name.sh" "$build" "$root" "$logs" "$@" >"$logs/$name.log" 2>&1
  note "$(cat "$logs/$name.log")"
  read -r p f s <<<"$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' "$logs/$name.log" | tail -n 1)"
  if [ -n "$p" ]; then passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s)); else fail "$name.sh"; fi
}
script large
script votes "$data"

# ---- speed
if [ "$quick" -eq 0 ]; then
  books=(--set run.dir="$scratch/runs" --set run.device=cuda)
  [ -n "$data" ] && books+=(--set data.train="$data/books.train.txt.xz" --set data.valid="$data/books.valid.txt.xz")
  "$arbdist" bench step "$root/configs/books.ini" "${books[@]}" >"$logs/bench-step.log" 2>&1
  note "$(cat "$logs/bench-step.log")"
  if [ "$gpus" -ge 2 ]; then
    run_ranks 2 "$arbdist" bench step "$root/configs/books.ini" "${books[@]}" --set train.grains=16 --set train.sequences=128 >"$logs/bench-weak.log" 2>&1
    run_ranks 2 "$arbdist" bench step "$root/configs/books.ini" "${books[@]}" >"$logs/bench-strong.log" 2>&1
    run_ranks 2 "$arbdist" bench step "$root/configs/books.ini" "${books[@]}" --set dist.shard_state=yes >"$logs/bench-strong-shard.log" 2>&1
    note "two GPUs, twice the grains: $(grep -E '^(step|overlap):' "$logs/bench-weak.log")"
    note "two GPUs, same grains:      $(grep -E '^(step|overlap):' "$logs/bench-strong.log")"
    note "two GPUs, sharded:          $(grep -E '^(step|overlap):' "$logs/bench-strong-shard.log")"
    # 20 and 255 MB of votes
    for size in "" "--set model.dim=2048 --set model.glu_hidden=5504 --set model.layers=5 --set train.sequences=8"; do
      for shard in no yes; do
        run_ranks 2 "$arbdist" bench votes "$root/configs/books.ini" "${books[@]}" $size --set dist.shard_state=$shard >>"$logs/bench-votes.log" 2>&1
      done
    done
    note "$(cat "$logs/bench-votes.log")"
  fi
  # the encoders and the VAE, beside PyTorch where it is: its scripts run `bench sidecar`
  if python3 -c 'import numpy, torch; assert torch.cuda.is_available()' 2>/dev/null; then
    for script in cuda_peer vae_peer; do
      if timeout 400 python3 "$here/../sidecar/$script.py" --cuda "$arbdist" >"$logs/$script.log" 2>&1; then pass "$script.py"; else fail "$script.py"; fi
      note "$(cat "$logs/$script.log")"
    done
  else
    "$arbdist" bench sidecar --set run.device=cuda >"$logs/bench-sidecar.log" 2>&1
    "$arbdist" bench sidecar --set run.device=cuda --set sidecars.vae=synthetic >>"$logs/bench-sidecar.log" 2>&1
    note "$(cat "$logs/bench-sidecar.log")"
    skip "encoders beside PyTorch (python3 has no torch with CUDA, or no numpy)"
  fi
fi

# ---- quality and speed beside PyTorch
if [ -n "$peer" ] && [ -n "$data" ]; then
  for seed in ${SEEDS:-1 2}; do
    "$arbdist" "$root/configs/books.ini" "${books[@]}" --set run.name="quality-$seed" --set run.seed="$seed" --set checkpoint.every=0 \
      --set eval.sequences=1024 --set train.log_every=100 >"$logs/quality-$seed.log" 2>&1
    note "arbdist seed $seed: $(grep -E 'step (200|400|600|800)/' "$logs/quality-$seed.log" | sed -E 's/ +flips.*//' | tr '\n' ';')"
  done
  for pair in ${PEERS:-4e-3:1}; do
    timeout 400 python3 "$peer" --data "$data" --lr "${pair%:*}" --seed "${pair#*:}" --steps "${PEER_STEPS:-800}" >"$logs/peer-$pair.log" 2>&1
    note "peer lr:seed $pair: $(tail -n 1 "$logs/peer-$pair.log")"
  done
fi
note "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
