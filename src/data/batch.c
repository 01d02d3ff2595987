#include "src/data/batch.h"

#include <inttypes.h>

/* Rows of the window whose first byte is at `bytes`; reads context + 1 bytes. */
static void fill_window(const unsigned char *bytes, int64_t context, int32_t *ids, int32_t *targets) {
  for (int64_t t = 0; t < context; t++) {
    ids[t] = bytes[t];
    targets[t] = bytes[t + 1];
  }
}

arb_status arb_batches_init(arb_batches *b, const arb_text *text, uint64_t seed, int64_t context, int64_t sequences,
                            int64_t sequences_per_grain) {
  ARB_REQUIRE(sequences > 0 && sequences_per_grain > 0 && sequences % sequences_per_grain == 0, ARB_ERR_ARG,
              "%" PRId64 " sequences a step must be a positive multiple of %" PRId64 " a grain", sequences,
              sequences_per_grain);
  b->text = text;
  b->sequences = sequences;
  b->sequences_per_grain = sequences_per_grain;
  return arb_order_init(&b->order, seed, text->length, context);
}

arb_status arb_batch_fill(const arb_batches *b, int64_t step, int64_t grain, int32_t *ids, int32_t *targets) {
  const int64_t grains = b->sequences / b->sequences_per_grain, context = b->order.context;
  ARB_REQUIRE(step >= 1 && step <= INT64_MAX / b->sequences, ARB_ERR_ARG, "step %" PRId64 " is out of range", step);
  ARB_REQUIRE(grain >= 0 && grain < grains, ARB_ERR_ARG, "grain %" PRId64 " is not in 0..%" PRId64, grain, grains - 1);
  const int64_t first = (step - 1) * b->sequences + grain * b->sequences_per_grain;
  for (int64_t j = 0; j < b->sequences_per_grain; j++)
    fill_window(b->text->bytes + arb_order_offset(&b->order, first + j), context, ids + j * context, targets + j * context);
  return ARB_OK;
}

arb_status arb_batch_valid_offset(int64_t length, int64_t context, int64_t index, int64_t total, int64_t *offset) {
  ARB_REQUIRE(context > 0 && total > 0 && total <= (INT64_MAX - 1) / context, ARB_ERR_ARG,
              "%" PRId64 " validation windows of context %" PRId64 " is no valid request", total, context);
  ARB_REQUIRE(index >= 0 && index < total, ARB_ERR_ARG, "validation window %" PRId64 " is not in 0..%" PRId64, index,
              total - 1);
  ARB_REQUIRE(length > total * context, ARB_ERR_DATA,
              "the validation text has %" PRId64 " bytes; %" PRId64 " windows of context %" PRId64 " need at least %" PRId64,
              length, total, context, total * context + 1);
  *offset = index * ((length - 1) / total);
  return ARB_OK;
}

arb_status arb_batch_valid(const arb_text *text, int64_t context, int64_t index, int64_t total, int32_t *ids,
                           int32_t *targets) {
  int64_t offset = 0;
  ARB_TRY(arb_batch_valid_offset(text->length, context, index, total, &offset));
  fill_window(text->bytes + offset, context, ids, targets);
  return ARB_OK;
}
