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

/* A thread's gains: [half of a chunk][thread]. */
static __device__ __forceinline__ void arb_gains_of(const float4 *from, int threads, float v[ARB_CHUNK]) {
  const float4 a = from[0], b = from[threads];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

/* x = silu(u) * v: the norm's backward gives dx; du = (dx * v) * silu'(u), dv = dx * silu(u), silu'(u) = sg * (1 + u * (1 -
 * sg)); [du, dv] leaves as gradient rows of the stack that made [u, v]. A group of WARPS warps (0: of `warps_in`) a row, a
 * thread a chunk of u and of v. AHEAD rows' chunks wait in shared memory, each for the thread that copied it there, so that a
 * thread needs few registers and a multiprocessor holds many. One warp of the group sums. Groups of a block, at most 15, have
 * nothing in common but the tables. */
#define ARB_GLU_GROUPS 15    /* named barriers besides the block's own */
#define ARB_GLU_THREADS 1024 /* most of a block */

/* Shared memory: the table of the sigmoid, a group's gains (of the norm, of u, of v), then for each group products and rows. */
static inline size_t arb_glu_shared(int width, int warps, int ahead, int groups) {
  const size_t chunk = 32 * (size_t)warps * sizeof(uint4);
  return ARB_SIGMOID_BYTES + 6 * chunk + (size_t)groups * ((size_t)width * sizeof(float) + 3 * chunk * (size_t)ahead);
}

template <int WARPS, int AHEAD>
static __global__ void __launch_bounds__(ARB_GLU_THREADS, 1)
    glu_backward_kernel(int m, int width, int warps_in, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v,
                        int64_t ldz, const float *__restrict__ inv_in, const int8_t *__restrict__ e,
                        const uint16_t *__restrict__ dy, const __grid_constant__ arb_gradient w) {
  extern __shared__ float4 shared[];
  __shared__ float row_mean[ARB_GLU_GROUPS];
  __shared__ uint32_t part[ARB_GLU_GROUPS][32];
  const int warps = WARPS ? WARPS : warps_in, threads = 32 * warps;
  const int lane = threadIdx.x & 31, group = (int)threadIdx.x / threads, groups = (int)blockDim.x / threads;
  const int place_in = (int)threadIdx.x - group * threads, warp = place_in >> 5;
  const bool adds = warp == group % warps; /* of several groups not all on one scheduler */
  /* threads past the last chunk do it too: the same bytes to the same places */
  const int each = width / ARB_CHUNK, chunk = min(place_in, each - 1), i = ARB_CHUNK * chunk;
  const char *table = reinterpret_cast<const char *>(shared);
  float4 *gains = shared + ARB_SIGMOID_BYTES / 16 + place_in; /* [norm, u, v][half of a chunk][thread] */
  float *product = reinterpret_cast<float *>(shared + ARB_SIGMOID_BYTES / 16 + 6 * threads) + group * width;
  uint4 *row = reinterpret_cast<uint4 *>(product - group * width + groups * width) + group * 3 * AHEAD * threads + place_in;
  const int stride = (int)gridDim.x * groups, first = (int)blockIdx.x * groups + group;
  auto meet = [&]() { asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(threads) : "memory"); };
  const uint32_t product_at = arb_shared_at(product + i);
  u += i, v += i, dy += i;
  int8_t *to = w.hq + i;
  const uint32_t bytes_z = 2 * (uint32_t)ldz, bytes_d = 2 * (uint32_t)width; /* of a row; one instruction finds a row by them */
  auto fetch = [&](int turn, uint4 *where) {
    if (turn < m) {
      const uint64_t from = (uint32_t)arb_row_down(turn, m);
      arb_copy_aside(where, reinterpret_cast<const char *>(u) + from * bytes_z);
      arb_copy_aside(where + threads, reinterpret_cast<const char *>(v) + from * bytes_z);
      arb_copy_aside(where + 2 * threads, reinterpret_cast<const char *>(dy) + from * bytes_d);
    }
    arb_copies_sent();
  };
#pragma unroll
  for (int k = 0; k < AHEAD; k++) fetch(first + k * stride, row + k * 3 * threads);
  arb_sigmoid_fill(reinterpret_cast<char *>(shared));
  const uint32_t step = w.step->step;
  const arb_philox_key key = arb_philox_key_of(w.step->seed, ARB_DRAW_DX);
  if (group == 0) {
#pragma unroll
    for (int k = 0; k < 3; k++) {
      float t[ARB_CHUNK];
      arb_chunk_gains<true>(k == 0 ? e : w.e, k == 2 ? width + i : i, w.n, t);
      gains[(2 * k) * threads] = make_float4(t[0], t[1], t[2], t[3]);
      gains[(2 * k + 1) * threads] = make_float4(t[4], t[5], t[6], t[7]);
    }
  }
  arb_row_walk place = arb_walk_from(w, first < m ? arb_row_down(first, m) : 0, stride);
  __syncthreads();
  float next_inv = first < m ? inv_in[arb_row_down(first, m)] : 0.0f;
  int parity = 0;
  for (int turn = first; turn < m; turn += stride) {
    const float inv = next_inv;
    if (turn + stride < m) next_inv = inv_in[arb_row_down(turn + stride, m)];
    float sg[ARB_CHUNK], d[ARB_CHUNK], b[ARB_CHUNK];
    arb_copies_wait<AHEAD - 1>();
    {
      const uint4 ru = row[0], rv = row[threads], rd = row[2 * threads];
      const uint32_t wu[4] = {ru.x, ru.y, ru.z, ru.w}, wv[4] = {rv.x, rv.y, rv.z, rv.w}, wd[4] = {rd.x, rd.y, rd.z, rd.w};
      float p[ARB_CHUNK], gy[ARB_CHUNK];
      arb_gains_of(gains, threads, gy);
      arb_sigmoid_eight<false>(table, wu, sg);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        const float silu = arb_word_half(wu, j) * sg[j];
        d[j] = arb_word_half(wd, j) * gy[j];
        p[j] = d[j] * ((silu * arb_word_half(wv, j)) * inv);
      }
      arb_store_shared(product_at, p);
    }
    meet();
    if (adds) {
      const float mean = arb_divf(arb_row_sum_shared(product, width, lane), (float)width);
      if (lane == 0) row_mean[group] = mean;
    }
    meet();
    const float mean = row_mean[group];
    {
      const uint4 ru = arb_read_again(row), rv = arb_read_again(row + threads);
      const uint32_t wu[4] = {ru.x, ru.y, ru.z, ru.w}, wv[4] = {rv.x, rv.y, rv.z, rv.w};
      float gu[ARB_CHUNK], gv[ARB_CHUNK];
      arb_gains_of(gains + 2 * threads, threads, gu);
      arb_gains_of(gains + 4 * threads, threads, gv);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        const float a = arb_word_half(wu, j), x = arb_word_half(wv, j), silu = a * sg[j];
        const float slope = sg[j] * (1.0f + a * (1.0f - sg[j]));
        const float xhat = (silu * x) * inv;
        const float dx = inv * (d[j] - xhat * mean);
        d[j] = ((dx * x) * slope) * gu[j];
        b[j] = (dx * silu) * gv[j];
      }
    }
    uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(arb_max_abs(arb_chunk_most(d), arb_chunk_most(b))));
    if (lane == 0) part[group][warp] = bits;
    meet();
    fetch(turn + AHEAD * stride, row);
    if (AHEAD == 2) row += parity ? -3 * threads : 3 * threads, parity ^= 1;
    bits = __reduce_max_sync(ARB_CUDA_FULL, lane < warps ? part[group][lane] : 0u);
    const uint32_t at = (uint32_t)arb_row_down(turn, m);
    if (place_in == 0) arb_gradient_scale_to(w, w.sh + at, bits);
    const float unit = arb_gradient_unit(bits);
    const uint32_t counter = arb_gradient_counter(w, place.position) + (uint32_t)chunk, grain = arb_walk_grain(w, place);
    uint2 out_u = make_uint2(0, 0), out_v = make_uint2(0, 0);
    if (unit != 0.0f) {
      out_u = arb_round8(d, unit, arb_philox(key, counter, w.tensor, step, grain));
      out_v = arb_round8(b, unit, arb_philox(key, counter + (uint32_t)each, w.tensor, step, grain));
    }
    int8_t *out = to + (uint64_t)at * bytes_d;
    *reinterpret_cast<uint2 *>(out) = out_u;
    *reinterpret_cast<uint2 *>(out + width) = out_v;
    arb_walk_on(w, place);
    /* `part` is written again only after the next row's two meetings, `product` after this row's sum */
  }
}

#endif
