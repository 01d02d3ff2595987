/* The gated unit, norm(silu(u) * v) quantised, for aligned rows of whole chunks; glu_backward.cuh is the way back. */
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

#endif
