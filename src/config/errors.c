#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/config/config_impl.h"

/* A page of mistakes is enough to start with; more is usually one cause. */
enum { LISTED = 12, TRAILER = 40 };

void arb_config_error(arb_config_errors *errors, const char *where, const char *format, ...) {
  char line[700];
  const int head = snprintf(line, sizeof line, "%s: ", where);
  va_list args;
  va_start(args, format);
  vsnprintf(line + head, sizeof line - (size_t)head, format, args);
  va_end(args);
  errors->count++;
  const size_t length = strlen(line) + (errors->used > 0 ? 1 : 0);
  /* Once one is left out the later ones are too, so that the list is a prefix. */
  if (errors->listed + 1 < errors->count || errors->listed == LISTED || errors->used + length + TRAILER >= sizeof errors->text)
    return;
  snprintf(errors->text + errors->used, sizeof errors->text - errors->used, "%s%s", errors->used > 0 ? "\n" : "", line);
  errors->used += length;
  errors->listed++;
}

arb_status arb_config_raise(arb_config_errors *errors) {
  if (errors->count == 0) return ARB_OK;
  const int more = errors->count - errors->listed;
  if (more > 0)
    snprintf(errors->text + errors->used, sizeof errors->text - errors->used, "\nand %d more mistake%s", more,
             more == 1 ? "" : "s");
  return ARB_FAIL(ARB_ERR_CONFIG, "%s", errors->text);
}
