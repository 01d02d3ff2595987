#!/usr/bin/env bash
# layers.sh: the tree keeps the rules of lint.sh, and each rule is able to fail.
. "$(dirname "$0")/../check.sh"
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

if found=$("$here/lint.sh" "$root"); then pass "the tree keeps the rules"; else fail "the tree breaks rules" "$found"; fi

copy=$scratch/copy
mkdir "$copy"
(cd "$root" && tar -cf - src kernels dist launch tools tests) | tar -xf - -C "$copy"
# plant FILE RULE TEXT...: a new file with these lines gets exactly one complaint, by this rule; none if RULE is empty.
plant() {
  local file=$1 rule=$2 name="$1: ${3%%$'\n'*}" found
  shift 2
  mkdir -p "$copy/${file%/*}"
  printf '%s\n' "$@" >"$copy/$file"
  found=$("$here/lint.sh" "$copy" "$file" || true)
  if [ -z "$rule" ]; then
    same "allowed: $name" "no complaint" "no complaint$found"
  elif [ "$(grep -c . <<<"$found")" -eq 1 ] && [[ $found == "$file:"*": $rule: "* ]]; then
    pass "$rule: $name"
  else
    fail "$rule: $name" "$found"
  fi
  rm "$copy/$file"
}
d="include direction"
plant src/base/x.c "$d" '#include "kernels/common/bits.h"'
plant kernels/common/x.c "$d" '#include "kernels/backend.h"'
plant kernels/cpu/x.c "$d" '#include "dist/comm.h"'
plant kernels/x.c "$d" '#include "src/config/config.h"'
plant dist/mpi/x.c "$d" '#include "kernels/backend.h"'
plant dist/x.c "$d" '#include "src/data/text.h"'
plant src/config/x.c "$d" '#include "src/data/text.h"'
plant src/data/x.c "$d" '#include "src/checkpoint/checkpoint.h"'
plant src/checkpoint/x.c "$d" '  #  include "src/model/model.h"'
plant src/model/x.c "$d" '#include "src/train/trainer.h"'
plant src/train/x.c "$d" '#include "launch/args.h"'
plant launch/x.c "$d" '#include "tests/test.h"'
plant tools/checkpoint/x.c "$d" '#include "launch/args.h"'
plant src/model/x.c "" '#include "kernels/backend.h"' '// #include "src/train/trainer.h"' '/* exit(1);' ' * abort(); */'
plant kernels/cpu/x.c "" '#include "kernels/backend.h"' '#include "kernels/common/bits.h"'
plant src/model/x.c "include path" '#include "state.h"'
plant src/model/x.c "include path" '#include "src/model/nowhere.h"'
plant src/nowhere/x.c "unknown folder" 'int x;'
plant src/train/x.c "foreign header" '#include <mpi.h>'
plant dist/x.c "foreign header" '#include <mpi.h>'
plant dist/mpi/x.c "" '#include <mpi.h>'
plant dist/mpi/x.c "foreign header" '#include <nccl.h>'
plant kernels/cpu/x.c "foreign header" '#include <cuda_runtime.h>'
plant launch/x.c "foreign header" '#include <cuda_runtime.h>'
plant src/train/x.c "foreign header" '#include <hdf5.h>'
plant src/train/x.c "forbidden call" 'void f(void) { if (1) exit(1); }'
plant src/data/x.c "forbidden call" 'void f(void) { abort (); }'
plant src/config/x.c "forbidden call" 'char *f(void) { return getenv("HOME"); }'
plant dist/x.c "forbidden call" 'char *f(void) { return getenv("HOME"); }'
plant dist/mpi/x.c "" 'char *f(void) { return getenv("HOME"); }' 'const char *g = "exit(1)"; void h(x *y) { y->abort(); }'
plant kernels/x.c "marker" '/* TO''DO: later */'
plant tests/x.c "marker" '// FIX''ME'
plant tests/x.sh "marker" '# XX''X'
plant tests/x.c "" 'char name[] = "/tmp/nameXXXXXX";'
plant src/base/x.h "include guard" '#ifndef X_H' '#define ARB_SRC_BASE_X_H' '#endif'
plant src/base/x.h "include guard" '#ifndef ARB_SRC_BASE_X_H' '#define ARB_SRC_BASE_Y_H' '#endif'
plant kernels/cuda/x.cuh "include guard" 'int x;'
plant kernels/cuda/x.cuh "" '/* A comment first. */' '#ifndef ARB_KERNELS_CUDA_X_CUH' '#define ARB_KERNELS_CUDA_X_CUH' '#endif'
plant kernels/cuda/x.cu "early launch" '__global__ void f() {}' 'void g() {' '  ARB_CUDA_CHAIN(c, "f", f, 1, 1, 0);' '}'
plant kernels/cuda/x.cu "" '__global__ void f() {' '  arb_previous_done();' '}' 'void g() { ARB_CUDA_CHAIN(c, "f", f, 1, 1, 0); }'
plant src/base/x.c "too long" "$(seq -f '// %g' 601)"
plant src/base/x.c "" "$(seq -f '// %g' 600)"

# Planted anywhere in the tree it is found too.
before=$("$here/lint.sh" "$copy" | wc -l || true)
echo '#include <mpi.h>' >>"$copy/src/model/model.c"
same "a planted line in a real file: complaints" $((before + 1)) "$("$here/lint.sh" "$copy" | wc -l || true)"
finish
