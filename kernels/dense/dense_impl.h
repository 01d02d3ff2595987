/* Private to kernels/dense: names per level, and what the sources share. */
#ifndef ARB_KERNELS_DENSE_DENSE_IMPL_H
#define ARB_KERNELS_DENSE_DENSE_IMPL_H

#include "kernels/dense/dense.h"

#define ARB_DENSE_JOIN_(a, b) a##_##b
#define ARB_DENSE_JOIN(a, b) ARB_DENSE_JOIN_(a, b)
#ifdef ARB_LEVEL
#define ARB_DENSE_AT_LEVEL(name) ARB_DENSE_JOIN(name, ARB_LEVEL)
#endif

/* Inputs of an expanded panel that are worked on at once: 256 KiB of floats, a part of any second-level cache. */
#define ARB_DENSE_DEPTH 2048

#define ARB_DENSE_DECLARE(level)                                                                                      \
  void arb_dense_product_##level(const arb_dense_input *x, int64_t begin, int64_t end, const arb_dense_matrix *w,     \
                                 int64_t panel, const arb_dense_epilogue *e, float *y, int64_t ldy, float *scratch);  \
  void arb_dense_layer_norm_##level(const float *x, int64_t width, const float *weight, const float *bias, float eps, \
                                    float *y);                                                                        \
  void arb_dense_softmax_##level(float *x, int64_t width);                                                            \
  void arb_dense_activate_##level(arb_dense_activation act, float *x, int64_t count);                                 \
  void arb_dense_gate_##level(const float *value, const float *gate, int64_t width, float *out);

ARB_DENSE_DECLARE(plain)
ARB_DENSE_DECLARE(avx2)
ARB_DENSE_DECLARE(avx512)

#endif
