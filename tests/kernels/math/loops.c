#include "tests/kernels/math/loops.h"

#include "kernels/common/math.h"

#ifndef ARB_LOOPS
#define ARB_LOOPS arb_math_plain
#endif

#define LOOP(f)                                                                \
  static void f##_loop(float *restrict y, const float *restrict x, size_t n) { \
    for (size_t i = 0; i < n; i++) y[i] = arb_##f(x[i]);                       \
  }
LOOP(expf)
LOOP(logf)
LOOP(sigmoidf)
LOOP(tanhf)
LOOP(erff)
LOOP(cosf)
LOOP(rsqrtf)

arb_math_loop *const ARB_LOOPS[ARB_M__COUNT] = {
    [ARB_M_EXP] = expf_loop, [ARB_M_LOG] = logf_loop, [ARB_M_SIGMOID] = sigmoidf_loop, [ARB_M_TANH] = tanhf_loop,
    [ARB_M_ERF] = erff_loop, [ARB_M_COS] = cosf_loop, [ARB_M_RSQRT] = rsqrtf_loop,
};
