/* Draws and fresh state on the device. */
#include "kernels/common/fixed.h"
#include "kernels/common/init.h"
#include "kernels/cuda/device.cuh"

static __global__ void draws_kernel(const arb_cuda_step *step, arb_draw_purpose purpose, uint32_t tensor, uint32_t grain,
                                    int64_t first, int64_t blocks, uint16_t *out) {
  const arb_philox_key key = arb_philox_key_of(step->seed, purpose);
  const int64_t stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < blocks; i += stride) {
    const arb_philox_block b = arb_philox(key, (uint32_t)(first / 8 + i), tensor, step->step, grain);
#pragma unroll
    for (int j = 0; j < 8; j++) out[i * 8 + j] = arb_philox_half(&b, j);
  }
}

static arb_status draws(arb_backend *be, arb_draw_purpose purpose, uint32_t tensor, uint32_t grain, int64_t first,
                        int64_t count, uint16_t *out) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_REQUIRE(first % 8 == 0, ARB_ERR_ARG, "draws: first element %lld is not a multiple of 8", (long long)first);
  const int64_t blocks = (count + 7) / 8;
  if (blocks == 0) return ARB_OK;
  ARB_CUDA_LAUNCH(c, "draws", draws_kernel, arb_cuda_grid(c, blocks, 256, 8), 256, 0, c->step, purpose, tensor, grain, first,
                  blocks, out);
  return ARB_OK;
}

/* One block a row; the blocks after the last row clear the statistics of columns and members. */
static __global__ void init_kernel(const arb_cuda_step *step, arb_stack w) {
  __shared__ int32_t nnz;
  const int64_t n = blockIdx.x;
  if (n >= w.n) {
    const int64_t i = (n - w.n) * blockDim.x + threadIdx.x;
    if (i < w.members * w.k) w.c[i] = ARB_Q16_NONE;
    if (i < w.members) w.m[i] = ARB_Q16_NONE;
    return;
  }
  if (threadIdx.x == 0) nnz = 0;
  __syncthreads();
  int32_t mine = 0;
  for (int64_t k = threadIdx.x; k < w.k; k += blockDim.x) {
    const uint8_t code = arb_init_code(arb_init_normal(step->seed, w.id, (w.first + n) * arb_pad8(w.k) + k));
    w.code[n * w.k + k] = code;
    mine += arb_code_trit(code) != 0;
  }
  atomicAdd(&nnz, mine);
  __syncthreads();
  if (threadIdx.x == 0) {
    w.e[n] = arb_init_exponent(nnz);
    w.p[n] = 0;
    w.r[n] = ARB_Q16_NONE;
  }
}

static arb_status init_stack(arb_backend *be, const arb_stack *w) {
  arb_cuda *c = arb_cuda_of(be);
  const unsigned blocks = (unsigned)(w->n + arb_cuda_ceil(w->members * w->k, 128));
  ARB_CUDA_LAUNCH(c, "init_stack", init_kernel, blocks, 128, 0, c->step, *w);
  return ARB_OK;
}

void arb_cuda_fill_random(arb_ops *ops) {
  ops->draws = draws;
  ops->init_stack = init_stack;
}
