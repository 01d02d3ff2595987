/* Differences between two texts of settings: identities ("train.peak=0x1.eb851ep-4") and configs ("[train]" and "peak = 0.12").
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tools/checkpoint/commands.h"
#include "tools/checkpoint/text.h"

enum { SHOWN = 40, NAME = 96 };

typedef struct {
  char key[NAME]; /* section and name; cut when longer */
  const char *value;
  size_t length;
} setting;

typedef struct {
  setting *items; /* sorted by key */
  size_t count;
} settings;

static int by_key(const void *a, const void *b) { return strcmp(((const setting *)a)->key, ((const setting *)b)->key); }

static size_t trimmed(const char *text, size_t length) {
  while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\r')) length--;
  return length;
}

/* Puts text behind what is in out[NAME], as far as there is room. */
static void append(char out[NAME], const char *text, size_t length) {
  const size_t used = strlen(out), room = NAME - 1 - used;
  memcpy(out + used, text, length < room ? length : room);
  out[used + (length < room ? length : room)] = '\0';
}

/* One line; true when it is a setting. A section is remembered as "name." */
static bool parse_line(const char *line, size_t length, char section[NAME], setting *out) {
  const char *sign = memchr(line, '=', length);
  length = trimmed(line, length);
  if (length == 0 || line[0] == ';') return false;
  if (length > 1 && line[0] == '[' && line[length - 1] == ']') {
    section[0] = '\0';
    append(section, line + 1, length - 2);
    append(section, ".", 1);
    return false;
  }
  out->key[0] = '\0';
  append(out->key, section, strlen(section));
  append(out->key, line, sign != NULL ? trimmed(line, (size_t)(sign - line)) : length);
  arb_clean(out->key);
  out->value = sign != NULL && sign < line + length ? sign + 1 : line + length;
  while (out->value < line + length && *out->value == ' ') out->value++;
  out->length = (size_t)(line + length - out->value);
  return true;
}

static bool parse(const char *text, settings *s) {
  char section[NAME] = "";
  size_t lines = 1;
  for (const char *c = text; *c != '\0'; c++) lines += *c == '\n';
  *s = (settings){.items = malloc(lines * sizeof *s->items)};
  if (s->items == NULL) return false;
  while (*text != '\0') {
    const size_t length = strcspn(text, "\n");
    if (parse_line(text, length, section, &s->items[s->count])) s->count++;
    text += length + (text[length] == '\n');
  }
  qsort(s->items, s->count, sizeof *s->items, by_key);
  return true;
}

/* A value for people: no control characters, not endless, and a float in hexadecimal as a decimal number. */
static void show(const setting *s, char out[NAME]) {
  char *end;
  if (s == NULL || s->length == 0) {
    snprintf(out, NAME, "%s", s == NULL ? "(none)" : "(empty)");
    return;
  }
  out[0] = '\0';
  append(out, s->value, s->length);
  arb_clean(out);
  if (strncmp(out + (*out == '-'), "0x", 2) != 0 || strchr(out, 'p') == NULL) return;
  const double number = strtod(out, &end);
  if (*end == '\0') snprintf(out, NAME, "%.9g", number);
}

static bool same(const setting *a, const setting *b) {
  return a != NULL && b != NULL && a->length == b->length && memcmp(a->value, b->value, a->length) == 0;
}

static int compare(FILE *out, const char *title, const settings *a, const settings *b, const settings *except) {
  char left[NAME], right[NAME];
  int found = 0;
  for (size_t i = 0, j = 0; i < a->count || j < b->count;) {
    const int order = i == a->count ? 1 : j == b->count ? -1 : by_key(&a->items[i], &b->items[j]);
    const setting *x = order <= 0 ? &a->items[i++] : NULL, *y = order >= 0 ? &b->items[j++] : NULL;
    const setting *key = x != NULL ? x : y;
    if (same(x, y)) continue;
    if (except->count > 0 && bsearch(key, except->items, except->count, sizeof *except->items, by_key) != NULL) continue;
    if (found == 0) fprintf(out, "\n%s\n", title);
    if (found++ >= SHOWN) continue;
    show(x, left);
    show(y, right);
    fprintf(out, "  %s: %s, %s\n", key->key, left, right);
  }
  if (found > SHOWN) fprintf(out, "  and %d more\n", found - SHOWN);
  return found;
}

int arb_settings_diff(FILE *out, const char *title, const char *a, const char *b, const char *except) {
  settings x = {0}, y = {0}, z = {0};
  const bool good = parse(a, &x) && parse(b, &y) && parse(except != NULL ? except : "", &z);
  const int found = good ? compare(out, title, &x, &y, &z) : -1;
  free(x.items);
  free(y.items);
  free(z.items);
  return found;
}
