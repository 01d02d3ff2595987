#!/usr/bin/env bash
# golden.sh CONFIG DIGESTFILE COMMAND...: runs the config from its start and compares the digests after some steps with those that
# are written down. COMMAND is arbdist, or a launcher and arbdist:
#
#   golden.sh configs/smoke.ini tests/golden/smoke.digest tests/mpirun.sh 2 build/arbdist
#
# DIGESTFILE holds lines "STEP DIGEST" and comments from # on. The schedule is the config's own: the run is ended after the last
# STEP, not shortened to it. Digests are read from the lines that tell of checkpoints, so these are saved, to a scratch folder.
. "$(dirname "$0")/../check.sh"
[ $# -ge 3 ] || { echo "usage: golden.sh CONFIG DIGESTFILE COMMAND..." >&2; exit 2; }
config=$1 file=$2 log=$scratch/log
shift 2
wanted=$(sed -e 's/#.*//' -e 's/[[:space:]]*$//' "$file" | grep -v '^$' || true)
if [ -z "$wanted" ] || grep -qvE '^[1-9][0-9]* [0-9a-f]{32}$' <<<"$wanted"; then
  fail "$file: expected lines of STEP DIGEST" "$wanted"
  finish
fi
every=$(awk 'function gcd(a, b) { return b ? gcd(b, a % b) : a } { g = gcd($1, g) } END { print g }' <<<"$wanted")
last=$(awk '$1 > n { n = $1 } END { print n }' <<<"$wanted")

: >"$log"
"$@" "$config" --set run.dir="$scratch/runs" --set checkpoint.every="$every" --set checkpoint.keep=1 --set checkpoint.resume=no \
  --set eval.every=0 --set sample.length=0 --set sample.every=0 >"$log" 2>&1 &
pid=$!
saved() { plain "$log" | sed -n "s/^saved step $1: .*, digest \([0-9a-f]*\)\$/\1/p"; }
over() { [ -n "$(saved "$last")" ] || ! kill -0 "$pid" 2>/dev/null; }
wait_for "${GOLDEN_TIMEOUT_S:-600}" over || echo "no digest of step $last after ${GOLDEN_TIMEOUT_S:-600} s"
kill -TERM "$pid" 2>/dev/null || true
{ wait "$pid" || true; } 2>/dev/null
while read -r step digest; do
  same "$config: step $step" "$digest" "$(saved "$step")" "$(plain "$log" | tail -n 3)"
done <<<"$wanted"
finish
