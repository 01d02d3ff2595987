#!/usr/bin/env bash
# run.sh [--quick] [-- CMAKE-OPTION...]: all tests. Installs what is missing, builds and tests as users run it, then repeats what
# makes sense under sanitizers, and compares the bits of other builds. The last line adds up every test of every process and rank:
#
#   N passed, N failed, N skipped
#
# --quick leaves out everything after the release build. Options after -- go to the release build's cmake. Logs: build/test-logs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
quick=
options=()
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=yes ;;
    --) shift; options=("$@"); break ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift
done
shopt -s nullglob
export LC_ALL=C UBSAN_OPTIONS=print_stacktrace=1
say() { printf '\n== %s (after %d s)\n' "$*" "$SECONDS"; }
. launch/packages.sh
if [ -n "$quick" ]; then packages_need "${packages_build[@]}"; else packages_need "${packages_build[@]}" "${packages_tests[@]}"; fi

logs=$root/build/test-logs
mkdir -p "$logs"
rm -f "$logs"/*
direct=$logs/direct.log
: >"$direct"
broken() { echo "FAILED: $1"; echo "0 passed, 1 failed, 0 skipped" >>"$direct"; }
# Sanitizers of this age want their addresses where older kernels put them.
fixed=()
if setarch "$(uname -m)" -R true 2>/dev/null; then fixed=(setarch "$(uname -m)" -R); fi

# build PRESET TARGET [CMAKE-OPTION...]
build() {
  local preset=$1 target=$2 log=$logs/$1.build
  shift 2
  say "build: $preset"
  if cmake --preset "$preset" --fresh "$@" >"$log" 2>&1 &&
    cmake --build --preset "$preset" --target "$target" >>"$log" 2>&1; then return 0; fi
  tail -n 40 "$log"
  broken "build: $preset"
  return 1
}
# tests FOLDER NAME CTEST-OPTION...
tests() {
  local folder=$1 log=$logs/$2.ctest
  say "tests: $2"
  shift 2
  "${fixed[@]}" ctest --test-dir "$folder" -V --no-tests=error -j "$(nproc)" "$@" >"$log" 2>&1 ||
    { tests/totals.sh --failed "$log"; grep -q '^ *[0-9]*/[0-9]* *Test *#' "$log" || { tail -n 5 "$log"; broken "ctest in $folder"; }; }
  tests/totals.sh "$log"
}

if build release all "${options[@]}"; then tests build release; fi
if [ -z "$quick" ]; then
  # End-to-end tests (label e2e) are judged above; the short ones go through the same commands here.
  if build asan all; then tests build-asan asan -LE e2e; fi
  # Open MPI is not built for the thread sanitizer: threads and ranks that are threads.
  if build tsan all; then tests build-tsan tsan -R '^(dist_(place|single|loopback|watchdog)|base_background|checkpoint|cpu_pool|train_short)$'; fi
  # Everything that parses files: seeds replayed, then 10 s of fuzzing each.
  if build fuzz fuzz; then tests build-fuzz fuzz -L fuzz; fi
  others=()
  if build clang arbdist; then others+=(clang build-clang/arbdist -- "clang, reference backend" build-clang/arbdist --set run.device=ref --); fi
  if build refv3 arbdist; then others+=("reference backend, -march=x86-64-v3" build-refv3/arbdist --set run.device=ref --); fi
  if [ ${#others[@]} -gt 0 ] && [ -x build/arbdist ]; then
    say "bits of other builds"
    tests/train/builds.sh build/arbdist "${others[@]}" | tee -a "$direct" || true
  fi
fi

say "done; logs are in build/test-logs"
line=$(tests/totals.sh "$logs"/*.ctest "$direct")
echo "$line"
[[ $line =~ ^[1-9][0-9]*\ passed,\ 0\ failed, ]]
