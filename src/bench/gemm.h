/* Measures the matrix products of kernels/cpu against single-precision sgemm of the same shapes. */
#ifndef ARB_SRC_BENCH_GEMM_H
#define ARB_SRC_BENCH_GEMM_H

#include <stdint.h>
#include <stdio.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int64_t m, k, n;
} arb_bench_shape;

typedef struct {
  const char *isa;               /* as arb_gemm_pick; NULL: "auto" */
  int threads;                   /* of both sides, >= 1 */
  int repetitions;               /* timed pairs per line; 0: 15 */
  int rest_ms;                   /* pause before each side, so that the other's idle threads stop spinning; 0: 150 */
  const char *peer;              /* shared library with cblas_sgemm; NULL: libopenblas.so.0, "": none */
  const arb_bench_shape *shapes; /* NULL: the two shapes of docs/measured.md */
  int shape_count;
} arb_bench_options;

/* One line per shape and form: GOP/s of both sides as median (min - max), and the median of the paired ratios. Both sides are
 * timed in turn in the same run, packing of state bytes inside the clock. A missing peer is said and leaves the ratios out. */
ARB_NODISCARD arb_status arb_bench_gemm(FILE *out, const arb_bench_options *o);

#ifdef __cplusplus
}
#endif
#endif
