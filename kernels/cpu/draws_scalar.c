#include "kernels/cpu/draws.h"

void arb_draws_scalar(arb_philox_key key, uint32_t tensor, uint32_t step, uint32_t grain, int64_t first, int64_t count,
                      uint16_t *out) {
  const int64_t blocks = arb_pad8(count) / 8;
  for (int64_t i = 0; i < blocks; i++) {
    const arb_philox_block b = arb_philox(key, (uint32_t)(first / 8 + i), tensor, step, grain);
    for (int j = 0; j < 8; j++) out[8 * i + j] = arb_philox_half(&b, j);
  }
}
