/* Gated rows: norm(h) * sigmoid(zg) and norm(silu(u) * v), quantised, and their backward passes. A warp a row, as in norms.cu.
 */
#include "kernels/cuda/device.cuh"

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
                              const float *__restrict__ inv_in, const int8_t *__restrict__ e, const float *__restrict__ dy,
                              float *__restrict__ dh, float *__restrict__ dzg, int64_t lddz) {
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
 * sg)). A block a row, since rows are wide here: all warps do the elements, the first one the sum. Shared: the products that
 * are summed, and sg; u, v and dy are read again from the caches. */
template <bool V>
static __global__ void __launch_bounds__(128)
    glu_norm_backward_kernel(int64_t m, int width, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v, int64_t ldz,
                             const float *__restrict__ inv_in, const int8_t *__restrict__ e, const float *__restrict__ dy,
                             float *__restrict__ du, float *__restrict__ dv, int64_t lddz) {
  extern __shared__ float4 shared[];
  __shared__ float row_mean;
  const int pad = (width + 3) & ~3, i0 = 4 * (int)threadIdx.x, stride = 4 * (int)blockDim.x;
  float *gain = reinterpret_cast<float *>(shared), *product = gain + pad, *gate = product + pad;
  arb_gains_shared(e, width, gain);
  for (int64_t row = blockIdx.x; row < m; row += gridDim.x) {
    const int64_t at = row * width, in = row * ldz, out = row * lddz;
    const float inv = inv_in[row];
#pragma unroll 2
    for (int i = i0; i < width; i += stride) {
      float d[4], a[4], b[4], w[4], sg[4];
      arb_load4<V>(dy + at, i, width, d);
      arb_load4<V>(u + in, i, width, a);
      arb_load4<V>(v + in, i, width, b);
      arb_load4<true>(gain, i, pad, w);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        sg[j] = arb_sigmoid(a[j]);
        const float xhat = ((a[j] * sg[j]) * b[j]) * inv;
        d[j] = (d[j] * w[j]) * xhat;
      }
      arb_store4_shared(product, i, d);
      arb_store4_shared(gate, i, sg);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      const float mean = arb_divf(arb_row_sum_shared(product, width, (int)threadIdx.x), (float)width);
      if (threadIdx.x == 0) row_mean = mean;
    }
    __syncthreads();
    const float mean = row_mean;
#pragma unroll 2
    for (int i = i0; i < width; i += stride) {
      float d[4], a[4], b[4], w[4], sg[4];
      arb_load4<V>(dy + at, i, width, d);
      arb_load4<V>(u + in, i, width, a);
      arb_load4<V>(v + in, i, width, b);
      arb_load4<true>(gain, i, pad, w);
      arb_load4<true>(gate, i, pad, sg);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float silu = a[j] * sg[j];
        const float xhat = (silu * b[j]) * inv;
        const float dx = inv * ((d[j] * w[j]) - xhat * mean);
        d[j] = (dx * b[j]) * (sg[j] * (1.0f + a[j] * (1.0f - sg[j])));
        b[j] = dx * silu;
      }
      arb_store4<V>(du + out, i, width, d);
      arb_store4<V>(dv + out, i, width, b);
    }
    /* the next row's first pass writes only what this thread alone has read, and row_mean is written after a barrier */
  }
}

/* The same for rows of at most 512 * G elements, a multiple of 4, by 128 threads: a thread keeps its elements and their gates
 * in registers, all loads of a row in flight at once. */
template <int G>
static __global__ void __launch_bounds__(128)
    glu_norm_backward_short_kernel(int64_t m, int width, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v,
                                   int64_t ldz, const float *__restrict__ inv_in, const int8_t *__restrict__ e,
                                   const float *__restrict__ dy, float *__restrict__ du, float *__restrict__ dv, int64_t lddz) {
  extern __shared__ float4 shared[];
  __shared__ float row_mean;
  const int i0 = 4 * (int)threadIdx.x;
  float *gain = reinterpret_cast<float *>(shared), *product = gain + width;
  arb_gains_shared(e, width, gain);
  for (int64_t row = blockIdx.x; row < m; row += gridDim.x) {
    const float inv = inv_in[row];
    float d[G][4], a[G][4], b[G][4], sg[G][4];
#pragma unroll
    for (int g = 0; g < G; g++) {
      const int i = i0 + 512 * g;
      if (i >= width) continue;
      arb_load4<true>(dy + row * width, i, width, d[g]);
      arb_load4<true>(u + row * ldz, i, width, a[g]);
      arb_load4<true>(v + row * ldz, i, width, b[g]);
    }
#pragma unroll
    for (int g = 0; g < G; g++) {
      const int i = i0 + 512 * g;
      if (i >= width) continue;
      float w[4], p[4];
      arb_load4<true>(gain, i, width, w);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        sg[g][j] = arb_sigmoid(a[g][j]);
        d[g][j] = d[g][j] * w[j];
        p[j] = d[g][j] * (((a[g][j] * sg[g][j]) * b[g][j]) * inv);
      }
      arb_store4_shared(product, i, p);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      const float mean = arb_divf(arb_row_sum_shared(product, width, (int)threadIdx.x), (float)width);
      if (threadIdx.x == 0) row_mean = mean;
    }
    __syncthreads();
    const float mean = row_mean;
#pragma unroll
    for (int g = 0; g < G; g++) {
      const int i = i0 + 512 * g;
      if (i >= width) continue;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float silu = a[g][j] * sg[g][j], xhat = (silu * b[g][j]) * inv;
        const float dx = inv * (d[g][j] - xhat * mean);
        d[g][j] = (dx * b[g][j]) * (sg[g][j] * (1.0f + a[g][j] * (1.0f - sg[g][j])));
        b[g][j] = dx * silu;
      }
      arb_store4<true>(du + row * lddz, i, width, d[g]);
      arb_store4<true>(dv + row * lddz, i, width, b[g]);
    }
  }
}

static arb_status gate_norm_quant(arb_backend *be, const arb_rows *r, int64_t width, const float *h, const uint16_t *zg,
                                  int64_t ldz, const int8_t *e, int8_t *q, float *s, float *inv) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  const bool wide =
      width % 4 == 0 && ldz % 4 == 0 && arb_cuda_aligned(h, 16) && arb_cuda_aligned(zg, 8) && arb_cuda_aligned(q, 4);
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
                                     int64_t ldz, const float *inv, const int8_t *e, const float *dy, float *dh, float *dzg,
                                     int64_t lddz) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  const bool wide = width % 4 == 0 && ldz % 4 == 0 && lddz % 4 == 0 && arb_cuda_aligned(h, 16) && arb_cuda_aligned(zg, 8) &&
                    arb_cuda_aligned(dy, 16) && arb_cuda_aligned(dh, 16) && arb_cuda_aligned(dzg, 16);
  auto kernel = wide ? gate_norm_backward_kernel<true> : gate_norm_backward_kernel<false>;
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, width, 2, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "gate_norm_backward"));
  ARB_CUDA_LAUNCH(c, "gate_norm_backward", kernel, shape.grid, shape.warps * 32, shape.shared, m, (int)width, h, zg, ldz, inv,
                  e, dy, dh, dzg, lddz);
  return ARB_OK;
}

static arb_status glu_norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *u, const uint16_t *v,
                                    int64_t ldz, const float *inv, const int8_t *e, const float *dy, float *du, float *dv,
                                    int64_t lddz) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  const bool wide = width % 4 == 0 && ldz % 4 == 0 && lddz % 4 == 0 && arb_cuda_aligned(u, 8) && arb_cuda_aligned(v, 8) &&
                    arb_cuda_aligned(dy, 16) && arb_cuda_aligned(du, 16) && arb_cuda_aligned(dv, 16);
  auto kernel = wide ? glu_norm_backward_kernel<true> : glu_norm_backward_kernel<false>;
  size_t shared = 3 * (size_t)((width + 3) / 4) * sizeof(float4);
  if (wide && width <= 1536) {
    kernel = glu_norm_backward_short_kernel<3>;
    shared = 2 * (size_t)(width / 4) * sizeof(float4);
  }
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shared, "glu_norm_backward"));
  const int64_t resident = (int64_t)(c->shared_multiprocessor / (shared + 1024));
  const unsigned grid = arb_cuda_grid(c, m, 1, resident > 8 ? 8 : (resident < 1 ? 1 : resident));
  ARB_CUDA_LAUNCH(c, "glu_norm_backward", kernel, grid, 128, shared, m, (int)width, u, v, ldz, inv, e, dy, du, dv, lddz);
  return ARB_OK;
}

void arb_cuda_fill_gates(arb_ops *ops) {
  ops->gate_norm_quant = gate_norm_quant;
  ops->glu_norm_quant = glu_norm_quant;
  ops->gate_norm_backward = gate_norm_backward;
  ops->glu_norm_backward = glu_norm_backward;
}
