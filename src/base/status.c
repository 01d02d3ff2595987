#include "src/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[2048];
static _Thread_local char place[256];

const char *arb_status_name(arb_status st) {
  static const char *const names[ARB_STATUS__COUNT] = {"ok",      "argument", "config", "data",        "checkpoint", "peer",
                                                       "numeric", "memory",   "io",     "unsupported", "transport",  "requeue"};
  return (unsigned)st < ARB_STATUS__COUNT ? names[st] : "unknown";
}

arb_status arb_fail(arb_status st, const char *file, int line, const char *format, ...) {
  if (message[0] == '\0') {
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    snprintf(place, sizeof place, "%s:%d", file, line);
  }
  return st;
}

void arb_fail_context(const char *format, ...) {
  char prefix[512], rest[sizeof message];
  va_list args;
  va_start(args, format);
  vsnprintf(prefix, sizeof prefix, format, args);
  va_end(args);
  memcpy(rest, message, sizeof rest);
  const int used = snprintf(message, sizeof message, "%s: ", prefix);
  const size_t room = sizeof message - (size_t)used;
  rest[room - 1 < sizeof rest - 1 ? room - 1 : sizeof rest - 1] = '\0';
  memcpy(message + used, rest, strlen(rest) + 1);
}

const char *arb_fail_message(void) { return message; }
const char *arb_fail_place(void) { return place; }
void arb_fail_clear(void) { message[0] = place[0] = '\0'; }
