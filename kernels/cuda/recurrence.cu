/* The gated recurrence over time, forward and backward (MLGRU: Zhu et al. 2024, arXiv:2406.02528). A block holds 32 channels of
 * one sequence and walks over time in tiles. Its first warp runs the short dependent chain (one fma a step forward, an add and
 * a multiply backward) through shared memory, while the others work out the gates of the next tile in parallel. */
#include "kernels/cuda/scan.cuh"
#include "kernels/cuda/variant.h"

#define WORKERS 8
#define FORWARD_STEPS 8 /* of a tile, a worker */
#define BACKWARD_STEPS 4

static __global__ void __launch_bounds__((WORKERS + 1) * 32)
    mlgru_forward_kernel(int context, int width, int groups, const uint16_t *__restrict__ zf, const uint16_t *__restrict__ zc,
                         int ldz, const float *__restrict__ bias, float *__restrict__ h) {
  const int TILE = WORKERS * FORWARD_STEPS;
  __shared__ float2 gates[2][WORKERS * FORWARD_STEPS][32]; /* f and (1 - f) c */
  const int lane = threadIdx.x & 31, worker = (int)(threadIdx.x >> 5) - 1;
  const int sequence = (int)blockIdx.x / groups, channel = (int)blockIdx.x % groups * 32 + lane;
  const int64_t row0 = (int64_t)sequence * context;
  const bool mine = channel < width;
  const float b = mine ? bias[channel] : 0.0f;
  zf += row0 * ldz + channel; /* from here on offsets inside the sequence, which fit 31 bits */
  zc += row0 * ldz + channel;
  h += row0 * width + channel;
  float state = 0.0f;
  /* one round more than tiles: the chain runs a tile behind the gates */
  for (int t0 = 0, parity = 0; t0 < context + TILE; t0 += TILE, parity ^= 1) {
    if (worker >= 0 && t0 < context) {
      uint16_t f16[FORWARD_STEPS], c16[FORWARD_STEPS];
#pragma unroll
      for (int i = 0; i < FORWARD_STEPS; i++) {
        const int t = t0 + worker + i * WORKERS;
        const bool in = mine && t < context;
        f16[i] = in ? zf[t * ldz] : (uint16_t)0;
        c16[i] = in ? zc[t * ldz] : (uint16_t)0;
      }
#pragma unroll
      for (int i = 0; i < FORWARD_STEPS; i++) {
        const float f = arb_sigmoid(arb_f32_of_bf16(f16[i]) + b);
        const float z = arb_f32_of_bf16(c16[i]);
        const float c = z * arb_sigmoid(z);
        gates[parity][worker + i * WORKERS][lane] = make_float2(f, (1.0f - f) * c);
      }
    }
    if (worker < 0 && mine && t0 > 0) {
      const int first = t0 - TILE, count = context - first < TILE ? context - first : TILE;
      float *out = h + first * width;
#pragma unroll 8
      for (int t = 0; t < count; t++) {
        const float2 g = gates[parity ^ 1][t][lane];
        state = arb_fmaf(g.x, state, g.y);
        out[t * width] = state;
      }
    }
    __syncthreads();
  }
}

/* What a worker keeps of its steps of a tile until their gradients are known. */
typedef struct {
  float f[BACKWARD_STEPS], sc[BACKWARD_STEPS], z[BACKWARD_STEPS], before[BACKWARD_STEPS];
} kept;

static __global__ void __launch_bounds__((WORKERS + 1) * 32, 3)
    mlgru_backward_kernel(int context, int width, int groups, const uint16_t *__restrict__ zf, const uint16_t *__restrict__ zc,
                          int ldz, const float *__restrict__ bias, const float *__restrict__ h, const uint16_t *__restrict__ dh,
                          uint16_t *__restrict__ dzf, uint16_t *__restrict__ dzc, int lddz) {
  const int TILE = WORKERS * BACKWARD_STEPS;
  __shared__ float2 gates[2][WORKERS * BACKWARD_STEPS][32]; /* f, and dh, which the chain replaces by the gradient of h[t] */
  const int lane = threadIdx.x & 31, worker = (int)(threadIdx.x >> 5) - 1;
  const int sequence = (int)blockIdx.x / groups, channel = (int)blockIdx.x % groups * 32 + lane;
  const int64_t row0 = (int64_t)sequence * context;
  const bool mine = channel < width;
  const float b = mine ? bias[channel] : 0.0f;
  zf += row0 * ldz + channel;
  zc += row0 * ldz + channel;
  h += row0 * width + channel;
  dh += row0 * width + channel;
  dzf += row0 * lddz + channel;
  dzc += row0 * lddz + channel;
  const int tiles = (context + TILE - 1) / TILE;
  float carried = 0.0f;
  kept now = {}, last = {};
  /* round i: outputs of tile i - 2, chain of tile i - 1, gates of tile i, tiles counted from the end */
  for (int i = 0; i < tiles + 2; i++) {
    const int t0 = (tiles - 1 - i) * TILE, parity = i & 1;
    if (worker >= 0) {
#pragma unroll
      for (int j = 0; j < BACKWARD_STEPS; j++) { /* outputs */
        const int at = worker + j * WORKERS, t = t0 + 2 * TILE + at;
        if (i < 2 || !mine || t >= context) continue;
        const float f = last.f[j], sc = last.sc[j], z = last.z[j], c = z * sc, d = gates[parity][at][lane].y;
        const float df = d * (last.before[j] - c), dc = d * (1.0f - f);
        dzf[t * lddz] = arb_bf16_of_f32(df * (f * (1.0f - f)));
        dzc[t * lddz] = arb_bf16_of_f32(dc * (sc * (1.0f + z * (1.0f - sc))));
      }
      last = now;
      if (i < tiles) {
        float grad[BACKWARD_STEPS], zf32[BACKWARD_STEPS];
#pragma unroll
        for (int j = 0; j < BACKWARD_STEPS; j++) {
          const int t = t0 + worker + j * WORKERS;
          const bool in = mine && t < context;
          zf32[j] = in ? arb_f32_of_bf16(zf[t * ldz]) : 0.0f;
          now.z[j] = in ? arb_f32_of_bf16(zc[t * ldz]) : 0.0f;
          now.before[j] = in && t > 0 ? h[(t - 1) * width] : 0.0f;
          grad[j] = in ? arb_f32_of_bf16(dh[t * width]) : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < BACKWARD_STEPS; j++) {
          now.f[j] = arb_sigmoid(zf32[j] + b);
          now.sc[j] = arb_sigmoid(now.z[j]);
          gates[parity][worker + j * WORKERS][lane] = make_float2(now.f[j], grad[j]);
        }
      }
    } else if (mine && i > 0 && i <= tiles) {
      const int first = t0 + TILE, count = context - first < TILE ? context - first : TILE;
#pragma unroll 4
      for (int t = count - 1; t >= 0; t--) {
        const float2 g = gates[parity ^ 1][t][lane];
        const float d = g.y + carried;
        gates[parity ^ 1][t][lane].y = d;
        carried = d * g.x;
      }
    }
    __syncthreads();
  }
}

static arb_status check_range(int64_t context, int64_t width, int64_t ldz, int64_t lddz, int64_t blocks) {
  const int64_t most = ldz > lddz ? (ldz > width ? ldz : width) : (lddz > width ? lddz : width);
  ARB_REQUIRE(context * most < INT32_MAX && blocks < INT32_MAX, ARB_ERR_UNSUPPORTED,
              "a sequence of %lld rows of %lld elements is more than this backend takes", (long long)context, (long long)most);
  return ARB_OK;
}

static arb_status mlgru_forward(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                                const uint16_t *zc, int64_t ldz, const float *bias, float *h) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t groups = arb_cuda_ceil(width, 32), blocks = arb_rows_count(r) / context * groups;
  ARB_TRY(check_range(context, width, ldz, 0, blocks));
  const int v = arb_variant[VAR_SCAN_FORWARD];
  if (v) {
    const bool pairs =
        width % 2 == 0 && ldz % 2 == 0 && arb_cuda_aligned(zf, 4) && arb_cuda_aligned(zc, 4) && arb_cuda_aligned(h, 8);
    const int64_t g = arb_cuda_ceil(width, pairs ? 64 : 32), n = arb_rows_count(r) / context * g;
    const int workers = pairs && (v == 3 || v == 5) ? 4 : 8;
    auto kernel = !pairs   ? scan_forward_kernel<1, 8, 8, 4>
                  : v == 1 ? scan_forward_kernel<2, 8, 4, 4>
                  : v == 2 ? scan_forward_kernel<2, 8, 2, 4>
                  : v == 3 ? scan_forward_kernel<2, 4, 4, 4>
                  : v == 4 ? scan_forward_kernel<2, 8, 4, 3>
                           : scan_forward_kernel<2, 4, 2, 4>;
    ARB_CUDA_LAUNCH(c, "mlgru_forward", kernel, (unsigned)n, (workers + 1) * 32, 0, (int)context, (int)width, (int)g, zf, zc,
                    (int)ldz, bias, h);
    return ARB_OK;
  }
  ARB_CUDA_LAUNCH(c, "mlgru_forward", mlgru_forward_kernel, (unsigned)blocks, (WORKERS + 1) * 32, 0, (int)context, (int)width,
                  (int)groups, zf, zc, (int)ldz, bias, h);
  return ARB_OK;
}

static arb_status mlgru_backward(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                                 const uint16_t *zc, int64_t ldz, const float *bias, const float *h, const uint16_t *dh,
                                 uint16_t *dzf, uint16_t *dzc, int64_t lddz) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t groups = arb_cuda_ceil(width, 32), blocks = arb_rows_count(r) / context * groups;
  ARB_TRY(check_range(context, width, ldz, lddz, blocks));
  const int v = arb_variant[VAR_SCAN_BACKWARD];
  if (v) {
    const bool pairs = width % 2 == 0 && ldz % 2 == 0 && lddz % 2 == 0 && arb_cuda_aligned(zf, 4) && arb_cuda_aligned(zc, 4) &&
                       arb_cuda_aligned(h, 8) && arb_cuda_aligned(dh, 4) && arb_cuda_aligned(dzf, 4) &&
                       arb_cuda_aligned(dzc, 4);
    const int64_t g = arb_cuda_ceil(width, pairs ? 64 : 32), n = arb_rows_count(r) / context * g;
    const int workers = pairs && v >= 3 ? 4 : 8;
    auto kernel = !pairs   ? scan_backward_kernel<1, 8, 4, 3>
                  : v == 1 ? scan_backward_kernel<2, 8, 2, 4>
                  : v == 2 ? scan_backward_kernel<2, 8, 1, 4>
                  : v == 3 ? scan_backward_kernel<2, 4, 2, 4>
                  : v == 4 ? scan_backward_kernel<2, 4, 4, 4>
                           : scan_backward_kernel<2, 4, 2, 5>;
    ARB_CUDA_LAUNCH(c, "mlgru_backward", kernel, (unsigned)n, (workers + 1) * 32, 0, (int)context, (int)width, (int)g, zf, zc,
                    (int)ldz, bias, h, dh, dzf, dzc, (int)lddz);
    return ARB_OK;
  }
  ARB_CUDA_LAUNCH(c, "mlgru_backward", mlgru_backward_kernel, (unsigned)blocks, (WORKERS + 1) * 32, 0, (int)context, (int)width,
                  (int)groups, zf, zc, (int)ldz, bias, h, dh, dzf, dzc, (int)lddz);
  return ARB_OK;
}

void arb_cuda_fill_recurrence(arb_ops *ops) {
  ops->mlgru_forward = mlgru_forward;
  ops->mlgru_backward = mlgru_backward;
}
