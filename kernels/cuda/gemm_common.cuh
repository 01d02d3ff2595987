/* What the GEMM kernels share: argument structures, trits of four codes at once, the epilogues' arithmetic. */
#ifndef ARB_KERNELS_CUDA_GEMM_COMMON_CUH
#define ARB_KERNELS_CUDA_GEMM_COMMON_CUH

#include "kernels/common/philox.h"
#include "kernels/common/scale.h"
#include "kernels/common/trit.h"
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

/* Trits of two state bytes that lie in the low halves of 16 bits each: (3 c + 2) / 256 - 1 in the high halves, as int8. A carry
 * out of the lower one adds 1 to the upper 3 c + 2, which changes no trit; 255 is illegal. */
__device__ __forceinline__ uint32_t arb_trit_pair(uint32_t c) { return c * 3u + 0xff02ff02u; }
/* The first and third of four state bytes for arb_trit_pair, and the second and fourth. */
__device__ __forceinline__ uint32_t arb_even_bytes(uint32_t c) { return c & 0x00ff00ffu; }
__device__ __forceinline__ uint32_t arb_odd_bytes(uint32_t c) { return __byte_perm(c, 0, 0x4341); }

/* Trits of four state bytes. */
__device__ __forceinline__ uint32_t arb_trits4(uint32_t c) {
  return __byte_perm(arb_trit_pair(arb_even_bytes(c)), arb_trit_pair(arb_odd_bytes(c)), 0x7351);
}

/* 4x4 bytes: row[i] holds bytes i0 i1 i2 i3; out[j] = 0j 1j 2j 3j. */
__device__ __forceinline__ void arb_transpose4(uint32_t r[4]) {
  const uint32_t a = __byte_perm(r[0], r[1], 0x5140), b = __byte_perm(r[2], r[3], 0x5140);
  const uint32_t c = __byte_perm(r[0], r[1], 0x7362), d = __byte_perm(r[2], r[3], 0x7362);
  r[0] = __byte_perm(a, b, 0x5410);
  r[1] = __byte_perm(a, b, 0x7632);
  r[2] = __byte_perm(c, d, 0x5410);
  r[3] = __byte_perm(c, d, 0x7632);
}

/* Vote scale of row n in grain g (local number); 0 makes every vote 0, which is what a grain without a scale casts. */
__device__ __forceinline__ float arb_row_vote_scale(const arb_vote_args &v, int32_t g, int32_t n) {
  const int32_t c = v.cexp[g];
  return c == ARB_NO_SCALE ? 0.0f : arb_vote_scale(c - v.p[n]);
}

/* A vote in the low byte; what lies above it is of no meaning. arb_stochastic_round for |x| < 2^22: added downwards, the
 * constant leaves floor(x), whose low bits are an integer's; unit = (draw + 1/2) 2^-16. No NaN comes here: d * scale is finite.
 */
__device__ __forceinline__ uint32_t arb_vote_byte(int32_t d, float scale, float vmax, float unit) {
  const float x = fminf(fmaxf((float)d * scale, -vmax), vmax);
  const float t = __fadd_rd(x, 0x1.8p23f), rest = x - (t - 0x1.8p23f);
  return arb_bits_of_f32(t) + (unit < rest ? 1u : 0u);
}
/* (draw + 1/2) 2^-16, read off a mantissa, for the lower or the upper draw of a pair. */
__device__ __forceinline__ float arb_vote_unit(uint32_t pair, int upper) {
  return arb_f32_of_bits(((upper ? pair >> 9 : pair << 7) & 0x7fff80u) | 0x3f800040u) - 1.0f;
}
__device__ __forceinline__ int arb_vote(int32_t d, float scale, float vmax, uint32_t draw) {
  return (int8_t)arb_vote_byte(d, scale, vmax, arb_vote_unit(draw, 0));
}

#endif
