/* Backward row operations. Contracts: kernels/backend.h; formulas: docs/arithmetic.md, "Backward". */
#include "kernels/rows/rows_impl.h"

static void scale_row(const float *restrict g, const float *restrict gain, int64_t n, float *restrict h) {
  for (int64_t i = 0; i < n; i++) h[i] = g[i] * gain[i];
}

static void scale_row_bf16(const uint16_t *restrict g, const float *restrict gain, int64_t n, float *restrict h) {
  for (int64_t i = 0; i < n; i++) h[i] = arb_f32_of_bf16(g[i]) * gain[i];
}

static void scale_in_place(float *restrict g, const float *restrict gain, int64_t n) {
  for (int64_t i = 0; i < n; i++) g[i] = g[i] * gain[i];
}

static void narrow_row(const float *restrict x, int64_t n, uint16_t *restrict y) {
  for (int64_t i = 0; i < n; i++) y[i] = arb_bf16_of_f32(x[i]);
}

static void clamp_row(float *restrict x, float a, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = arb_clamp(x[i] * a, 127.0f);
}

/* x = clamp(x * a, -127, 127) in place, q = SR(x). Two loops: in one, the compiler threads the constant limit through the
 * rounding and no longer vectorises. */
static void round_row(float *restrict x, float a, const uint16_t *restrict r, int64_t n, int8_t *restrict q) {
  clamp_row(x, a, n);
  for (int64_t i = 0; i < n; i++) q[i] = (int8_t)arb_round_gradient(x[i], r[i]);
}

void ARB_AT_LEVEL(arb_row_round_gradient)(const arb_row_args *a, int64_t row, float *h, uint16_t *draws) {
  const int64_t n = a->w->n;
  int8_t *q = a->q + row * n;
  const uint32_t bits = arb_row_max_bits(h, n);
  const float max = arb_f32_of_bits(bits);
  if (bits >= ARB_INFINITY_BITS) arb_row_set_nonfinite(&a->env);
  if (bits >= ARB_INFINITY_BITS || max < ARB_TINY) {
    memset(q, 0, (size_t)n);
    a->s[row] = 0.0f;
    return;
  }
  arb_row_draws(a, ARB_DRAW_DX, row, draws);
  round_row(h, 127.0f / max, draws, n, q);
  a->s[row] = max / 127.0f;
}

void ARB_AT_LEVEL(arb_row_grad_quant)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  for (int64_t row = begin; row < end; row++) {
    if (a->y)
      scale_row_bf16(a->y + row * a->ldz, a->gain_w, a->w->n, tmp->a);
    else
      scale_row(a->x_in + row * a->ldz, a->gain_w, a->w->n, tmp->a);
    ARB_AT_LEVEL(arb_row_round_gradient)(a, row, tmp->a, tmp->draws);
  }
}

static void rescale_row(const int8_t *restrict hq, int32_t ratio, const uint16_t *restrict r, int64_t n, int8_t *restrict q) {
  for (int64_t i = 0; i < n; i++) q[i] = (int8_t)arb_rescale(hq[i], ratio, r[i]);
}

void ARB_AT_LEVEL(arb_row_rescale)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t n = a->w->n;
  for (int64_t row = begin; row < end; row++) {
    if (a->ratio[row] == 0) {
      memset(a->q + row * n, 0, (size_t)n);
      continue;
    }
    arb_row_draws(a, ARB_DRAW_DW, row, tmp->draws);
    rescale_row(a->hq + row * n, a->ratio[row], tmp->draws, n, a->q + row * n);
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
static void norm_back_row(const float *x, float inv, const float *gy, int64_t w, int accumulate, float *xhat, float *out) {
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
    float *g = a->x_out + row * w;
    scale_row_bf16(a->dy + row * w, a->gain, w, tmp->a);
    norm_back_row(a->x_in + row * w, a->inv_in[row], tmp->a, w, a->accumulate, tmp->b, g);
    if (!a->q) continue;
    scale_row(g, a->gain_w, w, tmp->a);
    ARB_AT_LEVEL(arb_row_round_gradient)(a, row, tmp->a, tmp->draws);
  }
}

void ARB_AT_LEVEL(arb_row_input_norm_backward)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t w = a->width;
  for (int64_t row = begin; row < end; row++) {
    const uint16_t *restrict y = a->y + row * w;
    float *restrict wide = tmp->c;
    for (int64_t i = 0; i < w; i++) wide[i] = arb_f32_of_bf16(y[i]);
    scale_row_bf16(a->dy + row * w, a->gain, w, tmp->a);
    norm_back_row(wide, a->inv_in[row], tmp->a, w, 0, tmp->b, tmp->c);
    narrow_row(tmp->c, w, a->y_out + row * w);
  }
}

/* o = r * sg, r = norm(h), sg = sigmoid(zg): dzg = (dy * r) * (sg * (1 - sg)), dr = dy * sg. */
static void gate_back_row(const float *restrict h, float inv, const float *restrict gain, const uint16_t *restrict zg,
                          const uint16_t *restrict dy, int64_t w, uint16_t *restrict dzg, float *restrict dr) {
  for (int64_t i = 0; i < w; i++) {
    const float sg = arb_sigmoidf(arb_f32_of_bf16(zg[i])), d = arb_f32_of_bf16(dy[i]);
    const float r = (h[i] * inv) * gain[i];
    dzg[i] = arb_bf16_of_f32((d * r) * (sg * (1.0f - sg)));
    dr[i] = d * sg;
  }
}

void ARB_AT_LEVEL(arb_row_gate_norm_backward)(const arb_row_args *a, int64_t begin, int64_t end, arb_row_scratch *tmp) {
  const int64_t w = a->width;
  for (int64_t row = begin; row < end; row++) {
    const float *h = a->x_in + row * w;
    const float inv = a->inv_in[row];
    gate_back_row(h, inv, a->gain, a->y2 + row * a->ldz, a->dy + row * w, w, a->y_out2 + row * a->lddz, tmp->c);
    scale_row(tmp->c, a->gain, w, tmp->a);
    norm_back_row(h, inv, tmp->a, w, 0, tmp->b, tmp->c);
    narrow_row(tmp->c, w, a->y_out + row * w);
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
    float *d = tmp->a; /* [2 w]: du, dv */
    arb_row_glu(u, v, w, tmp->c);
    scale_row_bf16(a->dy + row * w, a->gain, w, d);
    norm_back_row(tmp->c, a->inv_in[row], d, w, 0, tmp->b, tmp->c);
    glu_back_row(u, v, tmp->c, w, d, d + w);
    scale_in_place(d, a->gain_w, 2 * w);
    ARB_AT_LEVEL(arb_row_round_gradient)(a, row, d, tmp->draws);
  }
}

static void scan_back_step(const uint16_t *restrict zf, const uint16_t *restrict zc, const float *restrict bias,
                           const float *restrict before, const uint16_t *restrict dh, int64_t count, float *restrict d,
                           uint16_t *restrict dzf, uint16_t *restrict dzc) {
  for (int64_t i = 0; i < count; i++) {
    const float f = arb_sigmoidf(arb_f32_of_bf16(zf[i]) + bias[i]);
    const float z = arb_f32_of_bf16(zc[i]), sc = arb_sigmoidf(z), c = z * sc;
    const float now = arb_f32_of_bf16(dh[i]) + d[i];
    const float df = now * (before[i] - c), dc = now * (1.0f - f);
    d[i] = now * f;
    dzf[i] = arb_bf16_of_f32(df * (f * (1.0f - f)));
    dzc[i] = arb_bf16_of_f32(dc * (sc * (1.0f + z * (1.0f - sc))));
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
                     a->y_out + t * a->lddz + d0, a->y_out2 + t * a->lddz + d0);
  }
}
