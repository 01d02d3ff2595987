/* op      a warp's sums of the Hopper products to memory: out = bf16((acc * scale[row]) * gain[col]), dx without gains
 * shapes  16 rows, a multiple of 64 columns; what the output's map does not hold is left out
 * layout  sums as wgmma leaves them; lines of 128 bytes, swizzled, in shared memory on their way to bulk copies
 * source  PTX ISA, stmatrix and cp.async.bulk.tensor */
#ifndef ARB_KERNELS_CUDA_GEMM_LINES_CUH
#define ARB_KERNELS_CUDA_GEMM_LINES_CUH

#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/gemm_ptx.cuh"

namespace arb_lines {

/* A box of the output's map, and the two places of one that a warp has in shared memory, at a multiple of 1024. */
constexpr int COLS = 64, ROWS = 16, BOX_BYTES = 2 * COLS * ROWS, WARP_BYTES = 2 * BOX_BYTES;

#if ARB_HAVE_WGMMA
using namespace arb_ptx;

/* The column whose gain lies at this place: of each 16 a thread's four are side by side, 2 t, 2 t + 1, 2 t + 8, 2 t + 9. */
__device__ __forceinline__ int32_t gain_col(int32_t place) {
  return (place & ~15) + 2 * (place / 4 % 4) + 8 * (place / 2 % 2) + place % 2;
}

__device__ __forceinline__ uint32_t pack(int32_t a, int32_t b, float s, float u, float v, bool forward) {
  const float x = (float)a * s, y = (float)b * s;
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(forward ? y * v : y), "f"(forward ? x * u : x));
  return r;
}

/* A warp's 16 x WIDTH sums to memory, 64 columns at a time through two places of 2 KB by turns; gains: where the lane's lie in
 * shared memory. A finite row scale gives no NaN, so the chip's rounding to bf16 is the contract's; its NaN, which no number
 * gives, is another one. */
template <int WIDTH, bool FORWARD, bool NANS>
__device__ __forceinline__ void store(const CUtensorMap *map, uint32_t out, uint32_t gains, int32_t row, int32_t col, int lane,
                                      const int32_t (&acc)[WIDTH / 2], float s0, float s1) {
  const int r = lane % 16;
  uint32_t gain[8][4];
  if (FORWARD) {
#pragma unroll
    for (int p = 0; p < 8; p++) load_shared(gain[p], gains + 64 * p);
  }
#pragma unroll
  for (int box = 0; box < WIDTH / COLS; box++) {
    const uint32_t at = out + box % 2 * BOX_BYTES;
    if (lane == 0) stores_read<1>(); /* the one before the last has left this place */
    __syncwarp();
#pragma unroll
    for (int p = 0; p < 4; p++) { /* 16 columns each */
      const int32_t *a = acc + 32 * box + 8 * p;
      uint32_t(&g)[4] = gain[4 * (box % 2) + p];
      const float u[4] = {arb_f32_of_bits(g[0]), arb_f32_of_bits(g[1]), arb_f32_of_bits(g[2]), arb_f32_of_bits(g[3])};
      uint32_t w[4] = {pack(a[0], a[1], s0, u[0], u[1], FORWARD), pack(a[2], a[3], s1, u[0], u[1], FORWARD),
                       pack(a[4], a[5], s0, u[2], u[3], FORWARD), pack(a[6], a[7], s1, u[2], u[3], FORWARD)};
      if (NANS) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          if ((w[i] & 0xffffu) == 0x7fffu) w[i] ^= 0x3fu;
          if (w[i] >> 16 == 0x7fffu) w[i] ^= 0x3f0000u;
        }
      }
      store_matrices(at + 128 * r + 16 * ((2 * p + lane / 16) ^ (r & 7)), w);
      if (FORWARD && box + 2 < WIDTH / COLS) load_shared(g, gains + 64 * (4 * box + 8 + p));
    }
    fence_async();
    __syncwarp();
    if (lane == 0) {
      store_2d(map, at, 2 * (col + COLS * box), row);
      store_commit();
    }
  }
}

template <int WIDTH, bool FORWARD>
__device__ __forceinline__ void store(const CUtensorMap *map, uint32_t out, uint32_t gains, int32_t row, int32_t col, int lane,
                                      const int32_t (&acc)[WIDTH / 2], float s0, float s1) {
  const float most = arb_f32_of_bits(ARB_F32_INF_BITS);
  if (__any_sync(0xffffffffu, !(arb_fabsf(s0) < most && arb_fabsf(s1) < most)))
    store<WIDTH, FORWARD, true>(map, out, gains, row, col, lane, acc, s0, s1);
  else
    store<WIDTH, FORWARD, false>(map, out, gains, row, col, lane, acc, s0, s1);
}
#endif

}  // namespace arb_lines

#endif
