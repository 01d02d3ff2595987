/* op      operands of the Hopper products: state bytes -> trits, padded copies, gains
 * shapes  code [n][k] -> trits [n][ld] or transposed [k][ld]; bytes [rows][width] -> [rows][ld]
 * layout  ld is a multiple of 16 bytes (bulk copies need it); the padding is never read, rows beyond the last neither matter.
 *         Rows of trits are permuted (permuted_row32) for the kernels that store from registers, inputs of dW by permuted_row16
 * work    a few integer operations a byte
 * bytes   each read once and written once
 * determinism  copies
 * source  own */
#ifndef ARB_KERNELS_CUDA_GEMM_PREP_CUH
#define ARB_KERNELS_CUDA_GEMM_PREP_CUH

#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/gemm_ptx.cuh"

namespace arb_prep {

constexpr int THREADS = 256;

/* Accumulator position of logical column r. Thread t of a quad holds positions 8 j + 2 t + b, b < 2. For bf16 outputs those of
 * j < 4 become its columns 8 t + 2 j + b of each 32, for votes those of j < 2 its columns 4 t + 2 j + b of each 16. */
__device__ __forceinline__ int32_t permuted_row32(int32_t r) {
  return (r & ~31) | (((r >> 1) & 3) << 3) | (((r >> 3) & 3) << 1) | (r & 1);
}
__device__ __forceinline__ int32_t permuted_row16(int32_t r) {
  return (r & ~15) | (((r >> 1) & 1) << 3) | (((r >> 2) & 3) << 1) | (r & 1);
}

/* trits [n][ld], rows permuted where asked, and gain[n] = 2^(e[n] / 8). One block a group of rows; a thread 16 codes. */
static __global__ void __launch_bounds__(THREADS)
    expand(int32_t n, int32_t k, int32_t ld, const uint8_t *code, const int8_t *e, uint8_t *trits, float *gain, bool permute) {
  arb_next_may_start();
  arb_previous_done();
  const int64_t pieces = ld / 16, total = (int64_t)n * pieces;
  const bool wide = (k & 15) == 0 && ((uintptr_t)code & 15) == 0;
  const int64_t id = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  for (int64_t i = id; i < n; i += (int64_t)gridDim.x * THREADS) gain[i] = arb_pow2_eighths(e[i]);
  for (int64_t i = id; i < total; i += (int64_t)gridDim.x * THREADS) {
    const int32_t row = (int32_t)(i / pieces), at = 16 * (int32_t)(i - row * pieces);
    const uint8_t *from = code + (int64_t)row * k + at;
    uint4 x;
    if (wide)
      x = *reinterpret_cast<const uint4 *>(from);
    else {
      uint32_t w[4] = {0, 0, 0, 0};
      for (int j = 0; j < 16 && at + j < k; j++) w[j / 4] |= (uint32_t)from[j] << (8 * (j & 3));
      x = make_uint4(w[0], w[1], w[2], w[3]);
    }
    x = make_uint4(arb_trits4(x.x), arb_trits4(x.y), arb_trits4(x.z), arb_trits4(x.w));
    *reinterpret_cast<uint4 *>(trits + (int64_t)(permute ? permuted_row32(row) : row) * ld + at) = x;
  }
}

/* trits [k][ld over n], rows permuted where asked, and gains of 1. A block turns 128 rows n x 32 columns k through shared
 * memory. */
static __global__ void __launch_bounds__(THREADS)
    expand_transposed(int32_t n, int32_t k, int32_t ld, const uint8_t *code, uint8_t *trits, float *gain, bool permute) {
  __shared__ uint32_t tile[128][9];
  arb_next_may_start();
  arb_previous_done();
  if (blockIdx.y == 0 && threadIdx.x < 32) gain[blockIdx.x * 32 + threadIdx.x] = 1.0f;
  const int32_t n0 = (int32_t)blockIdx.y * 128, k0 = (int32_t)blockIdx.x * 32;
  const bool wide = (k & 3) == 0 && ((uintptr_t)code & 3) == 0;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int r = (int)threadIdx.x / 8 + 32 * i, c = (int)threadIdx.x % 8, left = k - (k0 + 4 * c);
    uint32_t w = 0;
    if (n0 + r < n && left > 0) {
      const uint8_t *from = code + (int64_t)(n0 + r) * k + k0 + 4 * c;
      if (wide)
        w = *reinterpret_cast<const uint32_t *>(from);
      else
        for (int j = 0; j < 4 && j < left; j++) w |= (uint32_t)from[j] << (8 * j);
    }
    tile[r][c] = arb_trits4(w);
  }
  __syncthreads();
  const int r = 4 * ((int)threadIdx.x % 32), c = (int)threadIdx.x / 32;
  if (n0 + r >= ld) return;
  uint32_t w[4];
  for (int j = 0; j < 4; j++) w[j] = tile[r + j][c];
  arb_transpose4(w);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const int32_t row = k0 + 4 * c + j;
    if (row < k) *reinterpret_cast<uint32_t *>(trits + (int64_t)(permute ? permuted_row32(row) : row) * ld + n0 + r) = w[j];
  }
}

/* to[rows][ld] = from[rows][width]; a thread 16 bytes. */
static __global__ void __launch_bounds__(THREADS)
    pad_rows(int64_t rows, int32_t width, int32_t ld, const int8_t *from, int8_t *to) {
  const int64_t pieces = ld / 16, total = rows * pieces;
  for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < total; i += (int64_t)gridDim.x * THREADS) {
    const int64_t row = i / pieces;
    const int32_t at = 16 * (int32_t)(i - row * pieces);
    const uint8_t *p = reinterpret_cast<const uint8_t *>(from) + row * width + at;
    uint32_t w[4] = {0, 0, 0, 0};
    for (int j = 0; j < 16 && at + j < width; j++) w[j / 4] |= (uint32_t)p[j] << (8 * (j & 3));
    *reinterpret_cast<uint4 *>(to + row * ld + at) = make_uint4(w[0], w[1], w[2], w[3]);
  }
}

}  // namespace arb_prep

#endif
