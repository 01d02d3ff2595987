/* Statistics of the summed votes and the update of state bytes (docs/arithmetic.md, "The update"). Integers throughout but for
 * the last product, so sums may meet in atomics. */
#include "kernels/common/fixed.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/work_bytes.h"

static __device__ __forceinline__ int64_t member_rows(const arb_stack &w, int m) {
  return w.whole[m] ? w.whole[m] : w.begin[m + 1] - w.begin[m];
}

static __device__ __forceinline__ int member_of(const arb_stack &w, int64_t row) {
  int m = 0;
  while (row >= w.begin[m + 1]) m++;
  return m;
}

/* ---- what a block does: for one stack, or for its stack among many ---- */

#define STRIP 32 /* rows that a block of vote_columns sums before it meets the others */

typedef struct {
  arb_stack w;
  arb_update_work work;
  float *column;  /* [members][k] 2^((M - C) / 2) */
  float *row;     /* [n] 2^((2p - R) / 2), 0 for a row without votes */
  int32_t *whole; /* [members] the new M, until all have read the old one */
  int64_t grains, *flips;
  int vmax;
  const arb_cuda_step *step;
  const int *nonfinite; /* up: nothing may change */
} update_args;

static __device__ __forceinline__ void clear_block(const arb_update_work &work, int64_t columns, int members, int64_t block) {
  const int64_t i = block * blockDim.x + threadIdx.x;
  if (i < columns) work.csum[i] = 0;
  if (i < members) {
    work.msum[i] = 0;
    work.top[i] = INT32_MIN;
    work.low[i] = INT32_MAX;
  }
}

static __device__ __forceinline__ uint32_t square4(uint32_t v, uint32_t sum) {
  return (uint32_t)__dp4a((int)v, (int)v, (int)sum);
}

/* A warp a row; V: 16 bytes at a time. A lane's 32-bit sum holds k / 32 * 127^2 < 2^32 for k < 2^23. */
template <bool V>
static __device__ __forceinline__ void vote_rows_block(const arb_stack &w, const arb_update_work &work, int64_t block) {
  const int lane = threadIdx.x & 31;
  const int64_t row = block * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (row >= w.n) return;
  const int8_t *v = w.votes + row * w.k;
  uint64_t sum = 0;
  if (V) {
    for (int64_t i = lane; i < w.k / 16; i += 32) {
      const uint4 t = reinterpret_cast<const uint4 *>(v)[i];
      sum += square4(t.w, square4(t.z, square4(t.y, square4(t.x, 0))));
    }
  } else {
    for (int64_t i = lane; i < w.k; i += 32) sum += (uint32_t)((int32_t)v[i] * v[i]);
  }
#pragma unroll
  for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(ARB_CUDA_FULL, sum, o);
  if (lane != 0) return;
  work.s[row] = sum;
  if (sum == 0) return;
  const int m = member_of(w, row), p = w.p[row];
  if (p > *(volatile int32_t *)&work.top[m]) atomicMax(&work.top[m], p);
  if (p < *(volatile int32_t *)&work.low[m]) atomicMin(&work.low[m], p);
}

/* Block (x, y) of `width` by strips: columns of block x, strip y of rows; a thread sums V consecutive columns. The blocks of x
 * = width - 1 sum the strip's rows into msum. Strips may cross members. */
template <int V>
static __device__ __forceinline__ void vote_columns_block(const arb_stack &w, const arb_update_work &work, unsigned x,
                                                          unsigned width, int64_t y) {
  __shared__ int shift[STRIP], member[STRIP];
  const int64_t row0 = y * STRIP;
  const int rows = w.n - row0 < STRIP ? (int)(w.n - row0) : STRIP;
  for (int i = (int)threadIdx.x; i < rows; i += (int)blockDim.x) {
    const uint64_t s = work.s[row0 + i];
    const int m = member_of(w, row0 + i);
    const int by = s ? 2 * (work.top[m] - w.p[row0 + i]) : 64;
    member[i] = m;
    shift[i] = by;
    if (x == width - 1 && by < 64) {
      const uint64_t add = (s << 8) >> by;
      if (add) atomicAdd((unsigned long long *)&work.msum[m], (unsigned long long)add);
    }
  }
  __syncthreads();
  const int64_t k = ((int64_t)x * blockDim.x + threadIdx.x) * V;
  if (x == width - 1 || k >= w.k) return;
  uint64_t sum[V] = {};
  const int8_t *at = w.votes + row0 * w.k + k;
#pragma unroll 8
  for (int i = 0; i < rows; i++) {
    int8_t b[V];
    if (V == 4)
      *reinterpret_cast<uint32_t *>(b) = *reinterpret_cast<const uint32_t *>(at + i * w.k);
    else
      b[0] = at[i * w.k];
    const int by = shift[i]; /* v^2 << 16 is below 2^30 */
#pragma unroll
    for (int j = 0; j < V; j++) sum[j] += by > 31 ? 0u : ((uint32_t)((int32_t)b[j] * b[j]) << 16) >> by;
    if (i + 1 == rows || member[i + 1] != member[i]) {
#pragma unroll
      for (int j = 0; j < V; j++) {
        if (sum[j]) atomicAdd((unsigned long long *)&work.csum[member[i] * w.k + k + j], (unsigned long long)sum[j]);
        sum[j] = 0;
      }
    }
  }
}

/* Block x of `columns` blocks for each member: C; each works out its member's M. The blocks after them: rows. All of R, C and
 * p; M and the codes come after. */
static __device__ __forceinline__ void statistics_block(const update_args &a, unsigned x, unsigned columns) {
  const arb_stack &w = a.w;
  if (*a.nonfinite) return;
  if (x < columns * (unsigned)w.members) {
    const int m = (int)(x / columns);
    const int64_t k = (int64_t)(x - (unsigned)m * columns) * blockDim.x + threadIdx.x, rows = member_rows(w, m);
    const bool seen = a.work.top[m] != INT32_MIN;
    const int32_t unit = seen ? a.work.top[m] * 2 * 65536 : 0;
    const uint64_t msum = a.work.msum[m];
    const int32_t now = seen && msum ? arb_ilog2(msum) - (8 << 16) + unit - arb_ilog2((uint64_t)rows * (uint64_t)w.k) : 0;
    const int32_t whole = arb_stat_next(w.m[m], seen && msum, now);
    if (k == 0) a.whole[m] = whole;
    if (k >= w.k) return;
    const uint64_t sum = a.work.csum[m * w.k + k];
    const int32_t own = sum ? arb_ilog2(sum) - (16 << 16) + unit - arb_ilog2((uint64_t)rows) : 0;
    const int32_t next = arb_stat_next(w.c[m * w.k + k], sum != 0, own);
    w.c[m * w.k + k] = next;
    const bool known = next != ARB_Q16_NONE && whole != ARB_Q16_NONE;
    a.column[m * w.k + k] = known ? arb_exp2_half((int64_t)whole - next) : 1.0f;
    return;
  }
  const int64_t n = (int64_t)(x - columns * (unsigned)w.members) * blockDim.x + threadIdx.x;
  if (n >= w.n) return;
  const uint64_t s = a.work.s[n];
  const int p = w.p[n];
  const int32_t r = arb_stat_next(w.r[n], s != 0, s ? arb_ilog2(s) - arb_ilog2((uint64_t)w.k) + p * 2 * 65536 : 0);
  w.r[n] = r;
  int next_p;
  if (s != 0) {
    a.row[n] = arb_exp2_half((int64_t)p * 2 * 65536 - r);
    next_p = p + arb_p_step(s, (uint64_t)w.k, (uint64_t)a.vmax, (uint64_t)a.grains);
  } else {
    a.row[n] = 0.0f;
    const int32_t low = a.work.low[member_of(w, n)];
    const int floor_p = low == INT32_MAX ? -120 : low - 8;
    next_p = p - 4 < floor_p ? floor_p : p - 4;
  }
  next_p = next_p > 120 ? 120 : next_p;
  w.p[n] = (int8_t)(next_p < -120 ? -120 : next_p);
}

/* A thread moves 8 consecutive weights of a row. V: k is a multiple of 8 and the arrays are aligned. */
template <bool V>
static __device__ __forceinline__ void codes_block(const update_args &a, unsigned block, unsigned blocks) {
  __shared__ unsigned moved[2];
  const arb_stack &w = a.w;
  const uint32_t per_row = (uint32_t)((w.k + 7) / 8);
  const int64_t total = w.n * per_row;
  const arb_philox_key key = arb_philox_key_of(a.step->seed, ARB_DRAW_UPDATE);
  const float step = -a.step->eta_units;
  unsigned flips = 0, saturated = 0;
  if (*a.nonfinite) return;
  if (threadIdx.x < 2) moved[threadIdx.x] = 0;
  if (block == 0 && threadIdx.x < (unsigned)w.members) w.m[threadIdx.x] = a.whole[threadIdx.x];
  __syncthreads();
  for (int64_t i = (int64_t)block * blockDim.x + threadIdx.x; i < total; i += (int64_t)blocks * blockDim.x) {
    const int64_t n = i / per_row, k = (i - n * per_row) * 8;
    if (a.work.s[n] == 0) continue;
    const int count = V ? 8 : (w.k - k < 8 ? (int)(w.k - k) : 8);
    const float row = a.row[n];
    const float *column = a.column + member_of(w, n) * w.k + k;
    const int8_t *votes = w.votes + n * w.k + k;
    uint8_t *code = w.code + n * w.k + k;
    const arb_philox_block r = arb_philox(key, (uint32_t)(w.first * per_row + i), w.id, a.step->step, 0);
    int8_t v[8] = {};
    uint8_t c[8] = {};
    float f[8] = {};
    if (V) {
      *reinterpret_cast<uint2 *>(v) = *reinterpret_cast<const uint2 *>(votes);
      *reinterpret_cast<uint2 *>(c) = *reinterpret_cast<const uint2 *>(code);
      arb_load4<true>(column, 0, 8, f);
      arb_load4<true>(column, 4, 8, f + 4);
    } else {
#pragma unroll
      for (int j = 0; j < 8; j++)
        if (j < count) v[j] = votes[j], c[j] = code[j], f[j] = column[j];
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float u = arb_clamp(((float)v[j] * row) * f[j], 4.0f);
      const int da = (int)arb_stochastic_round(step * u, (uint16_t)arb_half_of(r, j));
      const uint8_t next = arb_code_move(c[j], da);
      if (V || j < count) {
        flips += arb_code_trit(next) != arb_code_trit(c[j]);
        saturated += next == 0 || next == 254;
      }
      c[j] = next;
    }
    if (V) {
      *reinterpret_cast<uint2 *>(code) = *reinterpret_cast<const uint2 *>(c);
    } else {
#pragma unroll
      for (int j = 0; j < 8; j++)
        if (j < count) code[j] = c[j];
    }
  }
  flips = __reduce_add_sync(ARB_CUDA_FULL, flips);
  saturated = __reduce_add_sync(ARB_CUDA_FULL, saturated);
  if ((threadIdx.x & 31) == 0) {
    if (flips) atomicAdd(&moved[0], flips);
    if (saturated) atomicAdd(&moved[1], saturated);
  }
  __syncthreads();
  if (threadIdx.x < 2 && moved[threadIdx.x])
    atomicAdd((unsigned long long *)&a.flips[threadIdx.x], (unsigned long long)moved[threadIdx.x]);
}

/* ---- one stack ---- */

static __global__ void clear_range_kernel(arb_update_work work, int members) { clear_block(work, 0, members, 0); }
template <bool V>
static __global__ void __launch_bounds__(128) vote_rows_kernel(const __grid_constant__ arb_stack w, arb_update_work work) {
  vote_rows_block<V>(w, work, blockIdx.x);
}
template <int V>
static __global__ void __launch_bounds__(128) vote_columns_kernel(const __grid_constant__ arb_stack w, arb_update_work work) {
  vote_columns_block<V>(w, work, blockIdx.x, gridDim.x, blockIdx.y);
}
static __global__ void __launch_bounds__(128) statistics_kernel(const __grid_constant__ update_args a, unsigned columns) {
  statistics_block(a, blockIdx.x, columns);
}
template <bool V>
static __global__ void __launch_bounds__(256) codes_kernel(const __grid_constant__ update_args a) {
  codes_block<V>(a, blockIdx.x, gridDim.x);
}

static bool wide_rows(const arb_stack *w) { return w->k % 16 == 0 && arb_cuda_aligned(w->votes, 16); }
static bool wide_columns(const arb_stack *w) { return w->k % 4 == 0 && arb_cuda_aligned(w->votes, 4); }
static bool wide_codes(const arb_stack *w) {
  return w->k % 8 == 0 && arb_cuda_aligned(w->votes, 8) && arb_cuda_aligned(w->code, 8);
}
static unsigned column_blocks(const arb_stack *w) { return (unsigned)arb_cuda_ceil(w->k, wide_columns(w) ? 512 : 128) + 1; }

static arb_status vote_rows(arb_backend *be, const arb_stack *w, const arb_update_work *work) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_TRY(arb_cuda_join_side(c));
  ARB_CUDA_LAUNCH(c, "vote_rows (clear)", clear_range_kernel, 1, 32, 0, *work, w->members);
  if (w->n == 0) return ARB_OK;
  auto kernel = wide_rows(w) ? vote_rows_kernel<true> : vote_rows_kernel<false>;
  ARB_CUDA_LAUNCH(c, "vote_rows", kernel, (unsigned)arb_cuda_ceil(w->n, 4), 128, 0, *w, *work);
  return ARB_OK;
}

static __global__ void clear_sums_kernel(arb_update_work work, int64_t columns, int members) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < columns) work.csum[i] = 0;
  if (i < members) work.msum[i] = 0;
}

static arb_status vote_columns(arb_backend *be, const arb_stack *w, const arb_update_work *work) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_TRY(arb_cuda_join_side(c));
  const int64_t columns = w->members * w->k;
  ARB_CUDA_LAUNCH(c, "vote_columns (clear)", clear_sums_kernel, (unsigned)arb_cuda_ceil(columns, 256), 256, 0, *work, columns,
                  w->members);
  if (w->n == 0) return ARB_OK;
  auto kernel = wide_columns(w) ? vote_columns_kernel<4> : vote_columns_kernel<1>;
  const dim3 grid(column_blocks(w), (unsigned)arb_cuda_ceil(w->n, STRIP));
  ARB_REQUIRE(grid.y <= 65535, ARB_ERR_UNSUPPORTED, "a stack of %lld rows is more than this backend takes", (long long)w->n);
  ARB_CUDA_LAUNCH(c, "vote_columns", kernel, grid, 128, 0, *w, *work);
  return ARB_OK;
}

static arb_status update(arb_backend *be, const arb_stack *w, const arb_update_work *work, int64_t grains, int vmax,
                         int64_t *flips) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_TRY(arb_cuda_join_side(c));
  if (grains == 0) return ARB_OK;
  update_args a = {};
  const int64_t columns = (w->members * w->k + 63) / 64 * 64;
  void *memory;
  ARB_TRY(arb_cuda_work(c, arb_cuda_update_work_bytes(w->n, w->k, w->members), &memory));
  a.w = *w;
  a.work = *work;
  a.column = (float *)memory;
  a.row = a.column + columns;
  a.whole = (int32_t *)(a.row + w->n);
  a.grains = grains;
  a.flips = flips;
  a.vmax = vmax;
  a.step = c->step;
  a.nonfinite = c->nonfinite;
  const unsigned blocks = (unsigned)arb_cuda_ceil(w->k, 128);
  const unsigned grid = blocks * (unsigned)w->members + (unsigned)arb_cuda_ceil(w->n, 128);
  ARB_CUDA_LAUNCH(c, "update (statistics)", statistics_kernel, grid, 128, 0, a, blocks); /* C and M without a row too */
  auto kernel = wide_codes(w) ? codes_kernel<true> : codes_kernel<false>;
  ARB_CUDA_LAUNCH(c, "update (codes)", kernel, arb_cuda_grid(c, w->n * arb_cuda_ceil(w->k, 8), 256, 8), 256, 0, a);
  return ARB_OK;
}

/* ---- many stacks: the same blocks side by side, so that small stacks do not wait for one another's launches ---- */

#define MANY 12 /* of one launch: their arguments fit 4 KiB */

typedef struct {
  int count;
  unsigned first[MANY + 1]; /* first block of each stack in this phase */
  update_args of[MANY];
} many_args;
static_assert(sizeof(many_args) <= 4096, "kernel arguments");

/* The stack of this block, and the block's number in it. */
static __device__ __forceinline__ const update_args &mine(const many_args &a, unsigned *block, unsigned *blocks) {
  int i = 0;
  while (i + 1 < a.count && blockIdx.x >= a.first[i + 1]) i++;
  *block = blockIdx.x - a.first[i];
  *blocks = a.first[i + 1] - a.first[i];
  return a.of[i];
}

static __global__ void __launch_bounds__(256) clear_many_kernel(const __grid_constant__ many_args a) {
  unsigned block, blocks;
  const update_args &u = mine(a, &block, &blocks);
  clear_block(u.work, u.w.members * u.w.k, u.w.members, block);
}
static __global__ void __launch_bounds__(128) vote_rows_many_kernel(const __grid_constant__ many_args a) {
  unsigned block, blocks;
  const update_args &u = mine(a, &block, &blocks);
  if (u.w.k % 16 == 0 && (uintptr_t)u.w.votes % 16 == 0)
    vote_rows_block<true>(u.w, u.work, block);
  else
    vote_rows_block<false>(u.w, u.work, block);
}
static __global__ void __launch_bounds__(128) vote_columns_many_kernel(const __grid_constant__ many_args a) {
  unsigned block, blocks;
  const update_args &u = mine(a, &block, &blocks);
  const unsigned strips = (unsigned)((u.w.n + STRIP - 1) / STRIP), width = blocks / strips;
  if (u.w.k % 4 == 0 && (uintptr_t)u.w.votes % 4 == 0)
    vote_columns_block<4>(u.w, u.work, block % width, width, block / width);
  else
    vote_columns_block<1>(u.w, u.work, block % width, width, block / width);
}
static __global__ void __launch_bounds__(128) statistics_many_kernel(const __grid_constant__ many_args a) {
  unsigned block, blocks;
  const update_args &u = mine(a, &block, &blocks);
  statistics_block(u, block, (unsigned)((u.w.k + 127) / 128));
}
static __global__ void __launch_bounds__(256) codes_many_kernel(const __grid_constant__ many_args a) {
  unsigned block, blocks;
  const update_args &u = mine(a, &block, &blocks);
  if (u.w.k % 8 == 0 && (uintptr_t)u.w.votes % 8 == 0 && (uintptr_t)u.w.code % 8 == 0)
    codes_block<true>(u, block, blocks);
  else
    codes_block<false>(u, block, blocks);
}

enum phase { CLEAR, ROWS, COLUMNS, STATISTICS, CODES };

static int64_t blocks_of(const arb_stack *w, enum phase p) {
  switch (p) {
    case CLEAR:
      return arb_cuda_ceil(w->members * w->k, 256);
    case ROWS:
      return arb_cuda_ceil(w->n, 4);
    case COLUMNS:
      return column_blocks(w) * arb_cuda_ceil(w->n, STRIP);
    case STATISTICS:
      return arb_cuda_ceil(w->k, 128) * w->members + arb_cuda_ceil(w->n, 128);
    default:
      return arb_cuda_ceil(w->n * arb_cuda_ceil(w->k, 8), 4 * 256); /* four chunks a thread */
  }
}

static arb_status run_many(arb_cuda *c, many_args *a, enum phase p, const char *name, void (*kernel)(many_args),
                           unsigned threads) {
  int64_t blocks = 0;
  for (int i = 0; i < a->count; i++) {
    a->first[i] = (unsigned)blocks;
    blocks += blocks_of(&a->of[i].w, p);
  }
  a->first[a->count] = (unsigned)blocks;
  ARB_REQUIRE(blocks < INT32_MAX, ARB_ERR_UNSUPPORTED, "stacks of more rows than this backend takes");
  ARB_CUDA_LAUNCH(c, name, kernel, (unsigned)blocks, threads, 0, *a);
  return ARB_OK;
}

static arb_status update_many(arb_backend *be, const arb_stack *const *w, const arb_update_work *work, const int64_t *grains,
                              int count, int vmax, int64_t *flips) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_TRY(arb_cuda_join_side(c));
  many_args a = {};
  for (int i = 0; i < count; i++) {
    if (grains[i] != 0 && w[i]->n != 0) {
      update_args *u = &a.of[a.count++];
      *u = update_args();
      u->w = *w[i];
      u->work = work[i];
      u->column = work[i].factors;
      u->row = u->column + arb_cuda_round_up(w[i]->members * w[i]->k, 64);
      u->whole = (int32_t *)(u->row + w[i]->n);
      u->grains = grains[i];
      u->flips = flips;
      u->vmax = vmax;
      u->step = c->step;
      u->nonfinite = c->nonfinite;
    }
    if (a.count == 0 || (a.count < MANY && i + 1 < count)) continue;
    ARB_TRY(run_many(c, &a, CLEAR, "update (clear)", clear_many_kernel, 256));
    ARB_TRY(run_many(c, &a, ROWS, "update (vote rows)", vote_rows_many_kernel, 128));
    ARB_TRY(run_many(c, &a, COLUMNS, "update (vote columns)", vote_columns_many_kernel, 128));
    ARB_TRY(run_many(c, &a, STATISTICS, "update (statistics)", statistics_many_kernel, 128));
    ARB_TRY(run_many(c, &a, CODES, "update (codes)", codes_many_kernel, 256));
    a.count = 0;
  }
  return ARB_OK;
}

void arb_cuda_fill_update(arb_ops *ops) {
  ops->vote_rows = vote_rows;
  ops->vote_columns = vote_columns;
  ops->update = update;
  ops->update_many = update_many;
}
