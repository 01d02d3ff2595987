/* The shared functions as plain loops, compiled once per instruction set from one source (loops.c). */
#ifndef ARB_TESTS_KERNELS_MATH_LOOPS_H
#define ARB_TESTS_KERNELS_MATH_LOOPS_H

#include <stddef.h>

#ifdef __cplusplus
#define ARB_RESTRICT_ __restrict__
#else
#define ARB_RESTRICT_ restrict
#endif

enum { ARB_M_EXP, ARB_M_LOG, ARB_M_SIGMOID, ARB_M_TANH, ARB_M_ERF, ARB_M_COS, ARB_M_RSQRT, ARB_M__COUNT };

/* y[i] = f(x[i]), i < n; y and x do not overlap. */
typedef void arb_math_loop(float *ARB_RESTRICT_ y, const float *ARB_RESTRICT_ x, size_t n);

extern arb_math_loop *const arb_math_plain[ARB_M__COUNT];  /* the project's flags */
extern arb_math_loop *const arb_math_scalar[ARB_M__COUNT]; /* FMA instructions, one element at a time */
extern arb_math_loop *const arb_math_avx2[ARB_M__COUNT];   /* -O3, 8 lanes */
extern arb_math_loop *const arb_math_avx512[ARB_M__COUNT]; /* -O3, 16 lanes */

#endif
