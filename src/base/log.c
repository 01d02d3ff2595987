#include "src/base/log.h"

#include <stdarg.h>
#include <stdio.h>

static int log_rank = 0;
static arb_log_level log_lowest = ARB_LOG_INFO;

void arb_log_setup(int rank, arb_log_level lowest) {
  log_rank = rank;
  log_lowest = lowest;
}

void arb_log(arb_log_level level, const char *subsystem, const char *format, ...) {
  static const char *const names[] = {"debug", "info", "warning", "error"};
  if (level < log_lowest || (log_rank != 0 && level < ARB_LOG_WARN)) return;
  char line[2304];
  const int head = snprintf(line, sizeof line, "%s: [rank %d] %s: ", names[level], log_rank, subsystem);
  va_list args;
  va_start(args, format);
  vsnprintf(line + head, sizeof line - (size_t)head, format, args);
  va_end(args);
  fprintf(stderr, "%s\n", line); /* one call a line, so that ranks sharing a terminal do not mix inside lines */
}
