#include "kernels/rows/rows.h"

void arb_draws_plain(arb_philox_key key, uint32_t tensor, uint32_t step, uint32_t grain, int64_t first, int64_t count,
                     uint16_t *out) {
  for (int64_t i = 0; i < count; i += 8) {
    const arb_philox_block b = arb_philox(key, (uint32_t)((first + i) / 8), tensor, step, grain);
    for (int j = 0; j < 8; j++) out[i + j] = arb_philox_half(&b, j);
  }
}
