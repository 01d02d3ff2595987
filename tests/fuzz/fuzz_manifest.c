/* manifest.json, read as arbckpt --unverified reads it, so that its own digest does not end every input. What is accepted must
 * come back the same from the text that it gives. */
#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/checkpoint_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  arb_ckpt_manifest m, again;
  char *text = malloc(size + 1), *out, *third;
  size_t length, third_length;
  if (text == NULL) abort();
  memcpy(text, data, size);
  text[size] = '\0';
  if (arb_ckpt_manifest_parse("manifest.json", text, size, false, &m) == ARB_OK) arb_ckpt_manifest_deinit(&m);
  arb_fail_clear();
  const arb_status st = arb_ckpt_manifest_parse("manifest.json", text, size, true, &m);
  free(text);
  if (st != ARB_OK) {
    if (arb_fail_message()[0] == '\0') abort();
    arb_fail_clear();
    return 0;
  }
  if (arb_ckpt_manifest_text(&m, &out, &length) != ARB_OK) abort();
  if (arb_ckpt_manifest_parse("manifest.json", out, length, false, &again) != ARB_OK) abort();
  if (arb_ckpt_manifest_text(&again, &third, &third_length) != ARB_OK) abort();
  if (third_length != length || memcmp(out, third, length) != 0) abort();
  arb_ckpt_manifest_deinit(&again);
  arb_ckpt_manifest_deinit(&m);
  free(third);
  free(out);
  return 0;
}
