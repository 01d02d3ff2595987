/* What the GEMM kernels share: argument structures, the epilogues' arithmetic. */
#ifndef ARB_KERNELS_CUDA_GEMM_COMMON_CUH
#define ARB_KERNELS_CUDA_GEMM_COMMON_CUH

#include "kernels/common/words.h"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/gemm.h"

/* Arguments of the vote epilogue, by value. */
struct arb_vote_args {
  int64_t n, k, rows_per_grain;
  int32_t grains, first, stride;
  const int32_t *cexp; /* [grains] */
  const int8_t *p;
  const arb_cuda_step *step;
  int8_t *votes;
  arb_vote_groups groups;
  float vmax;
  uint32_t tensor;
};

/* First unit of share i of `shares` equal ones. */
__host__ __device__ __forceinline__ int32_t arb_share(int32_t units, int32_t i, int32_t shares) {
  return (int32_t)((int64_t)units * i / shares);
}
/* The share that holds a unit. */
__device__ __forceinline__ int32_t arb_share_of(int32_t units, int32_t unit, int32_t shares) {
  int32_t i = (int32_t)((int64_t)unit * shares / units);
  while (arb_share(units, i + 1, shares) <= unit) i++;
  return i;
}

/* Vote scale of row n in grain g (local number); 0 makes every vote 0, which is what a grain without a scale casts. */
__device__ __forceinline__ float arb_row_vote_scale(const arb_vote_args &v, int32_t g, int32_t n) {
  const int32_t c = v.cexp[g];
  return c == ARB_NO_SCALE ? 0.0f : arb_vote_scale(c - v.p[n]);
}

__device__ __forceinline__ int arb_vote(int32_t d, float scale, float vmax, uint32_t draw) {
  return (int8_t)arb_vote_byte(d, scale, vmax, arb_draw_unit(draw, 0));
}

#endif
