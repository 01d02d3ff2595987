/* A tokenizer.json; then every id becomes text. */
#include <stdlib.h>
#include <string.h>

#include "src/sidecar/tokenizer.h"
#include "tests/fuzz/harness.h"

enum { VOCABULARY = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  arb_tokenizer *t;
  int32_t ids[VOCABULARY];
  char *text;
  const char *path = named_file("tokenizer.json", data, size);
  arb_fail_clear();
  if (arb_tokenizer_open(path, VOCABULARY, &t) != ARB_OK) {
    if (t != NULL || strstr(arb_fail_message(), path) == NULL) abort();
    return 0;
  }
  for (int i = 0; i < VOCABULARY; i++) ids[i] = i;
  if (arb_tokenizer_text(t, ids, VOCABULARY, &text) != ARB_OK) abort();
  for (const char *c = text; *c; c++)
    if (((unsigned char)*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7f) abort(); /* nothing that moves a cursor */
  free(text);
  arb_tokenizer_close(&t);
  return 0;
}
