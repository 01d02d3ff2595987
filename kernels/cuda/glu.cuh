/* The gated unit, norm(silu(u) * v) quantised, and its backward pass, for aligned rows of whole chunks. */
#ifndef ARB_KERNELS_CUDA_GLU_CUH
#define ARB_KERNELS_CUDA_GLU_CUH

#include "kernels/cuda/gradient.cuh"

/* Rows of more than 256 * (G - 1) and at most 256 * G elements, a warp a row: a lane keeps its chunks in registers, only the
 * squares of the sum pass through shared memory. */
template <int G, int WARPS>
static __global__ void __launch_bounds__(32 * WARPS, 1)
    glu_forward_kernel(int64_t m, int width, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v, int64_t ldz,
                       const int8_t *__restrict__ e, int8_t *__restrict__ q, float *__restrict__ s, float *__restrict__ inv_out,
                       int *nonfinite) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const char *table = reinterpret_cast<const char *>(shared);
  float *gain = reinterpret_cast<float *>(shared) + ARB_SIGMOID_BYTES / 4, *square = gain + width * (1 + warp);
  arb_sigmoid_fill(reinterpret_cast<char *>(shared));
  const uint32_t square_at = arb_shared_at(square);
  /* lanes past the last chunk do it too: the same bytes to the same places */
  const int last = min(ARB_CHUNK * (lane + 32 * (G - 1)), width - ARB_CHUNK);
  arb_gains_shared(e, width, gain);
  for (int64_t turn = (int64_t)blockIdx.x * warps + warp; turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    float a[G][ARB_CHUNK];
    uint4 wu[G], wv[G];
    const uint16_t *from_u = u + row * ldz, *from_v = v + row * ldz;
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = c < G - 1 ? ARB_CHUNK * (lane + 32 * c) : last;
      wu[c] = arb_load_last(reinterpret_cast<const uint4 *>(from_u + i));
      wv[c] = arb_load_last(reinterpret_cast<const uint4 *>(from_v + i));
    }
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = c < G - 1 ? ARB_CHUNK * (lane + 32 * c) : last;
      const uint32_t x[4] = {wu[c].x, wu[c].y, wu[c].z, wu[c].w}, y[4] = {wv[c].x, wv[c].y, wv[c].z, wv[c].w};
      float p[ARB_CHUNK], z[ARB_CHUNK], sg[ARB_CHUNK];
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) z[j] = arb_word_half(x, j);
      arb_sigmoid_eight<false>(table, x, sg);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        a[c][j] = (z[j] * sg[j]) * arb_word_half(y, j);
        p[j] = a[c][j] * a[c][j];
      }
      arb_store_shared(square_at + 4 * i, p);
    }
    __syncwarp();
    const float inv = arb_inv_rms(arb_row_sum_shared(square, width, lane), width);
    float most = 0.0f;
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = c < G - 1 ? ARB_CHUNK * (lane + 32 * c) : last;
      float w[ARB_CHUNK];
      arb_load8<true>(gain, i, width, w);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) a[c][j] = (a[c][j] * inv) * w[j];
      most = arb_max_abs(most, arb_chunk_most(a[c]));
    }
    if (lane == 0) inv_out[row] = inv;
    arb_quantise_chunks<G>(a, most, lane, last, q + row * width, s + row, nonfinite);
    __syncwarp();
  }
}

/* x = silu(u) * v: the norm's backward gives dx; du = (dx * v) * silu'(u), dv = dx * silu(u), silu'(u) = sg * (1 + u * (1 -
 * sg)); [du, dv] leaves as gradient rows of the stack that made [u, v]. A group of threads a row, a thread a chunk of u and of
 * v: it keeps them and their gates in registers and loads the next row's before it works on this one. The first warp sums.
 * Groups of a block, at most 15, have nothing in common but the tables. */
#define ARB_GLU_GROUPS 15 /* named barriers besides the block's own */

template <int MOST>
static __global__ void __launch_bounds__(MOST, 1)
    glu_backward_kernel(int m, int width, int group_threads, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v,
                        int64_t ldz, const float *__restrict__ inv_in, const int8_t *__restrict__ e,
                        const uint16_t *__restrict__ dy, const __grid_constant__ arb_gradient w) {
  extern __shared__ float4 shared[];
  __shared__ float row_mean[ARB_GLU_GROUPS];
  __shared__ uint32_t part[ARB_GLU_GROUPS][32];
  const char *table = reinterpret_cast<const char *>(shared);
  float *gain_w = reinterpret_cast<float *>(shared) + ARB_SIGMOID_BYTES / 4; /* [2 width] */
  const int lane = threadIdx.x & 31, warps = group_threads >> 5;
  const int group = (int)threadIdx.x / group_threads, groups = (int)blockDim.x / group_threads;
  const int place_in = (int)threadIdx.x - group * group_threads, warp = place_in >> 5;
  /* threads past the last chunk do it too: the same bytes to the same places */
  const int each = width / ARB_CHUNK, i = ARB_CHUNK * min(place_in, each - 1);
  float *gain = gain_w + 2 * width, *product = gain + width * (1 + group);
  const int stride = (int)gridDim.x * groups, first = (int)blockIdx.x * groups + group;
  auto meet = [&]() { asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(group_threads) : "memory"); };
  const uint32_t product_at = arb_shared_at(product + i);
  arb_sigmoid_fill(reinterpret_cast<char *>(shared));
  const uint32_t step = w.step->step;
  const arb_philox_key key = arb_philox_key_of(w.step->seed, ARB_DRAW_DX);
  uint4 next_u = {}, next_v = {}, next_d = {};
  float next_inv = 0.0f;
  const int64_t from = arb_row_down(first, m), on = -stride;
  inv_in += from, u += from * ldz + i, v += from * ldz + i, dy += from * width + i;
  int8_t *to = w.hq + from * w.n + i;
  float *to_scale = w.sh + from;
  auto load = [&](int turn) {
    if (turn >= m) return;
    next_inv = *inv_in;
    next_u = arb_load_last(reinterpret_cast<const uint4 *>(u));
    next_v = arb_load_last(reinterpret_cast<const uint4 *>(v));
    next_d = arb_load_last(reinterpret_cast<const uint4 *>(dy));
    inv_in += on, u += on * ldz, v += on * ldz, dy += on * width;
  };
  load(first);
  for (int j = (int)threadIdx.x; j < 2 * width; j += (int)blockDim.x) gain_w[j] = arb_pow2_eighths(w.e[j]);
  for (int j = (int)threadIdx.x; j < width; j += (int)blockDim.x) gain[j] = arb_pow2_eighths(e[j]);
  arb_row_walk place = arb_walk_from(w, from < 0 ? 0 : from, stride);
  __syncthreads();
  for (int turn = first; turn < m; turn += stride, arb_walk_on(w, place), to += on * w.n, to_scale += on) {
    const float inv = next_inv;
    float silu[ARB_CHUNK], slope[ARB_CHUNK], b[ARB_CHUNK], d[ARB_CHUNK];
    {
      float a[ARB_CHUNK], p[ARB_CHUNK], sg[ARB_CHUNK], gy[ARB_CHUNK];
      const uint32_t wu[4] = {next_u.x, next_u.y, next_u.z, next_u.w}, wv[4] = {next_v.x, next_v.y, next_v.z, next_v.w},
                     wd[4] = {next_d.x, next_d.y, next_d.z, next_d.w};
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        a[j] = arb_word_half(wu, j);
        b[j] = arb_word_half(wv, j);
        d[j] = arb_word_half(wd, j);
      }
      load(turn + stride);
      arb_load8<true>(gain, i, width, gy);
      arb_sigmoid_eight<false>(table, wu, sg);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        silu[j] = a[j] * sg[j];
        slope[j] = sg[j] * (1.0f + a[j] * (1.0f - sg[j]));
        d[j] = d[j] * gy[j];
        p[j] = d[j] * ((silu[j] * b[j]) * inv);
      }
      arb_store_shared(product_at, p);
    }
    meet();
    if (warp == 0) {
      const float mean = arb_divf(arb_row_sum_shared(product, width, lane), (float)width);
      if (lane == 0) row_mean[group] = mean;
    }
    meet();
    const float mean = row_mean[group];
    {
      float gu[ARB_CHUNK], gv[ARB_CHUNK];
      arb_load8<true>(gain_w, i, width, gu);
      arb_load8<true>(gain_w, width + i, width, gv);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        const float xhat = (silu[j] * b[j]) * inv;
        const float dx = inv * (d[j] - xhat * mean);
        d[j] = ((dx * b[j]) * slope[j]) * gu[j];
        b[j] = (dx * silu[j]) * gv[j];
      }
    }
    uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(arb_max_abs(arb_chunk_most(d), arb_chunk_most(b))));
    if (lane == 0) part[group][warp] = bits;
    meet();
    bits = __reduce_max_sync(ARB_CUDA_FULL, lane < warps ? part[group][lane] : 0u);
    if (place_in == 0) arb_gradient_scale_to(w, to_scale, bits);
    const float unit = arb_gradient_unit(bits);
    const uint32_t counter = arb_gradient_counter(w, place.position) + (uint32_t)i / 8, grain = arb_walk_grain(w, place);
    uint2 out_u = make_uint2(0, 0), out_v = make_uint2(0, 0);
    if (unit != 0.0f) {
      out_u = arb_round8(d, unit, arb_philox(key, counter, w.tensor, step, grain));
      out_v = arb_round8(b, unit, arb_philox(key, counter + (uint32_t)each, w.tensor, step, grain));
    }
    *reinterpret_cast<uint2 *>(to) = out_u;
    *reinterpret_cast<uint2 *>(to + width) = out_v;
    /* `part` is written again only after the next row's two meetings, `product` after this row's sum */
  }
}

#endif
