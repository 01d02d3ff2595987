/* A linear's output gradient as int8: per row for dx, per grain and member for dW. One thread holds chunks of 8 consecutive
 * elements, one Philox output each; a block walks over rows, so that a thread keeps its columns and their gains. */
#include "kernels/cuda/device.cuh"

#define CHUNK 8

typedef struct {
  int64_t m, ldg;
  uint32_t rows_per_grain;
  int32_t first, stride; /* of grains */
  int n, members, use, uses;
  int begin[ARB_MAX_MEMBERS + 1];
  uint32_t tensor;
  const float *g, *s;
  const int8_t *e;
  const arb_cuda_step *step;
  int *nonfinite;
} grad_args;

/* One chunk's place, gains and member (-1 when it spans several). */
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

static __device__ __forceinline__ void place(const grad_args &a, int chunk, column &col) {
  const int at = chunk * CHUNK, last = at + CHUNK < a.n ? at + CHUNK - 1 : a.n - 1;
  col.at = at < a.n ? at : -1;
  col.member = 0;
  if (at < a.n) {
    const int m = member_of(a, at);
    col.member = m == member_of(a, last) ? m : -1;
  }
#pragma unroll
  for (int j = 0; j < CHUNK; j++) col.gain[j] = at + j < a.n ? arb_pow2_eighths(a.e[at + j]) : 0.0f;
}

/* h = g * gain of one chunk; 0 past the row's end. V: 16-byte loads, n a multiple of 8. */
template <bool V>
static __device__ __forceinline__ void load_chunk(const grad_args &a, const float *row, const column &col, float h[CHUNK]) {
  if (V) {
    arb_load4<true>(row, col.at, a.n, h);
    arb_load4<true>(row, col.at + 4, a.n, h + 4);
  } else {
    arb_load4<false>(row, col.at, a.n, h);
    arb_load4<false>(row, col.at + 4, a.n, h + 4);
  }
#pragma unroll
  for (int j = 0; j < CHUNK; j++) h[j] = h[j] * col.gain[j];
}

template <bool V>
static __device__ __forceinline__ void store_chunk(int8_t *row, int at, int n, const uint32_t b[CHUNK]) {
  if (V) {
    *reinterpret_cast<uint2 *>(row + at) =
        make_uint2(b[0] | b[1] << 8 | b[2] << 16 | b[3] << 24, b[4] | b[5] << 8 | b[6] << 16 | b[7] << 24);
  } else {
#pragma unroll
    for (int j = 0; j < CHUNK; j++)
      if (at + j < n) row[at + j] = (int8_t)b[j];
  }
}

static __device__ __forceinline__ arb_philox_block row_draws(const grad_args &a, arb_draw_purpose purpose, uint32_t local,
                                                             uint32_t position, int at) {
  const uint32_t per_row = (uint32_t)((a.n + 7) / 8);
  return arb_philox(arb_philox_key_of(a.step->seed, purpose), (position * (uint32_t)a.uses + (uint32_t)a.use) * per_row + (uint32_t)at / 8,
                    a.tensor, a.step->step, (uint32_t)(a.first + (int32_t)local * a.stride));
}

template <int C, bool V>
static __global__ void grad_quant_kernel(grad_args a, int8_t *__restrict__ hq, float *__restrict__ sh, uint32_t *tmax) {
  __shared__ uint32_t part[32][ARB_MAX_MEMBERS];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  column col[C];
#pragma unroll
  for (int c = 0; c < C; c++) place(a, (int)(threadIdx.x + c * blockDim.x), col[c]);
  for (int64_t row = blockIdx.x; row < a.m; row += gridDim.x) {
    float h[C][CHUNK];
    uint32_t top[ARB_MAX_MEMBERS] = {0, 0, 0, 0};
#pragma unroll
    for (int c = 0; c < C; c++)
      if (col[c].at >= 0) load_chunk<V>(a, a.g + row * a.ldg, col[c], h[c]);
#pragma unroll
    for (int c = 0; c < C; c++) {
      if (col[c].at < 0) continue;
      uint32_t most = 0;
#pragma unroll
      for (int j = 0; j < CHUNK; j++) {
        const uint32_t b = arb_bits_of_f32(h[c][j]) & 0x7fffffffu;
        most = b > most ? b : most;
      }
#pragma unroll
      for (int i = 0; i < ARB_MAX_MEMBERS; i++) {
        uint32_t b = col[c].member == i ? most : 0u;
        if (col[c].member < 0) {
#pragma unroll
          for (int j = 0; j < CHUNK; j++) {
            const uint32_t v = arb_bits_of_f32(h[c][j]) & 0x7fffffffu;
            b = col[c].at + j < a.n && member_of(a, col[c].at + j) == i && v > b ? v : b;
          }
        }
        top[i] = b > top[i] ? b : top[i];
      }
    }
#pragma unroll
    for (int i = 0; i < ARB_MAX_MEMBERS; i++)
      if (i < a.members) top[i] = __reduce_max_sync(ARB_CUDA_FULL, top[i]);
    if (warps > 1) {
      __syncthreads(); /* the row before has been read */
#pragma unroll
      for (int i = 0; i < ARB_MAX_MEMBERS; i++)
        if (i < a.members && lane == 0) part[warp][i] = top[i];
      __syncthreads();
#pragma unroll
      for (int i = 0; i < ARB_MAX_MEMBERS; i++)
        if (i < a.members) top[i] = __reduce_max_sync(ARB_CUDA_FULL, lane < warps ? part[lane][i] : 0u);
    }
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < ARB_MAX_MEMBERS; i++) bits = top[i] > bits ? top[i] : bits;
    const uint32_t local = (uint32_t)row / a.rows_per_grain;
    if (threadIdx.x == 0) {
#pragma unroll
      for (int i = 0; i < ARB_MAX_MEMBERS; i++) {
        if (i >= a.members) break;
        /* rounding is monotone, so max |h * s| is (max |h|) * s */
        const uint32_t t = a.s ? arb_bits_of_f32(arb_f32_of_bits(top[i]) * a.s[row]) : top[i];
        uint32_t *to = tmax + local * (uint32_t)a.members + i;
        if (t > *(volatile uint32_t *)to) atomicMax(to, t);
        if (t >= ARB_F32_INF_BITS) *a.nonfinite = 1;
      }
      if (bits >= ARB_F32_INF_BITS) *a.nonfinite = 1;
    }
    if (!hq) continue;
    const float max = arb_f32_of_bits(bits);
    const bool zero = bits >= ARB_F32_INF_BITS || max < ARB_TINY;
    if (threadIdx.x == 0) sh[row] = zero ? 0.0f : arb_divf(max, 127.0f);
    const float inv = zero ? 0.0f : arb_divf(127.0f, max);
    const uint32_t position = (uint32_t)row - local * a.rows_per_grain;
#pragma unroll
    for (int c = 0; c < C; c++) {
      if (col[c].at < 0) continue;
      uint32_t b[CHUNK] = {0, 0, 0, 0, 0, 0, 0, 0};
      if (!zero) {
        const arb_philox_block r = row_draws(a, ARB_DRAW_DX, local, position, col[c].at);
#pragma unroll
        for (int j = 0; j < CHUNK; j++)
          b[j] = arb_round_byte(arb_stochastic(arb_clamp(h[c][j] * inv, 127.0f), arb_half_of(r, j)));
      }
      store_chunk<V>(hq + row * a.n, col[c].at, a.n, b);
    }
  }
}

static __device__ __forceinline__ float unit_of(const uint32_t *tmax, uint32_t i) {
  const int cexp = arb_dw_exponent(arb_f32_of_bits(tmax[i]));
  return cexp == ARB_NO_SCALE ? 0.0f : arb_pow2i(-cexp);
}

template <int C, bool V>
static __global__ void dw_quant_kernel(grad_args a, const uint32_t *__restrict__ tmax, int32_t *__restrict__ cexp,
                                       int8_t *__restrict__ tq) {
  column col[C];
#pragma unroll
  for (int c = 0; c < C; c++) place(a, (int)(threadIdx.x + c * blockDim.x), col[c]);
  for (int64_t row = blockIdx.x; row < a.m; row += gridDim.x) {
    const uint32_t local = (uint32_t)row / a.rows_per_grain, position = (uint32_t)row - local * a.rows_per_grain;
    const uint32_t scales = local * (uint32_t)a.members;
    const float s = a.s ? a.s[row] : 1.0f;
    if (position == 0 && threadIdx.x < (unsigned)a.members)
      cexp[scales + threadIdx.x] = arb_dw_exponent(arb_f32_of_bits(tmax[scales + threadIdx.x]));
    float h[C][CHUNK];
#pragma unroll
    for (int c = 0; c < C; c++)
      if (col[c].at >= 0) load_chunk<V>(a, a.g + row * a.ldg, col[c], h[c]);
#pragma unroll
    for (int c = 0; c < C; c++) {
      if (col[c].at < 0) continue;
      const arb_philox_block r = row_draws(a, ARB_DRAW_DW, local, position, col[c].at);
      const float unit = col[c].member < 0 ? 0.0f : unit_of(tmax, scales + (uint32_t)col[c].member);
      uint32_t b[CHUNK];
#pragma unroll
      for (int j = 0; j < CHUNK; j++) {
        float own = unit;
        if (col[c].member < 0) own = unit_of(tmax, scales + (uint32_t)member_of(a, col[c].at + j < a.n ? col[c].at + j : a.n - 1));
        b[j] = arb_round_byte(arb_stochastic(arb_clamp((h[c][j] * s) * own, 127.0f), arb_half_of(r, j)));
      }
      store_chunk<V>(tq + row * a.n, col[c].at, a.n, b);
    }
  }
}

/* Threads of a block so that one block holds a row: 1 chunk a thread up to 8192 elements, 4 beyond. */
typedef struct {
  unsigned threads, grid;
  int chunks;
} grad_shape;

static arb_status shape_of(const arb_cuda *c, const arb_rows *r, const arb_stack *w, grad_shape *out) {
  const int64_t chunks = arb_cuda_ceil(w->n, CHUNK), m = arb_rows_count(r);
  ARB_REQUIRE(chunks <= 4096 && m < INT32_MAX, ARB_ERR_UNSUPPORTED, "a gradient of %lld rows by %lld is more than this backend takes",
              (long long)m, (long long)w->n);
  out->chunks = chunks <= 1024 ? 1 : 4;
  out->threads = (unsigned)(arb_cuda_ceil(arb_cuda_ceil(chunks, out->chunks), 32) * 32);
  const int64_t resident = 1536 / out->threads;
  out->grid = arb_cuda_grid(c, m, 1, resident > 24 ? 24 : resident);
  return ARB_OK;
}

static grad_args args_of(arb_cuda *c, const arb_rows *r, const float *g, int64_t ldg, const arb_stack *w, int use, const float *s) {
  grad_args a = {};
  a.m = arb_rows_count(r);
  a.ldg = ldg;
  a.rows_per_grain = (uint32_t)r->rows_per_grain;
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
  return w->n % 8 == 0 && ldg % 4 == 0 && arb_cuda_aligned(g, 16) && arb_cuda_aligned(q, 8);
}

static arb_status grad_quant(arb_backend *be, const arb_rows *r, const float *g, int64_t ldg, const arb_stack *w, int use,
                             const float *s, int8_t *hq, float *sh, uint32_t *tmax) {
  arb_cuda *c = arb_cuda_of(be);
  grad_shape shape;
  ARB_TRY(shape_of(c, r, w, &shape));
  ARB_CUDA_TRY(cudaMemsetAsync(tmax, 0, (size_t)r->grains * (size_t)w->members * sizeof *tmax, c->stream), "grad_quant");
  const bool v = wide(g, ldg, w, hq);
  auto kernel = shape.chunks == 1 ? (v ? grad_quant_kernel<1, true> : grad_quant_kernel<1, false>)
                                  : (v ? grad_quant_kernel<4, true> : grad_quant_kernel<4, false>);
  ARB_CUDA_LAUNCH(c, "grad_quant", kernel, shape.grid, shape.threads, 0, args_of(c, r, g, ldg, w, use, s), hq, sh, tmax);
  return ARB_OK;
}

static arb_status dw_quant(arb_backend *be, const arb_rows *r, const float *g, int64_t ldg, const arb_stack *w, int use,
                           const float *s, const uint32_t *tmax, int32_t *cexp, int8_t *tq) {
  arb_cuda *c = arb_cuda_of(be);
  grad_shape shape;
  ARB_TRY(shape_of(c, r, w, &shape));
  const bool v = wide(g, ldg, w, tq);
  auto kernel = shape.chunks == 1 ? (v ? dw_quant_kernel<1, true> : dw_quant_kernel<1, false>)
                                  : (v ? dw_quant_kernel<4, true> : dw_quant_kernel<4, false>);
  ARB_CUDA_LAUNCH(c, "dw_quant", kernel, shape.grid, shape.threads, 0, args_of(c, r, g, ldg, w, use, s), tmax, cexp, tq);
  return ARB_OK;
}

void arb_cuda_fill_grads(arb_ops *ops) {
  ops->grad_quant = grad_quant;
  ops->dw_quant = dw_quant;
}
