/* The digest of an array: every word's 128 bits, added in blocks on the device and over blocks on the host. */
#include <string.h>

#include "kernels/cuda/device.cuh"

#define THREADS 256

template <bool V>
static __global__ void __launch_bounds__(THREADS)
    digest_kernel(uint64_t array, const unsigned char *__restrict__ data, int64_t rows, int64_t row_bytes, int64_t first_row,
                  arb_u128 *partial) {
  __shared__ uint64_t low[THREADS / 32], high[THREADS / 32];
  const int64_t words = (row_bytes + 7) / 8, total = rows * words;
  arb_u128 sum = {0, 0};
  for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < total; i += (int64_t)gridDim.x * THREADS) {
    uint64_t word = 0;
    if (V) { /* rows without padding: words follow each other */
      word = reinterpret_cast<const uint64_t *>(data)[i];
    } else {
      const int64_t row = i / words, at = (i - row * words) * 8, left = row_bytes - at;
      for (int j = 0; j < 8 && j < left; j++) word |= (uint64_t)data[row * row_bytes + at + j] << (8 * j);
    }
    sum = arb_u128_add(sum, arb_mix128(array, (uint64_t)(first_row * words + i), word));
  }
#pragma unroll
  for (int o = 16; o > 0; o /= 2) {
    arb_u128 other;
    other.lo = __shfl_xor_sync(ARB_CUDA_FULL, sum.lo, o);
    other.hi = __shfl_xor_sync(ARB_CUDA_FULL, sum.hi, o);
    sum = arb_u128_add(sum, other);
  }
  if ((threadIdx.x & 31) == 0) {
    low[threadIdx.x / 32] = sum.lo;
    high[threadIdx.x / 32] = sum.hi;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < THREADS / 32; i++) {
    const arb_u128 other = {low[i], high[i]};
    sum = arb_u128_add(sum, other);
  }
  partial[blockIdx.x] = sum;
}

static arb_status digest(arb_backend *be, uint64_t array, const void *data, int64_t rows, int64_t row_bytes, int64_t first_row,
                         arb_u128 *host_sum) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t total = rows * ((row_bytes + 7) / 8);
  arb_u128 sum = {0, 0};
  *host_sum = sum;
  if (total == 0) return ARB_OK;
  const int64_t want = arb_cuda_ceil(total, THREADS * 4);
  const unsigned blocks = (unsigned)(want < ARB_CUDA_PARTIALS ? want : ARB_CUDA_PARTIALS);
  auto kernel = row_bytes % 8 == 0 && arb_cuda_aligned(data, 8) ? digest_kernel<true> : digest_kernel<false>;
  ARB_CUDA_LAUNCH(c, "digest", kernel, blocks, THREADS, 0, array, (const unsigned char *)data, rows, row_bytes, first_row,
                  c->partial);
  ARB_TRY(be->ops.download(be, c->host_partial, c->partial, blocks * sizeof *c->partial));
  for (unsigned i = 0; i < blocks; i++) sum = arb_u128_add(sum, c->host_partial[i]);
  *host_sum = sum;
  return ARB_OK;
}

void arb_cuda_fill_digest(arb_ops *ops) { ops->digest = digest; }
