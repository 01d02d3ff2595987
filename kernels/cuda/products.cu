/* The three products' slots: gemm.h's kernels, or plain ones of this file that serve as an oracle when debugging. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/rescale.cuh"
#include "kernels/cuda/work_bytes.h"

/* ---- plain kernels: a block of 16 x 16 threads, one sum a thread, tiles of 16 through shared memory ---- */

#define SIDE 16

/* Sum over i < length of A(row, i) * B(column, i); all threads of the block call it. */
template <typename A, typename B>
static __device__ __forceinline__ int32_t tile_dot(int64_t rows, int64_t columns, int64_t length, int64_t row0, int64_t column0,
                                                   A a, B b) {
  __shared__ int32_t left[SIDE][SIDE + 1], right[SIDE][SIDE + 1];
  const int x = threadIdx.x, y = threadIdx.y;
  int32_t sum = 0;
  for (int64_t i0 = 0; i0 < length; i0 += SIDE) {
    left[y][x] = row0 + y < rows && i0 + x < length ? a(row0 + y, i0 + x) : 0;
    right[y][x] = column0 + y < columns && i0 + x < length ? b(column0 + y, i0 + x) : 0;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < SIDE; i++) sum += left[y][i] * right[x][i];
    __syncthreads();
  }
  return sum;
}

static __global__ void plain_forward_kernel(int64_t m, const int8_t *q, const float *s, arb_stack w, uint16_t *y) {
  const int64_t row0 = blockIdx.x * (int64_t)SIDE, column0 = blockIdx.y * (int64_t)SIDE;
  const int32_t acc = tile_dot(
      m, w.n, w.k, row0, column0, [&](int64_t r, int64_t i) { return (int32_t)q[r * w.k + i]; },
      [&](int64_t n, int64_t i) { return (int32_t)arb_code_trit(w.code[n * w.k + i]); });
  const int64_t row = row0 + threadIdx.y, n = column0 + threadIdx.x;
  if (row < m && n < w.n) y[row * w.n + n] = arb_bf16_of_f32(((float)acc * s[row]) * arb_pow2_eighths(w.e[n]));
}

static __global__ void plain_dx_kernel(int64_t m, const int8_t *hq, const float *sh, arb_stack w, uint16_t *dx) {
  const int64_t row0 = blockIdx.x * (int64_t)SIDE, column0 = blockIdx.y * (int64_t)SIDE;
  const int32_t acc = tile_dot(
      m, w.k, w.n, row0, column0, [&](int64_t r, int64_t i) { return (int32_t)hq[r * w.n + i]; },
      [&](int64_t k, int64_t i) { return (int32_t)arb_code_trit(w.code[i * w.k + k]); });
  const int64_t row = row0 + threadIdx.y, k = column0 + threadIdx.x;
  if (row < m && k < w.k) dx[row * w.k + k] = arb_bf16_of_f32((float)acc * sh[row]);
}

static __global__ void plain_dw_kernel(int64_t rows, const int8_t *tq, const int8_t *q, const int32_t *cexp, int vmax,
                                       uint32_t grain, const arb_cuda_step *step, arb_stack w) {
  const int64_t row0 = blockIdx.x * (int64_t)SIDE, column0 = blockIdx.y * (int64_t)SIDE;
  const int32_t acc = tile_dot(
      w.n, w.k, rows, row0, column0, [&](int64_t n, int64_t i) { return (int32_t)tq[i * w.n + n]; },
      [&](int64_t k, int64_t i) { return (int32_t)q[i * w.k + k]; });
  const int64_t n = row0 + threadIdx.y, k = column0 + threadIdx.x;
  if (n >= w.n || k >= w.k) return;
  if (*cexp == ARB_NO_SCALE) return;
  const float x = (float)acc * arb_vote_scale(*cexp - w.p[n]);
  const int64_t element = n * arb_pad8(w.k) + k;
  const arb_philox_block b =
      arb_philox(arb_philox_key_of(step->seed, ARB_DRAW_VOTE), (uint32_t)(element / 8), w.id, step->step, grain);
  int8_t *vote = w.votes + arb_votes_at(w.groups, n, w.k) + k;
  *vote = (int8_t)(*vote + (int32_t)arb_stochastic_round(arb_clamp(x, (float)vmax), arb_philox_half(&b, (int)(element & 7))));
}

static dim3 tiles(int64_t rows, int64_t columns) {
  return dim3((unsigned)arb_cuda_ceil(rows, SIDE), (unsigned)arb_cuda_ceil(columns, SIDE));
}

/* ---- slots ---- */

static arb_status gemm_work(arb_cuda *c, const arb_rows *r, const arb_stack *w, void **out) {
  return arb_cuda_work(c, arb_cuda_product_work_bytes(r->rows_per_grain * r->grains, w->k, w->n), out);
}

/* A launcher's result, with the launch's own errors, and the measuring that ARB_CUDA_LAUNCH does. */
static arb_status finish(arb_cuda *c, cudaError_t error, const char *name) {
  ARB_CUDA_TRY(error, name);
  return arb_cuda_launch_end(c, name, __FILE__, __LINE__);
}

static arb_status linear_forward(arb_backend *be, const arb_rows *r, const int8_t *q, const float *s, const arb_stack *w,
                                 uint16_t *y) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  if (c->products_plain) {
    ARB_CUDA_LAUNCH(c, "plain_forward", plain_forward_kernel, tiles(m, w->n), dim3(SIDE, SIDE), 0, m, q, s, *w, y);
    return ARB_OK;
  }
  void *work;
  ARB_TRY(gemm_work(c, r, w, &work));
  arb_cuda_launch_begin(c);
  return finish(c, arb_cuda_gemm_forward(c->stream, m, w->k, w->n, q, s, w->code, w->e, y, work, arb_cuda_chained(c)),
                "linear_forward");
}

static arb_status linear_dx(arb_backend *be, const arb_rows *r, const int8_t *hq, const float *sh, const arb_stack *w,
                            uint16_t *dx) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  if (c->products_plain) {
    ARB_CUDA_LAUNCH(c, "plain_dx", plain_dx_kernel, tiles(m, w->k), dim3(SIDE, SIDE), 0, m, hq, sh, *w, dx);
    return ARB_OK;
  }
  void *work;
  ARB_TRY(gemm_work(c, r, w, &work));
  arb_cuda_launch_begin(c);
  return finish(c, arb_cuda_gemm_dx(c->stream, m, w->k, w->n, hq, sh, w->code, dx, work, arb_cuda_chained(c)), "linear_dx");
}

/* The oracle of linear_dw_vote: rescaled rows as they lie, grain after grain. */
static arb_status plain_dw_vote(arb_cuda *c, const arb_rows *r, const int8_t *hq, const float *sh, const int8_t *q,
                                const float *s, int vmax, const arb_stack *w) {
  const int64_t m = arb_rows_count(r), chunks = m * arb_cuda_ceil(w->n, ARB_CHUNK);
  void *work;
  ARB_TRY(arb_cuda_side_work(c, (size_t)(m + r->grains) * sizeof(int32_t) + (size_t)(m * w->n), &work));
  int32_t *ratio = (int32_t *)work, *cexp = ratio + m;
  int8_t *tq = (int8_t *)(cexp + r->grains);
  ARB_CUDA_LAUNCH(c, "plain_dw (ratio)", arb_ratio_kernel, (unsigned)r->grains, 1024, 0, (int32_t)r->rows_per_grain, sh, s,
                  cexp, ratio, c->nonfinite);
  ARB_CUDA_LAUNCH(c, "plain_dw (rescale)", arb_rescale_rows_kernel<false>, arb_cuda_grid(c, chunks, 256, 8), 256, 0,
                  arb_gradient_of(c, r, w, 0, NULL, NULL), chunks, hq, ratio, tq);
  for (int32_t g = 0; g < r->grains; g++) {
    const int64_t row0 = g * r->rows_per_grain;
    ARB_CUDA_LAUNCH(c, "plain_dw_vote", plain_dw_kernel, tiles(w->n, w->k), dim3(SIDE, SIDE), 0, r->rows_per_grain,
                    tq + row0 * w->n, q + row0 * w->k, cexp + g, vmax, (uint32_t)(r->first + g * r->stride), c->step, *w);
  }
  return ARB_OK;
}

static arb_status linear_dw_vote(arb_backend *be, const arb_rows *r, const int8_t *hq, const float *sh, const int8_t *q,
                                 const float *s, int vmax, const arb_stack *w) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_REQUIRE(r->rows_per_grain <= ARB_CUDA_GEMM_ROWS, ARB_ERR_ARG, "dW: %lld rows in one use, at most %d",
              (long long)r->rows_per_grain, ARB_CUDA_GEMM_ROWS);
  ARB_REQUIRE(w->uses == 1, ARB_ERR_ARG, "dW: %d uses", w->uses);
  if (c->products_plain) return plain_dw_vote(c, r, hq, sh, q, s, vmax, w);
  arb_cuda_dw d = {};
  d.rows_per_grain = r->rows_per_grain;
  d.grains = r->grains;
  d.first = r->first;
  d.stride = r->stride;
  d.n = w->n;
  d.k = w->k;
  d.hq = hq;
  d.sh = sh;
  d.q = q;
  d.s = s;
  d.p = w->p;
  d.vmax = vmax;
  d.tensor = w->id;
  d.step = c->step;
  d.votes = w->votes;
  d.groups = w->groups;
  d.nonfinite = c->nonfinite;
  void *work;
  ARB_TRY(arb_cuda_side_work(c, arb_cuda_dw_work_bytes(r->rows_per_grain, r->grains, w->k, w->n), &work));
  ARB_TRY(arb_cuda_join_side(c)); /* the one before has read its work memory and its rows, which the next slots replace */
  const bool direct = arb_cuda_gemm_dw_direct(&d) != 0;
  const bool aside = c->recording && !c->profile && !c->sync_launches;
  arb_cuda_launch_begin(c);
  const cudaError_t turned = arb_cuda_gemm_dw_turn(c->stream, &d, work, arb_cuda_chained(c));
  if (!aside || turned != cudaSuccess)
    return finish(c,
                  turned != cudaSuccess ? turned : arb_cuda_gemm_dw_cast(c->stream, &d, work, !direct || arb_cuda_chained(c)),
                  "linear_dw_vote");
  ARB_CUDA_TRY(cudaEventRecord(c->turned, c->stream), "linear_dw_vote");
  ARB_CUDA_TRY(cudaStreamWaitEvent(c->side, c->turned, 0), "linear_dw_vote");
  ARB_CUDA_TRY(arb_cuda_gemm_dw_cast(c->side, &d, work, 0), "linear_dw_vote");
  ARB_CUDA_TRY(cudaEventRecord(c->voted, c->side), "linear_dw_vote");
  c->side_busy = 1;
  c->side_rows = direct ? hq : NULL;
  return arb_cuda_launch_end(c, "linear_dw_vote", __FILE__, __LINE__);
}

void arb_cuda_fill_products(arb_ops *ops) {
  ops->linear_forward = linear_forward;
  ops->linear_dx = linear_dx;
  ops->linear_dw_vote = linear_dw_vote;
}
