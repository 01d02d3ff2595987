/* What decides a continuation, compared as text: the settings that differ, in words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/checkpoint_impl.h"

typedef struct {
  const char *key, *value;
  int key_length, value_length;
} setting;

/* Splits the next line at its first '='; false at the end of the text. */
static bool next_setting(const char **text, setting *out) {
  while (**text == '\n') ++*text;
  if (**text == '\0') return false;
  const char *line = *text;
  const size_t length = strcspn(line, "\n");
  const char *sign = memchr(line, '=', length);
  const char *key_end = sign != NULL ? sign : line + length, *end = line + length;
  const char *value = sign != NULL ? sign + 1 : end;
  while (key_end > line && key_end[-1] == ' ') key_end--;
  while (value < end && *value == ' ') value++;
  *out = (setting){line, value, (int)(key_end - line), (int)(end - value)};
  *text = end;
  return true;
}

static bool find_setting(const char *text, const setting *want, setting *out) {
  while (next_setting(&text, out))
    if (out->key_length == want->key_length && memcmp(out->key, want->key, (size_t)want->key_length) == 0) return true;
  return false;
}

/* A value for people: no control characters, not endless, and a float in hexadecimal as a decimal number. */
static void show(const setting *s, char out[100]) {
  snprintf(out, 100, "%.*s", s->value_length, s->value);
  for (char *c = out; *c != '\0'; c++)
    if ((unsigned char)*c < 0x20 || (unsigned char)*c == 0x7f) *c = '?';
  char *end;
  if (strncmp(out + (*out == '-'), "0x", 2) != 0 || strchr(out, 'p') == NULL) return;
  const double number = strtod(out, &end);
  if (*end == '\0') snprintf(out, 100, "%.9g", number);
}

enum { SHOWN = 8 }; /* differences listed; the rest is counted */

typedef struct {
  char text[1500];
  size_t used;
  int count;
} differences;

static void add_difference(differences *d, const setting *key, const char *saved, const char *mine) {
  if (d->count++ >= SHOWN || d->used >= sizeof d->text) return;
  const int n = snprintf(d->text + d->used, sizeof d->text - d->used, "%s%.*s: checkpoint %s, this run %s",
                         d->used > 0 ? "; " : "", key->key_length < 60 ? key->key_length : 60, key->key, saved, mine);
  if (n > 0) d->used += (size_t)n;
}

arb_status arb_ckpt_compare_identity(const char *path, const char *saved, const char *mine) {
  if (strcmp(saved, mine) == 0) return ARB_OK;
  differences d = {0};
  char a[100], b[100];
  setting line, other;
  for (const char *at = saved; next_setting(&at, &line);) {
    const bool both = find_setting(mine, &line, &other);
    if (both && line.value_length == other.value_length && memcmp(line.value, other.value, (size_t)line.value_length) == 0)
      continue;
    show(&line, a);
    if (both) show(&other, b);
    add_difference(&d, &line, a, both ? b : "has none");
  }
  for (const char *at = mine; next_setting(&at, &line);) {
    if (find_setting(saved, &line, &other)) continue;
    show(&line, b);
    add_difference(&d, &line, "has none", b);
  }
  if (d.count == 0) return ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: same settings as this run, but in another order", path);
  char more[40] = "";
  if (d.count > SHOWN) snprintf(more, sizeof more, "; and %d more", d.count - SHOWN);
  return ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: saved with other settings: %s%s", path, d.text, more);
}
