# check.sh: sourced by the shell tests. Counts checks, makes a scratch folder that goes away, and prints the totals line that
# tests/totals.sh adds up. A script that dies half-way counts as one failure.
#
#   . check.sh; pass NAME; fail NAME [DETAIL...]; skip NAME WHY; finish
set -euo pipefail
# Inherited from a launcher around the tests, these would make every arbdist think that it is a rank of that job.
unset "${!OMPI_@}" "${!PMIX_@}" "${!PMI_@}" "${!SLURM_@}"

passed=0 failed=0 skipped=0 finished=
scratch=$(mktemp -d "${TMPDIR:-/tmp}/arbdist-test.XXXXXX")

pass() { passed=$((passed + 1)); printf 'ok       %s\n' "$1"; }
fail() {
  failed=$((failed + 1))
  printf 'FAILED   %s\n' "$1"
  shift
  [ $# -eq 0 ] || printf '%s\n' "$*" | sed 's/^/         | /'
}
skip() { skipped=$((skipped + 1)); printf 'skipped  %s: %s\n' "$1" "$2"; }

# same NAME EXPECTED GOT [DETAIL]
same() {
  if [ "$2" = "$3" ] && [ -n "$2" ]; then pass "$1"; else fail "$1" "expected: $2" $'\n'"got:      $3" ${4:+$'\n'"$4"}; fi
}
# contains NAME TEXT PATTERN...: every extended regular expression matches somewhere.
contains() {
  local name=$1 text=$2 pattern
  shift 2
  for pattern in "$@"; do
    if ! grep -qE -e "$pattern" <<<"$text"; then
      fail "$name" "no match for: $pattern"$'\n'"$text"
      return 0
    fi
  done
  pass "$name"
}

# What a terminal would show of a log: mpirun gives ranks a terminal, so a progress bar may be in it.
plain() { tr '\r' '\n' <"$1" | sed -e 's/\x1b\[K//g' -e '/^\[[#.]*\] [0-9]*\/[0-9]* *$/d'; }
now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 1000)); }
# wait_for SECONDS COMMAND...: polls until the command succeeds.
wait_for() {
  local end=$(($(now_ms) + $1 * 1000))
  shift
  until "$@"; do
    [ "$(now_ms)" -lt "$end" ] || return 1
    sleep 0.02
  done
}

finish() {
  finished=yes
  printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  [ "$failed" -eq 0 ] && [ $((passed + skipped)) -gt 0 ] || exit 1
  exit 0
}
leave() {
  local rc=$?
  local jobs_left
  jobs_left=$(jobs -p)
  [ -z "$jobs_left" ] || kill -9 $jobs_left 2>/dev/null || true
  rm -rf "$scratch"
  [ -n "$finished" ] && exit "$rc"
  printf 'FAILED   the script ended early, with code %d\n' "$rc"
  printf '%d passed, %d failed, %d skipped\n' "$passed" $((failed + 1)) "$skipped"
  exit 1
}
trap leave EXIT
trap 'exit 130' INT TERM
