/* Windows over frozen features, and rows moved by an index. A warp a row; plain, since features are a small part of a step. */
#include "kernels/cuda/device.cuh"

static __global__ void __launch_bounds__(128)
    window_norm_quant_kernel(int64_t m, int64_t windows, int span, int width, const int8_t *__restrict__ q_in,
                             const float *__restrict__ s_in, const int8_t *__restrict__ e, int8_t *__restrict__ q,
                             float *__restrict__ s, int *nonfinite) {
  extern __shared__ float4 shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const int wide = span * width, pad = (wide + 3) & ~3;
  float *gain = reinterpret_cast<float *>(shared), *x = gain + pad * (1 + warp);
  arb_gains_shared(e, wide, gain);
  for (int64_t row = (int64_t)blockIdx.x * warps + warp; row < m; row += (int64_t)gridDim.x * warps) {
    /* A sequence has span - 1 more features than windows. */
    const int64_t first = row / windows * (windows + span - 1) + row % windows;
    for (int i = lane; i < wide; i += 32) x[i] = (float)q_in[first * width + i] * s_in[first + i / width];
    if (lane < pad - wide) x[wide + lane] = 0.0f; /* read in groups of four below */
    __syncwarp();
    const float inv = arb_inv_rms(arb_row_square_sum_shared(x, wide, lane), wide);
    float most = 0.0f;
    for (int i = lane; i < wide; i += 32) {
      const float v = (x[i] * inv) * gain[i];
      most = arb_max_abs(most, v);
      x[i] = v;
    }
    const uint32_t bits = __reduce_max_sync(ARB_CUDA_FULL, arb_bits_of_f32(most));
    __syncwarp();
    arb_quantise_row<false>(x, wide, bits, lane, q + row * wide, s + row, nonfinite);
    __syncwarp();
  }
}

static arb_status window_norm_quant(arb_backend *be, const arb_rows *r, int64_t windows, int64_t span, int64_t width,
                                    const int8_t *q_in, const float *s_in, const int8_t *e, int8_t *q, float *s) {
  arb_cuda *c = arb_cuda_of(be);
  const int64_t m = arb_rows_count(r);
  arb_row_shape shape = {};
  ARB_TRY(arb_cuda_row_shape(c, m, span * width, 1, &shape));
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)window_norm_quant_kernel, shape.shared, "window_norm_quant"));
  ARB_CUDA_LAUNCH(c, "window_norm_quant", window_norm_quant_kernel, shape.grid, shape.warps * 32, shape.shared, m, windows,
                  (int)span, (int)width, q_in, s_in, e, q, s, c->nonfinite);
  return ARB_OK;
}

/* halves: 16-bit words a row. */
static __global__ void __launch_bounds__(128)
    gather_rows_kernel(int64_t count, int64_t halves, const uint16_t *__restrict__ in, const int32_t *__restrict__ index,
                       uint16_t *__restrict__ out) {
  for (int64_t i = blockIdx.x; i < count; i += gridDim.x) {
    const int32_t from = index[i];
    for (int64_t j = threadIdx.x; j < halves; j += blockDim.x) out[i * halves + j] = from < 0 ? 0 : in[from * halves + j];
  }
}

static arb_status gather_rows(arb_backend *be, int64_t count, int64_t row_bytes, const void *in, const int32_t *index,
                              void *out) {
  arb_cuda *c = arb_cuda_of(be);
  ARB_CUDA_LAUNCH(c, "gather_rows", gather_rows_kernel, arb_cuda_grid(c, count, 1, 16), 128, 0, count, row_bytes / 2,
                  (const uint16_t *)in, index, (uint16_t *)out);
  return ARB_OK;
}

void arb_cuda_fill_features(arb_ops *ops) {
  ops->window_norm_quant = window_norm_quant;
  ops->gather_rows = gather_rows;
}
