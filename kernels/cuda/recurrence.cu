/* The gated recurrence over time, forward and backward (MLGRU: Zhu et al. 2024, arXiv:2406.02528). A block holds 32 channels of
 * one sequence and walks over time in tiles: its eight warps work out the gates of a tile in parallel, then one warp runs the
 * short dependent chain (one fma a step forward, an add and a multiply backward) through shared memory. */
#include "kernels/cuda/device.cuh"

#define WARPS 8
#define STEPS 8 /* of a tile, a warp */
#define TILE (WARPS * STEPS)

static __global__ void __launch_bounds__(WARPS * 32)
    mlgru_forward_kernel(int64_t context, int64_t width, int64_t groups, const uint16_t *__restrict__ zf,
                         const uint16_t *__restrict__ zc, int64_t ldz, const float *__restrict__ bias, float *__restrict__ h) {
  __shared__ float forget[TILE][32], fresh[TILE][32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t row0 = blockIdx.x / groups * context, channel = blockIdx.x % groups * 32 + lane;
  const bool mine = channel < width;
  const float b = mine ? bias[channel] : 0.0f;
  float state = 0.0f;
  for (int64_t t0 = 0; t0 < context; t0 += TILE) {
    uint16_t f16[STEPS], c16[STEPS];
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const int64_t t = t0 + warp + i * WARPS;
      const bool in = mine && t < context;
      f16[i] = in ? zf[(row0 + t) * ldz + channel] : (uint16_t)0;
      c16[i] = in ? zc[(row0 + t) * ldz + channel] : (uint16_t)0;
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const float f = arb_sigmoidf(arb_f32_of_bf16(f16[i]) + b);
      const float z = arb_f32_of_bf16(c16[i]);
      const float c = z * arb_sigmoidf(z);
      forget[warp + i * WARPS][lane] = f;
      fresh[warp + i * WARPS][lane] = (1.0f - f) * c;
    }
    __syncthreads();
    if (warp == 0 && mine) {
      const int count = context - t0 < TILE ? (int)(context - t0) : TILE;
      float *out = h + (row0 + t0) * width + channel;
#pragma unroll 8
      for (int t = 0; t < count; t++) {
        state = arb_fmaf(forget[t][lane], state, fresh[t][lane]);
        out[t * width] = state;
      }
    }
    __syncthreads();
  }
}

static __global__ void __launch_bounds__(WARPS * 32)
    mlgru_backward_kernel(int64_t context, int64_t width, int64_t groups, const uint16_t *__restrict__ zf,
                          const uint16_t *__restrict__ zc, int64_t ldz, const float *__restrict__ bias,
                          const float *__restrict__ h, const float *__restrict__ dh, float *__restrict__ dzf,
                          float *__restrict__ dzc, int64_t lddz) {
  __shared__ float forget[TILE][32], grad[TILE][32]; /* grad: dh, then the whole gradient of h[t] */
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t row0 = blockIdx.x / groups * context, channel = blockIdx.x % groups * 32 + lane;
  const bool mine = channel < width;
  const float b = mine ? bias[channel] : 0.0f;
  float carried = 0.0f;
  for (int64_t t0 = (context - 1) / TILE * TILE; t0 >= 0; t0 -= TILE) {
    uint16_t f16[STEPS], c16[STEPS];
    float before[STEPS], f[STEPS], sc[STEPS];
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const int64_t t = t0 + warp + i * WARPS, row = row0 + t;
      const bool in = mine && t < context;
      f16[i] = in ? zf[row * ldz + channel] : (uint16_t)0;
      c16[i] = in ? zc[row * ldz + channel] : (uint16_t)0;
      before[i] = in && t > 0 ? h[(row - 1) * width + channel] : 0.0f;
      grad[warp + i * WARPS][lane] = in ? dh[row * width + channel] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      f[i] = arb_sigmoidf(arb_f32_of_bf16(f16[i]) + b);
      sc[i] = arb_sigmoidf(arb_f32_of_bf16(c16[i]));
      forget[warp + i * WARPS][lane] = f[i];
    }
    __syncthreads();
    if (warp == 0 && mine) {
      const int count = context - t0 < TILE ? (int)(context - t0) : TILE;
#pragma unroll 8
      for (int t = count - 1; t >= 0; t--) {
        const float now = grad[t][lane] + carried;
        grad[t][lane] = now;
        carried = now * forget[t][lane];
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const int64_t t = t0 + warp + i * WARPS, row = row0 + t;
      if (!mine || t >= context) continue;
      const float z = arb_f32_of_bf16(c16[i]), c = z * sc[i], now = grad[warp + i * WARPS][lane];
      const float df = now * (before[i] - c), dc = now * (1.0f - f[i]);
      dzf[row * lddz + channel] = df * (f[i] * (1.0f - f[i]));
      dzc[row * lddz + channel] = dc * (sc[i] * (1.0f + z * (1.0f - sc[i])));
    }
    __syncthreads(); /* the next tile overwrites grad */
  }
}

static arb_status mlgru_forward(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                                const uint16_t *zc, int64_t ldz, const float *bias, float *h) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t groups = arb_cuda_ceil(width, 32), blocks = arb_rows_count(r) / context * groups;
  ARB_CUDA_LAUNCH(c, "mlgru_forward", mlgru_forward_kernel, (unsigned)blocks, WARPS * 32, 0, context, width, groups, zf, zc, ldz,
                  bias, h);
  return ARB_OK;
}

static arb_status mlgru_backward(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                                 const uint16_t *zc, int64_t ldz, const float *bias, const float *h, const float *dh, float *dzf,
                                 float *dzc, int64_t lddz) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t groups = arb_cuda_ceil(width, 32), blocks = arb_rows_count(r) / context * groups;
  ARB_CUDA_LAUNCH(c, "mlgru_backward", mlgru_backward_kernel, (unsigned)blocks, WARPS * 32, 0, context, width, groups, zf, zc, ldz,
                  bias, h, dh, dzf, dzc, lddz);
  return ARB_OK;
}

void arb_cuda_fill_recurrence(arb_ops *ops) {
  ops->mlgru_forward = mlgru_forward;
  ops->mlgru_backward = mlgru_backward;
}
