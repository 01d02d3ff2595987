#include "tests/fuzz/weights.h"

#include <stdlib.h>
#include <string.h>

#include "src/safetensors/weights.h"

void read_all(const char *path) {
  arb_weights *w;
  char hex[ARB_WEIGHTS_DIGEST];
  arb_fail_clear();
  if (arb_weights_open(path, &w) != ARB_OK) {
    if (w != NULL || strstr(arb_fail_message(), path) == NULL) abort(); /* every message names the file */
    return;
  }
  for (int i = 0; i < arb_weights_count(w); i++) {
    const arb_weights_tensor *t = arb_weights_at(w, i);
    float *values = malloc((size_t)t->bytes * 4 + 1);                                        /* at least 4 bytes an element */
    if (values == NULL || arb_weights_read(w, t->name, values, t->bytes) != ARB_OK) abort(); /* what was opened can be read */
    if (arb_weights_read_f32(w, t->name, t->rank, t->shape, values) != ARB_OK) arb_fail_clear();
    free(values);
  }
  if (arb_weights_digest(w, hex) != ARB_OK || strlen(hex) != ARB_WEIGHTS_DIGEST - 1) abort();
  arb_weights_close(&w);
}
