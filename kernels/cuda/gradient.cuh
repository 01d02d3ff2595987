/* A gradient row as int8 by stochastic rounding: what grad_quant and the kernels that end in its rows share. Eight consecutive
 * elements, a chunk, take their draws from one Philox output. Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_GRADIENT_CUH
#define ARB_KERNELS_CUDA_GRADIENT_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/order.cuh"

#define ARB_CHUNK 8

/* The stack whose rows go out, and what its draws depend on. By value. */
typedef struct {
  int32_t n, use, uses;
  uint32_t tensor, rows_per_grain;
  int32_t first, stride; /* of grains */
  const int8_t *e;       /* [n] */
  int8_t *hq;            /* [m][n] */
  float *sh;             /* [m] */
  const arb_cuda_step *step;
  int *nonfinite;
} arb_gradient;

static inline arb_gradient arb_gradient_of(const arb_cuda *c, const arb_rows *r, const arb_stack *w, int use, int8_t *hq,
                                           float *sh) {
  arb_gradient g = {};
  g.n = (int32_t)w->n;
  g.use = use;
  g.uses = w->uses;
  g.tensor = w->id;
  g.rows_per_grain = (uint32_t)r->rows_per_grain;
  g.first = r->first;
  g.stride = r->stride;
  g.e = w->e;
  g.hq = hq;
  g.sh = sh;
  g.step = c->step;
  g.nonfinite = c->nonfinite;
  return g;
}

/* Rows are stored in 8-byte pieces: every row begins on one. */
static inline bool arb_gradient_wide(const arb_stack *w, const int8_t *hq) {
  return w->n % ARB_CHUNK == 0 && arb_cuda_aligned(hq, 8) && arb_cuda_aligned(w->e, 8);
}

/* 2^(e/8) of a chunk; 1 past the end of the row. V: the row is made of whole chunks. */
template <bool V>
static __device__ __forceinline__ void arb_chunk_gains(const int8_t *e, int at, int n, float gain[ARB_CHUNK]) {
  int8_t b[ARB_CHUNK];
  if (V) {
    *reinterpret_cast<uint2 *>(b) = *reinterpret_cast<const uint2 *>(e + at);
  } else {
#pragma unroll
    for (int j = 0; j < ARB_CHUNK; j++) b[j] = at + j < n ? e[at + j] : (int8_t)0;
  }
#pragma unroll
  for (int j = 0; j < ARB_CHUNK; j++) gain[j] = arb_pow2_eighths(b[j]);
}

/* Eight bf16 of a row; 0 past its end. V: 16-byte loads. */
template <bool V>
static __device__ __forceinline__ void arb_load8(const uint16_t *row, int at, int n, float v[ARB_CHUNK]) {
  if (V) {
    const uint4 t = *reinterpret_cast<const uint4 *>(row + at);
    const uint32_t w[4] = {t.x, t.y, t.z, t.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      v[2 * j] = arb_f32_of_bits(w[j] << 16);
      v[2 * j + 1] = arb_f32_of_bits(w[j] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int j = 0; j < ARB_CHUNK; j++) v[j] = at + j < n ? arb_f32_of_bf16(row[at + j]) : 0.0f;
  }
}

template <bool V>
static __device__ __forceinline__ void arb_load8(const float *row, int at, int n, float v[ARB_CHUNK]) {
  arb_load4<V>(row, at, n, v);
  arb_load4<V>(row, at + 4, n, v + 4);
}

/* Eight floats of an aligned row that is not read again soon. */
static __device__ __forceinline__ void arb_load8_last(const float *from, float v[ARB_CHUNK]) {
  const float4 a = arb_load_last(reinterpret_cast<const float4 *>(from)),
               b = arb_load_last(reinterpret_cast<const float4 *>(from + 4));
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

static __device__ __forceinline__ void arb_load8_last(const uint16_t *from, float v[ARB_CHUNK]) {
  const uint4 t = arb_load_last(reinterpret_cast<const uint4 *>(from));
  const uint32_t w[4] = {t.x, t.y, t.z, t.w};
#pragma unroll
  for (int j = 0; j < ARB_CHUNK; j++) v[j] = arb_f32_of_bits((j & 1) ? w[j / 2] & 0xffff0000u : w[j / 2] << 16);
}

/* Element j of eight bf16 in four words. */
static __device__ __forceinline__ float arb_word_half(const uint32_t w[4], int j) {
  return arb_f32_of_bits((j & 1) ? w[j / 2] & 0xffff0000u : w[j / 2] << 16);
}

/* Eight values rounded to bf16, one 16-byte store. */
static __device__ __forceinline__ void arb_store8(uint16_t *to, const float v[ARB_CHUNK]) {
  uint32_t w[4];
  arb_bf16_pairs<ARB_CHUNK>(v, w);
  *reinterpret_cast<uint4 *>(to) = make_uint4(w[0], w[1], w[2], w[3]);
}

static __device__ __forceinline__ float arb_chunk_most(const float h[ARB_CHUNK]) {
  float most = 0.0f;
#pragma unroll
  for (int j = 0; j < ARB_CHUNK; j++) most = arb_max_abs(most, h[j]);
  return most;
}

/* How a row with this largest magnitude is rounded: 127 / max in units of 2^-15, 0 for a row that becomes zero. */
static __device__ __forceinline__ float arb_gradient_unit(uint32_t bits) {
  const float most = arb_f32_of_bits(bits);
  return bits >= ARB_F32_INF_BITS || most < ARB_TINY ? 0.0f : arb_divf(127.0f, most) * 0x1p15f;
}
/* The row's scale, stored by one thread. */
static __device__ __forceinline__ void arb_gradient_scale_to(const arb_gradient &g, float *to, uint32_t bits) {
  const float most = arb_f32_of_bits(bits);
  if (bits >= ARB_F32_INF_BITS) *g.nonfinite = 1;
  *to = bits >= ARB_F32_INF_BITS || most < ARB_TINY ? 0.0f : arb_divf(most, 127.0f);
}
static __device__ __forceinline__ void arb_gradient_scale(const arb_gradient &g, int64_t row, uint32_t bits) {
  arb_gradient_scale_to(g, g.sh + row, bits);
}

/* Eight elements with the draws of one Philox output; unit 0 makes them 0. */
static __device__ __forceinline__ uint2 arb_round8(const float h[ARB_CHUNK], float unit, const arb_philox_block &r) {
  return make_uint2(arb_round4(h, unit, r.v[0], r.v[1]), arb_round4(h + 4, unit, r.v[2], r.v[3]));
}

/* Number of a row's first Philox output among those of its grain. */
static __device__ __forceinline__ uint32_t arb_gradient_counter(const arb_gradient &g, uint32_t position) {
  return (position * (uint32_t)g.uses + (uint32_t)g.use) * ((uint32_t)(g.n + 7) / 8);
}

/* Draws of the chunk at `at` of a row, position `position` of grain `grain` (its number in the step). */
static __device__ __forceinline__ arb_philox_block arb_gradient_draws(const arb_gradient &g, arb_philox_key key, uint32_t step,
                                                                      uint32_t grain, uint32_t position, int at) {
  const uint32_t per_row = (uint32_t)(g.n + 7) / 8;
  return arb_philox(key, (position * (uint32_t)g.uses + (uint32_t)g.use) * per_row + (uint32_t)at / 8, g.tensor, step, grain);
}

/* One chunk of a row rounded and stored. */
template <bool V>
static __device__ __forceinline__ void arb_round_chunk(const arb_gradient &g, arb_philox_key key, uint32_t step, uint32_t grain,
                                                       uint32_t position, int64_t row, int at, const float h[ARB_CHUNK],
                                                       float unit) {
  uint2 b = make_uint2(0, 0);
  if (unit != 0.0f) {
    const arb_philox_block r = arb_gradient_draws(g, key, step, grain, position, at);
    b.x = arb_round4(h, unit, r.v[0], r.v[1]);
    b.y = arb_round4(h + 4, unit, r.v[2], r.v[3]);
  }
  int8_t *to = g.hq + row * g.n;
  if (V) {
    *reinterpret_cast<uint2 *>(to + at) = b;
  } else {
#pragma unroll
    for (int j = 0; j < ARB_CHUNK; j++)
      if (at + j < g.n) to[at + j] = (int8_t)((j < 4 ? b.x : b.y) >> (8 * (j & 3)));
  }
}

/* Grain (number in the step) and position of a row. */
typedef struct {
  uint32_t grain, position;
} arb_row_place;
static __device__ __forceinline__ arb_row_place arb_place_of(const arb_gradient &g, int64_t row) {
  const uint32_t local = (uint32_t)((uint64_t)row / g.rows_per_grain);
  arb_row_place p;
  p.grain = (uint32_t)(g.first + (int32_t)local * g.stride);
  p.position = (uint32_t)row - local * g.rows_per_grain;
  return p;
}

/* (q, s) of a row that a warp holds in G chunks a lane, lane's chunk c at 8 (lane + 32 c), the last one at `last`; most: the
 * largest magnitude of the lane's elements. */
template <int G>
static __device__ __forceinline__ void arb_quantise_chunks(const float (&a)[G][ARB_CHUNK], float most, int lane, int last,
                                                           int8_t *q, float *s, int *nonfinite) {
  const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
  const float top = arb_f32_of_bits(bits);
  const bool zero = bits >= ARB_F32_INF_BITS || top < ARB_TINY;
  const float unit = zero ? 0.0f : arb_divf(127.0f, top);
  if (lane == 0) {
    *s = zero ? 0.0f : arb_divf(top, 127.0f);
    if (bits >= ARB_F32_INF_BITS) *nonfinite = 1;
  }
#pragma unroll
  for (int c = 0; c < G; c++) {
    const int i = c < G - 1 ? ARB_CHUNK * (lane + 32 * c) : last;
    uint32_t b[ARB_CHUNK];
#pragma unroll
    for (int j = 0; j < ARB_CHUNK; j++) b[j] = arb_round_byte(a[c][j] * unit); /* at most 127 (1 + 2^-22): no clamp */
    *reinterpret_cast<uint2 *>(q + i) = zero ? make_uint2(0, 0) : make_uint2(arb_pack4(b), arb_pack4(b + 4));
  }
}

/* Place of a row in a walk downwards over every stride-th: the divisions are done once. */
typedef struct {
  uint32_t local, position, locals, positions; /* grain here and position in it; the stride in grains and positions */
} arb_row_walk;
static __device__ __forceinline__ arb_row_walk arb_walk_from(const arb_gradient &g, int64_t row, int64_t stride) {
  arb_row_walk w;
  w.local = (uint32_t)((uint64_t)row / g.rows_per_grain);
  w.position = (uint32_t)row - w.local * g.rows_per_grain;
  w.locals = (uint32_t)((uint64_t)stride / g.rows_per_grain);
  w.positions = (uint32_t)stride - w.locals * g.rows_per_grain;
  return w;
}
static __device__ __forceinline__ void arb_walk_on(const arb_gradient &g, arb_row_walk &w) {
  w.local -= w.locals;
  if (w.position < w.positions) w.position += g.rows_per_grain, w.local--;
  w.position -= w.positions;
}
/* Place of the k-th row after this one, k at most the rows of a grain. */
static __device__ __forceinline__ arb_row_walk arb_walk_beside(const arb_gradient &g, arb_row_walk w, uint32_t k) {
  if (w.position < k) w.position += g.rows_per_grain, w.local--;
  w.position -= k;
  return w;
}
static __device__ __forceinline__ uint32_t arb_walk_grain(const arb_gradient &g, const arb_row_walk &w) {
  return (uint32_t)(g.first + (int32_t)w.local * g.stride);
}

/* The row out, by one warp, from a function that gives h of chunk `at` as often as it is asked. Any width. */
template <typename F>
static __device__ __forceinline__ void arb_gradient_row(const arb_gradient &g, int64_t row, F chunk) {
  const int lane = threadIdx.x & 31;
  float most = 0.0f, h[ARB_CHUNK];
  for (int at = ARB_CHUNK * lane; at < g.n; at += 32 * ARB_CHUNK) {
    chunk(at, h);
    most = arb_max_abs(most, arb_chunk_most(h));
  }
  const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
  const float unit = arb_gradient_unit(bits);
  if (lane == 0) arb_gradient_scale(g, row, bits);
  const arb_row_place p = arb_place_of(g, row);
  const arb_philox_key key = arb_philox_key_of(g.step->seed, ARB_DRAW_DX);
  for (int at = ARB_CHUNK * lane; at < g.n; at += 32 * ARB_CHUNK) {
    chunk(at, h);
    arb_round_chunk<false>(g, key, g.step->step, p.grain, p.position, row, at, h, unit);
  }
}

#endif
