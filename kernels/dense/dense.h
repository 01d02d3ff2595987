/* Float products with frozen weights, and the row operations around them: what imported encoders compute, here on
 * the CPU and by device.h on a GPU.
 *
 * Weights are int8 with one scale a row, as optimum-quanto's qint8 keeps them (absmax / 127, round half to even), or float32.
 * Activations are float32 and never quantised: y = act(scale * (x . q) + bias). An int8 weight is expanded to float, which is
 * exact, in cache; the scale multiplies the finished sum.
 *
 * Every output is one chain of fused multiply-adds over k in ascending order, and every row sum has the order of
 * kernels/common/reduce.h. So a row's result depends on that row alone: not on the rows beside it, the thread, the tile, or
 * the instruction set. Row-major; widths and leading dimensions in elements. */
#ifndef ARB_KERNELS_DENSE_DENSE_H
#define ARB_KERNELS_DENSE_DENSE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ARB_DENSE_PANEL 32 /* outputs of a panel: the same on every level, so that packed weights are too */
#define ARB_DENSE_ROWS 288 /* most rows of one product call */

/* Panels [ceil(n / 32)][k][32]; outputs past n are zero. Exactly one of q and f is set; scale [ceil(n / 32) * 32] with q. */
typedef struct {
  int64_t n, k;
  const int8_t *q;
  const float *f;
  const float *scale;
} arb_dense_matrix;

/* The rows that a product reads. Input k = tap * depth + i of row r is at[tap * stride + r][i] if at is set (a convolution:
 * every tap is a pointer to `depth` neighbouring values, or to zeros), else x[r * ld + k] (taps = 1, depth = k). */
typedef struct {
  const float *const *at;
  int64_t stride;
  const float *x;
  int64_t ld;
  int64_t taps, depth; /* taps * depth = k of the matrix */
} arb_dense_input;

typedef enum { ARB_DENSE_NONE, ARB_DENSE_GELU, ARB_DENSE_SILU, ARB_DENSE_TANH } arb_dense_activation;

/* y = act(product + bias), then, with a residual, residual + gain * y (gain NULL: 1). residual may be y itself. */
typedef struct {
  const float *bias; /* [n] or NULL */
  arb_dense_activation act;
  const float *residual; /* rows of stride ldr, or NULL */
  int64_t ldr;
  const float *gain; /* [n] or NULL */
} arb_dense_epilogue;

typedef struct {
  const char *name; /* "scalar", "avx2", "avx512" */
  /* Outputs [32 * panel, min(n, 32 * panel + 32)) of rows [begin, end), end - begin <= ARB_DENSE_ROWS, into y[row * ldy + n].
   * scratch: arb_dense_scratch(depth) floats. */
  void (*product)(const arb_dense_input *x, int64_t begin, int64_t end, const arb_dense_matrix *w, int64_t panel,
                  const arb_dense_epilogue *e, float *y, int64_t ldy, float *scratch);
  /* y = (x - mean) / sqrt(biased variance + eps) * weight + bias; bias may be NULL, y may be x. */
  void (*layer_norm)(const float *x, int64_t width, const float *weight, const float *bias, float eps, float *y);
  /* x = e^(x - max) / sum, in place. */
  void (*softmax)(float *x, int64_t width);
  /* x = act(x), in place. GELU is the exact one, x/2 (1 + erf(x / sqrt 2)); SILU is x sigmoid(x). */
  void (*activate)(arb_dense_activation act, float *x, int64_t count);
  /* out = silu(gate) * value */
  void (*gate)(const float *value, const float *gate, int64_t width, float *out);
} arb_dense_kernels;

/* isa: "auto" (the highest that the chip and the build have), "scalar", "avx2", "avx512". NULL for a level that is missing or
 * a name that is none. */
const arb_dense_kernels *arb_dense_pick(const char *isa);

/* Floats of scratch that one product call needs for taps of this depth; 64-byte alignment helps, none is needed. */
int64_t arb_dense_scratch(int64_t depth);

static inline int64_t arb_dense_panels(int64_t n) { return (n + ARB_DENSE_PANEL - 1) / ARB_DENSE_PANEL; }

/* Row n of a matrix of k inputs into its place in panels. */
static inline void arb_dense_pack_q(int8_t *panels, int64_t k, int64_t n, const int8_t *row) {
  int8_t *to = panels + n / ARB_DENSE_PANEL * k * ARB_DENSE_PANEL + n % ARB_DENSE_PANEL;
  for (int64_t i = 0; i < k; i++) to[i * ARB_DENSE_PANEL] = row[i];
}
static inline void arb_dense_pack_f(float *panels, int64_t k, int64_t n, const float *row) {
  float *to = panels + n / ARB_DENSE_PANEL * k * ARB_DENSE_PANEL + n % ARB_DENSE_PANEL;
  for (int64_t i = 0; i < k; i++) to[i * ARB_DENSE_PANEL] = row[i];
}

#ifdef __cplusplus
}
#endif
#endif
