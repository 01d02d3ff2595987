#!/usr/bin/env bash
# driver.sh FOLDER RUNTIME: a driver that does not fit the build ends a run that wants a GPU with exit code 7 and one message with
# both versions, on every rank, whether all ranks meet it or one; a run that takes what it finds says so and computes on the CPU.
# FOLDER holds a stand-in for libcuda.so.1; RUNTIME is the version of CUDA that the build was made with, e.g. 13.0.
. "$(dirname "$0")/../train/run.sh"
folder=$1 runtime=$2
quick=(--set run.dir="$scratch/runs" --set train.steps=4 --set train.warmup=2)
same_version=$((${runtime%.*} * 1000 + ${runtime#*.} * 10))

# refused NAME PATTERN COMMAND...: exit code 7 within 30 s and one message.
refused() {
  local name=$1 pattern=$2 rc=0 start messages
  shift 2
  start=$(now_ms)
  timeout -k 5 60 "$@" >"$log" 2>&1 </dev/null || rc=$?
  messages=$(grep -c '^arbdist: ' "$log" || true)
  if [ "$rc" -ne 7 ] || [ "$messages" -ne 1 ] || ! grep -qE -e "$pattern" "$log" || [ $(($(now_ms) - start)) -gt 30000 ]; then
    fail "$name: exit code $rc, $messages messages, $(($(now_ms) - start)) ms" "$(tail -n 8 "$log")"
  else
    pass "$name"
  fi
}
fake=(env LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
cuda=("$ARBDIST" "$config" "${quick[@]}" --set run.device=cuda)
versions() { printf 'driver supports CUDA %s, this build was made with CUDA %s; %s' "${1//./\\.}" "${runtime//./\\.}" "$2"; }

refused "an old driver" "run.device = cuda: .* driver is too old for this build: .*$(versions 11.4 cudaErrorInsufficientDriver)" "${fake[@]}" FAKE_VERSION=11040 FAKE_INIT=0 "${cuda[@]}"
refused "the major version before" "driver is too old for this build: .*$(versions "$((${runtime%.*} - 1)).0" cudaErrorInsufficientDriver)" \
  "${fake[@]}" FAKE_VERSION=$((same_version / 1000 * 1000 - 1000)) FAKE_INIT=0 "${cuda[@]}"
refused "a kernel module of another version" "kernel module and libcuda.so.1 are of different versions.*$(versions "$runtime" cudaErrorSystemDriverMismatch)" \
  "${fake[@]}" FAKE_VERSION="$same_version" FAKE_INIT=803 "${cuda[@]}"
refused "a libcuda.so.1 that the GPU does not take" "too old for this build, and this GPU.*$(versions "$runtime" cudaErrorCompatNotSupportedOnDevice)" \
  "${fake[@]}" FAKE_VERSION="$same_version" FAKE_INIT=804 "${cuda[@]}"
refused "a driver without a GPU" "none is visible .*$(versions "$runtime" cudaErrorNoDevice)" "${fake[@]}" FAKE_VERSION="$same_version" FAKE_INIT=100 "${cuda[@]}"
if [ -n "$MPIRUN" ]; then
  refused "an old driver, 3 ranks" "rank 0 of 3 on [^ ]+: .*too old for this build: .*$(versions 11.4 cudaErrorInsufficientDriver)" \
    "${fake[@]}" FAKE_VERSION=11040 FAKE_INIT=0 "$MPIRUN" 3 "${cuda[@]}"
  cat >"$scratch/odd.sh" <<'END'
[ "$OMPI_COMM_WORLD_RANK" = 2 ] && export FAKE_VERSION=11040
exec "$@"
END
  refused "an old driver on one rank of 3" "rank [0-2] of 3 on [^ ]+: .*this build was made with CUDA" "${fake[@]}" FAKE_VERSION="$same_version" FAKE_INIT=100 "$MPIRUN" 3 bash "$scratch/odd.sh" "${cuda[@]}"
else
  skip "an old driver under mpirun" "no MPI in this build"
fi

# run.device = auto
rc=0
"${fake[@]}" FAKE_VERSION=11040 FAKE_INIT=0 "$ARBDIST" "$config" "${quick[@]}" --set run.device=auto >"$log" 2>&1 || rc=$?
contains "auto: an old driver is a warning" "$(plain "$log")"$'\n'"exit code $rc" "run.device = auto: the CPU computes: .*too old.*$(versions 11.4 cudaErrorInsufficientDriver)" \
  '^digest [0-9a-f]{32}$' '^exit code 0$'
rm -rf "$scratch/runs"
rc=0
"${fake[@]}" FAKE_VERSION="$same_version" FAKE_INIT=100 "$ARBDIST" "$config" "${quick[@]}" --set run.device=auto >"$log" 2>&1 || rc=$?
same "auto: without a GPU nothing is said" "0 0" "$rc $(grep -c 'the CPU computes' "$log" || true)"
finish
