/* TEMPORARY: launches of the candidates. */
#ifndef ARB_KERNELS_CUDA_VARIANTS_CUH
#define ARB_KERNELS_CUDA_VARIANTS_CUH
#include "kernels/cuda/gate.cuh"
#include "kernels/cuda/grad.cuh"
#include "kernels/cuda/scan.cuh"
#include "kernels/cuda/variant.h"

/* Blocks of `warps` warps, one a multiprocessor, a row of floats each and the gains. */
static arb_status warp_rows(arb_cuda *c, const void *kernel, int64_t m, int64_t width, int warps, int table, const char *name,
                            size_t *shared, unsigned *grid, unsigned *threads) {
  *shared = (size_t)width * 4 * (size_t)(1 + warps) + (table ? ARB_SIGMOID_BYTES : 0);
  *grid = arb_cuda_grid(c, m, warps, 1);
  *threads = (unsigned)(32 * warps);
  return arb_cuda_allow_shared(c, kernel, *shared, name);
}

#define WARP_ROWS(name, kernel, warps, table, ...)                                                                  \
  do {                                                                                                              \
    size_t shared_ = 0;                                                                                             \
    unsigned grid_ = 0, threads_ = 0;                                                                               \
    ARB_TRY(warp_rows(c, (const void *)(kernel), m, width, (warps), (table), (name), &shared_, &grid_, &threads_)); \
    ARB_CUDA_LAUNCH(c, (name), (kernel), grid_, threads_, shared_, m, (int)width, __VA_ARGS__);                     \
    return ARB_OK;                                                                                                  \
  } while (0)

static arb_status gate_forward_variant(arb_cuda *c, int64_t m, int64_t width, const float *h, const uint16_t *zg, int64_t ldz,
                                       const int8_t *e, int8_t *q, float *s, float *inv) {
#define GO(g, table, warps) \
  WARP_ROWS("gate_norm_quant", (gate_forward_kernel<g, table, warps>), warps, table, h, zg, ldz, e, q, s, inv, c->nonfinite)
  const int v = arb_variant[VAR_GATE_FORWARD];
  if (width > 768) GO(4, true, 16);
  if (v == 1) GO(2, true, 32);
  if (v == 2) GO(2, true, 24);
  if (v == 3) GO(2, false, 24);
  GO(2, true, 16);
#undef GO
}

static arb_status gate_backward_variant(arb_cuda *c, int64_t m, int64_t width, const float *h, const uint16_t *zg, int64_t ldz,
                                        const float *inv, const int8_t *e, const uint16_t *dy, uint16_t *dh, uint16_t *dzg,
                                        int64_t lddz) {
#define GO(g, table, warps) \
  WARP_ROWS("gate_norm_backward", (gate_backward_kernel<g, table, warps>), warps, table, h, zg, ldz, inv, e, dy, dh, dzg, lddz)
  const int v = arb_variant[VAR_GATE_BACKWARD];
  if (width > 768) GO(4, true, 16);
  if (v == 1) GO(2, true, 32);
  if (v == 2) GO(2, true, 24);
  if (v == 3) GO(2, false, 24);
  GO(2, true, 16);
#undef GO
}

static arb_status glu_forward_variant(arb_cuda *c, int64_t m, int64_t width, const uint16_t *u, const uint16_t *vv, int64_t ldz,
                                      const int8_t *e, int8_t *q, float *s, float *inv) {
#define GO(g, table, warps) \
  WARP_ROWS("glu_norm_quant", (glu_forward_kernel<g, table, warps>), warps, table, u, vv, ldz, e, q, s, inv, c->nonfinite)
  const int v = arb_variant[VAR_GLU_FORWARD];
  if (width <= 512) GO(2, true, 24);
  if (width <= 1280) return ARB_ERR_UNSUPPORTED;
  if (v == 1) GO(6, true, 16);
  if (v == 2) GO(6, true, 20);
  if (v == 3) GO(6, true, 24);
  if (v == 4) GO(6, false, 16);
  GO(6, true, 12);
#undef GO
}

static arb_status glu_backward_variant(arb_cuda *c, int64_t m, int64_t width, const uint16_t *u, const uint16_t *vv,
                                       int64_t ldz, const float *inv, const int8_t *e, const uint16_t *dy,
                                       const arb_gradient &to) {
  const int v = arb_variant[VAR_GLU_BACKWARD];
  const bool table = v != 4 && v != 5;
  const int rows = (v == 3 || v == 4) && width <= 128 * ARB_CHUNK * 2 ? 2 : 1, most = v == 2 ? 1024
                                                                                      : v == 6 || v == 8
                                                                                          ? 640
                                                                                          : (rows == 2 ? 704 : 768);
  int group = (int)arb_cuda_ceil(rows * (width / ARB_CHUNK), 32) * 32, groups = most / group;
  groups = groups > 15 ? 15 : groups;
  if (groups < 1) return ARB_ERR_UNSUPPORTED;
  const size_t shared = (size_t)width * 4 * (size_t)(3 + groups * rows) + (v >= 7  ? ARB_SLOPE_BYTES
                                                                           : table ? ARB_SIGMOID_BYTES
                                                                                   : 0);
  auto kernel = v == 1   ? glu_backward_kernel<1, 1, 768>
                : v == 2 ? glu_backward_kernel<1, 1, 1024>
                : v == 3 ? (rows == 2 ? glu_backward_kernel<2, 1, 704> : glu_backward_kernel<1, 1, 768>)
                : v == 4 ? (rows == 2 ? glu_backward_kernel<2, 0, 704> : glu_backward_kernel<1, 0, 768>)
                : v == 5 ? glu_backward_kernel<1, 0, 768>
                : v == 6 ? glu_backward_kernel<1, 1, 640>
                : v == 7 ? glu_backward_kernel<1, 2, 768>
                         : glu_backward_kernel<1, 2, 640>;
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shared, "glu_norm_backward"));
  ARB_CUDA_LAUNCH(c, "glu_norm_backward", kernel, arb_cuda_grid(c, m, groups * rows, 1), (unsigned)(group * groups), shared,
                  (int)m, (int)width, group, u, vv, ldz, inv, e, dy, to);
  return ARB_OK;
}

#endif
