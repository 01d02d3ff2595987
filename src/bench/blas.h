/* sgemm of a shared library, loaded at run time: the peer of the measurements is never linked. */
#ifndef ARB_SRC_BENCH_BLAS_H
#define ARB_SRC_BENCH_BLAS_H

#include <stdint.h>

#include "src/base/status.h"

typedef struct arb_blas arb_blas;

/* Loads `library` and sets its number of threads. ARB_ERR_UNSUPPORTED when it is missing or has no cblas_sgemm. */
ARB_NODISCARD arb_status arb_blas_open(const char *library, int threads, arb_blas **out);
/* "OpenBLAS 0.3.21 ... Cooperlake", or the library's name when it does not say. */
const char *arb_blas_name(const arb_blas *b);
/* c[rows][columns] = op(a) op(b), row-major; a is [rows][depth], or [depth][rows] when transposed; b is [depth][columns], or
 * [columns][depth] when transposed. */
void arb_blas_sgemm(const arb_blas *b, int transpose_a, int transpose_b, int64_t rows, int64_t columns, int64_t depth,
                    const float *x, const float *y, float *c);
void arb_blas_close(arb_blas **b);

#endif
