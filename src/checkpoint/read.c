/* Reading and comparing the data of a checkpoint whose structure open.c has accepted. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/checkpoint_impl.h"

enum { BLOCK = 1 << 20 };

arb_status arb_ckpt_read_dataset(const arb_ckpt_file *f, const arb_ckpt_entry *e, void *host) {
  XXH3_state_t *state = XXH3_createState();
  unsigned char *scratch = host == NULL ? malloc(BLOCK) : NULL, *to = host;
  arb_status st = ARB_OK;
  if (state == NULL || (host == NULL && scratch == NULL)) {
    st = ARB_FAIL(ARB_ERR_NOMEM, "%s: no memory to read %s.%s", f->path, e->tensor, e->field);
    goto out;
  }
  XXH3_128bits_reset(state);
  for (uint64_t done = 0; done < e->bytes;) {
    const size_t n = e->bytes - done < BLOCK ? (size_t)(e->bytes - done) : BLOCK;
    unsigned char *block = host == NULL ? scratch : to + done;
    const int why = arb_ckpt_read_at(f->fd, block, n, e->offset + done);
    if (why != 0) {
      st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: %s.%s cannot be read: %s", f->path, e->tensor, e->field,
                    why < 0 ? "the file ends early" : strerror(why));
      goto out;
    }
    XXH3_128bits_update(state, block, n);
    done += n;
  }
  char hex[ARB_CKPT_HEX];
  arb_ckpt_hash_text(XXH3_128bits_digest(state), hex);
  if (strcmp(hex, e->digest) != 0)
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: %s.%s is damaged (digest %s, expected %s)", f->path, e->tensor, e->field, hex,
                  e->digest);
out:
  free(scratch);
  XXH3_freeState(state);
  return st;
}

arb_status arb_ckpt_verify(const char *dir, int64_t step) {
  arb_ckpt_file f;
  ARB_TRY(arb_ckpt_file_open(&f, dir, step));
  arb_status st = ARB_OK;
  for (int i = 0; i < f.count && st == ARB_OK; i++) st = arb_ckpt_read_dataset(&f, &f.entries[i], NULL);
  arb_ckpt_file_close(&f);
  return st;
}

arb_status arb_ckpt_read_text(const arb_ckpt_file *f, const char *field, char **out) {
  const arb_ckpt_entry *e = arb_ckpt_file_find(f, ARB_CKPT_META, field);
  char *text = calloc((size_t)e->bytes + 1, 1);
  ARB_REQUIRE(text != NULL, ARB_ERR_NOMEM, "%s: no memory for %" PRIu64 " bytes of %s", f->path, e->bytes, field);
  arb_status st = arb_ckpt_read_dataset(f, e, text);
  if (st == ARB_OK && strlen(text) != e->bytes) st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: its %s has a NUL byte", f->path, field);
  if (st != ARB_OK) free(text);
  *out = st == ARB_OK ? text : NULL;
  return st;
}

/* ---- identity --------------------------------------------------------------------------------------------------------- */

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

static arb_status compare_identity(const char *path, const char *saved, const char *mine) {
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

static arb_status check_identity(const arb_ckpt_file *f, const char *mine) {
  char *saved;
  ARB_TRY(arb_ckpt_read_text(f, ARB_CKPT_IDENTITY, &saved));
  const arb_status st = compare_identity(f->path, saved, mine);
  free(saved);
  return st;
}

/* ---- loading ---------------------------------------------------------------------------------------------------------- */

/* Fills wanted[count], the file's entry of each array, and makes sure that the file holds nothing else. */
static arb_status match(const arb_ckpt_file *f, const arb_ckpt_array *arrays, int count, const arb_ckpt_entry **wanted) {
  bool *used = calloc((size_t)f->count + 1, 1);
  ARB_REQUIRE(used != NULL, ARB_ERR_NOMEM, "%s: no memory for %d marks", f->path, f->count);
  arb_status st = ARB_OK;
  for (int i = 0; i < count && st == ARB_OK; i++) {
    const arb_ckpt_array *a = &arrays[i];
    const arb_ckpt_entry *e = strcmp(a->tensor, ARB_CKPT_META) == 0 ? NULL : arb_ckpt_file_find(f, a->tensor, a->field);
    if (e == NULL)
      st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: %s.%s is missing, expected %s %" PRId64 " x %" PRId64, f->path, a->tensor,
                    a->field, arb_dtype_name(a->type), a->rows, a->columns);
    else if (e->type != a->type || e->rows != a->rows || e->columns != a->columns)
      st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: %s.%s is %s %" PRId64 " x %" PRId64 ", expected %s %" PRId64 " x %" PRId64,
                    f->path, a->tensor, a->field, arb_dtype_name(e->type), e->rows, e->columns, arb_dtype_name(a->type),
                    a->rows, a->columns);
    else if (used[e - f->entries])
      st = ARB_FAIL(ARB_ERR_ARG, "%s.%s: twice in one load", a->tensor, a->field);
    else
      used[e - f->entries] = true, wanted[i] = e;
  }
  for (int i = 0; i < f->count && st == ARB_OK; i++)
    if (!used[i] && strcmp(f->entries[i].tensor, ARB_CKPT_META) != 0)
      st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: holds %s.%s, which this run does not have", f->path, f->entries[i].tensor,
                    f->entries[i].field);
  free(used);
  return st;
}

static arb_status load(const arb_ckpt_file *f, const char *identity, const arb_ckpt_array *arrays, int count,
                       const arb_ckpt_entry **wanted) {
  /* Identity first: a changed setting explains a missing tensor better than its name. */
  ARB_TRY(check_identity(f, identity));
  ARB_TRY(match(f, arrays, count, wanted));
  ARB_TRY(arb_ckpt_read_dataset(f, arb_ckpt_file_find(f, ARB_CKPT_META, ARB_CKPT_CONFIG), NULL));
  for (int i = 0; i < count; i++) {
    ARB_REQUIRE(arrays[i].host != NULL || wanted[i]->bytes == 0, ARB_ERR_ARG, "%s.%s: no memory to load into", arrays[i].tensor,
                arrays[i].field);
    ARB_TRY(arb_ckpt_read_dataset(f, wanted[i], arrays[i].host));
  }
  return ARB_OK;
}

arb_status arb_ckpt_load(const char *dir, int64_t step, arb_ckpt_meta *meta, const arb_ckpt_array *arrays, int count) {
  arb_ckpt_file f;
  ARB_REQUIRE(step >= 0 && count >= 0 && meta->identity != NULL, ARB_ERR_ARG, "a load of step %" PRId64 ", %d arrays", step,
              count);
  ARB_TRY(arb_ckpt_file_open(&f, dir, step));
  const arb_ckpt_entry **wanted = calloc((size_t)count + 1, sizeof *wanted);
  arb_status st = wanted == NULL ? ARB_FAIL(ARB_ERR_NOMEM, "no memory for a list of %d arrays", count)
                                 : load(&f, meta->identity, arrays, count, wanted);
  if (st == ARB_OK) {
    meta->step = f.meta.step;
    meta->samples = f.meta.samples;
    meta->seed = f.meta.seed;
    memcpy(meta->digest, f.meta.digest, sizeof meta->digest);
  }
  free(wanted);
  arb_ckpt_file_close(&f);
  return st;
}
