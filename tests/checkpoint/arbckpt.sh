#!/usr/bin/env bash
# arbckpt.sh: every command of arbckpt, on checkpoints whose content is known, on those of a real run, and on hostile ones.
# Expects ARBCKPT, ARBDIST, FIXTURE, ST_CHECK and WEIGHTS_PRINT (binaries) in the environment, and uses PYTHON (python3).
. "$(dirname "$0")/../check.sh"
: "${ARBCKPT:?the arbckpt binary}" "${ARBDIST:?the arbdist binary}" "${FIXTURE:?}" "${ST_CHECK:?}" "${WEIGHTS_PRINT:?}"
here=$(cd "$(dirname "$0")" && pwd)
# HDF5 1.10 itself forgets a few bytes when a header's checksum is wrong.
printf 'leak:libhdf5\n' >"$scratch/leaks"
export LSAN_OPTIONS=suppressions=$scratch/leaks:print_suppressions=0
good=$scratch/good three=$scratch/good/step-00000003 five=$scratch/good/step-00000005
out= err= rc=0

# tool ARGUMENT...: sets out, err and rc.
tool() {
  rc=0
  timeout -k 5 60 "$ARBCKPT" "$@" >"$scratch/out" 2>"$scratch/err" || rc=$?
  out=$(cat "$scratch/out") err=$(cat "$scratch/err")
}
# gives NAME CODE PATTERN...: the last tool call's exit code, and patterns in its output.
gives() {
  local name=$1 code=$2
  shift 2
  if [ "$rc" != "$code" ]; then fail "$name: exit code $rc, expected $code" "$out"$'\n'"$err"; return 0; fi
  contains "$name" "$out" "$@"
}
# refuses NAME CODE PATTERN...: exit code, one line on stderr that matches, nothing on stdout.
refuses() {
  local name=$1 code=$2
  shift 2
  if [ "$rc" != "$code" ] || [ -n "$out" ] || [ "$(wc -l <"$scratch/err")" -ne 1 ]; then
    fail "$name: exit code $rc, expected $code, one message and no output" "$out"$'\n'"$err"
    return 0
  fi
  contains "$name" "$err" '^arbckpt: [a-z]+: ' "$@"
}
squeeze() { tr -s ' ' <<<"$1" | sed 's/^ //; s/ $//'; }

# ---- a laptop's binary ----
linked=$(ldd "$ARBCKPT" 2>/dev/null | grep -Ei 'libmpi|libopen-(rte|pal)|libpmix|libcuda|libcudart|libnccl' || true)
symbols=$( (nm "$ARBCKPT"; nm -D "$ARBCKPT") 2>/dev/null | grep -E ' (MPI_|PMPI_|ompi_|cuda|cu[A-Z]|nccl)' | head -n 3 || true)
if ldd "$ARBCKPT" >/dev/null 2>&1; then
  same "links no MPI, CUDA or NCCL" none "${linked:-none}"
else
  skip "links no MPI, CUDA or NCCL" "no ldd for it"
fi
same "has no symbol of them" none "${symbols:-none}"

# ---- known content ----
"$FIXTURE" "$good" good
tool ls "$good"
gives "ls: two checkpoints, the newest last" 0 '^ +3 +24 +[0-9a-f]{32} +[0-9,]+ +20[0-9-]+ [0-9:]+ +verified$' \
  '^ +5 +40 +[0-9a-f]{32} .*verified$'
same "ls: three lines" 3 "$(wc -l <"$scratch/out")"
tool ls "$three"
gives "ls of one: tensors, shapes, weights, bytes a weight" 0 '^step 3, 24 samples, seed 11, digest [0-9a-f]{32}$' \
  '^a.uv +6 x 5 +30 +114 +3.8000  c code e m p r$' '^b.norm +4 x 1 +- +4 +-  e$' '^sum +3 tensors +90 .* 13 arrays$'
# The list's digest of a step.
listed() { "$ARBCKPT" ls "$good" | awk -v step="$1" '$1 == step { print $3 }'; }
for how in "$good --step 3" "$three/" "$three/."; do
  tool digest $how
  same "digest of $(basename "${how%% *}") ${how#* }: step 3" "digest $(listed 3)" "$out"
done
tool digest "$good"
same "digest of a folder: the newest" "digest $(listed 5)" "$out"
mkdir "$scratch/run" && ln -s "$good" "$scratch/run/checkpoints" && ln -s "$three" "$scratch/linked"
tool digest "$scratch/run"
same "digest of a run's folder" "digest $(listed 5)" "$out"
tool digest "$scratch/linked"
same "digest of a link to a step folder" "digest $(listed 3)" "$out"

tool cat "$three" a.uv --trits
same "cat --trits" "$(cat "$good.trits")" "$(squeeze "$out")"
tool cat "$three" a.uv.code --accumulators
same "cat --accumulators" "$(cat "$good.accumulators")" "$(squeeze "$out")"
tool cat "$three" b.e
same "cat of a field" "$(cat "$good.e")" "$out"
tool cat "$three" a.uv --trits --rows 2:4
same "cat --rows 2:4" "$(sed -n 3,4p "$good.trits")" "$(squeeze "$out")"
tool cat "$three" a.uv --trits --rows 5:
same "cat --rows 5:" "$(sed -n 6p "$good.trits")" "$(squeeze "$out")"
tool cat "$three" a.uv --trits --rows=:1
same "cat --rows=:1" "$(sed -n 1p "$good.trits")" "$(squeeze "$out")"
tool cat "$three" b.norm
same "cat of a norm: its exponents" "0 0 0 0" "$(echo $out)"
tool cat "$three" a.uv.c --rows 0:1
same "cat of statistics: as they are stored" "-2147483648 -1 -2 -3 -4" "$out"
tool cat "$three" a.uv --rows 0:1
read -r trit _ <"$good.trits"
same "cat of codes: 85 (T + 1) + A - Amin" "84" "$(awk '{ print $1 }' <<<"$out")" "T = $trit, A = 0"
tool cat "$three" meta.config
gives "cat of the config" 0 '^dir = /runs/3$'
tool cat "$three" meta.identity
same "cat of the identity" "run.seed=11"$'\n'"train.peak=0x1.99999ap-4" "$out"

tool stat "$three"
gives "stat" 0 '^a.uv +30 +[0-9.]+ +[0-9.]+ +[0-9.]+ +\|.{13}\| ' '^sum +90 .* 0$' \
  '^b +-128 .. -126 +-2 .. 0 +0.0 .. 2.0 +-9.5 .. 0.0 +1.0$' '^1 norm +0 +- '
tool stat "$three" a.uv
ones=$(tr -s ' ' '\n' <"$good.trits" | grep -cx -- -1)
gives "stat of one tensor: trits as they are" 0 "^  -1 +$ones +[0-9.]+ %  #+$" \
  '^  E, row exponents +-25 .. -20 eighths' '1 of 10 never seen'
bins=$(awk '$2 == ".." && $1 ~ /^-?[0-9]+$/ { print $1, $3, $4 }' <<<"$out")
expected=$(tr -s ' ' '\n' <"$good.accumulators" | awk '{ n[int(($1 + 84) / 13)]++; ends += $1 == 84 || $1 == -84 }
  END { for (b = 0; b < 13; b++) print 13 * b - 84, 13 * b - 72, n[b] + 0; print "ends", ends }')
same "stat of one tensor: accumulators in 13 bins, and at the ends" "$expected" \
  "$bins"$'\n'"$(awk '/^  at the ends/ { print "ends", $4 }' <<<"$out")"
tool stat "$three" b.norm
gives "stat of a norm" 0 '^b.norm: a norm of 4 channels$'

tool diff "$three" "$five"
gives "diff of two steps" 1 '^step +3 +5  \*$' '^a.uv +30 +2 +6.667 +2 +0.367 +0 +1 +2$' \
  '^b +60 +1 +1.667 +1 +0.017 +1 +0 +1$' '^sum +90 +3 +3.333 +3 +0.133 +1 +1 +3$' \
  '^1 of 3 tensors: no change$' '^  run.dir: /runs/3, /runs/5$' '^a and b differ$'
tool diff "$three" "$three"
gives "diff of a checkpoint with itself" 0 '^3 of 3 tensors: no change$' '^a and b are equal'
cp -r "$good" "$scratch/copy"
tool diff "$good" "$scratch/copy" --step 5
gives "diff of folders, --step" 0 '^step +5 +5$' '^a and b are equal'
"$FIXTURE" "$scratch/other" other
tool diff "$good" "$scratch/other" --step 3
gives "diff: identities, floats as people write them" 1 '^  train.peak: 0.100000001, 0.125$' \
  '^  train.title: \(none\), \?\[31mred$' '^3 of 3 tensors: no change$' '^a and b differ$'
same "diff: what the identity says is not said again" 0 "$(grep -c '^settings' <<<"$out" || true)" "$out"
"$FIXTURE" "$scratch/shape" shape
tool diff "$three" "$scratch/shape/step-00000003"
gives "diff of other models" 1 '^b +3 x 20 in a, 3 x 19 in b$' '^b.norm +only in a$' '^c.norm +only in b$'

tool verify "$good"
gives "verify of a folder" 0 "^$good/step-00000003$" "^$good/step-00000005$" '13 arrays of 3 tensors' '90 weights, all legal'
same "verify of a folder: both verified" 2 "$(grep -cx '  verified' "$scratch/out")"
for wide in "ls $good" "ls $three" "stat $three" "stat $three a.uv" "diff $three $five" --help; do
  tool $wide
  same "${wide%% *} fits 100 columns" 0 "$(awk 'length > 100' "$scratch/out" | wc -l)" "$out"
done

# ---- export ----
tool export "$three" "$scratch/t.safetensors"
gives "export" 0 ': 7 tensors of step 3$'
same "export leaves one file" "t.safetensors" "$(cd "$scratch" && echo t.safetensors*)"
layout=$("$ST_CHECK" "$scratch/t.safetensors" 2>&1 || true)
digest=$("$ARBCKPT" digest "$three" | cut -d' ' -f2)
contains "export: notes and shapes" "$layout" '^# step = 3$' "^# digest = $digest$" '^# scale = W = 2\^\(E/8\) \* T$' \
  '^a.u.trit 3 5$' '^a.v.trit 3 5$' '^a.u.exponent 3 1$' '^b.trit 3 20$' '^b.exponent 3 1$' '^b.norm.exponent 4 1$'
same "export: trits of both members" "$(cat "$good.trits")" \
  "$("$ST_CHECK" "$scratch/t.safetensors" a.u.trit; "$ST_CHECK" "$scratch/t.safetensors" a.v.trit)"
same "export: exponents" "$(cat "$good.e")" "$("$ST_CHECK" "$scratch/t.safetensors" b.exponent)"
same "export: our reader sees the same tensors" "$(grep -v '^#' <<<"$layout" | cut -d' ' -f1 | sort)" \
  "$("$WEIGHTS_PRINT" "$scratch/t.safetensors" 2>&1 | cut -d' ' -f1)"
same "export: our reader sees the same trits" "$(cat "$good.trits")" \
  "$("$WEIGHTS_PRINT" "$scratch/t.safetensors" a.u.trit; "$WEIGHTS_PRINT" "$scratch/t.safetensors" a.v.trit)"
same "export: our reader sees the same exponents" "$(cat "$good.e")" "$("$WEIGHTS_PRINT" "$scratch/t.safetensors" b.exponent)"
python=${PYTHON:-python3}
if "$python" -c 'import safetensors' 2>/dev/null; then
  same "export: read by the Python package" "$(cat "$good.trits")" "$("$python" - "$scratch/t.safetensors" <<'PY'
import sys
import safetensors
tensors = dict(safetensors.deserialize(open(sys.argv[1], "rb").read()))
for name in ("a.u.trit", "a.v.trit"):
    t = tensors[name]
    n, k = t["shape"]
    v = [b - 256 if b > 127 else b for b in t["data"]]
    for r in range(n):
        print(*v[r * k:(r + 1) * k])
PY
)"
else
  skip "export: read by the Python package" "$python has no package safetensors"
fi
tool export "$three" "$scratch/absent/t.safetensors"
refuses "export into no folder" 7 'io: .*/absent/t.safetensors.tmp-[0-9]+: cannot be created: No such file'

# ---- a real run ----
run=$scratch/runs/tiny
"$ARBDIST" "$here/../train/tiny.ini" --set run.dir="$scratch/runs" --set train.steps=6 --set train.warmup=2 \
  --set checkpoint.every=3 --set sample.length=0 >"$scratch/log" 2>&1 || fail "a run" "$(tail -n 5 "$scratch/log")"
last=$(plain "$scratch/log" | tail -n 1)
tool digest "$run"
same "digest: the last line of the run" "$last" "$out" "$(tail -n 3 "$scratch/log")"
tool digest "$run" --step 3
saved=$(plain "$scratch/log" | sed -n 's/^saved step 3: .*, \(digest .*\)/\1/p')
same "digest of an earlier step: the run's line for it" "$saved" "$out"
tool verify "$run"
gives "verify of a run" 0 '^  verified$' "^  state digest  ${last#digest }, stored and recomputed$"
tool stat "$run"
gives "stat of a run" 0 '^sum +[0-9,]+ .* 0$'
tool diff "$run" "$run/checkpoints/step-00000003"
gives "diff within a run" 1 '^a and b differ$'
tool export "$run" "$scratch/r.safetensors"
layout=$("$ST_CHECK" "$scratch/r.safetensors" 2>&1 || true)
contains "export of a run: members by name" "$layout" '^layer0.memory.f.trit 64 64$' '^layer0.memory.c.trit 64 64$' \
  '^layer0.memory.g.exponent 64 1$' '^layer1.glu.v.trit 96 64$' '^layer1.glu.d.trit 64 96$' '^head.logits.trit [0-9]+ 64$'
tool cat "$run" layer0.memory.fcg --trits --rows 128:192
same "export of a run: the third member" "$(squeeze "$out")" "$("$ST_CHECK" "$scratch/r.safetensors" layer0.memory.g.trit)"

# ---- what is not right ----
for kind in illegal digest same_digest missing misfit type field external_link soft_link external_storage gzip bomb; do
  "$FIXTURE" "$scratch/$kind" "$kind"
done
# bad KIND PATTERN: verify refuses it with one message.
bad() {
  local kind=$1 pattern=$2
  tool verify "$scratch/$kind/step-00000003"
  if [ "$rc" -eq 4 ] && grep -qE "^arbckpt: checkpoint: .*$pattern" <<<"$err" && [ "$(wc -l <<<"$err")" -eq 1 ] &&
    ! grep -q verified <<<"$out"; then
    pass "verify refuses: $kind"
  else
    fail "verify refuses: $kind, exit code $rc" "$out"$'\n'"$err"
  fi
}
bad illegal '2 illegal codes \(255\), the first in b.code'
bad digest 'its state digest is 0{32}, its content gives [0-9a-f]{32}'
bad missing 'b.p is missing'
bad misfit 'b.e is i8 2 x 1, expected i8 3 x 1'
bad type 'b.e is u8 3 x 1, expected i8 3 x 1'
bad field 'b.x is not part of a training state'
tool stat "$scratch/illegal"
gives "stat counts illegal codes" 0 '^b +60 .* 2$' '^sum +90 .* 2$'
tool stat "$scratch/illegal" b
same "and not among the trits" 58 "$(awk '$1 ~ /^(-1|0|\+1)$/ { n += $2 } END { print n }' <<<"$out")" "$out"
tool diff "$scratch/digest" "$scratch/same_digest"
gives "diff: another identity is a difference by itself" 1 '^3 of 3 tensors: no change$' '^  train.peak: 0.100000001, 0.125$'
tool cat "$scratch/illegal" b --trits --rows 0:1
same "cat --trits shows them" "1" "$(grep -o '?' <<<"$out" | wc -l)"
tool export "$scratch/illegal" "$scratch/no.safetensors"
refuses "export refuses illegal codes" 4 'b has an illegal code'
tool export "$scratch/digest" "$scratch/no.safetensors"
refuses "export refuses another content" 4 'its content gives'
same "and leaves no file" none "$(cd "$scratch" && ls | grep '^no.safetensors' || echo none)"
for command in stat digest "diff $three"; do
  tool $command "$scratch/field"
  refuses "${command%% *} refuses an unknown field" 4 'b.x is not part of a training state'
done

for kind in external_link soft_link external_storage gzip bomb; do
  case $kind in
    external_link) why='p in group /b is an external link' ;;
    soft_link) why='p in group /b is a soft link' ;;
    external_storage) why='b.p keeps its data in another file' ;;
    gzip) why='b.p is chunked' ;;
    bomb) why='b.p has 0 bytes stored, but its shape needs' ;;
  esac
  bad "$kind" "$why"
  for command in "ls" "stat" "digest" "cat" "diff $three" "export"; do
    case $command in
      cat) tool cat "$scratch/$kind/step-00000003" b.p ;;
      export) tool export "$scratch/$kind/step-00000003" "$scratch/no.safetensors" ;;
      *) tool $command "$scratch/$kind/step-00000003" ;;
    esac
    refuses "${command%% *} refuses: $kind" 4 "$why"
  done
  tool stat "$scratch/$kind/step-00000003" --unverified
  refuses "stat --unverified refuses: $kind" 4 "$why"
done

# damage FILE OFFSET: one bit.
damage() {
  local byte
  byte=$(od -An -tu1 -j"$2" -N1 "$1")
  printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
cp -r "$good" "$scratch/damaged"
newest=$scratch/damaged/step-00000005/rank-00000.h5
offset=$(LC_ALL=C grep -obUaP '\x80\x82\x82' "$newest" | head -n 1 | cut -d: -f1) # the bytes of b.e
damage "$newest" "${offset:?}"
tool ls "$scratch/damaged"
gives "ls names what is damaged and why" 0 '^ +3 .*verified$' '^ +5 +- +- .*refused:$' \
  '^ +rank-00000.h5: b.e is damaged \(digest'
tool digest "$scratch/damaged"
same "the newest that verifies is taken" "digest $digest" "$out"
contains "and the other one named" "$err" '^arbckpt: skipped checkpoint: .*step-00000005/rank-00000.h5: b.e is damaged'
tool verify "$scratch/damaged"
same "verify of a folder with a damaged one: exit code" 4 "$rc"
contains "verify of a folder with a damaged one" "$out"$'\n'"$err" 'b.e is damaged' '^  verified$' '^  refused$' \
  '1 of 2 checkpoints refused$'
for command in "cat $scratch/damaged b.e" "stat $scratch/damaged" "export $scratch/damaged $scratch/no.safetensors" \
  "diff $scratch/damaged $five"; do
  tool $command --step 5
  refuses "${command%% *} of a damaged one shows nothing" 4 'b.e is damaged'
done
# To rescue what is left: everything is shown, and what is not as it was is named.
tool cat "$scratch/damaged" b.e --step 5 --unverified
same "--unverified: what is there is shown" "0 3" "$rc $(wc -l <"$scratch/out")"
contains "--unverified: and named" "$err" '^arbckpt: not verified: .*step-00000005: 1 of the slices read are damaged, the first of b.e$'
tool cat "$scratch/damaged" b.p --step 5 --unverified
same "--unverified: nothing is said of what is whole" "0 " "$rc $err"
tool export "$scratch/damaged" "$scratch/rescued.safetensors" --step 5 --unverified
same "--unverified: export" "0 1" "$rc $(grep -c 'the first of b.e' <<<"$err")"
tool digest "$scratch/damaged/step-00000005" --unverified
contains "--unverified: the digest of what is there" "$out" '^digest [0-9a-f]{32}$'
for size in 0 7 48 1000; do
  cp "$three/rank-00000.h5" "$newest"
  truncate -s "$size" "$newest"
  tool verify "$scratch/damaged/step-00000005"
  same "cut to $size bytes: refused" 4 "$rc" "$err"
done
# Every byte of a file in turn is for test_hostile; here some of them go through the whole tool.
wrong=0
mkdir "$scratch/flipped"
cp -r "$three" "$scratch/flipped"
for at in $(seq 5 331 "$(stat -c %s "$three/rank-00000.h5")"); do
  cp "$three/rank-00000.h5" "$scratch/flipped/step-00000003/rank-00000.h5"
  damage "$scratch/flipped/step-00000003/rank-00000.h5" "$at"
  tool digest "$scratch/flipped/step-00000003"
  [ "$rc" -eq 4 ] || [ "$rc $out" = "0 digest $digest" ] || wrong=$((wrong + 1))
done
same "flipped bits: refused, or without effect" 0 "$wrong"
rm "$newest" && mkfifo "$newest"
tool verify "$scratch/damaged/step-00000005"
same "a FIFO for a file: refused, not waited for" 4 "$rc" "$err"

# ---- the command line ----
usage() {
  local pattern=$1
  shift
  tool "$@"
  refuses "usage: $*" 2 "config: .*$pattern"
}
usage 'no command'
usage 'unknown command' frobnicate
usage 'expected 1' ls
usage 'expected 2' cat "$three"
usage 'one word too many' diff "$three" "$five" "$three"
usage 'expected a step' ls "$good" --step
usage 'expected a step' ls "$good" --step -3
usage 'expected a step' ls "$good" --step 3x
usage 'is not step 4' ls "$three" --step 4
usage 'expected A:B' cat "$three" b --rows 3
usage 'expected A:B' cat "$three" b --rows 3:1
usage 'b.code has 3 rows' cat "$three" b --rows 0:4
usage 'b.code has 3 rows' cat "$three" b --rows 3:
usage 'for codes, not for b.e' cat "$three" b.e --trits
usage 'once' cat "$three" b --trits --accumulators
usage 'belong to cat' stat "$three" --trits
usage 'has no nothing' cat "$three" nothing
usage 'has no tensor nothing' stat "$three" nothing
usage 'needs a step folder' stat "$good" --unverified
usage 'needs a step folder' ls "$good" --unverified
usage 'verify --unverified' verify "$three" --unverified
usage 'unknown option' ls "$three" --long
tool ls "$scratch/nowhere"
refuses "a folder that is not there" 4 'nowhere: No such file'
tool ls "$three/rank-00000.h5"
refuses "a file for a folder" 4 'is not a folder'
mkdir "$scratch/empty"
tool ls "$scratch/empty"
refuses "an empty folder" 4 'no checkpoints; expected'
tool digest "$scratch/empty"
refuses "digest of an empty folder" 4 'no checkpoints; expected'
tool digest "$good" --step 4
refuses "a step that is not there" 4 'step-00000004/manifest.json: cannot be opened: No such file'
tool --help
gives "--help" 0 '^usage: arbckpt COMMAND'
tool --version
gives "--version" 0 '^arbckpt [0-9]'
rc=0
"$ARBCKPT" stat "$three" >/dev/full 2>"$scratch/err" || rc=$?
same "a full disk for the output" "7 arbckpt: io: cannot write the output: No space left on device" "$rc $(cat "$scratch/err")"
: >"$scratch/rc"
# More than a pipe holds. A parent that ignores SIGPIPE hands that on.
{ rc=0; "$ARBCKPT" cat "$run" head.logits 2>"$scratch/err" || rc=$?; echo "$rc" >"$scratch/rc"; } | true
contains "a closed pipe: quiet, or one message" "$(cat "$scratch/rc" "$scratch/err")" '^141$|^7$'
same "a closed pipe: at most one message" yes "$([ "$(wc -l <"$scratch/err")" -le 1 ] && echo yes)" "$(cat "$scratch/err")"
finish
