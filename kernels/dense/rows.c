/* The row operations of kernels/dense, compiled once per level. Contracts: dense.h. Plain loops: the bits are the same. */
#include "kernels/common/math.h"
#include "kernels/common/reduce.h"
#include "kernels/dense/dense_impl.h"

void ARB_DENSE_AT_LEVEL(arb_dense_layer_norm)(const float *x, int64_t width, const float *weight, const float *bias, float eps,
                                              float *y) {
  const float mean = arb_row_sum(x, width) / (float)width;
  for (int64_t i = 0; i < width; i++) y[i] = x[i] - mean;
  const float inv = 1.0f / sqrtf(arb_row_dot(y, y, width) / (float)width + eps);
  if (bias)
    for (int64_t i = 0; i < width; i++) y[i] = (y[i] * inv) * weight[i] + bias[i];
  else
    for (int64_t i = 0; i < width; i++) y[i] = (y[i] * inv) * weight[i];
}

void ARB_DENSE_AT_LEVEL(arb_dense_softmax)(float *x, int64_t width) {
  float top = x[0];
  for (int64_t i = 1; i < width; i++) top = x[i] > top ? x[i] : top;
  for (int64_t i = 0; i < width; i++) x[i] = arb_expf(x[i] - top);
  const float inv = 1.0f / arb_row_sum(x, width);
  for (int64_t i = 0; i < width; i++) x[i] *= inv;
}

static void gelu(float *restrict x, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] = 0.5f * x[i] * (1.0f + arb_erff(x[i] * 0x1.6a09e6p-1f));
}

static void silu(float *restrict x, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] = x[i] * arb_sigmoidf(x[i]);
}

static void hyperbolic(float *restrict x, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] = arb_tanhf(x[i]);
}

void ARB_DENSE_AT_LEVEL(arb_dense_activate)(arb_dense_activation act, float *x, int64_t count) {
  if (act == ARB_DENSE_GELU) gelu(x, count);
  if (act == ARB_DENSE_SILU) silu(x, count);
  if (act == ARB_DENSE_TANH) hyperbolic(x, count);
}

void ARB_DENSE_AT_LEVEL(arb_dense_gate)(const float *restrict value, const float *restrict gate, int64_t width,
                                        float *restrict out) {
  for (int64_t i = 0; i < width; i++) out[i] = (gate[i] * arb_sigmoidf(gate[i])) * value[i];
}
