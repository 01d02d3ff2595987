/* 16-bit random draws in bulk, numbered as in kernels/common/philox.h. */
#ifndef ARB_KERNELS_CPU_DRAWS_H
#define ARB_KERNELS_CPU_DRAWS_H

#include "kernels/common/philox.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[count] = draws of elements first .. first + count - 1 under counter (element / 8, tensor, step, grain).
 * first % 8 == 0; out has room for count rounded up to a multiple of 8, and all of that is written. */
typedef void (*arb_draws_fn)(arb_philox_key key, uint32_t tensor, uint32_t step, uint32_t grain, int64_t first, int64_t count,
                             uint16_t *out);

void arb_draws_scalar(arb_philox_key key, uint32_t tensor, uint32_t step, uint32_t grain, int64_t first, int64_t count,
                      uint16_t *out);
/* Only where the chip has the level (arb_gemm_pick in gemm.h). */
void arb_draws_avx2(arb_philox_key key, uint32_t tensor, uint32_t step, uint32_t grain, int64_t first, int64_t count,
                    uint16_t *out);
void arb_draws_avx512(arb_philox_key key, uint32_t tensor, uint32_t step, uint32_t grain, int64_t first, int64_t count,
                      uint16_t *out);

#ifdef __cplusplus
}
#endif
#endif
