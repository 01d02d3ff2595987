/* Values as text: reading with checks, writing so that reading gives the same bits, and describing what is accepted.
 *
 * C's own readers are not enough: strtol takes "  +0x1p", strtof takes "nan" and follows the locale. So the grammar is
 * checked here first and the C library only converts. */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/config/config_impl.h"

#define FIELD(row, cfg) ((const void *)((const char *)(cfg) + (row)->offset))

static bool is_blank(char c) { return c == ' ' || c == '\t'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_control(char c) { return (unsigned char)c < 0x20 || c == 0x7f; }

static bool has_control(const char *s) {
  while (*s != '\0' && !is_control(*s)) s++;
  return *s != '\0';
}

void arb_config_shown(const char *text, char *out, size_t size) {
  size_t n = strlen(text);
  const bool cut = n >= size;
  if (cut) {
    n = size - 4;
    while (n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80) n--; /* not inside a UTF-8 character */
  }
  for (size_t i = 0; i < n; i++) out[i] = is_control(text[i]) ? '?' : text[i];
  memcpy(out + n, cut ? "..." : "", cut ? 4 : 1);
}

/* Digits without a leading zero, nothing else; false also when it does not fit. */
static bool read_u64(const char *text, uint64_t *out) {
  if (!is_digit(text[0]) || (text[0] == '0' && text[1] != '\0')) return false;
  uint64_t v = 0;
  for (; *text != '\0'; text++) {
    if (!is_digit(*text)) return false;
    const uint64_t digit = (uint64_t)(*text - '0');
    if (v > (UINT64_MAX - digit) / 10) return false;
    v = v * 10 + digit;
  }
  *out = v;
  return true;
}

/* The same with an optional '-'. No key holds INT64_MIN, so it may be refused. */
static bool read_i64(const char *text, int64_t *out) {
  const bool minus = text[0] == '-';
  uint64_t v;
  if (!read_u64(text + minus, &v) || v > INT64_MAX) return false;
  *out = minus ? -(int64_t)v : (int64_t)v;
  return true;
}

/* [-] digits [. digits] [e [+-] digits], with a digit on one side of the point. */
static bool is_decimal(const char *s) {
  if (*s == '-') s++;
  int digits = 0;
  while (is_digit(*s)) s++, digits++;
  if (*s == '.') {
    s++;
    while (is_digit(*s)) s++, digits++;
  }
  if (digits == 0) return false;
  if (*s == 'e' || *s == 'E') {
    s++;
    if (*s == '+' || *s == '-') s++;
    if (!is_digit(*s)) return false;
    while (is_digit(*s)) s++;
  }
  return *s == '\0';
}

/* Correctly rounded, finite, and not a small number that became 0. strtof expects the point of the current locale, which
 * may be more than one byte. */
static bool read_f32(const char *text, float *out) {
  char local[128];
  const char *point = localeconv()->decimal_point;
  const size_t head = strcspn(text, ".");
  if (!is_decimal(text)) return false;
  const int n = snprintf(local, sizeof local, "%.*s%s%s", (int)head, text, text[head] == '.' ? point : "",
                         text[head] == '.' ? text + head + 1 : "");
  if (n < 0 || (size_t)n >= sizeof local) return false;
  const float v = strtof(local, NULL);
  const size_t mantissa = strcspn(text, "eE");
  if (!isfinite(v) || (v == 0.0f && strcspn(text, "123456789") < mantissa)) return false;
  *out = v == 0.0f ? 0.0f : v; /* "-0" and "0" are one value with one identity */
  return true;
}

/* Puts '.' where the locale's decimal point stands. */
static void neutral_point(char *number) {
  const char *point = localeconv()->decimal_point;
  char *at = strstr(number, point);
  if (at == NULL || strcmp(point, ".") == 0) return;
  *at = '.';
  memmove(at + 1, at + strlen(point), strlen(at + strlen(point)) + 1);
}

static int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Undoes the quotes of text, if any; out is at least as long as text. */
static bool unquote(const char *text, char *out, char *reason, size_t reason_size) {
  size_t n = 0;
  if (text[0] != '"') {
    int quotes = 0;
    for (; *text != '\0'; text++) {
      quotes += *text == '"';
      out[n++] = *text;
    }
    out[n] = '\0';
    if (quotes % 2 != 0) snprintf(reason, reason_size, "unbalanced quote; put quotes around all of it and write \\\" inside");
    return quotes % 2 == 0;
  }
  for (text++; *text != '\0' && *text != '"'; text++) {
    char c = *text;
    if (c == '\\') {
      static const char names[] = "\"\\nrt", bytes[] = "\"\\\n\r\t";
      const char *at = *++text == '\0' ? NULL : strchr(names, *text);
      if (at != NULL) {
        c = bytes[at - names];
      } else if (*text == 'x' && hex_digit(text[1]) >= 0 && hex_digit(text[2]) >= 0 && (text[1] != '0' || text[2] != '0')) {
        c = (char)(hex_digit(text[1]) * 16 + hex_digit(text[2]));
        text += 2;
      } else {
        snprintf(reason, reason_size, "unknown escape in quotes; expected one of \\\" \\\\ \\n \\r \\t \\xHH (not \\x00)");
        return false;
      }
    }
    out[n++] = c;
  }
  out[n] = '\0';
  if (text[0] == '"' && text[1] == '\0') return true;
  snprintf(reason, reason_size, "%s",
           text[0] == '"' ? "bytes after the closing quote; write \\\" for a quote inside"
                          : "no closing quote (\" ;\" starts a comment even in quotes: write \" \\x3b\")");
  return false;
}

static bool read_text(const arb_config_row *row, const char *text, const char *folder, char *field, char *reason,
                      size_t reason_size) {
  char plain[ARB_CONFIG_LINE + 1];
  if (strlen(text) > ARB_CONFIG_LINE) {
    snprintf(reason, reason_size, "%zu bytes long; at most %d are possible", strlen(text), ARB_CONFIG_LINE);
    return false;
  }
  if (!unquote(text, plain, reason, reason_size)) return false;
  const size_t length = strlen(plain);
  const bool folder_name = (row->flags & ARB_CONFIG_FOLDER) != 0;
  if ((length == 0 && row->text[0] != '\0') || (row->type == ARB_CONFIG_PATH && has_control(text)) ||
      (folder_name && (has_control(plain) || plain[0] == '.' || strchr(plain, '/') != NULL))) {
    arb_config_expected(row, reason, reason_size);
    return false;
  }
  const char *head = "", *slash = "", *tail = plain;
  if (row->type == ARB_CONFIG_PATH && length > 0) {
    /* As typed: a path that really holds a '$' can say so with an escape, and a folder named "~" is "./~". */
    if (plain[0] == '~' || strchr(text, '$') != NULL) {
      snprintf(reason, reason_size, "'~' and '$' are not expanded in paths; write the path out");
      return false;
    }
    if (plain[0] != '/' && !((row->flags & ARB_CONFIG_SYNTHETIC) && strcmp(plain, "synthetic") == 0)) {
      if (folder[0] == '\0') {
        snprintf(reason, reason_size, "a relative path, but the folder that it starts from is unknown");
        return false;
      }
      while (tail[0] == '.' && tail[1] == '/') {
        for (tail++; *tail == '/';) tail++;
      }
      head = folder;
      slash = folder[strlen(folder) - 1] == '/' ? "" : "/";
    }
  }
  const size_t total = strlen(head) + strlen(slash) + strlen(tail);
  if (total >= row->size) {
    snprintf(reason, reason_size, "%zu bytes long%s; at most %zu are possible", total, *head ? " behind its folder" : "",
             row->size - 1);
    return false;
  }
  memset(field, 0, row->size); /* no bytes of an earlier value stay: equal configs are equal bytes */
  memcpy(field, head, strlen(head));
  memcpy(field + strlen(head), slash, strlen(slash));
  memcpy(field + strlen(head) + strlen(slash), tail, strlen(tail));
  return true;
}

static bool read_bool(const char *text, bool *out) {
  static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
  for (int i = 0; i < 8; i++)
    if (strcmp(text, words[i]) == 0) {
      *out = i % 2 == 1;
      return true;
    }
  return false;
}

bool arb_config_parse(const arb_config_row *row, const char *text, const char *folder, arb_config *cfg, char *reason,
                      size_t reason_size) {
  union {
    int64_t i;
    uint64_t u;
    float f;
    bool b;
    int e;
  } v = {0};
  bool ok = false;
  void *field = (char *)cfg + row->offset;
  switch (row->type) {
    case ARB_CONFIG_STRING:
    case ARB_CONFIG_PATH:
      return read_text(row, text, folder, field, reason, reason_size);
    case ARB_CONFIG_I64:
      ok = read_i64(text, &v.i);
      break;
    case ARB_CONFIG_U64:
      ok = read_u64(text, &v.u);
      break;
    case ARB_CONFIG_F32:
      ok = read_f32(text, &v.f);
      break;
    case ARB_CONFIG_BOOL:
      ok = read_bool(text, &v.b);
      break;
    case ARB_CONFIG_ENUM:
      for (const arb_config_choice *c = row->choices; c->name != NULL && !ok; c++)
        if (strcmp(text, c->name) == 0) {
          ok = true;
          v.e = c->value;
        }
      break;
  }
  if (!ok) {
    arb_config_expected(row, reason, reason_size);
    return false;
  }
  memcpy(field, &v, row->size);
  return arb_config_in_range(row, cfg, reason, reason_size);
}

bool arb_config_in_range(const arb_config_row *row, const arb_config *cfg, char *reason, size_t reason_size) {
  bool ok = true;
  switch (row->type) {
    case ARB_CONFIG_I64: {
      const int64_t v = *(const int64_t *)FIELD(row, cfg);
      ok = v >= row->i.min && v <= row->i.max && v % row->i.multiple == 0;
      break;
    }
    case ARB_CONFIG_U64: {
      const uint64_t v = *(const uint64_t *)FIELD(row, cfg);
      ok = v >= row->u.min && v <= row->u.max;
      break;
    }
    case ARB_CONFIG_F32: {
      const float v = *(const float *)FIELD(row, cfg);
      ok = v > row->f.above && (row->f.below > 0.0f ? v < row->f.below : v <= row->f.most); /* a NaN fails */
      break;
    }
    case ARB_CONFIG_ENUM: {
      const int v = *(const int *)FIELD(row, cfg);
      const arb_config_choice *c = row->choices;
      while (c->name != NULL && c->value != v) c++;
      ok = c->name != NULL && !c->missing;
      if (c->name != NULL && c->missing) {
        const size_t used = (size_t)snprintf(reason, reason_size, "not available in this build; ");
        arb_config_expected(row, reason + used, reason_size - used);
        return false;
      }
      break;
    }
    case ARB_CONFIG_STRING:
    case ARB_CONFIG_PATH: {
      const char *text = FIELD(row, cfg);
      ok = memchr(text, '\0', row->size) != NULL && (text[0] != '\0' || row->text[0] == '\0');
      break;
    }
    case ARB_CONFIG_BOOL:
      break;
  }
  if (!ok) arb_config_expected(row, reason, reason_size);
  return ok;
}

/* Nine significant digits give every float back; fewer are nicer to read. */
static void format_f32(float v, char *out, size_t size) {
  for (int digits = 6; digits <= 9; digits++) {
    snprintf(out, size, "%.*g", digits, (double)v);
    if (strtof(out, NULL) == v) break;
  }
  neutral_point(out);
}

/* Bare where reading it bare gives the same text, else in quotes. */
static void format_text(const char *text, bool is_path, char *out, size_t size) {
  const size_t length = strlen(text);
  bool bare = length == 0 || (strchr("#;", text[0]) == NULL && !is_blank(text[0]) && !is_blank(text[length - 1]));
  for (size_t i = 0; i < length; i++) {
    if (is_control(text[i]) || text[i] == '"' || (is_path && text[i] == '$')) bare = false;
    if (i > 0 && is_blank(text[i - 1]) && strchr("#;", text[i]) != NULL) bare = false;
  }
  if (bare) {
    snprintf(out, size, "%s", text);
    return;
  }
  size_t n = 0;
  out[n++] = '"';
  for (size_t i = 0; i < length && n + 6 < size; i++) {
    const char c = text[i];
    const bool comment = i > 0 && is_blank(text[i - 1]) && strchr("#;", c) != NULL;
    if (c == '\n')
      n += (size_t)snprintf(out + n, size - n, "\\n");
    else if (c == '\r')
      n += (size_t)snprintf(out + n, size - n, "\\r");
    else if (c == '\t')
      n += (size_t)snprintf(out + n, size - n, "\\t");
    else if (c == '"' || c == '\\')
      n += (size_t)snprintf(out + n, size - n, "\\%c", c);
    else if (is_control(c) || comment || (is_path && c == '$'))
      n += (size_t)snprintf(out + n, size - n, "\\x%02x", (unsigned)c);
    else
      out[n++] = c;
  }
  snprintf(out + n, size - n, "\"");
}

void arb_config_format(const arb_config_row *row, const arb_config *cfg, char *out, size_t size) {
  const void *field = FIELD(row, cfg);
  switch (row->type) {
    case ARB_CONFIG_I64:
      snprintf(out, size, "%lld", (long long)*(const int64_t *)field);
      break;
    case ARB_CONFIG_U64:
      snprintf(out, size, "%llu", (unsigned long long)*(const uint64_t *)field);
      break;
    case ARB_CONFIG_F32:
      format_f32(*(const float *)field, out, size);
      break;
    case ARB_CONFIG_BOOL:
      snprintf(out, size, "%s", *(const bool *)field ? "yes" : "no");
      break;
    case ARB_CONFIG_ENUM: {
      const arb_config_choice *c = row->choices;
      while (c->name != NULL && c->value != *(const int *)field) c++;
      snprintf(out, size, "%s", c->name == NULL ? "?" : c->name);
      break;
    }
    case ARB_CONFIG_STRING:
    case ARB_CONFIG_PATH:
      format_text(field, row->type == ARB_CONFIG_PATH, out, size);
      break;
  }
}

void arb_config_format_hex(const arb_config_row *row, const arb_config *cfg, char *out, size_t size) {
  snprintf(out, size, "%a", (double)*(const float *)FIELD(row, cfg));
  neutral_point(out);
}

void arb_config_expected(const arb_config_row *row, char *out, size_t size) {
  size_t n = 0;
  switch (row->type) {
    case ARB_CONFIG_I64:
      n = (size_t)snprintf(out, size, "expected a whole number from %lld to %lld", (long long)row->i.min,
                           (long long)row->i.max);
      if (row->i.multiple > 1 && n < size)
        n += (size_t)snprintf(out + n, size - n, ", a multiple of %lld", (long long)row->i.multiple);
      break;
    case ARB_CONFIG_U64:
      n = (size_t)snprintf(out, size, "expected a whole number from %llu to %llu", (unsigned long long)row->u.min,
                           (unsigned long long)row->u.max);
      break;
    case ARB_CONFIG_F32: {
      char above[32], limit[32];
      format_f32(row->f.above, above, sizeof above);
      format_f32(row->f.below > 0.0f ? row->f.below : row->f.most, limit, sizeof limit);
      n = (size_t)snprintf(out, size, "expected a decimal number above %s and %s %s", above,
                           row->f.below > 0.0f ? "below" : "at most", limit);
      break;
    }
    case ARB_CONFIG_BOOL:
      snprintf(out, size, "expected yes or no (or true, false, on, off, 1, 0)");
      return;
    case ARB_CONFIG_ENUM: {
      n = (size_t)snprintf(out, size, "expected");
      const char *join = " ";
      for (const arb_config_choice *c = row->choices; c->name != NULL; c++) {
        if (c->missing || n >= size) continue;
        n += (size_t)snprintf(out + n, size - n, "%s%s", join, c->name);
        join = " or ";
      }
      break;
    }
    case ARB_CONFIG_STRING:
      n = (size_t)snprintf(out, size, "expected %s of at most %zu bytes",
                           (row->flags & ARB_CONFIG_FOLDER) ? "a folder name (no '/', no leading '.')" : "text", row->size - 1);
      break;
    case ARB_CONFIG_PATH:
      n = (size_t)snprintf(out, size, "expected a path of at most %zu bytes%s", row->size - 1,
                           (row->flags & ARB_CONFIG_SYNTHETIC) ? ", or the word synthetic" : "");
      break;
  }
  if (row->why != NULL && n < size) snprintf(out + n, size - n, ": %s", row->why);
}
