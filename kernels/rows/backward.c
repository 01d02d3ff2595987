/* Backward row operations. Contracts: kernels/backend.h; formulas: docs/arithmetic.md, "Backward". */
#include "kernels/rows/rows_impl.h"

static void scale_row(const float *restrict g, const float *restrict gain, int64_t n, float *restrict h) {
  for (int64_t i = 0; i < n; i++) h[i] = g[i] * gain[i];
}

static void clamp_row(float *restrict x, float a, float b, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = arb_clamp((x[i] * a) * b, 127.0f);
}

/* x = clamp((x * a) * b, -127, 127) in place, q = SR(x). Two loops: in one, the compiler threads the constant limit through the
 * rounding and no longer vectorises. */
static void round_row(float *restrict x, float a, float b, const uint16_t *restrict r, int64_t n, int8_t *restrict q) {
  clamp_row(x, a, b, n);
  for (int64_t i = 0; i < n; i++) q[i] = (int8_t)(int32_t)arb_stochastic_round(x[i], r[i]);
}

void ARB_AT_LEVEL(arb_row_grad_quant)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const arb_stack *w = a->w;
  const int64_t n = w->n;
  for (int64_t row = begin; row < end; row++) {
    uint32_t *tmax = a->tmax + arb_row_grain(&a->env, row) * w->members;
    float *h = tmp->a;
    scale_row(a->x_in + row * a->ldz, a->gain, n, h);
    uint32_t bits = 0;
    for (int m = 0; m < w->members; m++) {
      const uint32_t b = arb_row_max_bits(h + w->begin[m], w->begin[m + 1] - w->begin[m]);
      bits = b > bits ? b : bits;
      /* rounding is monotone, so max |h * s| is (max |h|) * s */
      const uint32_t t = a->s_in ? arb_bits_of_f32(arb_f32_of_bits(b) * a->s_in[row]) : b;
      uint32_t seen = __atomic_load_n(&tmax[m], __ATOMIC_RELAXED);
      while (t > seen && !__atomic_compare_exchange_n(&tmax[m], &seen, t, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      }
      if (t >= ARB_INFINITY_BITS) arb_row_set_nonfinite(&a->env);
    }
    if (bits >= ARB_INFINITY_BITS) arb_row_set_nonfinite(&a->env);
    if (!a->q) continue;
    int8_t *q = a->q + row * n;
    const float max = arb_f32_of_bits(bits);
    if (bits >= ARB_INFINITY_BITS || max < ARB_TINY) {
      memset(q, 0, (size_t)n);
      a->s[row] = 0.0f;
      continue;
    }
    arb_row_draws(a, ARB_DRAW_DX, row, tmp->draws);
    round_row(h, 127.0f / max, 1.0f, tmp->draws, n, q);
    a->s[row] = max / 127.0f;
  }
}

void ARB_AT_LEVEL(arb_row_dw_quant)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const arb_stack *w = a->w;
  for (int64_t row = begin; row < end; row++) {
    const int32_t *cexp = a->cexp + arb_row_grain(&a->env, row) * w->members;
    int8_t *tq = a->q + row * w->n;
    const float s = a->s_in ? a->s_in[row] : 1.0f;
    arb_row_draws(a, ARB_DRAW_DW, row, tmp->draws);
    scale_row(a->x_in + row * a->ldz, a->gain, w->n, tmp->a);
    for (int m = 0; m < w->members; m++) {
      const int64_t i = w->begin[m];
      const float unit = cexp[m] == ARB_NO_SCALE ? 0.0f : arb_pow2i(-cexp[m]);
      round_row(tmp->a + i, s, unit, tmp->draws + i, w->begin[m + 1] - i, tq + i);
    }
  }
}

static void norm_back_new(const float *restrict gy, const float *restrict xhat, float inv, float mean, int64_t w,
                          float *restrict out) {
  for (int64_t i = 0; i < w; i++) out[i] = inv * (gy[i] - xhat[i] * mean);
}

static void norm_back_add(const float *restrict gy, const float *restrict xhat, float inv, float mean, int64_t w,
                          float *restrict out) {
  for (int64_t i = 0; i < w; i++) out[i] = out[i] + inv * (gy[i] - xhat[i] * mean);
}

/* out[i] = (accumulate ? out[i] : 0) + inv * (gy[i] - xhat[i] * mean(gy . xhat)), gy = dy * gain, xhat = x * inv. */
static void norm_back_row(const float *x, float inv, const float *gain, const float *dy, int64_t w, int accumulate, float *gy,
                          float *xhat, float *out) {
  scale_row(dy, gain, w, gy);
  for (int64_t i = 0; i < w; i++) xhat[i] = x[i] * inv;
  const float mean = arb_row_dot(gy, xhat, w) / (float)w;
  if (accumulate)
    norm_back_add(gy, xhat, inv, mean, w, out);
  else
    norm_back_new(gy, xhat, inv, mean, w, out);
}

void ARB_AT_LEVEL(arb_row_norm_backward)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t w = a->width;
  for (int64_t row = begin; row < end; row++) {
    const float *x = a->x_in ? a->x_in + row * w : NULL;
    if (a->y) {
      const uint16_t *restrict y = a->y + row * w;
      float *restrict wide = tmp->c;
      for (int64_t i = 0; i < w; i++) wide[i] = arb_f32_of_bf16(y[i]);
      x = wide;
    }
    norm_back_row(x, a->inv_in[row], a->gain, a->dy + row * w, w, a->accumulate, tmp->a, tmp->b, a->x_out + row * w);
  }
}

/* o = r * sg, r = norm(h), sg = sigmoid(zg): dzg = (dy * r) * (sg * (1 - sg)), dr = dy * sg. */
static void gate_back_row(const float *restrict h, float inv, const float *restrict gain, const uint16_t *restrict zg,
                          const float *restrict dy, int64_t w, float *restrict dzg, float *restrict dr) {
  for (int64_t i = 0; i < w; i++) {
    const float sg = arb_sigmoidf(arb_f32_of_bf16(zg[i]));
    const float r = (h[i] * inv) * gain[i];
    dzg[i] = (dy[i] * r) * (sg * (1.0f - sg));
    dr[i] = dy[i] * sg;
  }
}

void ARB_AT_LEVEL(arb_row_gate_norm_backward)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t w = a->width;
  for (int64_t row = begin; row < end; row++) {
    const float *h = a->x_in + row * w;
    const float inv = a->inv_in[row];
    gate_back_row(h, inv, a->gain, a->y2 + row * a->ldz, a->dy + row * w, w, a->x_out2 + row * a->lddz, tmp->c);
    norm_back_row(h, inv, a->gain, tmp->c, w, 0, tmp->a, tmp->b, a->x_out + row * w);
  }
}

/* x = silu(u) * v: du = (dx * v) * silu'(u), dv = dx * silu(u), silu'(u) = sg * (1 + u * (1 - sg)). */
static void glu_back_row(const uint16_t *restrict u, const uint16_t *restrict v, const float *restrict dx, int64_t w,
                         float *restrict du, float *restrict dv) {
  for (int64_t i = 0; i < w; i++) {
    const float uf = arb_f32_of_bf16(u[i]), sg = arb_sigmoidf(uf);
    du[i] = (dx[i] * arb_f32_of_bf16(v[i])) * (sg * (1.0f + uf * (1.0f - sg)));
    dv[i] = dx[i] * (uf * sg);
  }
}

void ARB_AT_LEVEL(arb_row_glu_norm_backward)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t w = a->width;
  for (int64_t row = begin; row < end; row++) {
    const uint16_t *u = a->y + row * a->ldz, *v = a->y2 + row * a->ldz;
    arb_row_glu(u, v, w, tmp->c);
    norm_back_row(tmp->c, a->inv_in[row], a->gain, a->dy + row * w, w, 0, tmp->a, tmp->b, tmp->c);
    glu_back_row(u, v, tmp->c, w, a->x_out + row * a->lddz, a->x_out2 + row * a->lddz);
  }
}

static void scan_back_step(const uint16_t *restrict zf, const uint16_t *restrict zc, const float *restrict bias,
                           const float *restrict before, const float *restrict dh, int64_t count, float *restrict d,
                           float *restrict dzf, float *restrict dzc) {
  for (int64_t i = 0; i < count; i++) {
    const float f = arb_sigmoidf(arb_f32_of_bf16(zf[i]) + bias[i]);
    const float z = arb_f32_of_bf16(zc[i]), sc = arb_sigmoidf(z), c = z * sc;
    const float now = dh[i] + d[i];
    const float df = now * (before[i] - c), dc = now * (1.0f - f);
    d[i] = now * f;
    dzf[i] = df * (f * (1.0f - f));
    dzc[i] = dc * (sc * (1.0f + z * (1.0f - sc)));
  }
}

void ARB_AT_LEVEL(arb_row_mlgru_backward)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  (void)tmp;
  const int64_t blocks = (a->width + ARB_SCAN_CHANNELS - 1) / ARB_SCAN_CHANNELS;
  for (int64_t lane = begin; lane < end; lane++) {
    const int64_t row0 = lane / blocks * a->context, d0 = lane % blocks * ARB_SCAN_CHANNELS;
    const int64_t count = a->width - d0 < ARB_SCAN_CHANNELS ? a->width - d0 : ARB_SCAN_CHANNELS;
    const float zero[ARB_SCAN_CHANNELS] = {0};
    float d[ARB_SCAN_CHANNELS] = {0};
    for (int64_t t = row0 + a->context - 1; t >= row0; t--)
      scan_back_step(a->y + t * a->ldz + d0, a->y2 + t * a->ldz + d0, a->bias + d0,
                     t > row0 ? a->x_in + (t - 1) * a->width + d0 : zero, a->dy + t * a->width + d0, count, d,
                     a->x_out + t * a->lddz + d0, a->x_out2 + t * a->lddz + d0);
  }
}
