/* The memory's gate, norm(h) * sigmoid(zg) quantised, and its backward pass, for aligned rows of more than 256 * (G - 1) and at
 * most 256 * G elements in whole chunks. A warp a row, which it keeps in registers; what is summed passes through shared
 * memory. */
#ifndef ARB_KERNELS_CUDA_GATE_CUH
#define ARB_KERNELS_CUDA_GATE_CUH

#include "kernels/cuda/gradient.cuh"

template <int G, int WARPS>
static __global__ void __launch_bounds__(32 * WARPS, 1)
    gate_forward_kernel(int64_t m, int width, const float *__restrict__ h, const uint16_t *__restrict__ zg, int64_t ldz,
                        const int8_t *__restrict__ e, int8_t *__restrict__ q, float *__restrict__ s,
                        float *__restrict__ inv_out, int *nonfinite) {
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
    uint4 wz[G];
    const float *from = h + row * width;
    const uint16_t *from_z = zg + row * ldz;
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = c < G - 1 ? ARB_CHUNK * (lane + 32 * c) : last;
      arb_load8_last(from + i, a[c]);
      wz[c] = arb_load_last(reinterpret_cast<const uint4 *>(from_z + i));
    }
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = c < G - 1 ? ARB_CHUNK * (lane + 32 * c) : last;
      float p[ARB_CHUNK];
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) p[j] = a[c][j] * a[c][j];
      arb_store_shared(square_at + 4 * i, p);
    }
    __syncwarp();
    const float inv = arb_inv_rms(arb_row_sum_shared(square, width, lane), width);
    float most = 0.0f;
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = c < G - 1 ? ARB_CHUNK * (lane + 32 * c) : last;
      const uint32_t z[4] = {wz[c].x, wz[c].y, wz[c].z, wz[c].w};
      float w[ARB_CHUNK], sg[ARB_CHUNK];
      arb_load8<true>(gain, i, width, w);
      arb_sigmoid_eight<true>(table, z, sg);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) a[c][j] = ((a[c][j] * inv) * w[j]) * sg[j];
      most = arb_max_abs(most, arb_chunk_most(a[c]));
    }
    if (lane == 0) inv_out[row] = inv;
    arb_quantise_chunks<G>(a, most, lane, last, q + row * width, s + row, nonfinite);
    __syncwarp();
  }
}

/* o = r * sg, r = norm(h), sg = sigmoid(zg): dzg = (dy * r) * (sg * (1 - sg)), dr = dy * sg, then the norm's backward of dr. */
template <int G, int WARPS>
static __global__ void __launch_bounds__(32 * WARPS, 1)
    gate_backward_kernel(int64_t m, int width, const float *__restrict__ h, const uint16_t *__restrict__ zg, int64_t ldz,
                         const float *__restrict__ inv_in, const int8_t *__restrict__ e, const uint16_t *__restrict__ dy,
                         uint16_t *__restrict__ dh, uint16_t *__restrict__ dzg, int64_t lddz) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const char *table = reinterpret_cast<const char *>(shared);
  float *gain = reinterpret_cast<float *>(shared) + ARB_SIGMOID_BYTES / 4, *product = gain + width * (1 + warp);
  arb_sigmoid_fill(reinterpret_cast<char *>(shared));
  const uint32_t product_at = arb_shared_at(product);
  /* lanes past the last chunk do it too: the same bytes to the same places */
  const int last = min(ARB_CHUNK * (lane + 32 * (G - 1)), width - ARB_CHUNK);
  arb_gains_shared(e, width, gain);
  for (int64_t turn = (int64_t)blockIdx.x * warps + warp; turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const int64_t at = row * width, at_z = row * ldz;
    const float inv = inv_in[row];
    float x[G][ARB_CHUNK], d[G][ARB_CHUNK];
    uint4 wz[G], wd[G];
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = c < G - 1 ? ARB_CHUNK * (lane + 32 * c) : last;
      arb_load8<true>(h + at, i, width, x[c]);
      wz[c] = arb_load_last(reinterpret_cast<const uint4 *>(zg + at_z + i));
      wd[c] = arb_load_last(reinterpret_cast<const uint4 *>(dy + at + i));
    }
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = c < G - 1 ? ARB_CHUNK * (lane + 32 * c) : last;
      const uint32_t z[4] = {wz[c].x, wz[c].y, wz[c].z, wz[c].w}, y[4] = {wd[c].x, wd[c].y, wd[c].z, wd[c].w};
      float w[ARB_CHUNK], sg[ARB_CHUNK], p[ARB_CHUNK], o[ARB_CHUNK];
      arb_load8<true>(gain, i, width, w);
      arb_sigmoid_eight<true>(table, z, sg);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        const float g = arb_word_half(y, j);
        x[c][j] = x[c][j] * inv;
        o[j] = (g * (x[c][j] * w[j])) * (sg[j] * (1.0f - sg[j]));
        d[c][j] = (g * sg[j]) * w[j];
        p[j] = d[c][j] * x[c][j];
      }
      arb_store_shared(product_at + 4 * i, p);
      arb_store8(dzg + row * lddz + i, o);
    }
    __syncwarp();
    const float mean = arb_divf(arb_row_sum_shared(product, width, lane), (float)width);
#pragma unroll
    for (int c = 0; c < G; c++) {
      const int i = c < G - 1 ? ARB_CHUNK * (lane + 32 * c) : last;
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) d[c][j] = inv * (d[c][j] - x[c][j] * mean);
      arb_store8(dh + at + i, d[c]);
    }
    __syncwarp();
  }
}

#endif
