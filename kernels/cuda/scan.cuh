/* The gated recurrence over time, forward and backward, with C neighbouring channels a lane. A group of warps, GROUPS of them a
 * block, holds 32 * C channels of one sequence and walks over time in tiles of WORKERS * STEPS. Its first warp runs the short
 * dependent chain (one fma a step forward, an add and a multiply backward) through shared memory, while WORKERS others work out
 * the gates of the next tile in parallel, from values that they loaded a tile before. WHOLE: channels and tiles leave no rest.
 * Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_SCAN_CUH
#define ARB_KERNELS_CUDA_SCAN_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/order.cuh"

/* C neighbouring bf16: one load. */
template <int C>
static __device__ __forceinline__ uint32_t arb_scan_load(const uint16_t *p) {
  return C == 2 ? arb_load_last(reinterpret_cast<const uint32_t *>(p)) : (uint32_t)arb_load_last(p);
}
/* Rounded gradients of f and c, C words of both. */
template <int C>
static __device__ __forceinline__ void arb_scan_store(uint16_t *f, uint16_t *c, const uint32_t *w) {
  if (C == 2)
    *reinterpret_cast<uint32_t *>(f) = w[0], *reinterpret_cast<uint32_t *>(c) = w[C - 1];
  else
    *f = (uint16_t)w[0], *c = (uint16_t)(w[0] >> 16);
}
static __device__ __forceinline__ float arb_scan_value(uint32_t w, int j) {
  return arb_f32_of_bits(j ? w & 0xffff0000u : w << 16);
}

/* What passes between the gates of a step and its chain: two floats a channel. */
template <int C>
struct __align__(8 * C) arb_scan_gate {
  float v[2 * C];
};

/* Shared memory: the table of the sigmoid, then a group's gates of two tiles. */
template <int C, int WORKERS, int STEPS, int GROUPS>
constexpr size_t arb_scan_shared() {
  return ARB_SIGMOID_BYTES + (size_t)GROUPS * 2 * WORKERS * STEPS * 32 * sizeof(arb_scan_gate<C>);
}

/* Known from here on by its value alone: an offset from it is one instruction; the compiler would begin at the argument. */
template <typename T>
static __device__ __forceinline__ T *arb_held(T *p) {
  size_t at = __cvta_generic_to_global(p);
  asm volatile("" : "+l"(at));
  return static_cast<T *>(__cvta_global_to_generic(at));
}

/* Where a thread is: unit = sequence and 32 * C channels of it, `across` units a sequence. */
template <int C, int WORKERS, int GROUPS>
struct arb_scan_place {
  static const int THREADS = 32 * (WORKERS + 1); /* of a group */
  int lane, worker, group, unit, channel;        /* worker -1: the chain */
  int64_t row0;                                  /* of the sequence */
  __device__ __forceinline__ arb_scan_place(int units, int context, int across) {
    group = GROUPS > 1 ? (int)threadIdx.x / THREADS : 0;
    lane = threadIdx.x & 31, worker = (int)(threadIdx.x >> 5) - group * (WORKERS + 1) - 1;
    unit = (int)blockIdx.x * GROUPS + group;
    channel = (unit % across * 32 + lane) * C;
    row0 = (int64_t)arb_row_down(unit / across, units / across) * context;
  }
  __device__ __forceinline__ void meet() const { asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(THREADS) : "memory"); }
};

/* Offsets inside a sequence fit 31 bits; unsigned ones are one instruction each. */
template <int C, int WORKERS, int STEPS, int GROUPS, int RESIDENT, bool WHOLE>
static __global__ void __launch_bounds__((WORKERS + 1) * 32 * GROUPS, RESIDENT)
    scan_forward_kernel(int units, int context, int width, int across, const uint16_t *__restrict__ zf,
                        const uint16_t *__restrict__ zc, uint32_t ldz, const float *bias, float *__restrict__ h) {
  const int TILE = WORKERS * STEPS, PART = STEPS < 4 ? STEPS : 4;
  extern __shared__ float4 shared[];
  const char *table = reinterpret_cast<const char *>(shared);
  const arb_scan_place<C, WORKERS, GROUPS> at(units, context, across);
  const int worker = at.worker, lane = at.lane;
  arb_scan_gate<C>(*gates)[WORKERS * STEPS][32] = /* [parity][step]: f, (1 - f) c */
      reinterpret_cast<arb_scan_gate<C>(*)[WORKERS * STEPS][32]>(shared + ARB_SIGMOID_BYTES / 16) + 2 * at.group;
  const bool here = at.unit < units, mine = here && (WHOLE || at.channel < width); /* C divides the width */
  float b[C];
#pragma unroll
  for (int j = 0; j < C; j++) b[j] = mine ? bias[at.channel + j] : 0.0f;
  zf = arb_held(zf + at.row0 * ldz + at.channel);
  zc = arb_held(zc + at.row0 * ldz + at.channel);
  h = arb_held(h + at.row0 * width + at.channel);
  uint32_t wf[STEPS], wc[STEPS];
  auto load = [&](int t0, int part) {
    if (worker < 0 || !mine) return;
#pragma unroll
    for (int i = part; i < part + PART; i++) {
      const uint32_t t = (uint32_t)(t0 + worker + i * WORKERS), z = t * ldz;
      if (WHOLE || t < (uint32_t)context) wf[i] = arb_scan_load<C>(zf + z), wc[i] = arb_scan_load<C>(zc + z);
    }
  };
#pragma unroll
  for (int i = 0; i < STEPS; i++) wf[i] = wc[i] = 0;
#pragma unroll
  for (int part = 0; part < STEPS; part += PART) load(0, part);
  arb_sigmoid_fill(reinterpret_cast<char *>(shared));
  __syncthreads();
  if (!here) return;
  float state[C];
#pragma unroll
  for (int j = 0; j < C; j++) state[j] = 0.0f;
  /* one round more than tiles: the chain runs a tile behind the gates */
  for (int t0 = 0, parity = 0; t0 < context + TILE; t0 += TILE, parity ^= 1) {
    if (worker >= 0 && t0 < context) {
#pragma unroll
      for (int part = 0; part < STEPS; part += PART) {
        float z[PART][C], f[PART][C], x[PART][C], sc[PART][2];
#pragma unroll
        for (int i = 0; i < PART; i++) {
          arb_sigmoid_pair(table, wc[part + i], sc[i]);
#pragma unroll
          for (int j = 0; j < C; j++) {
            z[i][j] = arb_scan_value(wf[part + i], j) + b[j];
            x[i][j] = arb_scan_value(wc[part + i], j);
          }
        }
        if (!WHOLE || t0 + TILE < context) load(t0 + TILE, part);
        arb_sigmoids<PART * C>(&z[0][0], &f[0][0]);
#pragma unroll
        for (int i = 0; i < PART; i++) {
          arb_scan_gate<C> g;
#pragma unroll
          for (int j = 0; j < C; j++) {
            const float c = x[i][j] * sc[i][j];
            g.v[2 * j] = f[i][j];
            g.v[2 * j + 1] = (1.0f - f[i][j]) * c;
          }
          gates[parity][worker + (part + i) * WORKERS][lane] = g;
        }
        asm volatile("" ::: "memory"); /* one part's registers at a time */
      }
    }
    if (worker < 0 && mine && t0 > 0) {
      const int first = t0 - TILE, count = WHOLE || context - first > TILE ? TILE : context - first;
      float *out = h + (uint32_t)(first * width);
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
    at.meet();
  }
}

template <int C, int WORKERS, int STEPS, int GROUPS, int RESIDENT, bool WHOLE>
static __global__ void __launch_bounds__((WORKERS + 1) * 32 * GROUPS, RESIDENT)
    scan_backward_kernel(int units, int context, int width, int across, const uint16_t *__restrict__ zf,
                         const uint16_t *__restrict__ zc, uint32_t ldz, const float *bias, const float *__restrict__ h,
                         const uint16_t *__restrict__ dh, uint16_t *__restrict__ dzf, uint16_t *__restrict__ dzc,
                         uint32_t lddz) {
  const int TILE = WORKERS * STEPS;
  extern __shared__ float4 shared[];
  const char *table = reinterpret_cast<const char *>(shared);
  const arb_scan_place<C, WORKERS, GROUPS> at(units, context, across);
  const int worker = at.worker, lane = at.lane;
  /* [parity][step]: f, and dh, which the chain replaces by the gradient of h[t] */
  arb_scan_gate<C>(*gates)[WORKERS * STEPS][32] =
      reinterpret_cast<arb_scan_gate<C>(*)[WORKERS * STEPS][32]>(shared + ARB_SIGMOID_BYTES / 16) + 2 * at.group;
  const bool here = at.unit < units, mine = here && (WHOLE || at.channel < width);
  float b[C];
#pragma unroll
  for (int j = 0; j < C; j++) b[j] = mine ? bias[at.channel + j] : 0.0f;
  zf = arb_held(zf + at.row0 * ldz + at.channel);
  zc = arb_held(zc + at.row0 * ldz + at.channel);
  h = arb_held(h + at.row0 * width + at.channel);
  dh = arb_held(dh + at.row0 * width + at.channel);
  dzf = arb_held(dzf + at.row0 * lddz + at.channel);
  dzc = arb_held(dzc + at.row0 * lddz + at.channel);
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
    if (worker < 0 || !mine || t0 < 0) return;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const uint32_t t = (uint32_t)(t0 + worker + i * WORKERS), z = t * ldz, d = t * (uint32_t)width;
      if (!WHOLE && t >= (uint32_t)context) continue;
      wf[i] = arb_scan_load<C>(zf + z);
      wc[i] = arb_scan_load<C>(zc + z);
      wd[i] = arb_scan_load<C>(dh + d);
#pragma unroll
      for (int j = 0; j < C; j++) before[i][j] = 0.0f;
      if (t == 0) continue;
      if (C == 2) {
        const float2 v = arb_load_last(reinterpret_cast<const float2 *>(h + (d - (uint32_t)width)));
        before[i][0] = v.x, before[i][C - 1] = v.y;
      } else {
        before[i][0] = arb_load_last(h + (d - (uint32_t)width));
      }
    }
  };
  load((tiles - 1) * TILE);
  arb_sigmoid_fill(reinterpret_cast<char *>(shared));
  __syncthreads();
  if (!here) return;
  /* round i: outputs of tile i - 2, chain of tile i - 1, gates of tile i, tiles counted from the end */
  for (int pair = 0; pair < tiles + 2; pair += 2) {
#pragma unroll
    for (int parity = 0; parity < 2; parity++) {
      const int i = pair + parity, t0 = (tiles - 1 - i) * TILE;
      if (worker >= 0) {
        if (i >= 2 && i < tiles + 2 && mine) { /* outputs */
          float o[STEPS][2][C];
          uint32_t w[STEPS * C];
#pragma unroll
          for (int k = 0; k < STEPS; k++) {
            const arb_scan_gate<C> g = gates[parity][worker + k * WORKERS][lane];
#pragma unroll
            for (int j = 0; j < C; j++) {
              const float f = g.v[2 * j], d = g.v[2 * j + 1];
              const float df = d * rest[parity][k][j], dc = d * (1.0f - f);
              o[k][0][j] = df * (f * (1.0f - f));
              o[k][1][j] = dc * slope[parity][k][j];
            }
          }
          arb_bf16_pairs<2 * STEPS * C>(&o[0][0][0], w);
#pragma unroll
          for (int k = 0; k < STEPS; k++) {
            const uint32_t t = (uint32_t)(t0 + 2 * TILE + worker + k * WORKERS), to = t * lddz;
            if (!WHOLE && t >= (uint32_t)context) continue;
            arb_scan_store<C>(dzf + to, dzc + to, w + k * C);
          }
        }
        if (i < tiles) {
          float z[STEPS][C], f[STEPS][C], grad[STEPS][C];
#pragma unroll
          for (int k = 0; k < STEPS; k++) {
            float sc[2];
            arb_sigmoid_pair(table, wc[k], sc);
#pragma unroll
            for (int j = 0; j < C; j++) {
              const float x = arb_scan_value(wc[k], j);
              z[k][j] = arb_scan_value(wf[k], j) + b[j];
              grad[k][j] = arb_scan_value(wd[k], j);
              rest[parity][k][j] = before[k][j] - x * sc[j];
              slope[parity][k][j] = sc[j] * (1.0f + x * (1.0f - sc[j]));
            }
          }
          load(t0 - TILE);
          arb_sigmoids<STEPS * C>(&z[0][0], &f[0][0]);
#pragma unroll
          for (int k = 0; k < STEPS; k++) {
            arb_scan_gate<C> g;
#pragma unroll
            for (int j = 0; j < C; j++) {
              g.v[2 * j] = f[k][j];
              g.v[2 * j + 1] = grad[k][j];
            }
            gates[parity][worker + k * WORKERS][lane] = g;
          }
        }
      } else if (mine && i > 0 && i <= tiles) {
        const int first = t0 + TILE, count = WHOLE || context - first > TILE ? TILE : context - first;
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
      at.meet();
    }
  }
}

#endif
