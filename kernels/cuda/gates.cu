/* Gated rows: norm(h) * sigmoid(zg) and norm(silu(u) * v), quantised, and their backward passes. A warp a row, as in norms.cu.
 */
#include "kernels/cuda/gradient.cuh"
#include "kernels/cuda/variants.cuh"

/* TEMPORARY: ARB_VARIANTS=1,2,... for the tests. */
#include <cstdlib>
int arb_variant[VARS];
static const int variants_read = [] {
  const char *s = getenv("ARB_VARIANTS");
  for (int i = 0; s && *s && i < VARS; i++) {
    char *end;
    arb_variant[i] = (int)strtol(s, &end, 10);
    s = *end ? end + 1 : end;
  }
  return 0;
}();

template <bool V>
static __global__ void __launch_bounds__(128)
    gate_norm_quant_kernel(int64_t m, int width, const float *__restrict__ h, const uint16_t *__restrict__ zg, int64_t ldz,
                           const int8_t *__restrict__ e, int8_t *__restrict__ q, float *__restrict__ s,
                           float *__restrict__ inv_out, int *nonfinite) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, pad = (width + 3) & ~3;
  float *gain = reinterpret_cast<float *>(shared), *x = gain + pad * (1 + warp);
  arb_gains_shared(e, width, gain);
  for (int64_t row = (int64_t)blockIdx.x * warps + warp; row < m; row += (int64_t)gridDim.x * warps) {
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

/* norm(silu(u) * v) for rows of at most 256 * G elements, a multiple of 8, a warp a row: a lane keeps its chunks in registers,
 * only the squares of the sum pass through shared memory. */
template <int G>
static __global__ void __launch_bounds__(128)
    glu_norm_quant_short_kernel(int64_t m, int width, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v,
                                int64_t ldz, const int8_t *__restrict__ e, int8_t *__restrict__ q, float *__restrict__ s,
                                float *__restrict__ inv_out, int *nonfinite) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  float *gain = reinterpret_cast<float *>(shared), *square = gain + width * (1 + warp);
  arb_gains_shared(e, width, gain);
  for (int64_t row = (int64_t)blockIdx.x * warps + warp; row < m; row += (int64_t)gridDim.x * warps) {
    float a[G][ARB_CHUNK];
    uint4 wu[G], wv[G];
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = ARB_CHUNK * (lane + 32 * c);
      if (i >= width) continue;
      wu[c] = *reinterpret_cast<const uint4 *>(u + row * ldz + i);
      wv[c] = *reinterpret_cast<const uint4 *>(v + row * ldz + i);
    }
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = ARB_CHUNK * (lane + 32 * c);
      if (i >= width) continue;
      const uint32_t x[4] = {wu[c].x, wu[c].y, wu[c].z, wu[c].w}, y[4] = {wv[c].x, wv[c].y, wv[c].z, wv[c].w};
      float p[ARB_CHUNK];
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        const float z = arb_f32_of_bits((j & 1) ? x[j / 2] & 0xffff0000u : x[j / 2] << 16);
        a[c][j] = (z * arb_sigmoid(z)) * arb_f32_of_bits((j & 1) ? y[j / 2] & 0xffff0000u : y[j / 2] << 16);
        p[j] = a[c][j] * a[c][j];
      }
      arb_store4_shared(square, i, p);
      arb_store4_shared(square, i + 4, p + 4);
    }
    __syncwarp();
    const float inv = arb_inv_rms(arb_row_sum_shared(square, width, lane), width);
    float most = 0.0f;
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = ARB_CHUNK * (lane + 32 * c);
      if (i >= width) continue;
      float w[ARB_CHUNK];
      arb_load8<true>(gain, i, width, w);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) a[c][j] = (a[c][j] * inv) * w[j];
      most = arb_max_abs(most, arb_chunk_most(a[c]));
    }
    const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
    const float top = arb_f32_of_bits(bits);
    const bool zero = bits >= ARB_F32_INF_BITS || top < ARB_TINY;
    const float unit = zero ? 0.0f : arb_divf(127.0f, top);
    if (lane == 0) {
      inv_out[row] = inv;
      s[row] = zero ? 0.0f : arb_divf(top, 127.0f);
      if (bits >= ARB_F32_INF_BITS) *nonfinite = 1;
    }
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = ARB_CHUNK * (lane + 32 * c);
      if (i >= width) continue;
      uint32_t b[ARB_CHUNK];
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) b[j] = arb_round_byte(arb_clamp_fast(a[c][j] * unit, 127.0f));
      *reinterpret_cast<uint2 *>(q + row * width + i) = zero ? make_uint2(0, 0) : make_uint2(arb_pack4(b), arb_pack4(b + 4));
    }
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
  for (int64_t row = (int64_t)blockIdx.x * warps + warp; row < m; row += (int64_t)gridDim.x * warps) {
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
  for (int64_t row = (int64_t)blockIdx.x * warps + warp; row < m; row += (int64_t)gridDim.x * warps) {
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

/* x = silu(u) * v: the norm's backward gives dx; du = (dx * v) * silu'(u), dv = dx * silu(u), silu'(u) = sg * (1 + u * (1 -
 * sg)); [du, dv] leaves as gradient rows of the stack that made [u, v]. A block a row, a thread a chunk of u and of v: it keeps
 * them and their gates in registers and loads the next row's before it works on this one. The first warp sums. */
static __global__ void __launch_bounds__(256, 3)
    glu_norm_backward_chunk_kernel(int64_t m, int width, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v,
                                   int64_t ldz, const float *__restrict__ inv_in, const int8_t *__restrict__ e,
                                   const uint16_t *__restrict__ dy, const __grid_constant__ arb_gradient w) {
  extern __shared__ float4 shared[];
  __shared__ float row_mean;
  __shared__ uint32_t part[8];
  float *product = reinterpret_cast<float *>(shared), *gain_w = product + width; /* gain_w [2 width] */
  const int i = ARB_CHUNK * (int)threadIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const bool mine = i < width;
  const uint32_t step = w.step->step;
  const arb_philox_key key = arb_philox_key_of(w.step->seed, ARB_DRAW_DX);
  uint4 next_u = {}, next_v = {}, next_d = {};
  float next_inv = 0.0f;
  auto load = [&](int64_t row) {
    next_inv = inv_in[row];
    if (!mine) return;
    next_u = *reinterpret_cast<const uint4 *>(u + row * ldz + i);
    next_v = *reinterpret_cast<const uint4 *>(v + row * ldz + i);
    next_d = *reinterpret_cast<const uint4 *>(dy + row * width + i);
  };
  if (blockIdx.x < m) load(blockIdx.x);
  float gain[ARB_CHUNK] = {};
  if (mine) arb_chunk_gains<true>(e, i, width, gain);
  for (int j = (int)threadIdx.x; j < 2 * width; j += (int)blockDim.x) gain_w[j] = arb_pow2_eighths(w.e[j]);
  for (int64_t row = blockIdx.x; row < m; row += gridDim.x) {
    const float inv = next_inv;
    float a[ARB_CHUNK], b[ARB_CHUNK], d[ARB_CHUNK], sg[ARB_CHUNK];
    const uint32_t wu[4] = {next_u.x, next_u.y, next_u.z, next_u.w}, wv[4] = {next_v.x, next_v.y, next_v.z, next_v.w},
                   wd[4] = {next_d.x, next_d.y, next_d.z, next_d.w};
#pragma unroll
    for (int j = 0; j < ARB_CHUNK; j++) {
      a[j] = arb_f32_of_bits((j & 1) ? wu[j / 2] & 0xffff0000u : wu[j / 2] << 16);
      b[j] = arb_f32_of_bits((j & 1) ? wv[j / 2] & 0xffff0000u : wv[j / 2] << 16);
      d[j] = arb_f32_of_bits((j & 1) ? wd[j / 2] & 0xffff0000u : wd[j / 2] << 16);
    }
    if (row + gridDim.x < m) load(row + gridDim.x);
    if (mine) {
      float p[ARB_CHUNK];
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        sg[j] = arb_sigmoid(a[j]);
        d[j] = d[j] * gain[j];
        p[j] = d[j] * (((a[j] * sg[j]) * b[j]) * inv);
      }
      arb_store4_shared(product, i, p);
      arb_store4_shared(product, i + 4, p + 4);
    }
    __syncthreads();
    if (warp == 0) {
      const float mean = arb_divf(arb_row_sum_shared(product, width, lane), (float)width);
      if (lane == 0) row_mean = mean;
    }
    __syncthreads();
    const float mean = row_mean;
    float most = 0.0f;
    if (mine) {
      float gu[ARB_CHUNK], gv[ARB_CHUNK];
      arb_load8<true>(gain_w, i, width, gu);
      arb_load8<true>(gain_w, width + i, width, gv);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        const float silu = a[j] * sg[j], xhat = (silu * b[j]) * inv;
        const float dx = inv * (d[j] - xhat * mean);
        d[j] = ((dx * b[j]) * (sg[j] * (1.0f + a[j] * (1.0f - sg[j])))) * gu[j];
        b[j] = (dx * silu) * gv[j];
      }
      most = arb_max_abs(arb_chunk_most(d), arb_chunk_most(b));
    }
    uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
    if (lane == 0) part[warp] = bits;
    __syncthreads();
    bits = __reduce_max_sync(ARB_CUDA_FULL, lane < warps ? part[lane] : 0u);
    const float unit = arb_gradient_unit(bits);
    if (threadIdx.x == 0) arb_gradient_scale(w, row, bits);
    if (mine) {
      const arb_row_place p = arb_place_of(w, row);
      arb_round_chunk<true>(w, key, step, p.grain, p.position, row, i, d, unit);
      arb_round_chunk<true>(w, key, step, p.grain, p.position, row, width + i, b, unit);
    }
    /* `part` is written again only after the next row's two barriers, `product` after this row's sum */
  }
}

/* The same for any width and alignment: a warp a row, which is read three times. */
static __global__ void __launch_bounds__(128)
    glu_norm_backward_kernel(int64_t m, int width, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v, int64_t ldz,
                             const float *__restrict__ inv_in, const int8_t *__restrict__ e, const uint16_t *__restrict__ dy,
                             const __grid_constant__ arb_gradient w) {
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  for (int64_t row = (int64_t)blockIdx.x * warps + (threadIdx.x >> 5); row < m; row += (int64_t)gridDim.x * warps) {
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

static arb_status gate_norm_quant(arb_backend *be, const arb_rows *r, int64_t width, const float *h, const uint16_t *zg,
                                  int64_t ldz, const int8_t *e, int8_t *q, float *s, float *inv) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  const bool wide =
      width % 4 == 0 && ldz % 4 == 0 && arb_cuda_aligned(h, 16) && arb_cuda_aligned(zg, 8) && arb_cuda_aligned(q, 4);
  if (arb_variant[VAR_GATE_FORWARD] && width % 8 == 0 && ((width > 256 && width <= 512) || (width > 768 && width <= 1024)) &&
      ldz % 8 == 0 && arb_cuda_aligned(h, 16) && arb_cuda_aligned(zg, 16) && arb_cuda_aligned(q, 8))
    return gate_forward_variant(c, m, width, h, zg, ldz, e, q, s, inv);
  auto kernel = wide ? gate_norm_quant_kernel<true> : gate_norm_quant_kernel<false>;
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, width, 1, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "gate_norm_quant"));
  ARB_CUDA_LAUNCH(c, "gate_norm_quant", kernel, shape.grid, shape.warps * 32, shape.shared, m, (int)width, h, zg, ldz, e, q, s,
                  inv, c->nonfinite);
  return ARB_OK;
}

static arb_status glu_norm_quant(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *u, const uint16_t *v,
                                 int64_t ldz, const int8_t *e, int8_t *q, float *s, float *inv) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  if (width % ARB_CHUNK == 0 && width <= 6 * 256 && ldz % ARB_CHUNK == 0 && arb_cuda_aligned(u, 16) &&
      arb_cuda_aligned(v, 16) && arb_cuda_aligned(q, 8)) {
    if (arb_variant[VAR_GLU_FORWARD] && ((width > 256 && width <= 512) || width > 1280))
      return glu_forward_variant(c, m, width, u, v, ldz, e, q, s, inv);
    auto kernel = width <= 2 * 256   ? glu_norm_quant_short_kernel<2>
                  : width <= 4 * 256 ? glu_norm_quant_short_kernel<4>
                                     : glu_norm_quant_short_kernel<6>;
    const size_t shared = 5 * (size_t)width * sizeof(float);
    ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shared, "glu_norm_quant"));
    int resident = 0;
    ARB_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, (const void *)kernel, 128, shared), "occupancy");
    ARB_CUDA_LAUNCH(c, "glu_norm_quant", kernel, arb_cuda_grid(c, m, 4, resident), 128, shared, m, (int)width, u, v, ldz, e, q,
                    s, inv, c->nonfinite);
    return ARB_OK;
  }
  const bool wide =
      width % 4 == 0 && ldz % 4 == 0 && arb_cuda_aligned(u, 8) && arb_cuda_aligned(v, 8) && arb_cuda_aligned(q, 4);
  auto kernel = wide ? glu_norm_quant_kernel<true> : glu_norm_quant_kernel<false>;
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, width, 1, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "glu_norm_quant"));
  ARB_CUDA_LAUNCH(c, "glu_norm_quant", kernel, shape.grid, shape.warps * 32, shape.shared, m, (int)width, u, v, ldz, e, q, s,
                  inv, c->nonfinite);
  return ARB_OK;
}

static arb_status gate_norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const float *h, const uint16_t *zg,
                                     int64_t ldz, const float *inv, const int8_t *e, const uint16_t *dy, uint16_t *dh,
                                     uint16_t *dzg, int64_t lddz) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  const bool wide = width % 4 == 0 && ldz % 4 == 0 && lddz % 4 == 0 && arb_cuda_aligned(h, 16) && arb_cuda_aligned(zg, 8) &&
                    arb_cuda_aligned(dy, 8) && arb_cuda_aligned(dh, 8) && arb_cuda_aligned(dzg, 8);
  if (arb_variant[VAR_GATE_BACKWARD] && width % 8 == 0 && ((width > 256 && width <= 512) || (width > 768 && width <= 1024)) &&
      ldz % 8 == 0 && lddz % 8 == 0 && arb_cuda_aligned(h, 16) && arb_cuda_aligned(zg, 16) && arb_cuda_aligned(dy, 16) &&
      arb_cuda_aligned(dh, 16) && arb_cuda_aligned(dzg, 16))
    return gate_backward_variant(c, m, width, h, zg, ldz, inv, e, dy, dh, dzg, lddz);
  auto kernel = wide ? gate_norm_backward_kernel<true> : gate_norm_backward_kernel<false>;
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, width, 2, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "gate_norm_backward"));
  ARB_CUDA_LAUNCH(c, "gate_norm_backward", kernel, shape.grid, shape.warps * 32, shape.shared, m, (int)width, h, zg, ldz, inv,
                  e, dy, dh, dzg, lddz);
  return ARB_OK;
}

static arb_status glu_norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *u, const uint16_t *v,
                                    int64_t ldz, const float *inv, const int8_t *e, const uint16_t *dy, const arb_stack *w,
                                    int8_t *hq, float *sh) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  ARB_REQUIRE(w->n == 2 * width, ARB_ERR_ARG, "glu_norm_backward: a stack of %lld rows for two of %lld", (long long)w->n,
              (long long)width);
  const arb_gradient to = arb_gradient_of(c, r, w, 0, hq, sh);
  const bool wide = width % ARB_CHUNK == 0 && width <= 256 * ARB_CHUNK && ldz % ARB_CHUNK == 0 && arb_cuda_aligned(u, 16) &&
                    arb_cuda_aligned(v, 16) && arb_cuda_aligned(dy, 16) && arb_cuda_aligned(e, 8) && arb_gradient_wide(w, hq);
  if (!wide) {
    ARB_CUDA_LAUNCH(c, "glu_norm_backward (any)", glu_norm_backward_kernel, arb_cuda_grid(c, m, 4, 8), 128, 0, m, (int)width, u,
                    v, ldz, inv, e, dy, to);
    return ARB_OK;
  }
  if (arb_variant[VAR_GLU_BACKWARD]) {
    const arb_status st = glu_backward_variant(c, m, width, u, v, ldz, inv, e, dy, to);
    if (st != ARB_ERR_UNSUPPORTED) return st;
  }
  const unsigned threads = (unsigned)(arb_cuda_ceil(width / ARB_CHUNK, 32) * 32);
  const size_t shared = 3 * (size_t)width * sizeof(float);
  int resident = 0;
  ARB_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, (const void *)glu_norm_backward_chunk_kernel,
                                                             (int)threads, shared),
               "occupancy");
  ARB_CUDA_LAUNCH(c, "glu_norm_backward", glu_norm_backward_chunk_kernel, arb_cuda_grid(c, m, 1, resident), threads, shared, m,
                  (int)width, u, v, ldz, inv, e, dy, to);
  return ARB_OK;
}

void arb_cuda_fill_gates(arb_ops *ops) {
  ops->gate_norm_quant = gate_norm_quant;
  ops->glu_norm_quant = glu_norm_quant;
  ops->gate_norm_backward = gate_norm_backward;
  ops->glu_norm_backward = glu_norm_backward;
}
