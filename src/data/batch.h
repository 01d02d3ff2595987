/* Samples as rows of ids. Row j * context + t holds position t of sequence j; ids are the bytes 0..255 themselves, and a
 * text window is always full, so no row is padding. */
#ifndef ARB_SRC_DATA_BATCH_H
#define ARB_SRC_DATA_BATCH_H

#include <stdint.h>

#include "src/base/status.h"
#include "src/data/order.h"
#include "src/data/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which samples a step takes; plain values, made by arb_batches_init. */
typedef struct {
  const arb_text *text; /* borrowed; must outlive this */
  arb_order order;
  int64_t sequences;           /* a step, over all grains and ranks */
  int64_t sequences_per_grain; /* a grain; divides sequences */
} arb_batches;

/* ARB_ERR_ARG: counts not positive, or sequences not a multiple of sequences_per_grain. ARB_ERR_DATA: see arb_order_init. */
ARB_NODISCARD arb_status arb_batches_init(arb_batches *b, const arb_text *text, uint64_t seed, int64_t context,
                                          int64_t sequences, int64_t sequences_per_grain);

/* Fills grain `grain` (from 0) of step `step` (from 1): sequence j is sample
 * (step - 1) * sequences + grain * sequences_per_grain + j of the order. ids and targets hold
 * [sequences_per_grain * context] each, of the caller. ARB_ERR_ARG: step or grain out of range. */
ARB_NODISCARD arb_status arb_batch_fill(const arb_batches *b, int64_t step, int64_t grain, int32_t *ids, int32_t *targets);

/* Validation: `total` windows at fixed places, evenly spaced over the text, whose targets do not overlap. Writes the byte
 * at which window `index` in [0, total) starts: index * ((length - 1) / total). ARB_ERR_ARG: counts out of range.
 * ARB_ERR_DATA, with the bytes needed (total * context + 1), if the text is too short. */
ARB_NODISCARD arb_status arb_batch_valid_offset(int64_t length, int64_t context, int64_t index, int64_t total, int64_t *offset);
/* The same window as rows: ids and targets hold [context] each. */
ARB_NODISCARD arb_status arb_batch_valid(const arb_text *text, int64_t context, int64_t index, int64_t total, int32_t *ids,
                                         int32_t *targets);

#ifdef __cplusplus
}
#endif
#endif
