/* Work memory of the CUDA backend's slots, in plain C: a machine without CUDA plans with it too. Private to kernels/. */
#ifndef ARB_KERNELS_CUDA_WORK_BYTES_H
#define ARB_KERNELS_CUDA_WORK_BYTES_H

#include <stddef.h>
#include <stdint.h>

#define ARB_CUDA_DW_PART_BYTES (160 * 2 * 128 * 256) /* of a dW grid: each block may leave two tiles of votes to be joined */

static inline int64_t arb_cuda_round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

/* Forward and dx: gains, trits of the whole stack as int8, a padded copy of the operand. */
static inline size_t arb_cuda_product_work_bytes(int64_t m, int64_t k, int64_t n) {
  const int64_t k16 = arb_cuda_round_up(k, 16), n16 = arb_cuda_round_up(n, 16), wide = k16 > n16 ? k16 : n16;
  const int64_t rows = arb_cuda_round_up(n, 32) * k16, columns = arb_cuda_round_up(k, 32) * n16;
  return (size_t)(arb_cuda_round_up(4 * arb_cuda_round_up(wide, 32), 256) +
                  arb_cuda_round_up(rows > columns ? rows : columns, 256) + arb_cuda_round_up(m * wide, 256));
}

/* dW: scales of grains, both operands turned, parts of tiles. Held beside the memory of the other slots. */
static inline size_t arb_cuda_dw_work_bytes(int64_t rows_per_grain, int64_t grains, int64_t k, int64_t n) {
  const int64_t turned = arb_cuda_round_up(rows_per_grain, 128) * grains;
  return (size_t)(arb_cuda_round_up(4 * grains, 256) + arb_cuda_round_up(128 * grains, 256) +
                  arb_cuda_round_up(turned * arb_cuda_round_up(n, 16), 256) +
                  arb_cuda_round_up(turned * arb_cuda_round_up(k, 16), 256) + ARB_CUDA_DW_PART_BYTES);
}

/* Factors of columns and rows, and the new M of each member. */
static inline size_t arb_cuda_update_work_bytes(int64_t n, int64_t k, int64_t members) {
  return (size_t)(arb_cuda_round_up(members * k, 64) + n + members) * sizeof(float);
}

/* The most that any slot but dW takes for a stack. */
static inline size_t arb_cuda_work_bytes(int64_t m, int64_t n, int64_t k, int64_t members, int64_t uses) {
  const size_t product = arb_cuda_product_work_bytes(m, k, n), update = arb_cuda_update_work_bytes(n, k, members);
  const size_t table = uses > 1 ? (size_t)(n * k) * sizeof(uint16_t) + (size_t)m * ((size_t)n + sizeof(int32_t)) : 0;
  const size_t most = product > update ? product : update;
  return most > table ? most : table;
}

#endif
