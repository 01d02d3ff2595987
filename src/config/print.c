/* The config and the table as text. All writers go through one sink, so that a file and a buffer get the same bytes. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "src/config/config_impl.h"

typedef struct {
  FILE *out; /* NULL: write to buf */
  char *buf;
  size_t size, used; /* used counts what was asked for, also past size */
} sink;

static void put(sink *s, const char *format, ...) ARB_PRINTF(2, 3);
static void put(sink *s, const char *format, ...) {
  va_list args;
  va_start(args, format);
  if (s->out != NULL) {
    vfprintf(s->out, format, args);
  } else {
    const bool room = s->used < s->size;
    const int n = vsnprintf(room ? s->buf + s->used : NULL, room ? s->size - s->used : 0, format, args);
    if (n > 0) s->used += (size_t)n;
  }
  va_end(args);
}

static arb_status finish(sink *s) {
  if (s->out != NULL) {
    errno = 0;
    const bool failed = fflush(s->out) != 0 || ferror(s->out);
    ARB_REQUIRE(!failed, ARB_ERR_IO, "cannot write the config: %s", errno != 0 ? strerror(errno) : "the stream has failed");
    return ARB_OK;
  }
  ARB_REQUIRE(s->used < s->size, ARB_ERR_ARG, "a buffer of %zu bytes, but the config's text needs %zu", s->size, s->used + 1);
  return ARB_OK;
}

/* A header where the section changes, a blank line between sections. */
static void put_section(sink *s, int row) {
  const char *section = arb_config_rows[row].section;
  if (row == 0 || strcmp(section, arb_config_rows[row - 1].section) != 0) put(s, "%s[%s]\n", row == 0 ? "" : "\n", section);
}

static void put_resolved(sink *s, const arb_config *cfg, bool origins) {
  if (origins) put(s, "; resolved configuration; keys without a comment have their default\n");
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    char value[ARB_CONFIG_LINE];
    arb_config_format(&arb_config_rows[i], cfg, value, sizeof value);
    put_section(s, i);
    if (origins && strcmp(cfg->origin[i], "default") != 0) put(s, "; from %s\n", cfg->origin[i]);
    put(s, "%s =%s%s\n", arb_config_rows[i].name, value[0] == '\0' ? "" : " ", value);
  }
}

arb_status arb_config_print(const arb_config *cfg, FILE *out) {
  sink s = {.out = out};
  put_resolved(&s, cfg, true);
  return finish(&s);
}

arb_status arb_config_resolved_text(const arb_config *cfg, char *buf, size_t size) {
  sink s = {.buf = buf, .size = size};
  put_resolved(&s, cfg, false);
  return finish(&s);
}

arb_status arb_config_identity(const arb_config *cfg, char *buf, size_t size) {
  sink s = {.buf = buf, .size = size};
  arb_config defaults;
  arb_config_defaults(&defaults);
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    const arb_config_row *row = &arb_config_rows[i];
    char value[ARB_CONFIG_LINE];
    const bool changed = (row->flags & ARB_CONFIG_IDENTITY_WHEN_SET) &&
                         memcmp((const char *)cfg + row->offset, (const char *)&defaults + row->offset, row->size) != 0;
    if (!(row->flags & ARB_CONFIG_IDENTITY) && !changed) continue;
    if (row->type == ARB_CONFIG_F32)
      arb_config_format_hex(row, cfg, value, sizeof value);
    else
      arb_config_format(row, cfg, value, sizeof value);
    put(&s, "%s.%s=%s\n", row->section, row->name, value);
  }
  return finish(&s);
}

arb_status arb_config_help(FILE *out) {
  sink s = {.out = out};
  arb_config defaults;
  arb_config_defaults(&defaults);
  for (int i = 0; i < ARB_CONFIG_KEYS; i++) {
    const arb_config_row *row = &arb_config_rows[i];
    char value[ARB_CONFIG_LINE], expected[400];
    arb_config_format(row, &defaults, value, sizeof value);
    arb_config_expected(row, expected, sizeof expected);
    put_section(&s, i);
    put(&s, "  %s = %s\n      %s", row->name, value[0] == '\0' ? "(empty)" : value, row->meaning);
    if (row->unit != NULL) put(&s, " [%s]", row->unit);
    put(&s, "\n      %s", expected + strlen("expected "));
    if (row->type == ARB_CONFIG_ENUM)
      for (const arb_config_choice *c = row->choices; c->name != NULL; c++)
        if (c->missing) put(&s, " (%s: not available in this build)", c->name);
    put(&s, "\n");
  }
  return finish(&s);
}
