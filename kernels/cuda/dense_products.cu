/* The products of kernels/dense/device.h, and attention, which is two of them around a softmax.
 *
 * A thread owns outputs and adds their products in order, k ascending, each by one fused multiply-add from +0: never split,
 * never padded (a product with zeros would turn a -0 into +0). What is tiled is where operands wait: blocks of x and of
 * expanded weights in shared memory, the next ones on their way in registers. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/dense_impl.cuh"

enum { THIN_ROWS = 4, THIN_DEPTH = 16 };
static const int64_t MOST_BLOCKS = 65535; /* of the y of a grid */
#define SCORE_FLOATS ((int64_t)1 << 24)   /* of attention in hand at a time */

typedef struct {
  const float *at[ARB_DENSE_TAPS];
  int taps, depth, k, m, n;
  int first; /* row of the first block */
  int width; /* rows that lie `pixel` apart before the next `row` */
  int64_t row, pixel;
  int wide; /* four neighbouring inputs are one aligned load */
  const float *f;
  const int8_t *q;
  int64_t panel; /* elements from a panel to the next */
  const float *scale;
  float scale_all; /* where scale is NULL and scaled is set */
  int scaled;
  const float *bias, *residual, *gain;
  int act;
  int64_t ldr;
  float *y;
  int64_t ldy;
  int wide_out;
  int64_t x_batch, w_batch, y_batch; /* elements from a matrix to the next: gridDim.z of them */
} dense_args;

static __device__ __forceinline__ int64_t row_offset(const dense_args &a, int r) {
  const int line = r / a.width;
  return line * a.row + (r - line * a.width) * a.pixel;
}

/* The epilogue of output n of row r. */
static __device__ __forceinline__ float finish(const dense_args &a, int r, int n, float sum) {
  if (a.scale)
    sum *= a.scale[n];
  else if (a.scaled)
    sum *= a.scale_all;
  if (a.bias) sum += a.bias[n];
  if (a.act != ARB_DENSE_NONE) sum = arb_dense_act(a.act, sum);
  if (a.residual) {
    const float old = a.residual[r * a.ldr + n];
    sum = a.gain ? old + a.gain[n] * sum : old + sum;
  }
  return sum;
}

/* Four neighbouring inputs of a row, from input `offset` of a tile that begins at input i of tap `tap`; past the end 0. */
static __device__ __forceinline__ float4 load_inputs(const dense_args &a, const float *const *at, int64_t row, int tap, int i,
                                                     int offset) {
  float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  i += offset;
  while (i >= a.depth) {
    i -= a.depth;
    tap++;
  }
  if (a.wide) {
    if (tap < a.taps) return *reinterpret_cast<const float4 *>(at[tap] + row + i);
    return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
#pragma unroll
  for (int j = 0; j < 4; j++) {
    if (tap < a.taps) v[j] = at[tap][row + i];
    if (++i == a.depth) {
      i = 0;
      tap++;
    }
  }
  return make_float4(v[0], v[1], v[2], v[3]);
}

/* Four neighbouring outputs' weights for input k; past the end 0. */
template <bool Q>
static __device__ __forceinline__ float4 load_weights(const dense_args &a, int64_t batch, int panel, int k, int column) {
  if (k >= a.k || panel * ARB_DENSE_PANEL >= a.n) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const int64_t at = batch + panel * a.panel + (int64_t)k * ARB_DENSE_PANEL + column;
  if (!Q) return *reinterpret_cast<const float4 *>(a.f + at);
  const char4 w = *reinterpret_cast<const char4 *>(a.q + at);
  return make_float4((float)w.x, (float)w.y, (float)w.z, (float)w.w);
}

/* V neighbouring floats of shared memory, V = 2 or 4. */
template <int V>
static __device__ __forceinline__ void take(const float *from, float *to) {
  if (V == 4) {
    const float4 v = *reinterpret_cast<const float4 *>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  } else {
    const float2 v = *reinterpret_cast<const float2 *>(from);
    to[0] = v.x, to[1] = v.y;
  }
}

/* Rows and outputs of a thread go in groups of up to four neighbours, spread over the tile: no two lanes of a quarter of a warp
 * read one bank. D inputs wait in shared memory at a time. */
template <int BM, int BN, int TM, int TN, int D>
struct shape {
  static const int vm = TM < 4 ? TM : 4, vn = TN < 4 ? TN : 4, gm = TM / vm, gn = TN / vn;
  static const int across = BN / TN, threads = (BM / TM) * (BN / TN);
  static const int pitch = BM + 4;
  static const int x_loads = BM * D / 4 / threads, w_loads = BN * D / 4 / threads;
};

template <int BM, int BN, int TM, int TN, int D>
static __device__ __forceinline__ void step(const float *xs, const float *ws, float (*acc)[TN]) {
  typedef shape<BM, BN, TM, TN, D> S;
  const int tx = (int)threadIdx.x % S::across, ty = (int)threadIdx.x / S::across;
  float x[TM], w[TN];
#pragma unroll
  for (int g = 0; g < S::gm; g++) take<S::vm>(xs + g * (BM / S::gm) + ty * S::vm, x + g * S::vm);
#pragma unroll
  for (int g = 0; g < S::gn; g++) take<S::vn>(ws + g * (BN / S::gn) + tx * S::vn, w + g * S::vn);
#pragma unroll
  for (int i = 0; i < TM; i++)
#pragma unroll
    for (int j = 0; j < TN; j++) acc[i][j] = arb_fmaf(x[i], w[j], acc[i][j]);
}

template <int BM, int BN, int TM, int TN, int D, bool Q>
static __global__ void __launch_bounds__((BM / TM) * (BN / TN)) product_kernel(const dense_args a) {
  typedef shape<BM, BN, TM, TN, D> S;
  __shared__ __align__(16) float xs[2][D][S::pitch];
  __shared__ __align__(16) float ws[2][D][BN];
  __shared__ const float *at[ARB_DENSE_TAPS];
  const int id = (int)threadIdx.x, first_row = a.first + (int)blockIdx.y * BM,
            first_panel = (int)blockIdx.x * (BN / ARB_DENSE_PANEL);
  const int64_t w_batch = (int64_t)blockIdx.z * a.w_batch;
  arb_previous_done();
  if (id < a.taps) at[id] = a.at[id] + (int64_t)blockIdx.z * a.x_batch;
  int64_t row[S::x_loads];
#pragma unroll
  for (int l = 0; l < S::x_loads; l++) {
    const int r = first_row + (id + l * S::threads) / (D / 4);
    row[l] = row_offset(a, r < a.m ? r : a.m - 1);
  }
  float acc[TM][TN];
#pragma unroll
  for (int i = 0; i < TM; i++)
#pragma unroll
    for (int j = 0; j < TN; j++) acc[i][j] = 0.0f;
  __syncthreads();

  float4 x[S::x_loads], w[S::w_loads];
  int tap = 0, input = 0; /* of the tile that is loaded */
  const int tiles = (a.k + D - 1) / D;
  for (int t = -1; t < tiles; t++) {
    const int next = t + 1;
    if (next < tiles) {
#pragma unroll
      for (int l = 0; l < S::x_loads; l++) x[l] = load_inputs(a, at, row[l], tap, input, (id + l * S::threads) % (D / 4) * 4);
#pragma unroll
      for (int l = 0; l < S::w_loads; l++) {
        const int u = id + l * S::threads, e = u % (D * ARB_DENSE_PANEL / 4) * 4;
        w[l] = load_weights<Q>(a, w_batch, first_panel + u / (D * ARB_DENSE_PANEL / 4), next * D + e / ARB_DENSE_PANEL,
                               e % ARB_DENSE_PANEL);
      }
      input += D;
      while (input >= a.depth) {
        input -= a.depth;
        tap++;
      }
    }
    if (t >= 0) {
      const int left = a.k - t * D;
      if (left >= D) {
#pragma unroll
        for (int k = 0; k < D; k++) step<BM, BN, TM, TN, D>(xs[t & 1][k], ws[t & 1][k], acc);
      } else {
        for (int k = 0; k < left; k++) step<BM, BN, TM, TN, D>(xs[t & 1][k], ws[t & 1][k], acc);
      }
    }
    if (next < tiles) {
#pragma unroll
      for (int l = 0; l < S::x_loads; l++) {
        const int u = id + l * S::threads, r = u / (D / 4), k = u % (D / 4) * 4;
        float(*to)[S::pitch] = xs[next & 1];
        to[k][r] = x[l].x, to[k + 1][r] = x[l].y, to[k + 2][r] = x[l].z, to[k + 3][r] = x[l].w;
      }
#pragma unroll
      for (int l = 0; l < S::w_loads; l++) {
        const int u = id + l * S::threads, e = u % (D * ARB_DENSE_PANEL / 4) * 4;
        const int column = u / (D * ARB_DENSE_PANEL / 4) * ARB_DENSE_PANEL + e % ARB_DENSE_PANEL;
        *reinterpret_cast<float4 *>(&ws[next & 1][e / ARB_DENSE_PANEL][column]) = w[l];
      }
    }
    __syncthreads();
  }

  arb_next_may_start();
  const int tx = id % S::across, ty = id / S::across;
  float *const y = a.y + (int64_t)blockIdx.z * a.y_batch;
#pragma unroll
  for (int i = 0; i < TM; i++) {
    const int r = first_row + i / S::vm * (BM / S::gm) + ty * S::vm + i % S::vm;
    if (r >= a.m) continue;
#pragma unroll
    for (int g = 0; g < S::gn; g++) {
      const int n = (int)blockIdx.x * BN + g * (BN / S::gn) + tx * S::vn;
      float *const to = y + r * a.ldy + n;
      if (S::vn == 4 && a.wide_out && n < a.n) {
        const float *const sum = acc[i] + g * S::vn;
        const float v0 = finish(a, r, n, sum[0]), v1 = finish(a, r, n + 1, sum[1 % S::vn]);
        const float v2 = finish(a, r, n + 2, sum[2 % S::vn]), v3 = finish(a, r, n + 3, sum[3 % S::vn]);
        *reinterpret_cast<float4 *>(to) = make_float4(v0, v1, v2, v3);
      } else {
#pragma unroll
        for (int j = 0; j < S::vn; j++)
          if (n + j < a.n) to[j] = finish(a, r, n + j, acc[i][g * S::vn + j]);
      }
    }
  }
}

/* Few rows of one tap: a warp a panel, a lane an output; the inputs are the same for all lanes. */
template <bool Q>
static __global__ void __launch_bounds__(32) thin_kernel(const dense_args a) {
  const int lane = (int)threadIdx.x, n = (int)blockIdx.x * ARB_DENSE_PANEL + lane;
  const int64_t w_at = (int64_t)blockIdx.z * a.w_batch + (int64_t)blockIdx.x * a.panel + lane;
  const float *x[THIN_ROWS];
  float acc[THIN_ROWS];
  arb_previous_done();
  arb_next_may_start();
#pragma unroll
  for (int r = 0; r < THIN_ROWS; r++) {
    x[r] = a.at[0] + (int64_t)blockIdx.z * a.x_batch + row_offset(a, r < a.m ? r : 0);
    acc[r] = 0.0f;
  }
  int k = 0;
  for (; k + THIN_DEPTH <= a.k; k += THIN_DEPTH) {
    float w[THIN_DEPTH];
#pragma unroll
    for (int i = 0; i < THIN_DEPTH; i++) {
      const int64_t at = w_at + (int64_t)(k + i) * ARB_DENSE_PANEL;
      w[i] = Q ? (float)a.q[at] : a.f[at];
    }
#pragma unroll
    for (int r = 0; r < THIN_ROWS; r++)
      if (r < a.m) {
#pragma unroll
        for (int i = 0; i < THIN_DEPTH; i++) acc[r] = arb_fmaf(x[r][k + i], w[i], acc[r]);
      }
  }
  for (; k < a.k; k++) {
    const int64_t at = w_at + (int64_t)k * ARB_DENSE_PANEL;
    const float w = Q ? (float)a.q[at] : a.f[at];
#pragma unroll
    for (int r = 0; r < THIN_ROWS; r++)
      if (r < a.m) acc[r] = arb_fmaf(x[r][k], w, acc[r]);
  }
#pragma unroll
  for (int r = 0; r < THIN_ROWS; r++)
    if (r < a.m && n < a.n) a.y[(int64_t)blockIdx.z * a.y_batch + r * a.ldy + n] = finish(a, r, n, acc[r]);
}

/* x = e^(x - max) / sum over the first keys of rows of `ld`, the rest up to `keys` 0; a warp a row, a lane its own elements. */
static __global__ void softmax_kernel(float *scores, int64_t all, int rows, int64_t ld, int keys, int first_seen, int causal) {
  const int lane = (int)threadIdx.x % 32;
  const int64_t warps = (int64_t)gridDim.x * (blockDim.x / 32);
  arb_previous_done();
  arb_next_may_start();
  for (int64_t r = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; r < all; r += warps) {
    float *const x = scores + r * ld;
    const int seen = causal ? first_seen + (int)(r % rows) : keys;
    float top = x[0], sum = 0.0f;
    for (int i = lane; i < seen; i += 32) top = x[i] > top ? x[i] : top;
#pragma unroll
    for (int o = 16; o > 0; o /= 2) {
      const float other = __shfl_xor_sync(ARB_CUDA_FULL, top, o);
      top = other > top ? other : top;
    }
    for (int i = lane; i < seen; i += 32) {
      const float e = arb_expf(x[i] - top);
      x[i] = e;
      sum += e;
    }
    const float inv = arb_divf(1.0f, arb_warp_sum(sum));
    for (int i = lane; i < seen; i += 32) x[i] *= inv;
    for (int i = seen + (lane - seen % 32 + 32) % 32; i < keys; i += 32) x[i] = 0.0f;
  }
}

/* ---- launches ---- */

template <int BM, int BN, int TM, int TN, int D>
static arb_status launch_tiles(arb_cuda *c, dense_args a, int batches, const char *name) {
  const unsigned threads = shape<BM, BN, TM, TN, D>::threads;
  const int64_t blocks = arb_cuda_ceil(a.m, BM);
  for (int64_t done = 0; done < blocks; done += MOST_BLOCKS) {
    const int64_t here = blocks - done < MOST_BLOCKS ? blocks - done : MOST_BLOCKS;
    const dim3 grid((unsigned)arb_cuda_ceil(a.n, BN), (unsigned)here, (unsigned)batches);
    a.first = (int)(done * BM);
    if (a.q)
      ARB_CUDA_CHAIN(c, name, (product_kernel<BM, BN, TM, TN, D, true>), grid, threads, 0, a);
    else
      ARB_CUDA_CHAIN(c, name, (product_kernel<BM, BN, TM, TN, D, false>), grid, threads, 0, a);
  }
  return ARB_OK;
}

static arb_status launch_thin(arb_cuda *c, const dense_args &a, int batches) {
  const dim3 grid((unsigned)arb_cuda_ceil(a.n, ARB_DENSE_PANEL), 1, (unsigned)batches);
  if (a.q)
    ARB_CUDA_CHAIN(c, "dense thin", thin_kernel<true>, grid, 32, 0, a);
  else
    ARB_CUDA_CHAIN(c, "dense thin", thin_kernel<false>, grid, 32, 0, a);
  return ARB_OK;
}

/* The largest tile of which there are enough for every multiprocessor. */
static arb_status launch(arb_cuda *c, const dense_args &a, int batches) {
  if (a.m <= THIN_ROWS && a.taps == 1) return launch_thin(c, a, batches);
  const int64_t large = arb_cuda_ceil(a.m, 128) * arb_cuda_ceil(a.n, 128) * batches;
  const int64_t middle = arb_cuda_ceil(a.m, 64) * arb_cuda_ceil(a.n, 64) * batches;
  if (a.n > 64 && large >= c->multiprocessors) return launch_tiles<128, 128, 8, 8, 16>(c, a, batches, "dense 128 x 128");
  if (middle >= 2 * c->multiprocessors) return launch_tiles<64, 64, 4, 4, 32>(c, a, batches, "dense 64 x 64");
  return launch_tiles<32, 32, 4, 2, 32>(c, a, batches, "dense 32 x 32");
}

/* Taps of this reach may be read four inputs at a time. */
static int wide(const arb_dense_reach *x) {
  int ok = x->depth % 4 == 0 && x->row % 4 == 0 && x->pixel % 4 == 0;
  for (int64_t t = 0; t < x->taps; t++) ok = ok && arb_cuda_aligned(x->at[t], 16);
  return ok;
}

static int wide_out(int64_t n, const float *y, int64_t ldy) { return n % 4 == 0 && ldy % 4 == 0 && arb_cuda_aligned(y, 16); }

static arb_status product(arb_dense_device *d, const arb_dense_reach *x, int64_t m, const arb_dense_matrix *w,
                          const arb_dense_epilogue *e, float *y, int64_t ldy) {
  arb_cuda *c;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  ARB_REQUIRE(x->taps >= 1 && x->taps <= ARB_DENSE_TAPS && m >= 1 && m < INT32_MAX / 2, ARB_ERR_ARG, "%lld taps, %lld rows",
              (long long)x->taps, (long long)m);
  dense_args a = {};
  for (int64_t t = 0; t < x->taps; t++) a.at[t] = x->at[t];
  a.taps = (int)x->taps;
  a.depth = (int)x->depth;
  a.k = (int)(x->taps * x->depth);
  a.m = (int)m;
  a.n = (int)w->n;
  a.width = (int)x->width;
  a.row = x->row;
  a.pixel = x->pixel;
  a.wide = wide(x);
  a.f = w->f;
  a.q = w->q;
  a.panel = w->k * ARB_DENSE_PANEL;
  a.scale = w->scale;
  a.bias = e->bias;
  a.act = (int)e->act;
  a.residual = e->residual;
  a.ldr = e->ldr;
  a.gain = e->gain;
  a.y = y;
  a.ldy = ldy;
  a.wide_out = wide_out(w->n, y, ldy);
  return launch(c, a, 1);
}

static arb_status need_scores(arb_cuda_dense *s, size_t bytes) {
  if (bytes <= s->score_bytes) return ARB_OK;
  ARB_CUDA_TRY(cudaStreamSynchronize(s->cuda->stream), "growing the scores of attention");
  s->be->ops.free(s->be, s->scores);
  s->scores = NULL;
  s->score_bytes = 0;
  void *memory;
  ARB_TRY(s->be->ops.alloc(s->be, bytes, &memory));
  s->scores = (float *)memory;
  s->score_bytes = bytes;
  return ARB_OK;
}

/* Rows [first, first + rows) of all heads. */
static arb_status attend_rows(arb_cuda_dense *s, const arb_dense_kv *kv, const float *q, int64_t ldq, int64_t m, int64_t first,
                              int64_t rows, float scale, int causal, float *out, int64_t ldo) {
  arb_cuda *c = s->cuda;
  const int64_t ld = arb_dense_panels(kv->count) * ARB_DENSE_PANEL, all = kv->heads * rows;
  dense_args a = {};
  a.at[0] = q + first * ldq;
  a.taps = 1;
  a.depth = a.k = (int)kv->width;
  a.m = a.width = (int)rows;
  a.n = (int)kv->count;
  a.pixel = ldq;
  a.wide = kv->width % 4 == 0 && ldq % 4 == 0 && arb_cuda_aligned(q, 16);
  a.f = kv->keys;
  a.panel = kv->width * ARB_DENSE_PANEL;
  a.scaled = 1;
  a.scale_all = scale;
  a.y = s->scores;
  a.ldy = ld;
  a.wide_out = wide_out(kv->count, s->scores, ld);
  a.x_batch = kv->width;
  a.w_batch = kv->capacity * kv->width;
  a.y_batch = rows * ld;
  ARB_TRY(launch(c, a, (int)kv->heads));
  ARB_CUDA_CHAIN(c, "softmax", softmax_kernel, arb_cuda_grid(c, all, 4, 16), 128, 0, s->scores, all, (int)rows, ld,
                 (int)kv->count, (int)(kv->count - m + first + 1), causal);
  dense_args b = {};
  b.at[0] = s->scores;
  b.taps = 1;
  b.depth = b.k = (int)kv->count;
  b.m = b.width = (int)rows;
  b.n = (int)kv->width;
  b.pixel = ld;
  b.wide = 1; /* rows go on to a multiple of 32 */
  b.f = kv->values;
  b.panel = kv->capacity * ARB_DENSE_PANEL;
  b.y = out + first * ldo;
  b.ldy = ldo;
  b.wide_out = kv->width % 4 == 0 && wide_out(kv->width, b.y, ldo);
  b.x_batch = rows * ld;
  b.w_batch = arb_dense_panels(kv->width) * kv->capacity * ARB_DENSE_PANEL;
  b.y_batch = kv->width;
  return launch(c, b, (int)kv->heads);
}

static arb_status attend(arb_dense_device *d, const arb_dense_kv *kv, const float *q, int64_t ldq, int64_t m, float scale,
                         int causal, float *out, int64_t ldo) {
  arb_cuda *c;
  arb_cuda_dense *s = arb_cuda_dense_of(d);
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  const int64_t ld = arb_dense_panels(kv->count) * ARB_DENSE_PANEL, fit = SCORE_FLOATS / (kv->heads * ld);
  const int64_t most = fit < 1 ? 1 : fit < m ? fit : m;
  ARB_TRY(need_scores(s, (size_t)(kv->heads * most * ld) * sizeof(float)));
  for (int64_t first = 0; first < m; first += most)
    ARB_TRY(attend_rows(s, kv, q, ldq, m, first, first + most < m ? most : m - first, scale, causal, out, ldo));
  return ARB_OK;
}

void arb_cuda_dense_fill_products(arb_dense_device *d) {
  d->product = product;
  d->attend = attend;
}
