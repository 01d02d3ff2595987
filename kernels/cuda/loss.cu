/* Softmax cross-entropy and its gradient as int8 rows. A warp a row, whose exponentials rest in registers, or in shared memory
 * where a row is long, until their sum is known. */
#include "kernels/cuda/gradient.cuh"

/* A row's loss in 2^-20, added to what its warp has; one that is not finite raises the flag. */
static __device__ __forceinline__ void count_loss(float loss, int lane, int64_t *sum, int64_t *count, int *nonfinite) {
  if (!(loss < 2048.0f)) { /* also NaN and, through it, any non-finite logit */
    if (lane == 0) *nonfinite = 1;
  } else {
    *sum += (int64_t)arb_rintf(loss * 0x1p20f);
    (*count)++;
  }
}

/* What the warps of a block have, by all of its threads. */
static __device__ __forceinline__ void add_losses(int lane, int64_t loss_sum, int64_t target_sum, int64_t *loss,
                                                  int64_t *count) {
  __shared__ unsigned long long block_loss, block_count;
  if (threadIdx.x == 0) block_loss = block_count = 0;
  __syncthreads();
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

#define SHORT 10 /* elements a lane of a row in registers: the vocabulary of bytes has 297 */

/* n bytes that begin at a word of shared memory, to any address: whole words but for the ends, by one warp. Reads the words
 * before and behind. */
static __device__ __forceinline__ void store_bytes(const uint32_t *from, int n, int lane, int8_t *to) {
  const int ahead = (int)((uintptr_t)to & 3);
  for (int i = lane, at = 4 * lane - ahead; at < n; i += 32, at += 128) {
    const uint32_t w = __funnelshift_rc(from[i - 1], from[i], 32 - 8 * ahead);
    if (at >= 0 && at + 4 <= n) {
      *reinterpret_cast<uint32_t *>(to + at) = w;
    } else {
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (at + j >= 0 && at + j < n) to[at + j] = (int8_t)(w >> (8 * j));
    }
  }
}

/* Rows of at most 32 * SHORT elements, which a lane keeps in registers. */
static __global__ void __launch_bounds__(128)
    xent_short_kernel(int64_t m, int n, const uint16_t *__restrict__ logits, const int32_t *__restrict__ targets, float weight,
                      const __grid_constant__ arb_gradient g, int64_t *loss, int64_t *count, int *nonfinite) {
  __shared__ float4 staged[4][SHORT * 8];   /* a warp's row of gradients */
  __shared__ uint2 bytes[4][2 + SHORT * 4]; /* the same rounded; room for a word before and behind */
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  float *h = reinterpret_cast<float *>(staged[warp]);
  float gain[SHORT];
#pragma unroll
  for (int j = 0; j < SHORT; j++) gain[j] = g.hq && lane + 32 * j < n ? arb_pow2_eighths(g.e[lane + 32 * j]) : 0.0f;
  const arb_philox_key key = arb_philox_key_of(g.step->seed, ARB_DRAW_DX);
  const uint32_t step = g.step->step;
  int64_t loss_sum = 0, target_sum = 0;
  for (int64_t turn = (int64_t)blockIdx.x * warps + warp; turn < m; turn += (int64_t)gridDim.x * warps) {
    const int64_t row = arb_row_down(turn, m);
    const int32_t target = targets[row];
    if (target < 0) {
      for (int i = lane; g.hq && i < n; i += 32) g.hq[row * n + i] = 0;
      if (g.hq && lane == 0) g.sh[row] = 0.0f;
      continue;
    }
    const float least = -arb_f32_of_bits(ARB_F32_INF_BITS);
    const float target_logit = arb_f32_of_bf16(logits[row * n + target]);
    float p[SHORT], max = least;
#pragma unroll
    for (int j = 0; j < SHORT; j++) p[j] = lane + 32 * j < n ? arb_f32_of_bf16(logits[row * n + lane + 32 * j]) : least;
#pragma unroll
    for (int j = 0; j < SHORT; j++) max = arb_fmaxf(p[j], max);
#pragma unroll
    for (int o = 16; o > 0; o /= 2) max = arb_fmaxf(__shfl_xor_sync(ARB_CUDA_FULL, max, o), max);
    float sum = 0.0f, smallest = 1.0f;
#pragma unroll
    for (int j = 0; j < SHORT; j++) {
      const float d = p[j] - max, v = arb_exp_near(fmaxf(d, ARB_EXP_NEAR));
      p[j] = d < ARB_EXP_NEAR ? 0.0f : (d == d ? v : arb_f32_of_bits(ARB_F32_NAN_BITS));
      if (lane + 32 * j < n) {
        sum += p[j];
        smallest = fminf(smallest, p[j]);
      }
    }
    sum = arb_warp_sum(sum);
    count_loss(arb_logf(sum) - (target_logit - max), lane, &loss_sum, &target_sum, nonfinite);
    if (!g.hq) continue;
    float most = 0.0f;
    if (smallest > 0x1p-90f && sum < 0x1p20f) { /* the division's own steps, its reciprocal once */
      float r;
      asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(sum));
      r = arb_fmaf(r, arb_fmaf(-sum, r, 1.0f), r);
#pragma unroll
      for (int j = 0; j < SHORT; j++) {
        const float q = p[j] * r;
        p[j] = arb_fmaf(r, arb_fmaf(-sum, q, p[j]), q);
      }
    } else {
#pragma unroll
      for (int j = 0; j < SHORT; j++) p[j] = arb_divf(p[j], sum);
    }
#pragma unroll
    for (int j = 0; j < SHORT; j++) {
      const int i = lane + 32 * j;
      p[j] = ((i == target ? p[j] - 1.0f : p[j]) * weight) * gain[j];
      if (i < n) most = arb_max_abs(most, p[j]);
      h[i] = i < n ? p[j] : 0.0f;
    }
    const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
    const float unit = arb_gradient_unit(bits);
    if (lane == 0) arb_gradient_scale(g, row, bits);
    const arb_row_place place = arb_place_of(g, row);
    __syncwarp();
    for (int at = ARB_CHUNK * lane; at < n; at += 32 * ARB_CHUNK) {
      float c[ARB_CHUNK];
      arb_load8<true>(h, at, n, c);
      const arb_philox_block r = arb_gradient_draws(g, key, step, place.grain, place.position, at);
      bytes[warp][1 + at / ARB_CHUNK] = unit != 0.0f ? arb_round8(c, unit, r) : make_uint2(0, 0);
    }
    __syncwarp();
    store_bytes(reinterpret_cast<const uint32_t *>(bytes[warp] + 1), n, lane, g.hq + row * n);
    __syncwarp();
  }
  add_losses(lane, loss_sum, target_sum, loss, count);
}

static __global__ void __launch_bounds__(128)
    xent_kernel(int64_t m, int n, const uint16_t *__restrict__ logits, const int32_t *__restrict__ targets, float weight,
                const __grid_constant__ arb_gradient g, int64_t *loss, int64_t *count, int *nonfinite) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, pad = (n + 3) & ~3;
  float *p = reinterpret_cast<float *>(shared) + pad * warp;
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
    count_loss(arb_logf(sum) - (target_logit - max), lane, &loss_sum, &target_sum, nonfinite);
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
  add_losses(lane, loss_sum, target_sum, loss, count);
}

static arb_status xent(arb_backend *be, const arb_rows *r, const uint16_t *logits, const int32_t *targets, float weight,
                       const arb_stack *w, int8_t *hq, float *sh, int64_t *loss, int64_t *count) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_TRY(arb_cuda_before_rows(c, hq));
  const int64_t m = arb_rows_count(r);
  if (w->n <= 32 * SHORT) {
    int resident = 0;
    ARB_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, (const void *)xent_short_kernel, 128, 0),
                 "occupancy");
    ARB_CUDA_LAUNCH(c, "xent", xent_short_kernel, arb_cuda_grid(c, m, 4, resident), 128, 0, m, (int)w->n, logits, targets,
                    weight, arb_gradient_of(c, r, w, 0, hq, sh), loss, count, c->nonfinite);
    return ARB_OK;
  }
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, w->n, 1, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)xent_kernel, shape.shared, "xent"));
  ARB_CUDA_LAUNCH(c, "xent", xent_kernel, shape.grid, shape.warps * 32, shape.shared, m, (int)w->n, logits, targets, weight,
                  arb_gradient_of(c, r, w, 0, hq, sh), loss, count, c->nonfinite);
  return ARB_OK;
}

void arb_cuda_fill_loss(arb_ops *ops) { ops->xent = xent; }
