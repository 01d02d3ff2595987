#!/usr/bin/env bash
# quickstart.sh [--keep]: from a bare Debian 12 to a trained model: installs what is missing, builds, trains configs/smoke.ini on
# two ranks, and shows what it learned. Starts afresh each time; --keep continues from the checkpoints of the last time instead.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
keep=
case ${1:-} in
  '') ;;
  --keep) keep=yes ;;
  *) sed -n '2,3s/^# //p' "$0"; exit 2 ;;
esac
say() { printf '\n== %s\n' "$*"; }
now() { echo "${EPOCHREALTIME/[.,]/}"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run=$root/runs/smoke

say "packages"
. "$root/launch/packages.sh"
packages_need "${packages_build[@]}"
echo "all there"

say "build, into $root/build"
cd "$root"
{ cmake --preset release || cmake --preset release --fresh; } >"$log" 2>&1 || { cat "$log"; exit 1; }
cmake --build build --target arbdist >"$log" 2>&1 || { cat "$log"; exit 1; }
build/arbdist --version

say "train configs/smoke.ini on 2 ranks"
if [ -z "$keep" ] && [ -e "$run" ]; then
  echo "removing the run of last time, $run (--keep would continue it)"
  rm -rf "$run"
fi
mpirun=(mpirun -np 2 --bind-to none)
if [ "$(nproc)" -lt 2 ]; then mpirun+=(--oversubscribe); fi
if [ "$(id -u)" -eq 0 ]; then mpirun+=(--allow-run-as-root); fi
# Shared memory of the ranks needs no ptrace rights this way, as containers often forbid it.
export OMPI_MCA_btl_vader_single_copy_mechanism=none
begin=$(now)
"${mpirun[@]}" build/arbdist configs/smoke.ini --set run.dir="$root/runs" | tee "$log"
ms=$((($(now) - begin) / 1000))
digest=$(tr '\r' '\n' <"$log" | sed -n 's/^digest //p' | tail -n 1)
[ -n "$digest" ] || { echo "the run printed no digest" >&2; exit 1; }

say "trained in $((ms / 1000)).$((ms % 1000 / 100)) s; bits per byte by step"
awk -f launch/curve.awk "$run/metrics.jsonl"

say "beside tables of byte counts: arbdist eval"
build/arbdist eval configs/smoke.ini --set run.dir="$root/runs"

say "what the state is, to the last bit; the same on any number of ranks"
echo "digest $digest"
