/* Softmax cross-entropy and its gradient as int8 rows. A warp a row; the row's exponentials rest in shared memory until their
 * sum is known. */
#include "kernels/cuda/gradient.cuh"

static __global__ void __launch_bounds__(128)
    xent_kernel(int64_t m, int n, const uint16_t *__restrict__ logits, const int32_t *__restrict__ targets, float weight,
                const __grid_constant__ arb_gradient g, int64_t *loss, int64_t *count, int *nonfinite) {
  extern __shared__ float4 shared[];
  __shared__ unsigned long long block_loss, block_count;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, pad = (n + 3) & ~3;
  float *p = reinterpret_cast<float *>(shared) + pad * warp;
  if (threadIdx.x == 0) block_loss = block_count = 0;
  __syncthreads();
  int64_t loss_sum = 0, target_sum = 0;
  for (int64_t turn = (int64_t)blockIdx.x * warps + warp; turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const int32_t target = targets[row];
    if (target < 0) {
      for (int i = lane; g.hq && i < n; i += 32) g.hq[row * n + i] = 0;
      if (g.hq && lane == 0) g.sh[row] = 0.0f;
      continue;
    }
    float max = -arb_f32_of_bits(ARB_F32_INF_BITS);
#pragma unroll 4
    for (int i = lane; i < n; i += 32) {
      const float x = arb_f32_of_bf16(logits[row * n + i]);
      p[i] = x;
      max = arb_fmaxf(x, max);
    }
#pragma unroll
    for (int o = 16; o > 0; o /= 2) max = arb_fmaxf(__shfl_xor_sync(ARB_CUDA_FULL, max, o), max);
    __syncwarp();
    const float target_logit = p[target];
    __syncwarp();
    float sum = 0.0f;
#pragma unroll 4
    for (int i = lane; i < n; i += 32) {
      const float d = p[i] - max, v = d < -87.0f ? 0.0f : arb_expf(d);
      p[i] = v;
      sum += v;
    }
    sum = arb_warp_sum(sum);
    const float row_loss = arb_logf(sum) - (target_logit - max);
    if (!(row_loss < 2048.0f)) { /* also NaN and, through it, any non-finite logit */
      if (lane == 0) *nonfinite = 1;
    } else {
      loss_sum += (int64_t)arb_rintf(row_loss * 0x1p20f);
      target_sum++;
    }
    if (!g.hq) continue;
#pragma unroll 4
    for (int i = lane; i < n; i += 32) { /* each lane reads what it wrote */
      const float v = arb_divf(p[i], sum);
      p[i] = ((i == target ? v - 1.0f : v) * weight) * arb_pow2_eighths(g.e[i]);
    }
    __syncwarp();
    arb_gradient_row(g, row, [&](int at, float h[ARB_CHUNK]) {
#pragma unroll
      for (int j = 0; j < ARB_CHUNK; j++) h[j] = at + j < n ? p[at + j] : 0.0f;
    });
    __syncwarp();
  }
  if (lane == 0 && target_sum != 0) {
    atomicAdd(&block_loss, (unsigned long long)loss_sum);
    atomicAdd(&block_count, (unsigned long long)target_sum);
  }
  __syncthreads();
  if (threadIdx.x == 0 && block_count != 0) {
    atomicAdd((unsigned long long *)loss, block_loss);
    atomicAdd((unsigned long long *)count, block_count);
  }
}

static arb_status xent(arb_backend *be, const arb_rows *r, const uint16_t *logits, const int32_t *targets, float weight,
                       const arb_stack *w, int8_t *hq, float *sh, int64_t *loss, int64_t *count) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, w->n, 1, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)xent_kernel, shape.shared, "xent"));
  ARB_CUDA_LAUNCH(c, "xent", xent_kernel, shape.grid, shape.warps * 32, shape.shared, m, (int)w->n, logits, targets, weight,
                  arb_gradient_of(c, r, w, 0, hq, sh), loss, count, c->nonfinite);
  return ARB_OK;
}

void arb_cuda_fill_loss(arb_ops *ops) { ops->xent = xent; }
