/* Forward row operations. Contracts: kernels/backend.h; shapes there. */
#include "kernels/rows/rows_impl.h"

static void add_row(const float *restrict x, const uint16_t *restrict y, int64_t width, float *restrict out) {
  for (int64_t i = 0; i < width; i++) out[i] = x[i] + arb_f32_of_bf16(y[i]);
}

static void widen_row(const uint16_t *restrict y, int64_t width, float *restrict out) {
  for (int64_t i = 0; i < width; i++) out[i] = arb_f32_of_bf16(y[i]);
}

void ARB_AT_LEVEL(arb_row_add_norm_quant)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t w = a->width;
  for (int64_t row = begin; row < end; row++) {
    float *x = a->x_out ? a->x_out + row * w : tmp->a;
    const float *in = a->x_in ? a->x_in + row * w : NULL;
    const uint16_t *y = a->y ? a->y + row * w : NULL;
    if (in && y)
      add_row(in, y, w, x);
    else if (y)
      widen_row(y, w, x);
    else
      memcpy(x, in, (size_t)w * sizeof *x);
    const float inv = arb_row_inv_rms(x, w);
    a->inv[row] = inv;
    arb_row_normalise(x, inv, a->gain, w, tmp->b);
    arb_row_quant(&a->env, tmp->b, w, a->q + row * w, a->s + row);
  }
}

static void dequantise_row(const int8_t *restrict q, float s, int64_t width, float *restrict x) {
  for (int64_t i = 0; i < width; i++) x[i] = (float)q[i] * s;
}

void ARB_AT_LEVEL(arb_row_window_norm_quant)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t w = a->width, width = w / a->span;
  for (int64_t row = begin; row < end; row++) {
    /* A sequence has span - 1 more features than windows. */
    const int64_t first = row / a->context * (a->context + a->span - 1) + row % a->context;
    for (int64_t i = 0; i < a->span; i++)
      dequantise_row(a->q_in + (first + i) * width, a->s_in[first + i], width, tmp->a + i * width);
    arb_row_normalise(tmp->a, arb_row_inv_rms(tmp->a, w), a->gain, w, tmp->b);
    arb_row_quant(&a->env, tmp->b, w, a->q + row * w, a->s + row);
  }
}

static void gate_row(const float *restrict h, float inv, const float *restrict gain, const uint16_t *restrict zg, int64_t width,
                     float *restrict out) {
  for (int64_t i = 0; i < width; i++) out[i] = ((h[i] * inv) * gain[i]) * arb_sigmoidf(arb_f32_of_bf16(zg[i]));
}

void ARB_AT_LEVEL(arb_row_gate_norm_quant)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t w = a->width;
  for (int64_t row = begin; row < end; row++) {
    const float *h = a->x_in + row * w;
    const float inv = arb_row_inv_rms(h, w);
    a->inv[row] = inv;
    gate_row(h, inv, a->gain, a->y2 + row * a->ldz, w, tmp->b);
    arb_row_quant(&a->env, tmp->b, w, a->q + row * w, a->s + row);
  }
}

void ARB_AT_LEVEL(arb_row_glu_norm_quant)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t w = a->width;
  for (int64_t row = begin; row < end; row++) {
    arb_row_glu(a->y + row * a->ldz, a->y2 + row * a->ldz, w, tmp->a);
    const float inv = arb_row_inv_rms(tmp->a, w);
    a->inv[row] = inv;
    arb_row_normalise(tmp->a, inv, a->gain, w, tmp->b);
    arb_row_quant(&a->env, tmp->b, w, a->q + row * w, a->s + row);
  }
}

static void scan_step(const uint16_t *restrict zf, const uint16_t *restrict zc, const float *restrict bias, int64_t count,
                      float *restrict h, float *restrict out) {
  for (int64_t i = 0; i < count; i++) {
    const float f = arb_sigmoidf(arb_f32_of_bf16(zf[i]) + bias[i]);
    const float z = arb_f32_of_bf16(zc[i]);
    const float c = z * arb_sigmoidf(z);
    out[i] = h[i] = arb_fmaf(f, h[i], (1.0f - f) * c);
  }
}

void ARB_AT_LEVEL(arb_row_mlgru_forward)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  (void)tmp;
  const int64_t blocks = (a->width + ARB_SCAN_CHANNELS - 1) / ARB_SCAN_CHANNELS;
  for (int64_t lane = begin; lane < end; lane++) {
    const int64_t row0 = lane / blocks * a->context, d0 = lane % blocks * ARB_SCAN_CHANNELS;
    const int64_t count = a->width - d0 < ARB_SCAN_CHANNELS ? a->width - d0 : ARB_SCAN_CHANNELS;
    float h[ARB_SCAN_CHANNELS] = {0};
    for (int64_t t = row0; t < row0 + a->context; t++)
      scan_step(a->y + t * a->ldz + d0, a->y2 + t * a->ldz + d0, a->bias + d0, count, h, a->x_out + t * a->width + d0);
  }
}

static float max_row(const float *x, int64_t n) {
  float max = x[0];
  for (int64_t i = 1; i < n; i++) max = arb_fmaxf(x[i], max);
  return max;
}

static void exp_row(const float *restrict x, float max, int64_t n, float *restrict p) {
  for (int64_t i = 0; i < n; i++) {
    const float d = x[i] - max, e = arb_expf(d);
    p[i] = d < -87.0f ? 0.0f : e;
  }
}

static void probability_row(const float *restrict p, float sum, float weight, int64_t n, float *restrict g) {
  for (int64_t i = 0; i < n; i++) g[i] = (p[i] / sum) * weight;
}

void ARB_AT_LEVEL(arb_row_xent)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t n = a->width;
  int64_t loss_sum = 0, targets = 0;
  for (int64_t row = begin; row < end; row++) {
    const int32_t target = a->targets[row];
    if (target < 0) {
      if (a->q) memset(a->q + row * n, 0, (size_t)n);
      if (a->q) a->s[row] = 0.0f;
      continue;
    }
    float *x = tmp->a, *p = tmp->b, *g = tmp->c;
    widen_row(a->y + row * n, n, x);
    const float max = max_row(x, n);
    exp_row(x, max, n, p);
    const float sum = arb_row_sum(p, n);
    const float loss = arb_logf(sum) - (x[target] - max);
    if (!(loss < 2048.0f)) { /* NaN too: a NaN or +inf logit makes the loss NaN */
      arb_row_set_nonfinite(&a->env);
    } else {
      loss_sum += (int64_t)rintf(loss * 0x1p20f);
      targets++;
    }
    if (!a->q) continue;
    probability_row(p, sum, a->weight, n, g);
    g[target] = (p[target] / sum - 1.0f) * a->weight;
    for (int64_t i = 0; i < n; i++) g[i] = g[i] * a->gain_w[i];
    ARB_AT_LEVEL(arb_row_round_gradient)(a, row, g, tmp->draws);
  }
  __atomic_fetch_add(a->loss, loss_sum, __ATOMIC_RELAXED);
  __atomic_fetch_add(a->count, targets, __ATOMIC_RELAXED);
}
