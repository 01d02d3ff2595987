/* The gated unit's backward pass for aligned rows of whole chunks. x = silu(u) * v: the norm's backward gives dx; du = (dx * v)
 * * silu'(u), dv = dx * silu(u), silu'(u) = sg * (1 + u * (1 - sg)); [du, dv] leaves as gradient rows of the stack that made
 * [u, v].
 *
 * A group of WARPS warps (0: of `warps_in`) has a row, a thread two chunks of u and of v in registers. One warp beside each
 * group fetches its rows, AHEAD of them, and sums: lane j adds products j, j + 32, ... (docs/arithmetic.md, "Row sums"), a
 * chain longer than anything else in a row. No thread waits for it: a group makes the products of its next row, gives them away
 * and rounds the row before while they are added. Nor for the largest of a row, which is asked of all warps before those
 * products and needed after them. */
#ifndef ARB_KERNELS_CUDA_GLU_BACKWARD_CUH
#define ARB_KERNELS_CUDA_GLU_BACKWARD_CUH

#include "kernels/cuda/async.cuh"
#include "kernels/cuda/gradient.cuh"

#define ARB_GLU_EACH 2 /* chunks a thread */

/* Shared memory: the table of the sigmoid; gains (of the norm, of u, of v) and, for each group, products, both [half of a
 * chunk][chunk][4 floats]; rows; what its warps tell each other. `half` is no multiple of 128 bytes, so that lanes j and j + 4,
 * whose products lie in different halves, read different banks. */
typedef struct {
  uint32_t plane, half, rows, words, group; /* bytes: of a row of bf16, padded; from a group's first; of a group */
} arb_glu_layout;
#define ARB_GLU_MEAN 0  /* barriers: the mean product of a row is there, */
#define ARB_GLU_MOST 8  /* every warp's largest result is, */
#define ARB_GLU_FULL 16 /* a row is, for each of AHEAD */
#define ARB_GLU_SUM 32  /* the mean product, and 1/rms of the next row */
#define ARB_GLU_PART 64 /* the largest of 32 warps, for this row and the next */
#define ARB_GLU_WORDS 320
static __host__ __device__ inline arb_glu_layout arb_glu_layout_of(int warps, int ahead) {
  arb_glu_layout l;
  l.plane = 16u * 32u * (uint32_t)(warps * ARB_GLU_EACH);
  l.half = l.plane + 64;
  l.rows = 2 * l.half;
  l.words = l.rows + 3 * l.plane * (uint32_t)ahead;
  l.group = l.words + ARB_GLU_WORDS;
  return l;
}
static inline size_t arb_glu_shared(int warps, int ahead, int groups) {
  const arb_glu_layout l = arb_glu_layout_of(warps, ahead);
  return ARB_SIGMOID_BYTES + 6 * (size_t)l.plane + (size_t)groups * l.group;
}

/* Of the two bf16 in w from the table at `table`; a NaN counts as an infinity. less: minus ARB_SIGMOID_FIRST, twice. */
static __device__ __forceinline__ void arb_glu_sigmoids(uint32_t table, uint32_t less, uint32_t w, float y[2]) {
  const uint32_t i = __viaddmin_s16x2_relu(w & 0x7fff7fffu, less, (uint32_t)(ARB_SIGMOID_COUNT - 1) * 0x10001u);
  const uint32_t at = 4 * i | (w & 0x80008000u);
  y[0] = arb_shared_float(table + (at & 0xffffu));
  y[1] = arb_shared_float(table + (at >> 16));
}

static __device__ __forceinline__ void arb_glu_gains(uint32_t at, uint32_t plane, float g[ARB_CHUNK]) {
  uint32_t w[ARB_CHUNK];
  arb_shared_words(at, w);
  arb_shared_words(at + plane, w + 4);
#pragma unroll
  for (int j = 0; j < ARB_CHUNK; j++) g[j] = arb_f32_of_bits(w[j]);
}

/* arb_gradient_unit of a row that does not become zero: the division of the significands has no special cases. */
static __device__ __forceinline__ bool arb_glu_rounds(uint32_t bits) {
  const uint32_t tiny = (127 - 100) << 23; /* of ARB_TINY */
  return bits - tiny < ARB_F32_INF_BITS - tiny;
}
static __device__ __forceinline__ float arb_glu_unit(uint32_t bits) {
  const float d = arb_f32_of_bits((bits & 0x7fffffu) | 0x3f800000u), r = arb_reciprocal_1_2(d), q = 127.0f * r;
  return arb_fmaf(r, arb_fmaf(-d, q, 127.0f), q) * arb_f32_of_bits(((127u + 15u + 127u) << 23) - (bits & 0x7f800000u));
}

/* What a group's warps and the one beside them know of it. */
typedef struct {
  arb_glu_layout l;
  uint32_t at, words; /* its shared memory */
  int row, stride;    /* its first row; every stride-th downwards follows */
  uint32_t bytes_z, bytes_d;
} arb_glu_group;

static __device__ __forceinline__ void arb_glu_fetch(const arb_glu_group &g, int row, uint32_t stage, const uint16_t *u,
                                                     const uint16_t *v, const uint16_t *dy) {
  if (row < 0) return;
  const uint64_t z = (uint64_t)(uint32_t)row * g.bytes_z, d = (uint64_t)(uint32_t)row * g.bytes_d;
  arb_rows_aside(g.words + ARB_GLU_FULL + 8 * stage, g.at + g.l.rows + stage * 3 * g.l.plane, g.l.plane,
                 reinterpret_cast<const char *>(u) + z, reinterpret_cast<const char *>(v) + z,
                 reinterpret_cast<const char *>(dy) + d, g.bytes_d);
}

/* The warp beside a group. Warps of the group arrive at the block's barrier `id` with products, and go on. */
template <int AHEAD>
static __device__ __forceinline__ void arb_glu_sums(const arb_glu_group &g, int width, int id, int threads, const uint16_t *u,
                                                    const uint16_t *v, const uint16_t *dy, const float *inv) {
  const int lane = threadIdx.x & 31, part = width & 31;
  const uint32_t first = g.at + ((lane & 4) ? g.l.half : 0u) + 16 * (uint32_t)(lane >> 3) + 4 * (uint32_t)(lane & 3);
  const float length = (float)width;
  uint32_t stage = 0;
#pragma unroll 1
  for (int row = g.row; row >= 0; row -= g.stride) {
    const float next_inv = row >= g.stride ? inv[row - g.stride] : 0.0f;
    float sum = 0.0f, t[4], n[4];
    uint32_t x = first; /* four chunks, 64 bytes, a step of a lane */
    int k = width >> 5;
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
    if (k >= 4) { /* loads four steps ahead of the additions */
#pragma unroll
      for (int j = 0; j < 4; j++) t[j] = arb_shared_float(x + 64 * j);
#pragma unroll 2
      for (; k >= 8; k -= 4) {
        x += 256;
#pragma unroll
        for (int j = 0; j < 4; j++) n[j] = arb_shared_float(x + 64 * j);
#pragma unroll
        for (int j = 0; j < 4; j++) sum += t[j], t[j] = n[j];
      }
      x += 256, k -= 4;
#pragma unroll
      for (int j = 0; j < 4; j++) sum += t[j];
    }
#pragma unroll 1
    for (; k > 0; k--, x += 64) sum += arb_shared_float(x);
    if (lane < part) sum += arb_shared_float(x);
    sum = arb_divf(arb_warp_sum(sum), length);
    if (lane == 0) {
      arb_to_shared(g.words + ARB_GLU_SUM, make_float2(sum, next_inv));
      arb_bar_arrive(g.words + ARB_GLU_MEAN);
    }
    __syncwarp();
    arb_glu_fetch(g, row - AHEAD * g.stride, stage, u, v, dy); /* to where the row of these products was */
    if (AHEAD > 1) stage ^= 1;
  }
}

template <int WARPS, int AHEAD, int THREADS>
static __global__ void __launch_bounds__(THREADS, 1)
    glu_backward_kernel(int m, int width, int warps_in, const uint16_t *__restrict__ u, const uint16_t *__restrict__ v,
                        uint32_t bytes_z, const float *__restrict__ inv_in, const int8_t *__restrict__ e,
                        const uint16_t *__restrict__ dy, const __grid_constant__ arb_gradient w) {
  static_assert(AHEAD <= 2, "two barriers, and one bit for the stage");
  extern __shared__ float4 shared[];
  int lane; /* asked for, so that the compiler does not make it again from threadIdx */
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  const int warps = WARPS ? WARPS : warps_in, in_block = (int)arb_kept(threadIdx.x >> 5);
  const int groups = (int)(blockDim.x >> 5) / (warps + 1); /* their warps first, then those beside them */
  const bool beside = in_block >= groups * warps;
  const int group = beside ? in_block - groups * warps : in_block / warps, warp = in_block - group * warps;
  const int chunks = width / ARB_CHUNK;
  const uint32_t table = arb_shared_at(shared), gains = table + ARB_SIGMOID_BYTES;
  const int id = group + 1, threads = 32 * (warps + 1);
  arb_glu_group g;
  g.l = arb_glu_layout_of(warps, AHEAD);
  g.at = gains + 6 * g.l.plane + (uint32_t)group * g.l.group, g.words = g.at + g.l.words;
  g.stride = (int)gridDim.x * groups;
  g.row = m - 1 - ((int)blockIdx.x * groups + group);
  g.bytes_z = bytes_z, g.bytes_d = 2 * (uint32_t)width;

  if (beside) {
    if (lane == 0) {
      arb_bar_init(g.words + ARB_GLU_MEAN, 1);
      arb_bar_init(g.words + ARB_GLU_MOST, warps);
      for (int k = 0; k < AHEAD; k++) arb_bar_init(g.words + ARB_GLU_FULL + 8 * k, ARB_ROWS_ARRIVALS);
      arb_bars_begun();
    }
    arb_to_shared(g.words + ARB_GLU_PART + 4 * lane, 0u);
    arb_to_shared(g.words + ARB_GLU_PART + 128 + 4 * lane, 0u);
    __syncwarp();
    for (int k = 0; k < AHEAD; k++) arb_glu_fetch(g, g.row - k * g.stride, (uint32_t)k, u, v, dy);
  }
#pragma unroll 1
  for (int i = (int)threadIdx.x; i < 3 * chunks; i += (int)blockDim.x) {
    const int k = i / chunks, c = i - k * chunks;
    float t[ARB_CHUNK];
    arb_chunk_gains<true>(k == 0 ? e : w.e, ARB_CHUNK * (k == 2 ? chunks + c : c), w.n, t);
    arb_to_shared(gains + 2 * k * g.l.plane + 16 * c, t);
    arb_to_shared(gains + (2 * k + 1) * g.l.plane + 16 * c, t + 4);
  }
  arb_sigmoid_fill(reinterpret_cast<char *>(shared));
  __syncthreads();
  if (beside) {
    arb_glu_sums<AHEAD>(g, width, id, threads, u, v, dy, inv_in);
    return;
  }
  int row = g.row;
  if (row < 0) return;

  /* threads past the last chunk, and a last chunk that there is not, do another's too: the same bytes to the same places */
  const int span = (chunks + ARB_GLU_EACH - 1) / ARB_GLU_EACH, first = min(32 * warp + lane, span - 1);
  uint32_t at[ARB_GLU_EACH]; /* bytes of a row before a chunk, in bf16 */
  int8_t *to[ARB_GLU_EACH];
#pragma unroll
  for (int c = 0; c < ARB_GLU_EACH; c++) {
    const int chunk = min(first + c * span, chunks - 1);
    at[c] = 16 * (uint32_t)chunk;
    to[c] = arb_kept_at(w.hq + ARB_CHUNK * chunk);
  }
  const uint32_t less = arb_kept((0x10000u - ARB_SIGMOID_FIRST) * 0x10001u + ((uint32_t)lane >> 5)); /* + 0 */
  arb_philox_plan draws = arb_philox_plan_of(arb_philox_key_of(w.step->seed, ARB_DRAW_DX), w.tensor, w.step->step);
  draws.c3 = arb_kept(draws.c3), draws.n0 = arb_kept(draws.n0), draws.n2 = arb_kept(draws.n2);
#pragma unroll
  for (int k = 0; k < ARB_PHILOX_ROUNDS - 2; k++) draws.k0[k] = arb_kept(draws.k0[k]), draws.k1[k] = arb_kept(draws.k1[k]);
  /* row / rows_per_grain = row * magic / 2^(31 + shift) for rows below 2^31 */
  const int shift = 32 - __clz((int)w.rows_per_grain - 1);
  const uint32_t magic = arb_kept((uint32_t)((((uint64_t)1 << (31 + shift)) + w.rows_per_grain - 1) / w.rows_per_grain));
  const uint32_t counter_row = (uint32_t)w.uses * (uint32_t)chunks * 2, counter_first = (uint32_t)w.use * (uint32_t)chunks * 2;

  float d[ARB_GLU_EACH][ARB_CHUNK], silu[ARB_GLU_EACH][ARB_CHUNK], slope[ARB_GLU_EACH][ARB_CHUNK];
  uint32_t wv[ARB_GLU_EACH][4];
  auto products = [&](float inv, uint32_t stage, uint32_t parity) {
    arb_bar_wait(g.words + ARB_GLU_FULL + 8 * stage, parity);
#pragma unroll
    for (int c = 0; c < ARB_GLU_EACH; c++) {
      const uint32_t from = g.at + g.l.rows + stage * 3 * g.l.plane + at[c];
      uint32_t wu[4], wd[4];
      float gain[ARB_CHUNK], sg[ARB_CHUNK], p[ARB_CHUNK];
      arb_shared_words(from, wu);
      arb_glu_gains(gains + at[c], g.l.plane, gain);
      arb_shared_words(from + 2 * g.l.plane, wd);
      arb_shared_words(from + g.l.plane, wv[c]);
#pragma unroll
      for (int j = 0; j < 4; j++) arb_glu_sigmoids(table, less, wu[j], sg + 2 * j);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        const float a = arb_word_half(wu, j);
        silu[c][j] = a * sg[j];
        slope[c][j] = sg[j] * (1.0f + a * (1.0f - sg[j]));
        d[c][j] = arb_word_half(wd, j) * gain[j];
        p[j] = d[c][j] * ((silu[c][j] * arb_word_half(wv[c], j)) * inv);
      }
      arb_to_shared(g.at + at[c], p);
      arb_to_shared(g.at + g.l.half + at[c], p + 4);
    }
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
  };
  uint32_t phase = 0, stage = AHEAD - 1, filled = AHEAD == 1; /* of this row; of the next row's bytes */
  float h[ARB_GLU_EACH][ARB_CHUNK], b[ARB_GLU_EACH][ARB_CHUNK];
  auto round = [&]() {
    arb_bar_wait(g.words + ARB_GLU_MOST, phase);
    const uint32_t bits =
        __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(arb_shared_float(g.words + ARB_GLU_PART + 128 * phase + 4 * lane)));
    if (warp == 0 && lane == 0) arb_gradient_scale_to(w, w.sh + row, bits);
    const float unit = arb_glu_unit(bits);
    const uint32_t rounds = arb_glu_rounds(bits) ? 0xffffffffu : 0u;
    const uint32_t local = __umulhi(2 * (uint32_t)row, magic) >> shift;
    const uint32_t counter = ((uint32_t)row - local * w.rows_per_grain) * counter_row + counter_first;
    const uint32_t grain = (uint32_t)(w.first + (int32_t)local * w.stride);
    const uint64_t before = (uint64_t)(uint32_t)row * g.bytes_d;
#pragma unroll
    for (int c = 0; c < ARB_GLU_EACH; c++) {
      const uint32_t number = counter + at[c] / 16;
      const uint2 u8 = arb_round8(h[c], unit, arb_philox_planned(&draws, number, grain));
      const uint2 v8 = arb_round8(b[c], unit, arb_philox_planned(&draws, number + (uint32_t)chunks, grain));
      int8_t *out = to[c] + before;
      asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(out), "r"(u8.x & rounds), "r"(u8.y & rounds) : "memory");
      asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(out + width), "r"(v8.x & rounds), "r"(v8.y & rounds) : "memory");
    }
  };
  float inv = inv_in[row];
  products(inv, 0, 0);
  for (;;) {
    float most_u = 0.0f, most_v = 0.0f;
    arb_bar_wait(g.words + ARB_GLU_MEAN, phase);
    const float2 sum = arb_shared_pair(g.words + ARB_GLU_SUM);
#pragma unroll
    for (int c = 0; c < ARB_GLU_EACH; c++) {
      float gain[ARB_CHUNK];
      arb_glu_gains(gains + 2 * g.l.plane + at[c], g.l.plane, gain);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) {
        const float x = arb_word_half(wv[c], j), xhat = (silu[c][j] * x) * inv;
        const float dx = inv * (d[c][j] - xhat * sum.x);
        h[c][j] = ((dx * x) * slope[c][j]) * gain[j];
        b[c][j] = dx * silu[c][j];
        most_u = arb_max_abs(most_u, h[c][j]);
      }
      arb_glu_gains(gains + 4 * g.l.plane + at[c], g.l.plane, gain);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) b[c][j] *= gain[j], most_v = arb_max_abs(most_v, b[c][j]);
    }
    const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(arb_max_abs(most_u, most_v)));
    if (lane == 0) {
      arb_to_shared(g.words + ARB_GLU_PART + 128 * phase + 4 * warp, bits);
      arb_bar_arrive(g.words + ARB_GLU_MOST);
    }
    if (row < g.stride) break;
    inv = sum.y;
    products(inv, stage, filled);
    round();
    row -= g.stride;
    filled ^= AHEAD == 1 ? 1 : phase ^ 1; /* of two, each is filled in every second turn */
    if (AHEAD > 1) stage ^= 1;
    phase ^= 1;
  }
  round();
}

#endif
