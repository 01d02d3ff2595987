/* Private to kernels/rows: names per level, and the helpers that its sources share. */
#ifndef ARB_KERNELS_ROWS_ROWS_IMPL_H
#define ARB_KERNELS_ROWS_ROWS_IMPL_H

#include "kernels/common/math.h"
#include "kernels/common/reduce.h"
#include "kernels/common/scale.h"
#include "kernels/common/trit.h"
#include "kernels/rows/rows.h"

#ifndef ARB_LEVEL
#define ARB_LEVEL plain
#endif
#define ARB_TEXT2(a) #a
#define ARB_TEXT(a) ARB_TEXT2(a)
#define ARB_LEVEL_NAME ARB_TEXT(ARB_LEVEL)
#define ARB_PASTE2(a, b) a##_##b
#define ARB_PASTE(a, b) ARB_PASTE2(a, b)
#define ARB_AT_LEVEL(name) ARB_PASTE(name, ARB_LEVEL)

#define ARB_INFINITY_BITS 0x7f800000u

#define ARB_DECLARE_ROW_OP(name) \
  void ARB_AT_LEVEL(name)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp)
ARB_DECLARE_ROW_OP(arb_row_add_norm_quant);
ARB_DECLARE_ROW_OP(arb_row_window_norm_quant);
ARB_DECLARE_ROW_OP(arb_row_gate_norm_quant);
ARB_DECLARE_ROW_OP(arb_row_glu_norm_quant);
ARB_DECLARE_ROW_OP(arb_row_xent);
ARB_DECLARE_ROW_OP(arb_row_mlgru_forward);
ARB_DECLARE_ROW_OP(arb_row_grad_quant);
ARB_DECLARE_ROW_OP(arb_row_rescale);
ARB_DECLARE_ROW_OP(arb_row_norm_backward);
ARB_DECLARE_ROW_OP(arb_row_input_norm_backward);
ARB_DECLARE_ROW_OP(arb_row_gate_norm_backward);
ARB_DECLARE_ROW_OP(arb_row_glu_norm_backward);
ARB_DECLARE_ROW_OP(arb_row_mlgru_backward);

static inline void arb_row_set_nonfinite(const arb_row_env *env) { __atomic_store_n(env->nonfinite, 1, __ATOMIC_RELAXED); }

static inline int64_t arb_row_grain(const arb_row_env *env, int64_t row) { return row / env->rows.rows_per_grain; }

static inline uint32_t arb_row_grain_id(const arb_row_env *env, int64_t local) {
  return (uint32_t)(env->rows.first + (int32_t)local * env->rows.stride);
}

/* Draws of one activation row of a stack: element ((position * uses) + use) * pad8(n). */
static inline void arb_row_draws(const arb_row_args *a, arb_draw_purpose purpose, int64_t row, uint16_t *out) {
  const int64_t local = arb_row_grain(&a->env, row);
  const int64_t position = row - local * a->env.rows.rows_per_grain;
  const int64_t first = (position * a->w->uses + a->use) * arb_pad8(a->w->n);
  a->env.draws(arb_philox_key_of(a->env.seed, purpose), a->w->id, a->env.step, arb_row_grain_id(&a->env, local), first, a->w->n,
               out);
}

/* (q, s)[row] of w from h = g * gain_w, which is used up, by stochastic rounding. Rows under 2^-100 become zero. */
void ARB_AT_LEVEL(arb_row_round_gradient)(const arb_row_args *a, int64_t row, float *h, uint16_t *draws);

/* Inner loops stand alone with restrict pointers: bytes may alias anything, and the compiler must know that they do not. */
static inline void arb_row_round(const float *restrict x, float inv, int64_t width, int8_t *restrict q) {
  for (int64_t i = 0; i < width; i++) q[i] = (int8_t)(int32_t)arb_rint_small(arb_clamp(x[i] * inv, 127.0f));
}

/* y[i] = (x[i] * inv) * gain[i] */
static inline void arb_row_normalise(const float *restrict x, float inv, const float *restrict gain, int64_t width,
                                     float *restrict y) {
  for (int64_t i = 0; i < width; i++) y[i] = (x[i] * inv) * gain[i];
}

/* y[i] = silu(u[i]) * v[i] */
static inline void arb_row_glu(const uint16_t *restrict u, const uint16_t *restrict v, int64_t width, float *restrict y) {
  for (int64_t i = 0; i < width; i++) {
    const float uf = arb_f32_of_bf16(u[i]);
    y[i] = (uf * arb_sigmoidf(uf)) * arb_f32_of_bf16(v[i]);
  }
}

/* (q, s) of a row by round-to-nearest-even; rows with a magnitude under 2^-100 become zero with scale zero. */
static inline void arb_row_quant(const arb_row_env *env, const float *x, int64_t width, int8_t *q, float *s) {
  const uint32_t bits = arb_row_max_bits(x, width);
  const float a = arb_f32_of_bits(bits);
  if (bits >= ARB_INFINITY_BITS) arb_row_set_nonfinite(env);
  if (bits >= ARB_INFINITY_BITS || a < ARB_TINY) {
    memset(q, 0, (size_t)width);
    *s = 0.0f;
    return;
  }
  arb_row_round(x, 127.0f / a, width, q);
  *s = a / 127.0f;
}

/* 1 / rms of a row. */
static inline float arb_row_inv_rms(const float *x, int64_t width) {
  const float mean = arb_row_dot(x, x, width) / (float)width;
  return 1.0f / sqrtf(mean + 1e-6f);
}

#endif
