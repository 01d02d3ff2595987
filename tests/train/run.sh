# run.sh: sourced by the tests that train. Expects ARBDIST (a binary), MPIRUN (tests/mpirun.sh, or empty without MPI) and
# SANITIZE (what the binary was built with, or empty) in the environment. TSan cannot see what Open MPI does: no MPI with it.
. "$(dirname "${BASH_SOURCE[0]}")/../check.sh"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=$here/tiny.ini
: "${ARBDIST:?the arbdist binary}"
MPIRUN=${MPIRUN:-} SANITIZE=${SANITIZE:-}
case $SANITIZE in *thread*) MPIRUN= ;; esac
log=$scratch/log rc=0

# train WHERE RANKS OPTION...: RANKS = "loopback N" or "mpi N" or "one"; sets rc and leaves the output in $log.
train() {
  local place=$1 ranks=$2
  shift 2
  rc=0
  case $ranks in
    one) timeout -k 5 120 "$ARBDIST" "$config" --set run.dir="$place" "$@" >"$log" 2>&1 || rc=$? ;;
    loopback*) timeout -k 5 120 "$ARBDIST" "$config" --set run.dir="$place" --loopback "${ranks#* }" "$@" >"$log" 2>&1 || rc=$? ;;
    mpi*) ASAN_OPTIONS=detect_leaks=0 timeout -k 5 120 "$MPIRUN" "${ranks#* }" "$ARBDIST" "$config" --set run.dir="$place" "$@" \
      >"$log" 2>&1 || rc=$? ;;
  esac
}
# The digest on the last line of a run, or nothing.
digest() { plain "$log" | grep -E '^digest [0-9a-f]{32}$' | tail -n 1 | cut -d' ' -f2 || true; }
resumed_at() { plain "$log" | sed -n 's/^resumed at step \([0-9]*\)$/\1/p'; }
# What of the metrics may not depend on time or place; the last line of a step counts, as a killed run repeats steps.
curve() {
  sed -E 's/.*"step": ([0-9]+),.*"train_bpb": ([^,]*),.*"val_bpb": ([^,]*),.*"flip_rate": ([^,]*), "saturated": ([^,]*),.*/\1 \2 \3 \4 \5/' \
    "$1/tiny/metrics.jsonl" | awk '{ line[$1] = $0; if ($1 > last) last = $1 } END { for (i = 1; i <= last; i++) print line[i] }'
}
