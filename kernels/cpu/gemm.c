#include "kernels/cpu/gemm.h"

#include <string.h>

#include "kernels/cpu/gemm_block.h"

static void forward_scalar(arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *q, const float *s,
                           const uint8_t *code, const int8_t *e, uint16_t *y, void *scratch) {
  arb_gemm_block_forward(&arb_gemm_level_scalar, pool, m, k, n, q, s, code, e, y, scratch);
}
static void dx_scalar(arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *hq, const float *sh, const uint8_t *code,
                      uint16_t *dx, void *scratch) {
  arb_gemm_block_dx(&arb_gemm_level_scalar, pool, m, k, n, hq, sh, code, dx, scratch);
}
static void dw_scalar(arb_pool *pool, int64_t rows, int64_t k, int64_t n, const int8_t *tq, const int8_t *q, int32_t *d,
                      const arb_gemm_votes *v, void *scratch) {
  arb_gemm_block_dw(&arb_gemm_level_scalar, pool, rows, k, n, tq, q, d, v, scratch);
}
static const arb_gemm_kernels scalar = {"scalar", forward_scalar, dx_scalar, dw_scalar, arb_draws_scalar};

#if defined(__x86_64__)
static void forward_avx2(arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *q, const float *s, const uint8_t *code,
                         const int8_t *e, uint16_t *y, void *scratch) {
  arb_gemm_block_forward(&arb_gemm_level_avx2, pool, m, k, n, q, s, code, e, y, scratch);
}
static void dx_avx2(arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *hq, const float *sh, const uint8_t *code,
                    uint16_t *dx, void *scratch) {
  arb_gemm_block_dx(&arb_gemm_level_avx2, pool, m, k, n, hq, sh, code, dx, scratch);
}
static void dw_avx2(arb_pool *pool, int64_t rows, int64_t k, int64_t n, const int8_t *tq, const int8_t *q, int32_t *d,
                    const arb_gemm_votes *v, void *scratch) {
  arb_gemm_block_dw(&arb_gemm_level_avx2, pool, rows, k, n, tq, q, d, v, scratch);
}
static const arb_gemm_kernels avx2 = {"avx2", forward_avx2, dx_avx2, dw_avx2, arb_draws_avx2};

static void forward_avx512(arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *q, const float *s,
                           const uint8_t *code, const int8_t *e, uint16_t *y, void *scratch) {
  arb_gemm_block_forward(&arb_gemm_level_avx512, pool, m, k, n, q, s, code, e, y, scratch);
}
static void dx_avx512(arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *hq, const float *sh, const uint8_t *code,
                      uint16_t *dx, void *scratch) {
  arb_gemm_block_dx(&arb_gemm_level_avx512, pool, m, k, n, hq, sh, code, dx, scratch);
}
static void dw_avx512(arb_pool *pool, int64_t rows, int64_t k, int64_t n, const int8_t *tq, const int8_t *q, int32_t *d,
                      const arb_gemm_votes *v, void *scratch) {
  arb_gemm_block_dw(&arb_gemm_level_avx512, pool, rows, k, n, tq, q, d, v, scratch);
}
static const arb_gemm_kernels avx512 = {"avx512", forward_avx512, dx_avx512, dw_avx512, arb_draws_avx512};

static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
/* All that the files of this level are compiled for, theirs and the rows': a chip lacks one part only in theory. */
static int has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
#endif

const arb_gemm_kernels *arb_gemm_pick(const char *isa) {
  const int any = strcmp(isa, "auto") == 0;
#if defined(__x86_64__)
  if ((any || strcmp(isa, "avx512") == 0) && has_avx512()) return &avx512;
  if ((any || strcmp(isa, "avx2") == 0) && has_avx2()) return &avx2;
#endif
  if (any || strcmp(isa, "scalar") == 0) return &scalar;
  return NULL;
}
