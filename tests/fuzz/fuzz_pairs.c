/* A manifest of samples, and the rows that the model sees of each. */
#include <stdlib.h>
#include <string.h>

#include "src/data/pairs.h"
#include "tests/fuzz/harness.h"

enum { CONTEXT = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  arb_pairs pairs;
  int32_t ids[CONTEXT], targets[CONTEXT];
  const char *path = file_of(data, size);
  arb_fail_clear();
  if (arb_pairs_load(path, &pairs) != ARB_OK) {
    if (strstr(arb_fail_message(), path) == NULL) abort();
    return 0;
  }
  for (int64_t i = 0; i < pairs.count; i++) {
    const arb_pair *pair = &pairs.pair[i];
    const int64_t word = arb_pair_word(pair);
    if (pair->length < 1 || word < 0 || word >= pair->length) abort();
    if (pair->length < CONTEXT) arb_pair_rows(pair, CONTEXT, ids, targets);
  }
  arb_pairs_deinit(&pairs);
  return 0;
}
