#!/usr/bin/env bash
# device_code.sh NVCC ROOT LIBRARY FLAGS...: what nvcc makes of kernels/cuda, without a GPU. Every float operation says how it rounds, so that
# nothing downstream may contract it; none flushes subnormals or is approximate, but for the reciprocals that sigmoid.cuh and loss.cu start
# an exact division from. The int8 products hold no fp16 product: ptxas ends a group of wgmmas with an empty one where a branch lies between them and
# their commit, and the int8 pipe runs dry before it. cuobjdump is asked where it is.
. "$(dirname "$0")/../check.sh"
nvcc=$1 root=$2 library=$3
shift 3
ptx() { # SOURCE FLAGS...
  local source=$1
  shift
  "$nvcc" "$@" -I"$root" -arch=compute_90a --ptx "$source" -o "$scratch/x.ptx" >"$scratch/nvcc.log" 2>&1 || cat "$scratch/nvcc.log"
}
# What breaks the rules, one instruction a line with its count.
against() {
  { grep -oE '\b(mul|add|sub)\.f(32|64)\b|\bdiv\.full\S*|\b[a-z0-9]+(\.[a-z0-9]+)*\.(ftz|approx)(\.[a-z0-9]+)*' "$scratch/x.ptx" || true; } | sort | uniq -c |
    awk -v allowed="${1:-^$}" '!($2 ~ allowed) {printf "%s x %d ", $2, $1}'
}
for source in "$root"/kernels/cuda/*.cu; do
  name=$(basename "$source") allowed=
  grep -qE 'rcp\.approx' "$source" || grep -qE '"kernels/cuda/(sigmoid|gate|glu|scan)\.cuh"' "$source" && allowed='^rcp[.]approx[.]ftz[.]f32$'
  ptx "$source" "$@"
  if [ ! -s "$scratch/x.ptx" ]; then fail "$name: no PTX" "$(cat "$scratch/nvcc.log")"; continue; fi
  found=$(against "$allowed")
  if [ -z "$found" ]; then pass "$name"; else fail "$name" "$found"; fi
  rm -f "$scratch/x.ptx"
done
# seen: contraction, flushing, an approximate division
printf '%s\n' '__global__ void f(float *x) { x[0] = x[1] * x[2] + x[3]; x[4] = x[5] / x[6]; x[7] = x[8] * x[9]; }' >"$scratch/planted.cu"
for flag in --fmad=true --ftz=true --prec-div=false; do
  ptx "$scratch/planted.cu" "$@" $flag
  if [ -n "$(against)" ]; then pass "$flag is seen: $(against)"; else fail "$flag is not seen"; fi
done
cuobjdump=$(dirname "$nvcc")/cuobjdump
[ -x "$cuobjdump" ] || cuobjdump=$(command -v cuobjdump || true)
if [ -z "$cuobjdump" ]; then
  skip "products without fp16" "no cuobjdump here"
else
  ar p "$library" gemm.cu.o >"$scratch/gemm.o"
  "$cuobjdump" -sass "$scratch/gemm.o" >"$scratch/sass"
  if grep -q IGMMA "$scratch/sass"; then same "products without fp16" "0" "$(grep -c HGMMA "$scratch/sass")"; else skip "products without fp16" "this build has none for sm_90a"; fi
fi
finish
