/* RMSNorm on the residual stream, forward (with the add and the quantisation) and backward. A warp a row; a row rests in shared
 * memory between the pass that loads it, the sum in its fixed order, and the pass that writes. */
#include "kernels/cuda/gradient.cuh"

enum { ADD, ONLY_X, ONLY_Y }; /* what the stream is: x + y, x, y */

template <int FORM, bool V>
static __global__ void __launch_bounds__(128)
    add_norm_quant_kernel(int64_t m, int width, const float *__restrict__ x_in, const uint16_t *__restrict__ y,
                          float *__restrict__ x_out, const int8_t *__restrict__ e, int8_t *__restrict__ q,
                          float *__restrict__ s, float *__restrict__ inv_out, int *nonfinite) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, pad = (width + 3) & ~3;
  float *gain = reinterpret_cast<float *>(shared), *x = gain + pad * (1 + warp);
  arb_gains_shared(e, width, gain);
  for (int64_t turn = (int64_t)blockIdx.x * warps + warp; turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const int64_t at = row * width;
#pragma unroll 4
    for (int i = 4 * lane; i < width; i += 128) {
      float a[4], b[4];
      if (FORM != ONLY_Y) arb_load4<V>(x_in + at, i, width, a);
      if (FORM != ONLY_X) arb_load4<V>(y + at, i, width, b);
#pragma unroll
      for (int j = 0; j < 4; j++) a[j] = FORM == ADD ? a[j] + b[j] : (FORM == ONLY_X ? a[j] : b[j]);
      if (x_out) arb_store4<V>(x_out + at, i, width, a);
      arb_store4_shared(x, i, a);
    }
    __syncwarp();
    const float inv = arb_inv_rms(arb_row_square_sum_shared(x, width, lane), width);
    if (lane == 0) inv_out[row] = inv;
    float most = 0.0f;
#pragma unroll 4
    for (int i = 4 * lane; i < width; i += 128) {
      float v[4], g[4];
      arb_load4<true>(x, i, pad, v);
      arb_load4<true>(gain, i, pad, g);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        v[j] = (v[j] * inv) * g[j];
        if (V || i + j < width) most = arb_max_abs(most, v[j]);
      }
      arb_store4_shared(x, i, v); /* read back by this lane alone */
    }
    const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
    arb_quantise_row<V>(x, width, bits, lane, q + at, s + row, nonfinite);
    __syncwarp();
  }
}

/* The same for rows of at most 128 * G elements, a multiple of 4: a lane keeps its elements in registers and loads the next row
 * before it works on this one. */
template <int FORM, int G>
static __global__ void __launch_bounds__(128)
    add_norm_quant_short_kernel(int64_t m, int width, const float *__restrict__ x_in, const uint16_t *__restrict__ y,
                                float *__restrict__ x_out, const int8_t *__restrict__ e, int8_t *__restrict__ q,
                                float *__restrict__ s, float *__restrict__ inv_out, int *nonfinite) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const int64_t stride = (int64_t)gridDim.x * warps;
  float *gain = reinterpret_cast<float *>(shared), *x = gain + width * (1 + warp);
  int64_t turn = (int64_t)blockIdx.x * warps + warp;
  float4 next_x[G];
  uint2 next_y[G];
  auto load = [&](int64_t at) {
    const int64_t from = arb_row_down(at, m);
#pragma unroll
    for (int g = 0; g < G; g++) {
      const int i = 4 * lane + 128 * g;
      if (i >= width) continue;
      if (FORM != ONLY_Y) next_x[g] = arb_load_last(reinterpret_cast<const float4 *>(x_in + from * width + i));
      if (FORM != ONLY_X) next_y[g] = arb_load_last(reinterpret_cast<const uint2 *>(y + from * width + i));
    }
  };
  if (turn < m) load(turn);
  arb_gains_shared(e, width, gain);
  for (; turn < m; turn += stride) {
    const int64_t row = arb_row_down(turn, m);
    float4 v[G];
#pragma unroll
    for (int g = 0; g < G; g++) {
      const int i = 4 * lane + 128 * g;
      if (i >= width) continue;
      const uint2 b = next_y[g];
      const float4 f = make_float4(arb_f32_of_bits(b.x << 16), arb_f32_of_bits(b.x & 0xffff0000u), arb_f32_of_bits(b.y << 16),
                                   arb_f32_of_bits(b.y & 0xffff0000u));
      v[g] = FORM == ONLY_Y ? f : next_x[g];
      if (FORM == ADD) v[g] = make_float4(v[g].x + f.x, v[g].y + f.y, v[g].z + f.z, v[g].w + f.w);
      *reinterpret_cast<float4 *>(x + i) = v[g];
      if (x_out) arb_store_later(x_out + row * width + i, v[g].x, v[g].y, v[g].z, v[g].w);
    }
    if (turn + stride < m) load(turn + stride);
    __syncwarp();
    float sum = 0.0f;
#pragma unroll
    for (int g = 0; g < 4 * G; g++) {
      const int i = lane + 32 * g;
      if (i < width) sum += x[i] * x[i];
    }
    const float inv = arb_inv_rms(arb_warp_sum(sum), width);
    float most = 0.0f;
#pragma unroll
    for (int g = 0; g < G; g++) {
      const int i = 4 * lane + 128 * g;
      if (i >= width) continue;
      const float4 w = *reinterpret_cast<const float4 *>(gain + i);
      v[g] = make_float4((v[g].x * inv) * w.x, (v[g].y * inv) * w.y, (v[g].z * inv) * w.z, (v[g].w * inv) * w.w);
      most = arb_max_abs(arb_max_abs(arb_max_abs(arb_max_abs(most, v[g].x), v[g].y), v[g].z), v[g].w);
    }
    const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
    const float a = arb_f32_of_bits(bits);
    const bool zero = bits >= ARB_F32_INF_BITS || a < ARB_TINY;
    const float to = zero ? 0.0f : arb_divf(127.0f, a);
    if (lane == 0) {
      inv_out[row] = inv;
      s[row] = zero ? 0.0f : arb_divf(a, 127.0f);
      if (bits >= ARB_F32_INF_BITS) *nonfinite = 1;
    }
#pragma unroll
    for (int g = 0; g < G; g++) {
      const int i = 4 * lane + 128 * g;
      if (i >= width) continue;
      const uint32_t b[4] = {
          arb_round_byte(arb_clamp_fast(v[g].x * to, 127.0f)), arb_round_byte(arb_clamp_fast(v[g].y * to, 127.0f)),
          arb_round_byte(arb_clamp_fast(v[g].z * to, 127.0f)), arb_round_byte(arb_clamp_fast(v[g].w * to, 127.0f))};
      *reinterpret_cast<uint32_t *>(q + row * width + i) = zero ? 0u : arb_pack4(b);
    }
    __syncwarp();
  }
}

static arb_status add_norm_quant(arb_backend *be, const arb_rows *r, int64_t width, const float *x_in, const uint16_t *y,
                                 float *x_out, const int8_t *e, int8_t *q, float *s, float *inv) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  const bool wide = width % 4 == 0 && arb_cuda_aligned(x_in, 16) && arb_cuda_aligned(y, 8) && arb_cuda_aligned(x_out, 16) &&
                    arb_cuda_aligned(q, 4);
  auto kernel = x_in && y ? (wide ? add_norm_quant_kernel<ADD, true> : add_norm_quant_kernel<ADD, false>)
                : x_in    ? (wide ? add_norm_quant_kernel<ONLY_X, true> : add_norm_quant_kernel<ONLY_X, false>)
                          : (wide ? add_norm_quant_kernel<ONLY_Y, true> : add_norm_quant_kernel<ONLY_Y, false>);
  if (wide && width <= 512)
    kernel = x_in && y ? add_norm_quant_short_kernel<ADD, 4>
             : x_in    ? add_norm_quant_short_kernel<ONLY_X, 4>
                       : add_norm_quant_short_kernel<ONLY_Y, 4>;
  else if (wide && width <= 768)
    kernel = x_in && y ? add_norm_quant_short_kernel<ADD, 6>
             : x_in    ? add_norm_quant_short_kernel<ONLY_X, 6>
                       : add_norm_quant_short_kernel<ONLY_Y, 6>;
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, width, 1, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shape.shared, "add_norm_quant"));
  ARB_CUDA_LAUNCH(c, "add_norm_quant", kernel, shape.grid, shape.warps * 32, shape.shared, m, (int)width, x_in, y, x_out, e, q,
                  s, inv, c->nonfinite);
  return ARB_OK;
}

static __device__ __forceinline__ void store_gradient(float *to, const float v[ARB_CHUNK]) {
  arb_store_later(to, v[0], v[1], v[2], v[3]);
  arb_store_later(to + 4, v[4], v[5], v[6], v[7]);
}
static __device__ __forceinline__ void store_gradient(uint16_t *to, const float v[ARB_CHUNK]) { arb_store8(to, v); }

/* Backward on the stream (T float): g += d norm(x)' dy, then the new g as gradient rows of `below`; or at the model's input (T
 * bf16). A warp a row of at most 256 * G elements, a multiple of 8; a lane keeps its chunks in registers, only the products of
 * the sum pass through shared memory. */
template <int G, bool ACCUMULATE, bool BELOW, typename T>
static __global__ void __launch_bounds__(128)
    norm_backward_short_kernel(int64_t m, int width, const T *__restrict__ x, const float *__restrict__ inv_in,
                               const int8_t *__restrict__ e, const uint16_t *__restrict__ dy, T *__restrict__ g,
                               const __grid_constant__ arb_gradient below) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  float *gain = reinterpret_cast<float *>(shared), *gain_below = gain + width, *product = gain + width * (2 + warp);
  if (BELOW)
    for (int i = (int)threadIdx.x; i < width; i += (int)blockDim.x) gain_below[i] = arb_pow2_eighths(below.e[i]);
  arb_gains_shared(e, width, gain);
  const uint32_t step = BELOW ? below.step->step : 0;
  const arb_philox_key key = arb_philox_key_of(BELOW ? below.step->seed : 0, ARB_DRAW_DX);
  for (int64_t turn = (int64_t)blockIdx.x * warps + warp; turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const int64_t at = row * width;
    const float inv = inv_in[row];
    float d[G][ARB_CHUNK], v[G][ARB_CHUNK], o[G][ARB_CHUNK];
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = ARB_CHUNK * (lane + 32 * c);
      if (i >= width) continue;
      arb_load8_last(dy + at + i, d[c]);
      arb_load8_last(x + at + i, v[c]);
      if (ACCUMULATE) arb_load8_last(g + at + i, o[c]);
    }
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = ARB_CHUNK * (lane + 32 * c);
      if (i >= width) continue;
      float w[ARB_CHUNK], p[ARB_CHUNK];
      arb_load8<true>(gain, i, width, w);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        d[c][j] = d[c][j] * w[j];
        v[c][j] = v[c][j] * inv;
        p[j] = d[c][j] * v[c][j];
      }
      arb_store4_shared(product, i, p);
      arb_store4_shared(product, i + 4, p + 4);
    }
    __syncwarp();
    float sum = 0.0f;
#pragma unroll
    for (int c = 0; c < 8 * G; c++) {
      const int i = lane + 32 * c;
      if (i < width) sum += product[i];
    }
    const float mean = arb_divf(arb_warp_sum(sum), (float)width);
    float most = 0.0f;
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = ARB_CHUNK * (lane + 32 * c);
      if (i >= width) continue;
      float w[ARB_CHUNK];
      if (BELOW) arb_load8<true>(gain_below, i, width, w);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        const float t = inv * (d[c][j] - v[c][j] * mean);
        o[c][j] = ACCUMULATE ? o[c][j] + t : t;
      }
      store_gradient(g + at + i, o[c]);
      if (BELOW) {
#pragma unroll
        for (int j = 0; j < ARB_CHUNK; j++) o[c][j] = o[c][j] * w[j];
        most = arb_max_abs(most, arb_chunk_most(o[c]));
      }
    }
    if (BELOW) {
      const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
      const float unit = arb_gradient_unit(bits);
      if (lane == 0) arb_gradient_scale(below, row, bits);
      const arb_row_place place = arb_place_of(below, row);
#pragma unroll
      for (int c = 0; c < G; c++) {
        const int i = ARB_CHUNK * (lane + 32 * c);
        if (i < width) arb_round_chunk<true>(below, key, step, place.grain, place.position, row, i, o[c], unit);
      }
    }
    __syncwarp();
  }
}

/* mean(gy . xhat) of a row by one warp, any width: a lane reads its elements in the order in which they are summed. */
template <typename T>
static __device__ __forceinline__ float mean_of_products(const T *x, const uint16_t *dy, const int8_t *e, float inv,
                                                         int width) {
  float sum = 0.0f;
  for (int i = threadIdx.x & 31; i < width; i += 32) {
    const float v = sizeof(T) == 2 ? arb_f32_of_bf16((uint16_t)x[i]) : (float)x[i];
    const float product = (arb_f32_of_bf16(dy[i]) * arb_pow2_eighths(e[i])) * (v * inv);
    sum += product;
  }
  return arb_divf(arb_warp_sum(sum), (float)width);
}

/* The same for any width and alignment, a warp a row. */
static __global__ void __launch_bounds__(128)
    norm_backward_kernel(int64_t m, int width, const float *__restrict__ x, const float *__restrict__ inv_in,
                         const int8_t *__restrict__ e, const uint16_t *__restrict__ dy, int accumulate, float *g,
                         const __grid_constant__ arb_gradient below) {
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  for (int64_t turn = (int64_t)blockIdx.x * warps + (threadIdx.x >> 5); turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const int64_t at = row * width;
    const float inv = inv_in[row], mean = mean_of_products(x + at, dy + at, e, inv, width);
    for (int i = lane; i < width; i += 32) {
      const float t = inv * (arb_f32_of_bf16(dy[at + i]) * arb_pow2_eighths(e[i]) - (x[at + i] * inv) * mean);
      g[at + i] = accumulate ? g[at + i] + t : t;
    }
    if (!below.hq) continue;
    __syncwarp();
    arb_gradient_row(below, row, [&](int i, float h[ARB_CHUNK]) {
      float w[ARB_CHUNK];
      arb_chunk_gains<false>(below.e, i, width, w);
      arb_load8<false>(g + at, i, width, h);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) h[j] = h[j] * w[j];
    });
  }
}

template <int G, bool ACCUMULATE, bool BELOW, typename T>
static arb_status norm_backward_short(arb_cuda *c, int64_t m, int64_t width, const T *x, const float *inv, const int8_t *e,
                                      const uint16_t *dy, T *g, const arb_gradient &below) {
  auto kernel = norm_backward_short_kernel<G, ACCUMULATE, BELOW, T>;
  const char *name = sizeof(T) == 2 ? "input_norm_backward" : "norm_backward";
  const size_t shared = (size_t)width * 6 * sizeof(float);
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shared, name));
  int resident = 0;
  ARB_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, (const void *)kernel, 128, shared), "occupancy");
  ARB_CUDA_LAUNCH(c, name, kernel, arb_cuda_grid(c, m, 4, resident), 128, shared, m, (int)width, x, inv, e, dy, g, below);
  return ARB_OK;
}

static arb_status norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const float *x, const float *inv,
                                const int8_t *e, const uint16_t *dy, int accumulate, float *g, const arb_stack *below,
                                int8_t *hq, float *sh) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_TRY(arb_cuda_before_rows(c, hq));
  const int64_t m = arb_rows_count(r);
  ARB_REQUIRE(!below || below->n == width, ARB_ERR_ARG, "norm_backward: a gradient of %lld columns for a stack of %lld",
              (long long)width, (long long)(below ? below->n : 0));
  const arb_gradient to = below ? arb_gradient_of(c, r, below, 0, hq, sh) : arb_gradient();
  const bool wide = width % ARB_CHUNK == 0 && width <= 1024 && arb_cuda_aligned(x, 16) && arb_cuda_aligned(dy, 16) &&
                    arb_cuda_aligned(g, 16) && (!below || arb_gradient_wide(below, hq));
  if (!wide) {
    ARB_CUDA_LAUNCH(c, "norm_backward (any)", norm_backward_kernel, arb_cuda_grid(c, m, 4, 8), 128, 0, m, (int)width, x, inv, e,
                    dy, accumulate, g, to);
    return ARB_OK;
  }
  if (width <= 512)
    return accumulate ? (below ? norm_backward_short<2, true, true>(c, m, width, x, inv, e, dy, g, to)
                               : norm_backward_short<2, true, false>(c, m, width, x, inv, e, dy, g, to))
                      : (below ? norm_backward_short<2, false, true>(c, m, width, x, inv, e, dy, g, to)
                               : norm_backward_short<2, false, false>(c, m, width, x, inv, e, dy, g, to));
  return accumulate ? (below ? norm_backward_short<4, true, true>(c, m, width, x, inv, e, dy, g, to)
                             : norm_backward_short<4, true, false>(c, m, width, x, inv, e, dy, g, to))
                    : (below ? norm_backward_short<4, false, true>(c, m, width, x, inv, e, dy, g, to)
                             : norm_backward_short<4, false, false>(c, m, width, x, inv, e, dy, g, to));
}

/* At the model's input, any width and alignment: a warp a row, the row read twice. */
static __global__ void __launch_bounds__(128)
    input_norm_backward_kernel(int64_t m, int width, const uint16_t *__restrict__ x, const float *__restrict__ inv_in,
                               const int8_t *__restrict__ e, const uint16_t *__restrict__ dy, uint16_t *__restrict__ g) {
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  for (int64_t turn = (int64_t)blockIdx.x * warps + (threadIdx.x >> 5); turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const int64_t at = row * width;
    const float inv = inv_in[row], mean = mean_of_products(x + at, dy + at, e, inv, width);
    for (int i = lane; i < width; i += 32) {
      const float xhat = arb_f32_of_bf16(x[at + i]) * inv;
      g[at + i] = arb_bf16_of_f32(inv * (arb_f32_of_bf16(dy[at + i]) * arb_pow2_eighths(e[i]) - xhat * mean));
    }
  }
}

static arb_status input_norm_backward(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *x, const float *inv,
                                      const int8_t *e, const uint16_t *dy, uint16_t *g) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  if (width % ARB_CHUNK == 0 && width <= 1024 && arb_cuda_aligned(x, 16) && arb_cuda_aligned(dy, 16) && arb_cuda_aligned(g, 16))
    return width <= 512   ? norm_backward_short<2, false, false>(c, m, width, x, inv, e, dy, g, arb_gradient())
           : width <= 768 ? norm_backward_short<3, false, false>(c, m, width, x, inv, e, dy, g, arb_gradient())
                          : norm_backward_short<4, false, false>(c, m, width, x, inv, e, dy, g, arb_gradient());
  ARB_CUDA_LAUNCH(c, "input_norm_backward (any)", input_norm_backward_kernel, arb_cuda_grid(c, m, 4, 16), 128, 0, m, (int)width,
                  x, inv, e, dy, g);
  return ARB_OK;
}

void arb_cuda_fill_norms(arb_ops *ops) {
  ops->add_norm_quant = add_norm_quant;
  ops->norm_backward = norm_backward;
  ops->input_norm_backward = input_norm_backward;
}
