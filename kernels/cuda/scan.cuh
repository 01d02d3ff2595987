/* The gated recurrence over time, forward and backward, with C neighbouring channels a lane. A block holds 32 * C channels of
 * one sequence and walks over time in tiles of WORKERS * STEPS. Its first warp runs the short dependent chain (one fma a step
 * forward, an add and a multiply backward) through shared memory, while WORKERS others work out the gates of the next tile in
 * parallel, from values that they loaded a tile before. Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_SCAN_CUH
#define ARB_KERNELS_CUDA_SCAN_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/order.cuh"

/* C neighbouring bf16: one load. */
template <int C>
static __device__ __forceinline__ uint32_t arb_scan_load(const uint16_t *p) {
  return C == 2 ? arb_load_last(reinterpret_cast<const uint32_t *>(p)) : (uint32_t)arb_load_last(p);
}
template <int C>
static __device__ __forceinline__ void arb_scan_store(uint16_t *p, const float *v) {
  if (C == 2) {
    uint32_t w;
    arb_bf16_pairs<2>(v, &w);
    *reinterpret_cast<uint32_t *>(p) = w;
  } else {
    *p = arb_bf16_of_f32(v[0]);
  }
}
static __device__ __forceinline__ float arb_scan_value(uint32_t w, int j) {
  return arb_f32_of_bits(j ? w & 0xffff0000u : w << 16);
}

/* What passes between the gates of a step and its chain: two floats a channel. */
template <int C>
struct __align__(8 * C) arb_scan_gate {
  float v[2 * C];
};

template <int C, int WORKERS, int STEPS, int RESIDENT>
static __global__ void __launch_bounds__((WORKERS + 1) * 32, RESIDENT)
    scan_forward_kernel(int context, int width, int groups, const uint16_t *__restrict__ zf, const uint16_t *__restrict__ zc,
                        int ldz, const float *bias, float *__restrict__ h) {
  const int TILE = WORKERS * STEPS;
  __shared__ arb_scan_gate<C> gates[2][WORKERS * STEPS][32]; /* f, (1 - f) c */
  const int lane = threadIdx.x & 31, worker = (int)(threadIdx.x >> 5) - 1;
  const int sequence = arb_row_down((int)blockIdx.x / groups, (int)gridDim.x / groups),
            channel = ((int)blockIdx.x % groups * 32 + lane) * C;
  const int64_t row0 = (int64_t)sequence * context;
  const bool mine = channel < width; /* C divides the width */
  float b[C];
#pragma unroll
  for (int j = 0; j < C; j++) b[j] = mine ? bias[channel + j] : 0.0f;
  zf += row0 * ldz + channel; /* from here on offsets inside the sequence, which fit 31 bits */
  zc += row0 * ldz + channel;
  h += row0 * width + channel;
  uint32_t wf[STEPS], wc[STEPS];
  auto load = [&](int t0) {
    if (worker < 0 || !mine) return;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const int t = t0 + worker + i * WORKERS;
      if (t < context) wf[i] = arb_scan_load<C>(zf + t * ldz), wc[i] = arb_scan_load<C>(zc + t * ldz);
    }
  };
#pragma unroll
  for (int i = 0; i < STEPS; i++) wf[i] = wc[i] = 0;
  load(0);
  float state[C];
#pragma unroll
  for (int j = 0; j < C; j++) state[j] = 0.0f;
  /* one round more than tiles: the chain runs a tile behind the gates */
  for (int t0 = 0, parity = 0; t0 < context + TILE; t0 += TILE, parity ^= 1) {
    if (worker >= 0 && t0 < context) {
      float z[STEPS][2][C], s[STEPS][2][C];
#pragma unroll
      for (int i = 0; i < STEPS; i++)
#pragma unroll
        for (int j = 0; j < C; j++) {
          z[i][0][j] = arb_scan_value(wf[i], j) + b[j];
          z[i][1][j] = arb_scan_value(wc[i], j);
        }
      load(t0 + TILE);
      arb_sigmoids<STEPS * 2 * C>(&z[0][0][0], &s[0][0][0]);
#pragma unroll
      for (int i = 0; i < STEPS; i++) {
        arb_scan_gate<C> g;
#pragma unroll
        for (int j = 0; j < C; j++) {
          const float f = s[i][0][j], c = z[i][1][j] * s[i][1][j];
          g.v[2 * j] = f;
          g.v[2 * j + 1] = (1.0f - f) * c;
        }
        gates[parity][worker + i * WORKERS][lane] = g;
      }
    }
    if (worker < 0 && mine && t0 > 0) {
      const int first = t0 - TILE, count = context - first < TILE ? context - first : TILE;
      float *out = h + first * width;
#pragma unroll 8
      for (int t = 0; t < count; t++) {
        const arb_scan_gate<C> g = gates[parity ^ 1][t][lane];
#pragma unroll
        for (int j = 0; j < C; j++) state[j] = arb_fmaf(g.v[2 * j], state[j], g.v[2 * j + 1]);
        if (C == 2)
          *reinterpret_cast<float2 *>(out) = make_float2(state[0], state[C - 1]);
        else
          *out = state[0];
        out += width;
      }
    }
    __syncthreads();
  }
}

template <int C, int WORKERS, int STEPS, int RESIDENT>
static __global__ void __launch_bounds__((WORKERS + 1) * 32, RESIDENT)
    scan_backward_kernel(int context, int width, int groups, const uint16_t *__restrict__ zf, const uint16_t *__restrict__ zc,
                         int ldz, const float *bias, const float *__restrict__ h, const uint16_t *__restrict__ dh,
                         uint16_t *__restrict__ dzf, uint16_t *__restrict__ dzc, int lddz) {
  const int TILE = WORKERS * STEPS;
  __shared__ arb_scan_gate<C> gates[2][WORKERS * STEPS][32]; /* f, and dh, which the chain replaces by the gradient of h[t] */
  const int lane = threadIdx.x & 31, worker = (int)(threadIdx.x >> 5) - 1;
  const int sequence = arb_row_down((int)blockIdx.x / groups, (int)gridDim.x / groups),
            channel = ((int)blockIdx.x % groups * 32 + lane) * C;
  const int64_t row0 = (int64_t)sequence * context;
  const bool mine = channel < width;
  float b[C];
#pragma unroll
  for (int j = 0; j < C; j++) b[j] = mine ? bias[channel + j] : 0.0f;
  zf += row0 * ldz + channel;
  zc += row0 * ldz + channel;
  h += row0 * width + channel;
  dh += row0 * width + channel;
  dzf += row0 * lddz + channel;
  dzc += row0 * lddz + channel;
  const int tiles = (context + TILE - 1) / TILE;
  float carried[C];
#pragma unroll
  for (int j = 0; j < C; j++) carried[j] = 0.0f;
  /* a worker's steps of the tile to come, as loaded; and of the last two, until their gradients are known: h[t-1] - c and the
   * slope of c */
  uint32_t wf[STEPS], wc[STEPS], wd[STEPS];
  float before[STEPS][C], rest[2][STEPS][C], slope[2][STEPS][C];
#pragma unroll
  for (int i = 0; i < STEPS; i++) {
    wf[i] = wc[i] = wd[i] = 0;
#pragma unroll
    for (int j = 0; j < C; j++) before[i][j] = rest[0][i][j] = rest[1][i][j] = slope[0][i][j] = slope[1][i][j] = 0.0f;
  }
  auto load = [&](int t0) {
    if (worker < 0 || !mine) return;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const int t = t0 + worker + i * WORKERS;
      if (t < 0 || t >= context) continue;
      wf[i] = arb_scan_load<C>(zf + t * ldz);
      wc[i] = arb_scan_load<C>(zc + t * ldz);
      wd[i] = arb_scan_load<C>(dh + t * width);
      if (t == 0) {
#pragma unroll
        for (int j = 0; j < C; j++) before[i][j] = 0.0f;
      } else if (C == 2) {
        const float2 v = arb_load_last(reinterpret_cast<const float2 *>(h + (t - 1) * width));
        before[i][0] = v.x, before[i][C - 1] = v.y;
      } else {
        before[i][0] = arb_load_last(h + (t - 1) * width);
      }
    }
  };
  load((tiles - 1) * TILE);
  /* round i: outputs of tile i - 2, chain of tile i - 1, gates of tile i, tiles counted from the end */
  for (int i = 0; i < tiles + 2; i++) {
    const int t0 = (tiles - 1 - i) * TILE, parity = i & 1;
    if (worker >= 0) {
#pragma unroll
      for (int k = 0; k < STEPS; k++) { /* outputs */
        const int at = worker + k * WORKERS, t = t0 + 2 * TILE + at;
        if (i < 2 || !mine || t >= context) continue;
        const arb_scan_gate<C> g = gates[parity][at][lane];
        float of[C], oc[C];
#pragma unroll
        for (int j = 0; j < C; j++) {
          const float f = g.v[2 * j], d = g.v[2 * j + 1];
          const float df = d * rest[1][k][j], dc = d * (1.0f - f);
          of[j] = df * (f * (1.0f - f));
          oc[j] = dc * slope[1][k][j];
        }
        arb_scan_store<C>(dzf + t * lddz, of);
        arb_scan_store<C>(dzc + t * lddz, oc);
      }
#pragma unroll
      for (int k = 0; k < STEPS; k++)
#pragma unroll
        for (int j = 0; j < C; j++) rest[1][k][j] = rest[0][k][j], slope[1][k][j] = slope[0][k][j];
      if (i < tiles) {
        float z[STEPS][2][C], s[STEPS][2][C], grad[STEPS][C];
#pragma unroll
        for (int k = 0; k < STEPS; k++)
#pragma unroll
          for (int j = 0; j < C; j++) {
            z[k][0][j] = arb_scan_value(wf[k], j) + b[j];
            z[k][1][j] = arb_scan_value(wc[k], j);
            grad[k][j] = arb_scan_value(wd[k], j);
            rest[0][k][j] = before[k][j];
          }
        load(t0 - TILE);
        arb_sigmoids<STEPS * 2 * C>(&z[0][0][0], &s[0][0][0]);
#pragma unroll
        for (int k = 0; k < STEPS; k++) {
          arb_scan_gate<C> g;
#pragma unroll
          for (int j = 0; j < C; j++) {
            const float sc = s[k][1][j], x = z[k][1][j];
            rest[0][k][j] = rest[0][k][j] - x * sc;
            slope[0][k][j] = sc * (1.0f + x * (1.0f - sc));
            g.v[2 * j] = s[k][0][j];
            g.v[2 * j + 1] = grad[k][j];
          }
          gates[parity][worker + k * WORKERS][lane] = g;
        }
      }
    } else if (mine && i > 0 && i <= tiles) {
      const int first = t0 + TILE, count = context - first < TILE ? context - first : TILE;
#pragma unroll 4
      for (int t = count - 1; t >= 0; t--) {
        arb_scan_gate<C> &to = gates[parity ^ 1][t][lane];
        arb_scan_gate<C> g = to;
#pragma unroll
        for (int j = 0; j < C; j++) {
          g.v[2 * j + 1] = g.v[2 * j + 1] + carried[j];
          carried[j] = g.v[2 * j + 1] * g.v[2 * j];
        }
        to = g;
      }
    }
    __syncthreads();
  }
}

#endif
