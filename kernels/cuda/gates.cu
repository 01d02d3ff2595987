/* Gated rows: norm(h) * sigmoid(zg) and norm(silu(u) * v), quantised, and their backward passes. Aligned rows of whole chunks
 * that fit go to gate.cuh, glu.cuh and glu_backward.cuh; the kernels here take any: a warp a row, as in norms.cu. */
#include "kernels/cuda/gate.cuh"
#include "kernels/cuda/glu.cuh"
#include "kernels/cuda/glu_backward.cuh"

template <bool V>
static __global__ void __launch_bounds__(128)
    gate_norm_quant_kernel(int64_t m, int width, const float *__restrict__ h, const uint16_t *__restrict__ zg, int64_t ldz,
                           const int8_t *__restrict__ e, int8_t *__restrict__ q, float *__restrict__ s,
                           float *__restrict__ inv_out, int *nonfinite) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, pad = (width + 3) & ~3;
  float *gain = reinterpret_cast<float *>(shared), *x = gain + pad * (1 + warp);
  arb_gains_shared(e, width, gain);
  for (int64_t turn = (int64_t)blockIdx.x * warps + warp; turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const int64_t at = row * width;
#pragma unroll 4
    for (int i = 4 * lane; i < width; i += 128) {
      float a[4];
      arb_load4<V>(h + at, i, width, a);
      arb_store4_shared(x, i, a);
    }
    __syncwarp();
    const float inv = arb_inv_rms(arb_row_square_sum_shared(x, width, lane), width);
    if (lane == 0) inv_out[row] = inv;
    float most = 0.0f;
#pragma unroll 2
    for (int i = 4 * lane; i < width; i += 128) {
      float v[4], g[4], z[4];
      arb_load4<V>(zg + row * ldz, i, width, z);
      arb_load4<true>(x, i, pad, v);
      arb_load4<true>(gain, i, pad, g);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        v[j] = ((v[j] * inv) * g[j]) * arb_sigmoid(z[j]);
        if (V || i + j < width) most = arb_max_abs(most, v[j]);
      }
      arb_store4_shared(x, i, v);
    }
    const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
    arb_quantise_row<V>(x, width, bits, lane, q + at, s + row, nonfinite);
    __syncwarp();
  }
}

template <bool V>
static __global__ void __launch_bounds__(128)
    glu_norm_quant_kernel(int64_t m, int width, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v, int64_t ldz,
                          const int8_t *__restrict__ e, int8_t *__restrict__ q, float *__restrict__ s,
                          float *__restrict__ inv_out, int *nonfinite) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, pad = (width + 3) & ~3;
  float *gain = reinterpret_cast<float *>(shared), *x = gain + pad * (1 + warp);
  arb_gains_shared(e, width, gain);
  for (int64_t turn = (int64_t)blockIdx.x * warps + warp; turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const int64_t in = row * ldz;
#pragma unroll 2
    for (int i = 4 * lane; i < width; i += 128) {
      float a[4], b[4];
      arb_load4<V>(u + in, i, width, a);
      arb_load4<V>(v + in, i, width, b);
#pragma unroll
      for (int j = 0; j < 4; j++) a[j] = (a[j] * arb_sigmoid(a[j])) * b[j];
      arb_store4_shared(x, i, a);
    }
    __syncwarp();
    const float inv = arb_inv_rms(arb_row_square_sum_shared(x, width, lane), width);
    if (lane == 0) inv_out[row] = inv;
    float most = 0.0f;
#pragma unroll 4
    for (int i = 4 * lane; i < width; i += 128) {
      float a[4], g[4];
      arb_load4<true>(x, i, pad, a);
      arb_load4<true>(gain, i, pad, g);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        a[j] = (a[j] * inv) * g[j];
        if (V || i + j < width) most = arb_max_abs(most, a[j]);
      }
      arb_store4_shared(x, i, a);
    }
    const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
    arb_quantise_row<V>(x, width, bits, lane, q + row * width, s + row, nonfinite);
    __syncwarp();
  }
}

/* o = r * sg, r = norm(h), sg = sigmoid(zg): dzg = (dy * r) * (sg * (1 - sg)), dr = dy * sg, then the norm's backward of dr. */
template <bool V>
static __global__ void __launch_bounds__(128)
    gate_norm_backward_kernel(int64_t m, int width, const float *__restrict__ h, const uint16_t *__restrict__ zg, int64_t ldz,
                              const float *__restrict__ inv_in, const int8_t *__restrict__ e, const uint16_t *__restrict__ dy,
                              uint16_t *__restrict__ dh, uint16_t *__restrict__ dzg, int64_t lddz) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, pad = (width + 3) & ~3;
  float *gain = reinterpret_cast<float *>(shared), *gy = gain + pad * (1 + 2 * warp), *xhat = gy + pad;
  arb_gains_shared(e, width, gain);
  for (int64_t turn = (int64_t)blockIdx.x * warps + warp; turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const int64_t at = row * width;
    const float inv = inv_in[row];
#pragma unroll 2
    for (int i = 4 * lane; i < width; i += 128) {
      float d[4], x[4], z[4], w[4], o[4];
      arb_load4<V>(dy + at, i, width, d);
      arb_load4<V>(h + at, i, width, x);
      arb_load4<V>(zg + row * ldz, i, width, z);
      arb_load4<true>(gain, i, pad, w);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float sg = arb_sigmoid(z[j]);
        x[j] = x[j] * inv;
        const float r = x[j] * w[j];
        o[j] = (d[j] * r) * (sg * (1.0f - sg));
        d[j] = (d[j] * sg) * w[j];
      }
      arb_store4<V>(dzg + row * lddz, i, width, o);
      arb_store4_shared(gy, i, d);
      arb_store4_shared(xhat, i, x);
    }
    __syncwarp();
    float sum = 0.0f;
#pragma unroll 8
    for (int i = lane; i < width; i += 32) {
      const float product = gy[i] * xhat[i];
      sum += product;
    }
    const float mean = arb_divf(arb_warp_sum(sum), (float)width);
#pragma unroll 4
    for (int i = 4 * lane; i < width; i += 128) {
      float d[4], x[4];
      arb_load4<true>(gy, i, pad, d);
      arb_load4<true>(xhat, i, pad, x);
#pragma unroll
      for (int j = 0; j < 4; j++) d[j] = inv * (d[j] - x[j] * mean);
      arb_store4<V>(dh + at, i, width, d);
    }
    __syncwarp();
  }
}

/* x = silu(u) * v backward (glu.cuh) for any width and alignment: a warp a row, which is read three times. */
static __global__ void __launch_bounds__(128)
    glu_norm_backward_kernel(int64_t m, int width, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v, int64_t ldz,
                             const float *__restrict__ inv_in, const int8_t *__restrict__ e, const uint16_t *__restrict__ dy,
                             const __grid_constant__ arb_gradient w) {
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  for (int64_t turn = (int64_t)blockIdx.x * warps + (threadIdx.x >> 5); turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const uint16_t *ur = u + row * ldz, *vr = v + row * ldz, *dr = dy + row * width;
    const float inv = inv_in[row];
    float sum = 0.0f;
    for (int i = lane; i < width; i += 32) {
      const float a = arb_f32_of_bf16(ur[i]), d = arb_f32_of_bf16(dr[i]) * arb_pow2_eighths(e[i]);
      const float product = d * (((a * arb_sigmoid(a)) * arb_f32_of_bf16(vr[i])) * inv);
      sum += product;
    }
    const float mean = arb_divf(arb_warp_sum(sum), (float)width);
    arb_gradient_row(w, row, [&](int at, float h[ARB_CHUNK]) {
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        const int n = at + j, i = n < width ? n : n - width;
        h[j] = 0.0f;
        if (n >= w.n) continue;
        const float a = arb_f32_of_bf16(ur[i]), b = arb_f32_of_bf16(vr[i]), sg = arb_sigmoid(a);
        const float d = arb_f32_of_bf16(dr[i]) * arb_pow2_eighths(e[i]);
        const float silu = a * sg, dx = inv * (d - ((silu * b) * inv) * mean);
        const float grad = n < width ? (dx * b) * (sg * (1.0f + a * (1.0f - sg))) : dx * silu;
        h[j] = grad * arb_pow2_eighths(w.e[n]);
      }
    });
  }
}

/* ---- dispatch ---- */

/* A launch of warps with a row each: blocks of at most `most` warps, one block a multiprocessor, with the gains, the table and
 * a row of floats a warp in shared memory. threads 0: this card's blocks have no room for four. */
typedef struct {
  unsigned grid, threads;
  size_t shared;
} warp_shape;

static warp_shape warp_shape_of(const arb_cuda *c, int64_t m, int64_t width, int most) {
  const size_t row = (size_t)width * sizeof(float);
  warp_shape s = {};
  int warps = most;
  while (warps >= 4 && ARB_SIGMOID_BYTES + row * (size_t)(1 + warps) > c->shared_block) warps--;
  if (warps < 4) return s;
  s.shared = ARB_SIGMOID_BYTES + row * (size_t)(1 + warps);
  s.grid = arb_cuda_grid(c, m, warps, 1);
  s.threads = (unsigned)(32 * warps);
  return s;
}

/* Chunks a lane of a warp that holds a row in registers. */
static int chunks_of(int64_t width) { return (int)arb_cuda_ceil(width, 32 * ARB_CHUNK); }

#define GATE_MOST 4 /* chunks a lane */
#define GATE_WARPS(g) ((g) <= 2 ? 24 : 16)
#define GLU_MOST 8
#define GLU_WARPS(g) ((g) <= 6 ? 20 : 16)
#define GLU_BACK_WARPS 16  /* of a block that has 128 registers a thread, */
#define GLU_BACK_WIDEST 24 /* and of one with 80, for the widest rows */

static arb_status gate_norm_quant(arb_backend *be, const arb_rows *r, int64_t width, const float *h, const uint16_t *zg,
                                  int64_t ldz, const int8_t *e, int8_t *q, float *s, float *inv) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  const int chunks = chunks_of(width);
  if (width % ARB_CHUNK == 0 && ldz % ARB_CHUNK == 0 && chunks <= GATE_MOST && arb_cuda_aligned(h, 16) &&
      arb_cuda_aligned(zg, 16) && arb_cuda_aligned(q, 8)) {
    static void (*const kernels[])(int64_t, int, const float *, const uint16_t *, int64_t, const int8_t *, int8_t *, float *,
                                   float *,
                                   int *) = {gate_forward_kernel<1, GATE_WARPS(1)>, gate_forward_kernel<2, GATE_WARPS(2)>,
                                             gate_forward_kernel<3, GATE_WARPS(3)>, gate_forward_kernel<4, GATE_WARPS(4)>};
    auto kernel = kernels[chunks - 1];
    const warp_shape shape = warp_shape_of(c, m, width, GATE_WARPS(chunks));
    if (shape.threads) {
      ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "gate_norm_quant"));
      ARB_CUDA_LAUNCH(c, "gate_norm_quant", kernel, shape.grid, shape.threads, shape.shared, m, (int)width, h, zg, ldz, e, q, s,
                      inv, c->nonfinite);
      return ARB_OK;
    }
  }
  const bool wide =
      width % 4 == 0 && ldz % 4 == 0 && arb_cuda_aligned(h, 16) && arb_cuda_aligned(zg, 8) && arb_cuda_aligned(q, 4);
  auto kernel = wide ? gate_norm_quant_kernel<true> : gate_norm_quant_kernel<false>;
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, width, 1, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "gate_norm_quant"));
  ARB_CUDA_LAUNCH(c, "gate_norm_quant (any)", kernel, shape.grid, shape.warps * 32, shape.shared, m, (int)width, h, zg, ldz, e,
                  q, s, inv, c->nonfinite);
  return ARB_OK;
}

static arb_status glu_norm_quant(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *u, const uint16_t *v,
                                 int64_t ldz, const int8_t *e, int8_t *q, float *s, float *inv) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  const int chunks = chunks_of(width);
  if (width % ARB_CHUNK == 0 && ldz % ARB_CHUNK == 0 && chunks <= GLU_MOST && arb_cuda_aligned(u, 16) &&
      arb_cuda_aligned(v, 16) && arb_cuda_aligned(q, 8)) {
    static void (*const kernels[])(int64_t, int, const uint16_t *, const uint16_t *, int64_t, const int8_t *, int8_t *, float *,
                                   float *, int *) = {glu_forward_kernel<1, GLU_WARPS(1)>, glu_forward_kernel<2, GLU_WARPS(2)>,
                                                      glu_forward_kernel<3, GLU_WARPS(3)>, glu_forward_kernel<4, GLU_WARPS(4)>,
                                                      glu_forward_kernel<5, GLU_WARPS(5)>, glu_forward_kernel<6, GLU_WARPS(6)>,
                                                      glu_forward_kernel<7, GLU_WARPS(7)>, glu_forward_kernel<8, GLU_WARPS(8)>};
    auto kernel = kernels[chunks - 1];
    const warp_shape shape = warp_shape_of(c, m, width, GLU_WARPS(chunks));
    if (shape.threads) {
      ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "glu_norm_quant"));
      ARB_CUDA_LAUNCH(c, "glu_norm_quant", kernel, shape.grid, shape.threads, shape.shared, m, (int)width, u, v, ldz, e, q, s,
                      inv, c->nonfinite);
      return ARB_OK;
    }
  }
  const bool wide =
      width % 4 == 0 && ldz % 4 == 0 && arb_cuda_aligned(u, 8) && arb_cuda_aligned(v, 8) && arb_cuda_aligned(q, 4);
  auto kernel = wide ? glu_norm_quant_kernel<true> : glu_norm_quant_kernel<false>;
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, width, 1, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "glu_norm_quant"));
  ARB_CUDA_LAUNCH(c, "glu_norm_quant (any)", kernel, shape.grid, shape.warps * 32, shape.shared, m, (int)width, u, v, ldz, e, q,
                  s, inv, c->nonfinite);
  return ARB_OK;
}

static arb_status gate_norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const float *h, const uint16_t *zg,
                                     int64_t ldz, const float *inv, const int8_t *e, const uint16_t *dy, uint16_t *dh,
                                     uint16_t *dzg, int64_t lddz) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  const int chunks = chunks_of(width);
  if (width % ARB_CHUNK == 0 && ldz % ARB_CHUNK == 0 && lddz % ARB_CHUNK == 0 && chunks <= GATE_MOST &&
      arb_cuda_aligned(h, 16) && arb_cuda_aligned(zg, 16) && arb_cuda_aligned(dy, 16) && arb_cuda_aligned(dh, 16) &&
      arb_cuda_aligned(dzg, 16)) {
    static void (*const kernels[])(int64_t, int, const float *, const uint16_t *, int64_t, const float *, const int8_t *,
                                   const uint16_t *, uint16_t *, uint16_t *,
                                   int64_t) = {gate_backward_kernel<1, GATE_WARPS(1)>, gate_backward_kernel<2, GATE_WARPS(2)>,
                                               gate_backward_kernel<3, GATE_WARPS(3)>, gate_backward_kernel<4, GATE_WARPS(4)>};
    auto kernel = kernels[chunks - 1];
    const warp_shape shape = warp_shape_of(c, m, width, GATE_WARPS(chunks));
    if (shape.threads) {
      ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "gate_norm_backward"));
      ARB_CUDA_LAUNCH(c, "gate_norm_backward", kernel, shape.grid, shape.threads, shape.shared, m, (int)width, h, zg, ldz, inv,
                      e, dy, dh, dzg, lddz);
      return ARB_OK;
    }
  }
  const bool wide = width % 4 == 0 && ldz % 4 == 0 && lddz % 4 == 0 && arb_cuda_aligned(h, 16) && arb_cuda_aligned(zg, 8) &&
                    arb_cuda_aligned(dy, 8) && arb_cuda_aligned(dh, 8) && arb_cuda_aligned(dzg, 8);
  auto kernel = wide ? gate_norm_backward_kernel<true> : gate_norm_backward_kernel<false>;
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, width, 2, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "gate_norm_backward"));
  ARB_CUDA_LAUNCH(c, "gate_norm_backward (any)", kernel, shape.grid, shape.warps * 32, shape.shared, m, (int)width, h, zg, ldz,
                  inv, e, dy, dh, dzg, lddz);
  return ARB_OK;
}

static arb_status glu_norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *u, const uint16_t *v,
                                    int64_t ldz, const float *inv, const int8_t *e, const uint16_t *dy, const arb_stack *w,
                                    int8_t *hq, float *sh) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_TRY(arb_cuda_before_rows(c, hq));
  const int64_t m = arb_rows_count(r);
  ARB_REQUIRE(w->n == 2 * width, ARB_ERR_ARG, "glu_norm_backward: a stack of %lld rows for two of %lld", (long long)w->n,
              (long long)width);
  ARB_REQUIRE(m < INT32_MAX / 2, ARB_ERR_UNSUPPORTED, "a gradient of %lld rows is more than this backend takes", (long long)m);
  const arb_gradient to = arb_gradient_of(c, r, w, 0, hq, sh);
  const bool wide = width % ARB_CHUNK == 0 && ldz % ARB_CHUNK == 0 && ldz < INT32_MAX / 2 && arb_cuda_aligned(u, 16) &&
                    arb_cuda_aligned(v, 16) && arb_cuda_aligned(dy, 16) && arb_cuda_aligned(e, 8) && arb_gradient_wide(w, hq);
  const int warps = (int)arb_cuda_ceil(width, 32 * ARB_CHUNK * ARB_GLU_EACH); /* and one beside them */
  if (wide && warps < GLU_BACK_WIDEST) {
    static void (*const kernels[])(int, int, int, const uint16_t *, const uint16_t *, uint32_t, const float *, const int8_t *,
                                   const uint16_t *, arb_gradient) = {
        glu_backward_kernel<0, 2, 32 * GLU_BACK_WARPS>, glu_backward_kernel<1, 2, 32 * GLU_BACK_WARPS>,
        glu_backward_kernel<2, 2, 32 * GLU_BACK_WARPS>, glu_backward_kernel<3, 2, 32 * GLU_BACK_WARPS>,
        glu_backward_kernel<4, 2, 32 * GLU_BACK_WARPS>};
    const bool widest = warps >= GLU_BACK_WARPS;
    auto kernel = kernels[warps <= 4 ? warps : 0];
    int groups = widest ? 1 : GLU_BACK_WARPS / (warps + 1), ahead = 2;
    while (groups > 1 && arb_glu_shared(warps, ahead, groups) > c->shared_block) groups--;
    if (widest || arb_glu_shared(warps, ahead, groups) > c->shared_block) {
      ahead = 1;
      kernel = widest ? glu_backward_kernel<0, 1, 32 * GLU_BACK_WIDEST> : glu_backward_kernel<0, 1, 32 * GLU_BACK_WARPS>;
    }
    const size_t shared = arb_glu_shared(warps, ahead, groups);
    if (shared <= c->shared_block) {
      ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shared, "glu_norm_backward"));
      ARB_CUDA_LAUNCH(c, "glu_norm_backward", kernel, arb_cuda_grid(c, m, groups, 1), (unsigned)(32 * (warps + 1) * groups),
                      shared, (int)m, (int)width, warps, u, v, (uint32_t)(2 * ldz), inv, e, dy, to);
      return ARB_OK;
    }
  }
  ARB_CUDA_LAUNCH(c, "glu_norm_backward (any)", glu_norm_backward_kernel, arb_cuda_grid(c, m, 4, 8), 128, 0, m, (int)width, u,
                  v, ldz, inv, e, dy, to);
  return ARB_OK;
}

void arb_cuda_fill_gates(arb_ops *ops) {
  ops->gate_norm_quant = gate_norm_quant;
  ops->glu_norm_quant = glu_norm_quant;
  ops->gate_norm_backward = gate_norm_backward;
  ops->glu_norm_backward = glu_norm_backward;
}
