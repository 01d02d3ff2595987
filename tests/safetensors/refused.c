#include "tests/safetensors/refused.h"

#include <stdint.h>
#include <string.h>

#include "src/safetensors/weights.h"
#include "tests/test.h"

void forge_safetensors(const char *path, const char *header, size_t data_bytes) {
  forge f = {0};
  forge_u64(&f, strlen(header));
  forge_text(&f, header);
  forge_zeros(&f, data_bytes);
  forge_write(&f, path);
}

void refused(const char *path, const char *const *texts) {
  arb_weights *w = (arb_weights *)(uintptr_t)1;
  arb_fail_clear();
  const arb_status st = arb_weights_open(path, &w);
  if (st != ARB_ERR_DATA) fail_msg("%s (%s): opened with %s, expected a refusal", path, texts[0], arb_status_name(st));
  assert_null(w);
  if (strstr(arb_fail_message(), path) == NULL) fail_msg("'%s' does not name %s", arb_fail_message(), path);
  for (; *texts != NULL; texts++)
    if (strstr(arb_fail_message(), *texts) == NULL) fail_msg("message '%s' lacks '%s'", arb_fail_message(), *texts);
  arb_fail_clear();
}
