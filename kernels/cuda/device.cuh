/* What kernels share: sums in the one order of docs/arithmetic.md, groups of four elements, draws.
 * Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_DEVICE_CUH
#define ARB_KERNELS_CUDA_DEVICE_CUH

#include "kernels/common/math.h"
#include "kernels/common/words.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/sigmoid.cuh"

#define ARB_CUDA_FULL 0xffffffffu

/* Lanes combine by xor 16, 8, 4, 2, 1; every lane gets the sum. */
static __device__ __forceinline__ float arb_warp_sum(float v) {
#pragma unroll
  for (int o = 16; o > 0; o /= 2) v += __shfl_xor_sync(ARB_CUDA_FULL, v, o);
  return v;
}

/* Sum of a row in shared memory: lane j adds elements j, j + 32, ... from +0, then lanes combine. */
static __device__ __forceinline__ float arb_row_sum_shared(const float *x, int width, int lane) {
  float sum = 0.0f, t[8];
  int i = lane;
  for (; i + 7 * 32 < width; i += 8 * 32) { /* eight loads at a time */
#pragma unroll
    for (int j = 0; j < 8; j++) t[j] = x[i + 32 * j];
#pragma unroll
    for (int j = 0; j < 8; j++) sum += t[j];
  }
#pragma unroll
  for (int j = 0; j < 7; j++) t[j] = i + 32 * j < width ? x[i + 32 * j] : 0.0f;
#pragma unroll
  for (int j = 0; j < 7; j++)
    if (i + 32 * j < width) sum += t[j];
  return arb_warp_sum(sum);
}

static __device__ __forceinline__ float arb_row_square_sum_shared(const float *x, int width, int lane) {
  float sum = 0.0f;
#pragma unroll 8
  for (int i = lane; i < width; i += 32) {
    const float square = x[i] * x[i];
    sum += square;
  }
  return arb_warp_sum(sum);
}

/* arb_bf16_of_f32 of N floats, N even, in pairs (the first of a pair in the low half). The chip's conversion rounds alike, but
 * its NaN is 0x7fff, which no number gives; checked for every float. */
template <int N>
static __device__ __forceinline__ void arb_bf16_pairs(const float *v, uint32_t *w) {
  uint32_t most = 0x80008000u; /* of the halves as signed integers */
#pragma unroll
  for (int j = 0; j < N / 2; j++) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w[j]) : "f"(v[2 * j + 1]), "f"(v[2 * j]));
    most = __vmaxs2(most, w[j]);
  }
  if ((most & 0xffffu) != 0x7fffu && most >> 16 != 0x7fffu) return;
#pragma unroll
  for (int j = 0; j < N / 2; j++) {
    if ((w[j] & 0xffffu) == 0x7fffu) w[j] ^= 0x3fu;
    if (w[j] >> 16 == 0x7fffu) w[j] ^= 0x3f0000u;
  }
}

/* Elements i .. i + 3 of a row; past its end 0. V: rows are aligned for one wide access and have a multiple of 4 elements. */
template <bool V>
static __device__ __forceinline__ void arb_load4(const float *row, int i, int width, float v[4]) {
  if (V) {
    const float4 t = *reinterpret_cast<const float4 *>(row + i);
    v[0] = t.x, v[1] = t.y, v[2] = t.z, v[3] = t.w;
  } else {
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] = i + j < width ? row[i + j] : 0.0f;
  }
}

template <bool V>
static __device__ __forceinline__ void arb_load4(const uint16_t *row, int i, int width, float v[4]) {
  if (V) {
    const uint2 t = *reinterpret_cast<const uint2 *>(row + i);
    v[0] = arb_f32_of_bits(t.x << 16), v[1] = arb_f32_of_bits(t.x & 0xffff0000u);
    v[2] = arb_f32_of_bits(t.y << 16), v[3] = arb_f32_of_bits(t.y & 0xffff0000u);
  } else {
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] = i + j < width ? arb_f32_of_bf16(row[i + j]) : 0.0f;
  }
}

/* One 16-byte store to global memory, written out because the compiler may split an ordinary one of four known floats. */
static __device__ __forceinline__ void arb_store_wide(float *to, float a, float b, float c, float d) {
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "f"(a), "f"(b), "f"(c), "f"(d)
               : "memory");
}

/* Eight to shared memory at an address of that window, written out for the same reason. */
static __device__ __forceinline__ uint32_t arb_shared_at(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }
static __device__ __forceinline__ void arb_store_shared(uint32_t to, const float v[8]) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
  asm volatile("st.shared.v4.f32 [%0 + 16], {%1, %2, %3, %4};" ::"r"(to), "f"(v[4]), "f"(v[5]), "f"(v[6]), "f"(v[7])
               : "memory");
}

template <bool V>
static __device__ __forceinline__ void arb_store4(float *row, int i, int width, const float v[4]) {
  if (V) {
    arb_store_wide(row + i, v[0], v[1], v[2], v[3]);
  } else {
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (i + j < width) row[i + j] = v[j];
  }
}

/* Four values rounded to bf16; V: one 8-byte store. */
template <bool V>
static __device__ __forceinline__ void arb_store4(uint16_t *row, int i, int width, const float v[4]) {
  if (V) {
    uint32_t w[2];
    arb_bf16_pairs<4>(v, w);
    *reinterpret_cast<uint2 *>(row + i) = make_uint2(w[0], w[1]);
  } else {
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (i + j < width) row[i + j] = arb_bf16_of_f32(v[j]);
  }
}

/* The same to shared memory, which is always padded. */
static __device__ __forceinline__ void arb_store4_shared(float *row, int i, const float v[4]) {
  *reinterpret_cast<float4 *>(row + i) = make_float4(v[0], v[1], v[2], v[3]);
}

/* max(m, |x|), and a NaN when either is one. */
static __device__ __forceinline__ float arb_max_abs(float m, float x) {
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(m), "f"(fabsf(x)));
  return r;
}

/* arb_clamp as two instructions: a NaN becomes the limit. */
static __device__ __forceinline__ float arb_clamp_fast(float x, float limit) { return fmaxf(fminf(x, limit), -limit); }

static __device__ __forceinline__ uint32_t arb_half_of(const arb_philox_block &b, int j) {
  return (b.v[j >> 1] >> (16 * (j & 1))) & 0xffffu;
}

/* q[width] and s of a row y in shared memory whose largest magnitude has these bits; by one warp. */
template <bool V>
static __device__ __forceinline__ void arb_quantise_row(const float *y, int width, uint32_t bits, int lane, int8_t *q, float *s,
                                                        int *nonfinite) {
  const float a = arb_f32_of_bits(bits);
  const bool zero = bits >= ARB_F32_INF_BITS || a < ARB_TINY;
  const float inv = zero ? 0.0f : arb_divf(127.0f, a);
  if (lane == 0) {
    if (bits >= ARB_F32_INF_BITS) *nonfinite = 1;
    *s = zero ? 0.0f : arb_divf(a, 127.0f);
  }
#pragma unroll 4
  for (int i = 4 * lane; i < width; i += 128) {
    uint32_t b[4];
#pragma unroll
    for (int j = 0; j < 4; j++) b[j] = zero ? 0u : arb_round_byte(arb_clamp_fast(y[i + j] * inv, 127.0f));
    if (V) {
      *reinterpret_cast<uint32_t *>(q + i) = arb_pack4(b);
    } else {
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (i + j < width) q[i + j] = (int8_t)b[j];
    }
  }
}

/* 2^(e/8) of a row into shared memory, by the whole block, padded with 1 to a multiple of 4. */
static __device__ __forceinline__ void arb_gains_shared(const int8_t *e, int width, float *gain) {
  for (int i = (int)threadIdx.x; i < ((width + 3) & ~3); i += (int)blockDim.x)
    gain[i] = i < width ? arb_pow2_eighths(e[i]) : 1.0f;
  __syncthreads();
}

/* mean square -> 1 / rms */
static __device__ __forceinline__ float arb_inv_rms(float sum, int width) {
  const float mean = arb_divf(sum, (float)width);
  return arb_divf(1.0f, arb_sqrtf(mean + 1e-6f));
}

/* Row kernels: a warp a row, blocks of `warps` warps that walk over rows; `buffers` rows of shared memory a warp and one for
 * the gains. */
typedef struct {
  int warps;
  size_t shared;
  unsigned grid;
} arb_row_shape;

static inline arb_status arb_cuda_row_shape(const arb_cuda *c, int64_t m, int64_t width, int buffers, arb_row_shape *out) {
  const size_t row = (size_t)((width + 3) & ~(int64_t)3) * sizeof(float);
  int warps = 4;
  while (warps > 1 && (size_t)(1 + warps * buffers) * row > c->shared_block) warps /= 2;
  const size_t shared = (size_t)(1 + warps * buffers) * row;
  ARB_REQUIRE(shared <= c->shared_block, ARB_ERR_UNSUPPORTED, "rows of %lld elements do not fit this GPU's shared memory",
              (long long)width);
  int64_t resident = (int64_t)(c->shared_multiprocessor / (shared + 1024));
  resident = resident > 48 / warps ? 48 / warps : (resident < 1 ? 1 : resident);
  out->warps = warps;
  out->shared = shared;
  out->grid = arb_cuda_grid(c, m, warps, resident);
  return ARB_OK;
}

#endif
