/* A linear's output gradient as int8: per row for dx, per grain and member for dW. One thread holds chunks of 8 consecutive
 * elements, one Philox output each; a block walks over the rows of one grain, so that a thread keeps its columns, their gains
 * and their scale, and loads the next row before it works on this one. */
#include "kernels/cuda/device.cuh"

#define CHUNK 8
#define MOST_THREADS 384

typedef struct {
  int64_t ldg;
  uint32_t rows;         /* of a grain */
  int32_t first, stride; /* of grains */
  int n, members, use, uses;
  int begin[ARB_MAX_MEMBERS + 1];
  uint32_t tensor;
  const float *g, *s;
  const int8_t *e;
  const arb_cuda_step *step;
  int *nonfinite;
} grad_args;

/* One chunk's place, gains and member (-1 when it spans several, which V rules out below). */
typedef struct {
  int at, member;
  float gain[CHUNK];
} column;

static __device__ __forceinline__ int member_of(const grad_args &a, int n) {
  int m = 0;
#pragma unroll
  for (int i = 1; i < ARB_MAX_MEMBERS; i++) m += i < a.members && n >= a.begin[i];
  return m;
}

template <bool V>
static __device__ __forceinline__ void place(const grad_args &a, int chunk, column &col) {
  const int at = chunk * CHUNK, last = at + CHUNK < a.n ? at + CHUNK - 1 : a.n - 1;
  int8_t e[CHUNK];
  col.at = at < a.n ? at : -1;
  col.member = member_of(a, at < a.n ? at : a.n - 1);
  if (!V && col.member != member_of(a, last)) col.member = -1;
  if (V) {
    *reinterpret_cast<uint2 *>(e) = at < a.n ? *reinterpret_cast<const uint2 *>(a.e + at) : make_uint2(0, 0);
  } else {
#pragma unroll
    for (int j = 0; j < CHUNK; j++) e[j] = a.e[at + j < a.n ? at + j : a.n - 1];
  }
#pragma unroll
  for (int j = 0; j < CHUNK; j++) col.gain[j] = arb_pow2_eighths(e[j]);
}

/* One chunk of a row of g; 0 past the row's end. V: 16-byte loads, n and the
 * members' beginnings multiples of 8. */
template <bool V>
static __device__ __forceinline__ void load_chunk(const grad_args &a, const float *row, int at, float g[CHUNK]) {
  if (at < 0) return;
  arb_load4<V>(row, at, a.n, g);
  arb_load4<V>(row, at + 4, a.n, g + 4);
}

template <bool V>
static __device__ __forceinline__ void store_chunk(int8_t *row, int at, int n, const uint32_t b[CHUNK]) {
  if (V) {
    *reinterpret_cast<uint2 *>(row + at) = make_uint2(arb_pack4(b), arb_pack4(b + 4));
  } else {
#pragma unroll
    for (int j = 0; j < CHUNK; j++)
      if (at + j < n) row[at + j] = (int8_t)b[j];
  }
}

static __device__ __forceinline__ arb_philox_block row_draws(const grad_args &a, arb_philox_key key, uint32_t step,
                                                             uint32_t grain, uint32_t position, int at) {
  const uint32_t per_row = (uint32_t)((a.n + 7) / 8);
  return arb_philox(key, (position * (uint32_t)a.uses + (uint32_t)a.use) * per_row + (uint32_t)at / 8, a.tensor, step, grain);
}

/* The members that a thread's chunks touch, one bit each. */
template <int C>
static __device__ __forceinline__ uint32_t members_of(const grad_args &a, const column col[C]) {
  uint32_t bits = 0;
#pragma unroll
  for (int c = 0; c < C; c++)
    if (col[c].at >= 0) {
      const int last = col[c].at + CHUNK < a.n ? col[c].at + CHUNK - 1 : a.n - 1;
      for (int i = member_of(a, col[c].at); i <= member_of(a, last); i++) bits |= 1u << i;
    }
  return bits;
}

/* Largest magnitude of a thread's elements in one member, as bits; top: the same of each chunk. */
template <int C, bool V>
static __device__ __forceinline__ uint32_t member_max(const grad_args &a, const column col[C], const float h[C][CHUNK],
                                                      const float top[C], int member) {
  float most = 0.0f;
#pragma unroll
  for (int c = 0; c < C; c++) {
    if (col[c].at < 0) continue;
    if (V || col[c].member >= 0) {
      if (col[c].member == member) most = arb_max_abs(most, top[c]);
    } else {
#pragma unroll
      for (int j = 0; j < CHUNK; j++)
        if (col[c].at + j < a.n && member_of(a, col[c].at + j) == member) most = arb_max_abs(most, h[c][j]);
    }
  }
  return arb_bits_of_f32(most);
}

/* Blocks (x, grain); block x takes positions x, x + gridDim.x, ... of the grain. */
template <int C, bool V>
static __global__ void __launch_bounds__(MOST_THREADS, C == 1 ? 3 : 1)
    grad_quant_kernel(const __grid_constant__ grad_args a, int8_t *__restrict__ hq, float *__restrict__ sh, uint32_t *tmax) {
  __shared__ uint4 part[2][MOST_THREADS / 32]; /* [parity of the row][warp], a word a member */
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const int64_t row0 = (int64_t)blockIdx.y * a.rows;
  const uint32_t step = a.step->step, grain = (uint32_t)(a.first + (int32_t)blockIdx.y * a.stride);
  const arb_philox_key key = arb_philox_key_of(a.step->seed, ARB_DRAW_DX);
  column col[C];
  float g[C][CHUNK];
#pragma unroll
  for (int c = 0; c < C; c++) place<V>(a, (int)(threadIdx.x + c * blockDim.x), col[c]);
#pragma unroll
  for (int c = 0; c < C; c++) load_chunk<V>(a, a.g + (row0 + blockIdx.x) * a.ldg, col[c].at, g[c]);
  const uint32_t mine = __reduce_or_sync(ARB_CUDA_FULL, members_of<C>(a, col)); /* of this warp */
  if (threadIdx.x < MOST_THREADS / 32) part[0][threadIdx.x] = part[1][threadIdx.x] = make_uint4(0, 0, 0, 0);
  __syncthreads();
  uint32_t scaled[ARB_MAX_MEMBERS] = {0, 0, 0, 0}, seen = 0; /* over rows */
  int parity = 0;
  for (uint32_t position = blockIdx.x; position < a.rows; position += gridDim.x, parity ^= 1) {
    const int64_t row = row0 + position;
    float h[C][CHUNK];
#pragma unroll
    for (int c = 0; c < C; c++)
#pragma unroll
      for (int j = 0; j < CHUNK; j++) h[c][j] = g[c][j] * col[c].gain[j];
    const float s = a.s ? a.s[row] : 1.0f;
    if (position + gridDim.x < a.rows)
#pragma unroll
      for (int c = 0; c < C; c++) load_chunk<V>(a, a.g + (row + gridDim.x) * a.ldg, col[c].at, g[c]);

    float largest[C];
#pragma unroll
    for (int c = 0; c < C; c++) {
      largest[c] = 0.0f;
#pragma unroll
      for (int j = 0; j < CHUNK; j++) largest[c] = arb_max_abs(largest[c], h[c][j]);
    }
    uint32_t top[ARB_MAX_MEMBERS] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < ARB_MAX_MEMBERS; i++)
      if (mine >> i & 1) top[i] = __reduce_max_sync(ARB_CUDA_FULL, member_max<C, V>(a, col, h, largest, i));
    uint32_t bits = max(max(top[0], top[1]), max(top[2], top[3]));
    if (warps > 1) {
      if (lane == 0) part[parity][warp] = make_uint4(top[0], top[1], top[2], top[3]);
      __syncthreads();
      const uint4 p = lane < warps ? part[parity][lane] : make_uint4(0, 0, 0, 0);
      bits = __reduce_max_sync(ARB_CUDA_FULL, max(max(p.x, p.y), max(p.z, p.w)));
      if (warp == 0) {
        top[0] = __reduce_max_sync(ARB_CUDA_FULL, p.x);
        if (a.members > 1) top[1] = __reduce_max_sync(ARB_CUDA_FULL, p.y);
        if (a.members > 2) top[2] = __reduce_max_sync(ARB_CUDA_FULL, p.z);
        if (a.members > 3) top[3] = __reduce_max_sync(ARB_CUDA_FULL, p.w);
      }
    }
    if (warp == 0) {
#pragma unroll
      for (int i = 0; i < ARB_MAX_MEMBERS; i++) /* rounding is monotone, so max |h * s| is (max |h|) * s */
        if (i < a.members) scaled[i] = max(scaled[i], a.s ? arb_bits_of_f32(arb_f32_of_bits(top[i]) * s) : top[i]);
      seen = max(seen, bits);
    }
    if (!hq) continue;
    const float most = arb_f32_of_bits(bits);
    const bool zero = bits >= ARB_F32_INF_BITS || most < ARB_TINY;
    if (threadIdx.x == 0) sh[row] = zero ? 0.0f : arb_divf(most, 127.0f);
    const float inv = zero ? 0.0f : arb_divf(127.0f, most);
#pragma unroll
    for (int c = 0; c < C; c++) {
      if (col[c].at < 0) continue;
      uint32_t b[CHUNK] = {0, 0, 0, 0, 0, 0, 0, 0};
      if (!zero) {
        const arb_philox_block r = row_draws(a, key, step, grain, position, col[c].at);
#pragma unroll
        for (int j = 0; j < CHUNK; j++) b[j] = arb_stochastic_byte(arb_clamp_fast(h[c][j] * inv, 127.0f), r, j);
      }
      store_chunk<V>(hq + row * a.n, col[c].at, a.n, b);
    }
  }
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int i = 0; i < ARB_MAX_MEMBERS; i++)
    if (i < a.members) {
      if (scaled[i] != 0) atomicMax(tmax + blockIdx.y * (uint32_t)a.members + i, scaled[i]);
      seen = max(seen, scaled[i]);
    }
  if (seen >= ARB_F32_INF_BITS) *a.nonfinite = 1;
}

template <int C, bool V>
static __global__ void __launch_bounds__(MOST_THREADS, C == 1 ? 3 : 1)
    dw_quant_kernel(const __grid_constant__ grad_args a, const uint32_t *__restrict__ tmax, int32_t *__restrict__ cexp,
                    int8_t *__restrict__ tq) {
  __shared__ float units[ARB_MAX_MEMBERS];
  const int64_t row0 = (int64_t)blockIdx.y * a.rows;
  const uint32_t step = a.step->step, grain = (uint32_t)(a.first + (int32_t)blockIdx.y * a.stride);
  const arb_philox_key key = arb_philox_key_of(a.step->seed, ARB_DRAW_DW);
  column col[C];
  float g[C][CHUNK], unit[C], s = a.s ? a.s[row0 + blockIdx.x] : 1.0f;
#pragma unroll
  for (int c = 0; c < C; c++) place<V>(a, (int)(threadIdx.x + c * blockDim.x), col[c]);
#pragma unroll
  for (int c = 0; c < C; c++) load_chunk<V>(a, a.g + (row0 + blockIdx.x) * a.ldg, col[c].at, g[c]);
  if (threadIdx.x < (unsigned)a.members) {
    const uint32_t i = blockIdx.y * (uint32_t)a.members + threadIdx.x;
    const int e = arb_dw_exponent(arb_f32_of_bits(tmax[i]));
    units[threadIdx.x] = e == ARB_NO_SCALE ? 0.0f : arb_pow2i(-e);
    if (blockIdx.x == 0) cexp[i] = e;
  }
  __syncthreads();
#pragma unroll
  for (int c = 0; c < C; c++) unit[c] = !V && col[c].member < 0 ? 0.0f : units[col[c].member];
  for (uint32_t position = blockIdx.x; position < a.rows; position += gridDim.x) {
    const int64_t row = row0 + position;
    const float scale = s;
    float h[C][CHUNK];
#pragma unroll
    for (int c = 0; c < C; c++)
#pragma unroll
      for (int j = 0; j < CHUNK; j++) h[c][j] = g[c][j] * col[c].gain[j];
    if (position + gridDim.x < a.rows) {
      if (a.s) s = a.s[row + gridDim.x];
#pragma unroll
      for (int c = 0; c < C; c++) load_chunk<V>(a, a.g + (row + gridDim.x) * a.ldg, col[c].at, g[c]);
    }
#pragma unroll
    for (int c = 0; c < C; c++) {
      if (col[c].at < 0) continue;
      const arb_philox_block r = row_draws(a, key, step, grain, position, col[c].at);
      uint32_t b[CHUNK];
#pragma unroll
      for (int j = 0; j < CHUNK; j++) {
        float own = unit[c];
        if (!V && col[c].member < 0) own = units[member_of(a, col[c].at + j < a.n ? col[c].at + j : a.n - 1)];
        b[j] = arb_stochastic_byte(arb_clamp_fast((h[c][j] * scale) * own, 127.0f), r, j);
      }
      store_chunk<V>(tq + row * a.n, col[c].at, a.n, b);
    }
  }
}

/* Threads of a block so that one block holds a row: 1 chunk a thread up to 3072 elements, 4 beyond. */
typedef struct {
  unsigned threads;
  dim3 grid;
  int chunks;
} grad_shape;

static arb_status shape_of(const arb_rows *r, const arb_stack *w, grad_shape *out) {
  const int64_t chunks = arb_cuda_ceil(w->n, CHUNK), m = arb_rows_count(r);
  ARB_REQUIRE(chunks <= 4 * MOST_THREADS && m < INT32_MAX && r->grains <= 65535, ARB_ERR_UNSUPPORTED,
              "a gradient of %lld rows by %lld is more than this backend takes", (long long)m, (long long)w->n);
  out->chunks = chunks <= MOST_THREADS ? 1 : 4;
  out->threads = (unsigned)(arb_cuda_ceil(arb_cuda_ceil(chunks, out->chunks), 32) * 32);
  return ARB_OK;
}

/* As many blocks as the GPU holds at once, shared among the grains. */
static arb_status grid_of(const arb_cuda *c, const void *kernel, const arb_rows *r, grad_shape *out) {
  int resident = 0;
  ARB_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, (int)out->threads, 0), "occupancy");
  const int64_t blocks = c->multiprocessors * (int64_t)resident / r->grains;
  out->grid = dim3((unsigned)(blocks > r->rows_per_grain ? r->rows_per_grain : (blocks > 0 ? blocks : 1)), (unsigned)r->grains);
  return ARB_OK;
}

static grad_args args_of(arb_cuda *c, const arb_rows *r, const float *g, int64_t ldg, const arb_stack *w, int use,
                         const float *s) {
  grad_args a = {};
  a.ldg = ldg;
  a.rows = (uint32_t)r->rows_per_grain;
  a.first = r->first;
  a.stride = r->stride;
  a.n = (int)w->n;
  a.members = w->members;
  a.use = use;
  a.uses = w->uses;
  for (int i = 0; i <= w->members; i++) a.begin[i] = (int)w->begin[i];
  a.tensor = w->id;
  a.g = g;
  a.s = s;
  a.e = w->e;
  a.step = c->step;
  a.nonfinite = c->nonfinite;
  return a;
}

static bool wide(const float *g, int64_t ldg, const arb_stack *w, const int8_t *q) {
  for (int i = 0; i <= w->members; i++)
    if (w->begin[i] % CHUNK != 0) return false;
  return ldg % 4 == 0 && arb_cuda_aligned(g, 16) && arb_cuda_aligned(q, 8) && arb_cuda_aligned(w->e, 8);
}

static arb_status grad_quant(arb_backend *be, const arb_rows *r, const float *g, int64_t ldg, const arb_stack *w, int use,
                             const float *s, int8_t *hq, float *sh, uint32_t *tmax) {
  arb_cuda *c = arb_cuda_of(be);
  grad_shape shape = {};
  ARB_TRY(shape_of(r, w, &shape));
  ARB_CUDA_TRY(cudaMemsetAsync(tmax, 0, (size_t)r->grains * (size_t)w->members * sizeof *tmax, c->stream), "grad_quant");
  const bool v = wide(g, ldg, w, hq);
  auto kernel = shape.chunks == 1 ? (v ? grad_quant_kernel<1, true> : grad_quant_kernel<1, false>)
                                  : (v ? grad_quant_kernel<4, true> : grad_quant_kernel<4, false>);
  ARB_TRY(grid_of(c, (const void *)kernel, r, &shape));
  ARB_CUDA_LAUNCH(c, "grad_quant", kernel, shape.grid, shape.threads, 0, args_of(c, r, g, ldg, w, use, s), hq, sh, tmax);
  return ARB_OK;
}

static arb_status dw_quant(arb_backend *be, const arb_rows *r, const float *g, int64_t ldg, const arb_stack *w, int use,
                           const float *s, const uint32_t *tmax, int32_t *cexp, int8_t *tq) {
  arb_cuda *c = arb_cuda_of(be);
  grad_shape shape = {};
  ARB_TRY(shape_of(r, w, &shape));
  const bool v = wide(g, ldg, w, tq);
  auto kernel = shape.chunks == 1 ? (v ? dw_quant_kernel<1, true> : dw_quant_kernel<1, false>)
                                  : (v ? dw_quant_kernel<4, true> : dw_quant_kernel<4, false>);
  ARB_TRY(grid_of(c, (const void *)kernel, r, &shape));
  ARB_CUDA_LAUNCH(c, "dw_quant", kernel, shape.grid, shape.threads, 0, args_of(c, r, g, ldg, w, use, s), tmax, cexp, tq);
  return ARB_OK;
}

void arb_cuda_fill_grads(arb_ops *ops) {
  ops->grad_quant = grad_quant;
  ops->dw_quant = dw_quant;
}
