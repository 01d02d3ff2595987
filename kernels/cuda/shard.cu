/* Rows on their way between ranks, on the device. */
#include "kernels/common/trit.h"
#include "kernels/cuda/device.cuh"

/* A thread a packed byte. */
static __global__ void pack_kernel(const uint8_t *code, int64_t rows, int64_t k, uint8_t *packed) {
  const int64_t width = arb_packed_bytes(k), stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * width; i += stride) {
    const int64_t r = i / width, at = (i - r * width) * ARB_TRITS_PER_BYTE;
    packed[i] = arb_trits_pack(code + r * k + at, k - at < ARB_TRITS_PER_BYTE ? (int)(k - at) : ARB_TRITS_PER_BYTE);
  }
}

static arb_status pack_trits(arb_backend *be, const uint8_t *code, int64_t rows, int64_t k, uint8_t *packed) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t bytes = rows * arb_packed_bytes(k);
  if (bytes == 0) return ARB_OK;
  ARB_CUDA_LAUNCH(c, "pack_trits", pack_kernel, arb_cuda_grid(c, bytes, 256, 8), 256, 0, code, rows, k, packed);
  return ARB_OK;
}

/* A thread V consecutive codes of a row; V divides k. */
template <int V>
static __global__ void unpack_kernel(const uint8_t *packed, int64_t stride, int64_t per_block, int64_t n, int64_t k,
                                     uint8_t *code) {
  const int64_t width = arb_packed_bytes(k), per_row = k / V, step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n * per_row; i += step) {
    const int64_t r = i / per_row;
    const uint32_t at = (uint32_t)(i - r * per_row) * V;
    const uint8_t *from = packed + r / per_block * stride + r % per_block * width;
    uint8_t c[V];
#pragma unroll
    for (int j = 0; j < V; j++)
      c[j] = arb_trits_code(from[(at + j) / ARB_TRITS_PER_BYTE], (int)((at + j) % ARB_TRITS_PER_BYTE));
    if (V == 4)
      *reinterpret_cast<uchar4 *>(code + r * k + at) = make_uchar4(c[0], c[1 % V], c[2 % V], c[3 % V]);
    else
      code[r * k + at] = c[0];
  }
}

static arb_status unpack_trits(arb_backend *be, const uint8_t *packed, int64_t stride, int64_t per_block, int64_t n, int64_t k,
                               uint8_t *code) {
  arb_cuda *c = arb_cuda_of(be);
  if (n * k == 0) return ARB_OK;
  const bool wide = k % 4 == 0 && arb_cuda_aligned(code, 4);
  auto kernel = wide ? unpack_kernel<4> : unpack_kernel<1>;
  ARB_CUDA_LAUNCH(c, "unpack_trits", kernel, arb_cuda_grid(c, n * k / (wide ? 4 : 1), 256, 8), 256, 0, packed, stride,
                  per_block, n, k, code);
  return ARB_OK;
}

static __global__ void join_kernel(const unsigned char *in, int64_t stride, int64_t per_block, int64_t n, int64_t row_bytes,
                                   unsigned char *out) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n * row_bytes; i += step) {
    const int64_t r = i / row_bytes, at = i - r * row_bytes;
    out[i] = in[r / per_block * stride + r % per_block * row_bytes + at];
  }
}

static arb_status join_rows(arb_backend *be, const void *in, int64_t stride, int64_t per_block, int64_t n, int64_t row_bytes,
                            void *out) {
  arb_cuda *c = arb_cuda_of(be);
  if (n * row_bytes == 0) return ARB_OK;
  ARB_CUDA_LAUNCH(c, "join_rows", join_kernel, arb_cuda_grid(c, n * row_bytes, 256, 8), 256, 0, (const unsigned char *)in,
                  stride, per_block, n, row_bytes, (unsigned char *)out);
  return ARB_OK;
}

void arb_cuda_fill_shard(arb_ops *ops) {
  ops->pack_trits = pack_trits;
  ops->unpack_trits = unpack_trits;
  ops->join_rows = join_rows;
}
