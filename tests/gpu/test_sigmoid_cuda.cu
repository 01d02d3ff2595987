/* The device's own sigmoids, reciprocal and units of gradient rows against kernels/common/math.h and the division, and its
 * conversion to bf16 against kernels/common/bits.h, for every float; the table of sigmoids for every bf16; and rounding to int8
 * for every draw. */
#include "kernels/cuda/glu_backward.cuh"
#include "tests/gpu/gpu_test.h"

/* All 2^32 patterns. */
static __global__ void sigmoid_kernel(unsigned long long *bad) {
  const uint64_t stride = (uint64_t)gridDim.x * blockDim.x;
  unsigned long long mine = 0;
  for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i >> 32 == 0; i += stride) {
    const float x = arb_f32_of_bits((uint32_t)i);
    const uint32_t want = arb_bits_of_f32(arb_sigmoidf(x));
    mine += arb_bits_of_f32(arb_sigmoid(x)) != want;
    const float several[2] = {1.0f, x}; /* the least of them decides for all */
    float y[2];
    arb_sigmoids<2>(several, y);
    mine += arb_bits_of_f32(y[1]) != want;
    if (i >= 0x3f800000u && i <= 0x40000000u)
      mine += arb_bits_of_f32(arb_reciprocal_1_2(x)) != arb_bits_of_f32(arb_divf(1.0f, x));
  }
  if (mine) atomicAdd(bad, mine);
}

/* Every largest magnitude of a row. */
static __global__ void unit_kernel(unsigned long long *bad) {
  unsigned long long mine = 0;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i <= 0x7fffffffu; i += gridDim.x * blockDim.x) {
    const float want = arb_gradient_unit(i);
    mine += arb_glu_rounds(i) != (want != 0.0f);
    mine += want != 0.0f && arb_bits_of_f32(arb_glu_unit(i)) != arb_bits_of_f32(want);
  }
  if (mine) atomicAdd(bad, mine);
}

/* Every bf16 in both halves of a word, beside others; with and without the care for NaNs. */
static __global__ void table_kernel(unsigned long long *bad) {
  extern __shared__ float4 shared[];
  const char *table = reinterpret_cast<const char *>(shared);
  arb_sigmoid_fill(reinterpret_cast<char *>(shared));
  __syncthreads();
  unsigned long long mine = 0;
  for (uint32_t z = threadIdx.x; z < 65536; z += blockDim.x) {
    const uint32_t other = (z * 40503u + blockIdx.x * 257u) & 0xffffu;
    const uint32_t w[4] = {z | other << 16, other | z << 16, z | z << 16, other};
    const uint16_t each[8] = {(uint16_t)z, (uint16_t)other, (uint16_t)other, (uint16_t)z,
                              (uint16_t)z, (uint16_t)z,     (uint16_t)other, 0};
    float careful[8], quick[8];
    arb_sigmoid_eight<true>(table, w, careful);
    arb_sigmoid_eight<false>(table, w, quick);
    for (int j = 0; j < 8; j++) {
      const float x = arb_f32_of_bf16(each[j]);
      mine += arb_bits_of_f32(careful[j]) != arb_bits_of_f32(arb_sigmoidf(x));
      mine += x == x && arb_bits_of_f32(quick[j]) != arb_bits_of_f32(arb_sigmoidf(x));
    }
  }
  if (mine) atomicAdd(bad, mine);
}

/* All 2^32 patterns in both places, beside others. */
static __global__ void bf16_kernel(unsigned long long *bad) {
  const uint64_t stride = (uint64_t)gridDim.x * blockDim.x;
  unsigned long long mine = 0;
  for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i >> 32 == 0; i += stride) {
    const float x = arb_f32_of_bits((uint32_t)i), y = arb_f32_of_bits((uint32_t)i * 0x9E3779B9u);
    const float v[4] = {x, y, y, x};
    const uint32_t a = arb_bf16_of_f32(x), b = arb_bf16_of_f32(y);
    uint32_t w[2], one;
    arb_bf16_pairs<4>(v, w);
    arb_bf16_pairs<2>(v, &one);
    mine += w[0] != (a | b << 16) || w[1] != (b | a << 16) || one != (a | b << 16);
  }
  if (mine) atomicAdd(bad, mine);
}

/* x = every multiple of 2^-12 in [-127, 127], a NaN at the end, and floats just beside; all 2^16 draws. */
static __global__ void round_kernel(unsigned long long *bad) {
  unsigned long long mine = 0;
  for (int i = -127 * 64 + (int)blockIdx.x; i <= 127 * 64; i += (int)gridDim.x)
    for (uint32_t r = threadIdx.x; r < 65536; r += blockDim.x) {
      for (int j = -1; j <= 1; j++) {
        const float base = (float)i * 0x1p-6f + ((float)r + 0.5f) * 0x1p-22f * (float)(i & 31);
        const float x = arb_clamp(arb_f32_of_bits(arb_bits_of_f32(base) + (uint32_t)j), 127.0f);
        const int8_t want = (int8_t)(int32_t)arb_stochastic_round(x, (uint16_t)r);
        mine += (int8_t)arb_stochastic_byte(x, arb_draw_unit(r, 0)) != want;
        mine += (int8_t)arb_stochastic_byte(x, arb_draw_unit(r << 16, 1)) != want;
        mine += (int8_t)arb_round_byte(x) != (int8_t)(int32_t)arb_rint_small(x);
        mine += arb_bits_of_f32(arb_clamp_fast(base * 1.1f, 127.0f)) != arb_bits_of_f32(arb_clamp(base * 1.1f, 127.0f));
      }
    }
  if (threadIdx.x == 0 && blockIdx.x == 0) {
    const float nan = arb_f32_of_bits(ARB_F32_NAN_BITS);
    mine += arb_clamp_fast(nan, 127.0f) != 127.0f;
    mine += arb_bits_of_f32(arb_max_abs(1.0f, nan)) < ARB_F32_INF_BITS;
    mine += arb_bits_of_f32(arb_max_abs(nan, 1.0f)) < ARB_F32_INF_BITS;
  }
  if (mine) atomicAdd(bad, mine);
}

int main(void) {
  arb_backend *be = gpu_backend();
  arb_cuda *c = arb_cuda_of(be);
  void *bad;
  unsigned long long count[5] = {0, 0, 0, 0, 0};
  MUST(be->ops.alloc(be, sizeof count, &bad));
  MUST(be->ops.fill(be, bad, 0, sizeof count));
  sigmoid_kernel<<<2048, 256, 0, c->stream>>>((unsigned long long *)bad);
  round_kernel<<<2048, 256, 0, c->stream>>>((unsigned long long *)bad + 1);
  MUST(arb_cuda_allow_shared(c, (const void *)table_kernel, ARB_SIGMOID_BYTES, "table"));
  table_kernel<<<256, 256, ARB_SIGMOID_BYTES, c->stream>>>((unsigned long long *)bad + 2);
  bf16_kernel<<<2048, 256, 0, c->stream>>>((unsigned long long *)bad + 3);
  unit_kernel<<<2048, 256, 0, c->stream>>>((unsigned long long *)bad + 4);
  MUST(arb_cuda_check(cudaGetLastError(), "launch", __FILE__, __LINE__));
  MUST(be->ops.download(be, count, bad, sizeof count));
  printf("sigmoid and reciprocal: %llu differ; rounding: %llu; table: %llu; bf16: %llu; units: %llu\n", count[0], count[1],
         count[2], count[3], count[4]);
  gpu_check(count[0] == 0, "sigmoid and reciprocal equal kernels/common/math.h for every float");
  gpu_check(count[1] == 0, "rounding to int8 equals kernels/common/philox.h");
  gpu_check(count[2] == 0, "the table of sigmoids equals kernels/common/math.h for every bf16");
  gpu_check(count[3] == 0, "conversion to bf16 equals kernels/common/bits.h for every float");
  gpu_check(count[4] == 0, "units of gradient rows equal the division for every float");
  be->ops.free(be, bad);
  arb_backend_destroy(&be);
  return gpu_totals();
}
