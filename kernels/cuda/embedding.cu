/* Byte n-gram embedding: a linear on a one-hot input. Forward is a lookup in a table of bf16 columns; dW is a sum by id in
 * shared memory; the votes of several uses are joined in 64-bit integers. */
#include "kernels/cuda/rescale.cuh"

static __device__ __forceinline__ int32_t slot_id(const int32_t *ids, int64_t row, uint32_t context, int back, int32_t pad) {
  return (uint32_t)row % context < (uint32_t)back ? pad : ids[row - back];
}

/* table[k][n] = bf16 of W's columns */
static __global__ void table_kernel(int n, int k, const uint8_t *__restrict__ code, const int8_t *__restrict__ e,
                                    uint16_t *__restrict__ table) {
  const int64_t total = (int64_t)n * k;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += (int64_t)gridDim.x * blockDim.x) {
    const int id = (int)(i / n), channel = (int)(i % n);
    table[i] = arb_bf16_of_f32((float)arb_code_trit(code[(int64_t)channel * k + id]) * arb_pow2_eighths(e[channel]));
  }
}

/* A warp copies one column: one (row, slot). V: in pieces of 16 bytes. */
template <bool V>
static __global__ void lookup_kernel(int64_t m, int n, int slots, uint32_t context, int32_t pad,
                                     const int32_t *__restrict__ ids, const uint16_t *__restrict__ table,
                                     uint16_t *__restrict__ out) {
  const int lane = threadIdx.x & 31;
  const int64_t warps = (int64_t)gridDim.x * (blockDim.x >> 5), total = m * slots;
  for (int64_t i = (int64_t)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5); i < total; i += warps) {
    const int64_t row = i / slots;
    const int slot = (int)(i - row * slots);
    const uint16_t *from = table + (int64_t)slot_id(ids, row, context, slots - 1 - slot, pad) * n;
    uint16_t *to = out + i * n;
    if (V) {
      for (int j = lane; j < n / 8; j += 32) reinterpret_cast<uint4 *>(to)[j] = reinterpret_cast<const uint4 *>(from)[j];
    } else {
      for (int j = lane; j < n; j += 32) to[j] = from[j];
    }
  }
}

static arb_status embed_forward(arb_backend *be, const arb_rows *r, int64_t context, const int32_t *ids, int slots, int32_t pad,
                                const arb_stack *w, uint16_t *out) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r), total = w->n * w->k;
  void *work;
  ARB_TRY(arb_cuda_work(c, (size_t)total * sizeof(uint16_t), &work));
  uint16_t *table = (uint16_t *)work;
  ARB_CUDA_LAUNCH(c, "embed_table", table_kernel, arb_cuda_grid(c, total, 256, 8), 256, 0, (int)w->n, (int)w->k, w->code, w->e,
                  table);
  auto kernel = w->n % 8 == 0 && arb_cuda_aligned(out, 16) ? lookup_kernel<true> : lookup_kernel<false>;
  ARB_CUDA_LAUNCH(c, "embed_forward", kernel, arb_cuda_grid(c, m * slots, 8, 8), 256, 0, m, (int)w->n, slots, (uint32_t)context,
                  pad, ids, table, out);
  return ARB_OK;
}

#define GROUP 8 /* channels of a block: a warp takes four rows at a time */

/* GROUP channels of one grain, summed by id in shared memory; sum[k][GROUP + 1], the odd stride for the transposed read. */
static __global__ void __launch_bounds__(512)
    embed_dw_kernel(int n, int k, int rows_per_grain, uint32_t context, int back, int32_t pad, const int32_t *__restrict__ ids,
                    const int8_t *__restrict__ tq, int32_t *__restrict__ d) {
  extern __shared__ int32_t sum[];
  const int channel0 = (int)blockIdx.x * GROUP, own = (int)threadIdx.x % GROUP, channel = channel0 + own;
  const int first = (int)threadIdx.x / GROUP, step = (int)blockDim.x / GROUP;
  const int64_t row0 = (int64_t)blockIdx.y * rows_per_grain;
  for (int i = (int)threadIdx.x; i < k * (GROUP + 1); i += (int)blockDim.x) sum[i] = 0;
  __syncthreads();
  if (channel < n) {
#pragma unroll 4
    for (int i = first; i < rows_per_grain; i += step) {
      const int64_t row = row0 + i;
      const int32_t id = slot_id(ids, row, context, back, pad);
      atomicAdd(&sum[id * (GROUP + 1) + own], (int32_t)tq[row * n + channel]);
    }
  }
  __syncthreads();
  const int channels = n - channel0 < GROUP ? n - channel0 : GROUP;
  int32_t *out = d + ((int64_t)blockIdx.y * n + channel0) * k;
  for (int c = 0; c < channels; c++)
    for (int i = (int)threadIdx.x; i < k; i += (int)blockDim.x) out[c * k + i] = sum[i * (GROUP + 1) + c];
}

/* The same for an alphabet that shared memory cannot hold; d was zeroed. */
static __global__ void embed_dw_large_kernel(int n, int k, int64_t rows_per_grain, int64_t total, uint32_t context, int back,
                                             int32_t pad, const int32_t *__restrict__ ids, const int8_t *__restrict__ tq,
                                             int32_t *d) {
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += (int64_t)gridDim.x * blockDim.x) {
    const int64_t row = i / n, channel = i - row * n, grain = row / rows_per_grain;
    atomicAdd(&d[(grain * n + channel) * k + slot_id(ids, row, context, back, pad)], (int32_t)tq[i]);
  }
}

static arb_status embed_dw(arb_backend *be, const arb_rows *r, int64_t context, const int32_t *ids, int slots, int slot,
                           int32_t pad, const int8_t *hq, const float *sh, const arb_stack *w, int32_t *cexp, int32_t *d) {
  arb_cuda *c = arb_cuda_of(be);
  const int back = slots - 1 - slot;
  const int64_t m = arb_rows_count(r);
  void *work;
  ARB_TRY(arb_cuda_work(c, (size_t)m * (sizeof(int32_t) + (size_t)w->n), &work));
  int32_t *ratio = (int32_t *)work;
  int8_t *tq = (int8_t *)(ratio + m);
  ARB_CUDA_LAUNCH(c, "embed_dw (ratio)", arb_ratio_kernel, (unsigned)r->grains, 1024, 0, (int32_t)r->rows_per_grain, sh,
                  (const float *)nullptr, cexp, ratio, c->nonfinite);
  const int64_t chunks = m * arb_cuda_ceil(w->n, ARB_CHUNK);
  auto rescale = w->n % ARB_CHUNK == 0 && arb_cuda_aligned(hq, 8) && arb_cuda_aligned(tq, 8) ? arb_rescale_rows_kernel<true>
                                                                                             : arb_rescale_rows_kernel<false>;
  ARB_CUDA_LAUNCH(c, "embed_dw (rescale)", rescale, arb_cuda_grid(c, chunks, 256, 8), 256, 0,
                  arb_gradient_of(c, r, w, slot, NULL, NULL), chunks, hq, ratio, tq);
  const size_t shared = (size_t)w->k * (GROUP + 1) * sizeof(int32_t);
  if (shared <= c->shared_block) {
    ARB_TRY(arb_cuda_allow_shared(c, (const void *)embed_dw_kernel, shared, "embed_dw"));
    const dim3 grid((unsigned)arb_cuda_ceil(w->n, GROUP), (unsigned)r->grains);
    ARB_CUDA_LAUNCH(c, "embed_dw", embed_dw_kernel, grid, 512, shared, (int)w->n, (int)w->k, (int)r->rows_per_grain,
                    (uint32_t)context, back, pad, ids, tq, d);
    return ARB_OK;
  }
  const int64_t total = m * w->n;
  c->chained = 0;
  ARB_CUDA_TRY(cudaMemsetAsync(d, 0, (size_t)(r->grains * w->n * w->k) * sizeof *d, c->stream), "embed_dw");
  ARB_CUDA_LAUNCH(c, "embed_dw (large)", embed_dw_large_kernel, arb_cuda_grid(c, total, 256, 8), 256, 0, (int)w->n, (int)w->k,
                  r->rows_per_grain, total, (uint32_t)context, back, pad, ids, tq, d);
  return ARB_OK;
}

typedef struct {
  arb_stack w;
  int32_t grains, first, stride;
  const int32_t *d, *cexp;
  int vmax;
  const arb_cuda_step *step;
} join_args;

/* A thread owns 8 consecutive weights of a row; every grain of the batch votes in turn. */
static __global__ void vote_join_kernel(join_args a) {
  const int64_t per_row = (a.w.k + 7) / 8, total = a.w.n * per_row;
  const arb_philox_key key = arb_philox_key_of(a.step->seed, ARB_DRAW_VOTE);
  const float limit = (float)a.vmax;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += (int64_t)gridDim.x * blockDim.x) {
    const int64_t row = i / per_row, k0 = (i - row * per_row) * 8;
    const int count = a.w.k - k0 < 8 ? (int)(a.w.k - k0) : 8;
    int8_t *votes = a.w.votes + arb_votes_at(a.w.groups, row, a.w.k) + k0;
    for (int32_t g = 0; g < a.grains; g++) {
      int cmax = ARB_NO_SCALE;
      for (int u = 0; u < a.w.uses; u++) {
        const int c = a.cexp[u * a.grains + g];
        if (c != ARB_NO_SCALE && (cmax == ARB_NO_SCALE || c > cmax)) cmax = c;
      }
      if (cmax == ARB_NO_SCALE) continue;
      const float scale = arb_vote_scale(cmax - 24 - a.w.p[row]);
      const arb_philox_block r = arb_philox(key, (uint32_t)i, a.w.id, a.step->step, (uint32_t)(a.first + g * a.stride));
      int64_t sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
      for (int u = 0; u < a.w.uses; u++) {
        const int c = a.cexp[u * a.grains + g];
        if (c == ARB_NO_SCALE || cmax - c > 55) continue;
        const int32_t *d = a.d + (((int64_t)u * a.grains + g) * a.w.n + row) * a.w.k + k0;
#pragma unroll
        for (int j = 0; j < 8; j++)
          if (j < count) sum[j] += ((int64_t)d[j] * ((int64_t)1 << 24)) >> (cmax - c);
      }
#pragma unroll
      for (int j = 0; j < 8; j++)
        if (j < count) {
          const float x = arb_clamp((float)sum[j] * scale, limit);
          votes[j] = (int8_t)(votes[j] + (int32_t)arb_stochastic_round(x, (uint16_t)arb_half_of(r, j)));
        }
    }
  }
}

static arb_status vote_join(arb_backend *be, const arb_rows *r, const int32_t *d, const int32_t *cexp, int vmax,
                            const arb_stack *w) {
  arb_cuda *c = arb_cuda_of(be);
  join_args a = {};
  a.w = *w;
  a.grains = r->grains;
  a.first = r->first;
  a.stride = r->stride;
  a.d = d;
  a.cexp = cexp;
  a.vmax = vmax;
  a.step = c->step;
  ARB_CUDA_LAUNCH(c, "vote_join", vote_join_kernel, arb_cuda_grid(c, w->n * arb_cuda_ceil(w->k, 8), 128, 16), 128, 0, a);
  return ARB_OK;
}

void arb_cuda_fill_embedding(arb_ops *ops) {
  ops->embed_forward = embed_forward;
  ops->embed_dw = embed_dw;
  ops->vote_join = vote_join;
}
