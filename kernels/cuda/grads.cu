/* A linear's output gradient, fp32 or bf16, as int8 rows. One thread holds chunks of 8 consecutive elements, one Philox output
 * each, and keeps its columns and their gains from row to row. Aligned rows of whole chunks go to grad.cuh. */
#include "kernels/cuda/grad.cuh"

/* Blocks (x, grain); block x takes positions x, x + gridDim.x, ... of the grain. C chunks a thread. */
template <int C, bool V, typename T>
static __global__ void __launch_bounds__(ARB_GRAD_THREADS, C == 1 ? 3 : 1)
    grad_quant_kernel(const __grid_constant__ arb_gradient a, const T *__restrict__ g_in, int64_t ldg) {
  __shared__ uint32_t part[2][ARB_GRAD_THREADS / 32]; /* [parity of the row][warp] */
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const int64_t row0 = (int64_t)blockIdx.y * a.rows_per_grain;
  const uint32_t step = a.step->step, grain = (uint32_t)(a.first + (int32_t)blockIdx.y * a.stride);
  const arb_philox_key key = arb_philox_key_of(a.step->seed, ARB_DRAW_DX);
  int at[C];
  float gain[C][ARB_CHUNK], g[C][ARB_CHUNK];
#pragma unroll
  for (int c = 0; c < C; c++) {
    at[c] = ((int)threadIdx.x + c * (int)blockDim.x) * ARB_CHUNK;
    if (at[c] < a.n) {
      arb_chunk_gains<V>(a.e, at[c], a.n, gain[c]);
      arb_load8<V>(g_in + (row0 + blockIdx.x) * ldg, at[c], a.n, g[c]);
    }
  }
  int parity = 0;
  for (uint32_t position = blockIdx.x; position < a.rows_per_grain; position += gridDim.x, parity ^= 1) {
    const int64_t row = row0 + position;
    float h[C][ARB_CHUNK], most = 0.0f;
#pragma unroll
    for (int c = 0; c < C; c++)
      if (at[c] < a.n) {
#pragma unroll
        for (int j = 0; j < ARB_CHUNK; j++) h[c][j] = g[c][j] * gain[c][j];
        most = arb_max_abs(most, arb_chunk_most(h[c]));
      }
    if (position + gridDim.x < a.rows_per_grain)
#pragma unroll
      for (int c = 0; c < C; c++)
        if (at[c] < a.n) arb_load8<V>(g_in + (row + gridDim.x) * ldg, at[c], a.n, g[c]);
    uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
    if (warps > 1) {
      if (lane == 0) part[parity][warp] = bits;
      __syncthreads();
      bits = __reduce_max_sync(ARB_CUDA_FULL, lane < warps ? part[parity][lane] : 0u);
    }
    const float unit = arb_gradient_unit(bits);
    if (threadIdx.x == 0) arb_gradient_scale(a, row, bits);
#pragma unroll
    for (int c = 0; c < C; c++)
      if (at[c] < a.n) arb_round_chunk<V>(a, key, step, grain, position, row, at[c], h[c], unit);
  }
}

/* Rows wider than a block holds: a warp a row, read twice. */
template <typename T>
static __global__ void __launch_bounds__(128)
    grad_quant_row_kernel(const __grid_constant__ arb_gradient a, int64_t m, const T *__restrict__ g, int64_t ldg) {
  const int warps = (int)blockDim.x >> 5;
  for (int64_t row = (int64_t)blockIdx.x * warps + (threadIdx.x >> 5); row < m; row += (int64_t)gridDim.x * warps)
    arb_gradient_row(a, row, [&](int at, float h[ARB_CHUNK]) {
      float gain[ARB_CHUNK];
      arb_chunk_gains<false>(a.e, at, a.n, gain);
      arb_load8<false>(g + row * ldg, at, a.n, h);
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) h[j] = h[j] * gain[j];
    });
}

template <typename T>
static arb_status grad_quant_of(arb_cuda *c, const arb_rows *r, const T *g, int64_t ldg, const arb_stack *w,
                                const arb_gradient &a) {
  const int64_t chunks = arb_cuda_ceil(w->n, ARB_CHUNK), m = arb_rows_count(r);
  ARB_REQUIRE(m < INT32_MAX / 2 && w->n < INT32_MAX && r->grains <= 65535, ARB_ERR_UNSUPPORTED,
              "a gradient of %lld rows by %lld is more than this backend takes", (long long)m, (long long)w->n);
  if (chunks > 4 * ARB_GRAD_THREADS) {
    ARB_CUDA_LAUNCH(c, "grad_quant (wide)", grad_quant_row_kernel<T>, arb_cuda_grid(c, m, 4, 8), 128, 0, a, m, g, ldg);
    return ARB_OK;
  }
  const bool v = arb_gradient_wide(w, a.hq) && ldg % ARB_CHUNK == 0 && arb_cuda_aligned(g, 16);
  const int each = chunks <= ARB_GRAD_THREADS ? 1 : 4;
  if (v && each == 1) { /* several rows at a time where a block is wide enough to have few of them to wait with */
    const int most = sizeof(T) == 2 ? 4 : 2, rows = chunks >= 128 && r->rows_per_grain >= most ? most : 1;
    auto kernel = rows == 1 ? grad_rows_kernel<1, T, 3> : grad_rows_kernel < sizeof(T) == 2 ? 4 : 2, T, 2 > ;
    const unsigned threads = (unsigned)(arb_cuda_ceil(chunks, 32) * 32);
    int resident = 0;
    ARB_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, (const void *)kernel, (int)threads, 0), "occupancy");
    ARB_CUDA_LAUNCH(c, "grad_quant", kernel, arb_cuda_grid(c, m, rows, resident), threads, 0, a, (int)m, g, ldg);
    return ARB_OK;
  }
  auto kernel = each == 1 ? grad_quant_kernel<1, false, T> : v ? grad_quant_kernel<4, true, T> : grad_quant_kernel<4, false, T>;
  const unsigned threads = (unsigned)(arb_cuda_ceil(arb_cuda_ceil(chunks, each), 32) * 32);
  int resident = 0;
  ARB_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, (const void *)kernel, (int)threads, 0), "occupancy");
  const int64_t blocks = c->multiprocessors * (int64_t)resident / r->grains;
  const dim3 grid((unsigned)(blocks > r->rows_per_grain ? r->rows_per_grain : (blocks > 0 ? blocks : 1)), (unsigned)r->grains);
  ARB_CUDA_LAUNCH(c, "grad_quant", kernel, grid, threads, 0, a, g, ldg);
  return ARB_OK;
}

static arb_status grad_quant(arb_backend *be, const arb_rows *r, const float *g, const uint16_t *g_bf16, int64_t ldg,
                             const arb_stack *w, int use, int8_t *hq, float *sh) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_TRY(arb_cuda_before_rows(c, hq));
  const arb_gradient a = arb_gradient_of(c, r, w, use, hq, sh);
  return g ? grad_quant_of(c, r, g, ldg, w, a) : grad_quant_of(c, r, g_bf16, ldg, w, a);
}

void arb_cuda_fill_grads(arb_ops *ops) { ops->grad_quant = grad_quant; }
