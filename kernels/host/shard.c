/* Rows on their way between ranks, on host memory. */
#include <string.h>

#include "kernels/common/trit.h"
#include "kernels/host/host.h"

enum { WIDE = 8 }; /* a table entry: 5 codes, copied as one word where the row has room for 8 */

typedef struct {
  const uint8_t *code, *packed;
  uint8_t *to;
  int64_t k, stride, per_block;
  const uint8_t (*table)[WIDE];
} trits_args;

static void pack_task(void *arg, int64_t begin, int64_t end, int worker) {
  (void)worker;
  const trits_args *a = arg;
  const int64_t width = arb_packed_bytes(a->k);
  for (int64_t r = begin; r < end; r++) {
    const uint8_t *code = a->code + r * a->k;
    uint8_t *to = a->to + r * width;
    int64_t k = 0;
    for (; k + ARB_TRITS_PER_BYTE <= a->k; k += ARB_TRITS_PER_BYTE) *to++ = arb_trits_pack(code + k, ARB_TRITS_PER_BYTE);
    if (k < a->k) *to = arb_trits_pack(code + k, (int)(a->k - k));
  }
}

static arb_status pack_trits(arb_backend *be, const uint8_t *code, int64_t rows, int64_t k, uint8_t *packed) {
  trits_args a = {.code = code, .to = packed, .k = k};
  arb_host_run(arb_host_of(be), ARB_HOST_PACK_TRITS, rows, 32, pack_task, &a);
  return ARB_OK;
}

static void unpack_task(void *arg, int64_t begin, int64_t end, int worker) {
  (void)worker;
  const trits_args *a = arg;
  const int64_t width = arb_packed_bytes(a->k);
  for (int64_t r = begin; r < end; r++) {
    const uint8_t *from = a->packed + r / a->per_block * a->stride + r % a->per_block * width;
    uint8_t *to = a->to + r * a->k;
    int64_t k = 0;
    for (; k + WIDE <= a->k; k += ARB_TRITS_PER_BYTE) memcpy(to + k, a->table[*from++], WIDE);
    for (; k < a->k; k += ARB_TRITS_PER_BYTE) {
      const int64_t left = a->k - k;
      memcpy(to + k, a->table[*from++], left < ARB_TRITS_PER_BYTE ? (size_t)left : ARB_TRITS_PER_BYTE);
    }
  }
}

static arb_status unpack_trits(arb_backend *be, const uint8_t *packed, int64_t stride, int64_t per_block, int64_t n, int64_t k,
                               uint8_t *code) {
  uint8_t table[256][WIDE] = {{0}};
  for (int byte = 0; byte < 256; byte++)
    for (int i = 0; i < ARB_TRITS_PER_BYTE; i++) table[byte][i] = arb_trits_code((uint8_t)byte, i);
  trits_args a = {
      .packed = packed, .to = code, .k = k, .stride = stride, .per_block = per_block, .table = (const uint8_t(*)[WIDE])table};
  arb_host_run(arb_host_of(be), ARB_HOST_UNPACK_TRITS, n, 32, unpack_task, &a);
  return ARB_OK;
}

static arb_status join_rows(arb_backend *be, const void *in, int64_t stride, int64_t per_block, int64_t n, int64_t row_bytes,
                            void *out) {
  (void)be;
  for (int64_t r = 0; r < n; r += per_block) {
    const int64_t rows = n - r < per_block ? n - r : per_block;
    memcpy((unsigned char *)out + r * row_bytes, (const unsigned char *)in + r / per_block * stride,
           (size_t)(rows * row_bytes));
  }
  return ARB_OK;
}

void arb_host_fill_shard(arb_ops *ops) {
  ops->pack_trits = pack_trits;
  ops->unpack_trits = unpack_trits;
  ops->join_rows = join_rows;
}
