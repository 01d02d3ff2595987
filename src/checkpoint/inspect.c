/* One checkpoint opened for looking: its arrays, walks over them, and the state digest of the content. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/common/mix128.h"
#include "src/checkpoint/checkpoint_impl.h"
#include "src/checkpoint/inspect.h"

enum { BLOCK_BYTES = 1 << 20 };

struct arb_ckpt {
  arb_ckpt_opened file;
  const arb_ckpt_item **arrays; /* the manifest's without meta's */
  int count;
  char *identity, *config;
  struct damage {
    int count;
    char first[ARB_CKPT_TENSOR + ARB_CKPT_FIELD];
  } * damage; /* apart: walks have a const checkpoint */
};

static arb_status open_all(arb_ckpt *c, const char *dir, int64_t step, bool unverified) {
  ARB_TRY(arb_ckpt_manifest_open(&c->file, dir, step, unverified));
  ARB_TRY(arb_ckpt_files_check(&c->file, NULL));
  const arb_ckpt_manifest *m = &c->file.m;
  c->arrays = malloc(((size_t)m->array_count + 1) * sizeof *c->arrays);
  c->damage = calloc(1, sizeof *c->damage);
  ARB_REQUIRE(c->arrays != NULL && c->damage != NULL, ARB_ERR_NOMEM, "%s: no memory for a list of %d arrays", c->file.path,
              m->array_count);
  for (int i = 0; i < m->array_count; i++)
    if (strcmp(m->arrays[i].tensor, ARB_CKPT_META) != 0) c->arrays[c->count++] = &m->arrays[i];
  ARB_TRY(arb_ckpt_read_text(&c->file, ARB_CKPT_IDENTITY, &c->identity));
  ARB_TRY(arb_ckpt_read_text(&c->file, ARB_CKPT_CONFIG, &c->config));
  c->file.m.meta.identity = c->identity;
  c->file.m.meta.config = c->config;
  return ARB_OK;
}

static arb_status open_any(const char *dir, int64_t step, bool unverified, arb_ckpt **out) {
  *out = NULL;
  ARB_REQUIRE(step >= 0, ARB_ERR_ARG, "step %" PRId64 " of a checkpoint", step);
  arb_ckpt *c = calloc(1, sizeof *c);
  ARB_REQUIRE(c != NULL, ARB_ERR_NOMEM, "no memory for a checkpoint");
  const arb_status st = open_all(c, dir, step, unverified);
  if (st != ARB_OK) arb_ckpt_close(&c);
  *out = c;
  return st;
}

arb_status arb_ckpt_open(const char *dir, int64_t step, arb_ckpt **out) { return open_any(dir, step, false, out); }
arb_status arb_ckpt_open_unverified(const char *dir, int64_t step, arb_ckpt **out) { return open_any(dir, step, true, out); }

void arb_ckpt_close(arb_ckpt **c) {
  if (*c == NULL) return;
  arb_ckpt_folder_close(&(*c)->file);
  free((*c)->arrays);
  free((*c)->damage);
  free((*c)->identity);
  free((*c)->config);
  free(*c);
  *c = NULL;
}

int arb_ckpt_damaged(const arb_ckpt *c, const char **first) {
  if (first != NULL) *first = c->damage->first;
  return c->damage->count;
}

const char *arb_ckpt_path_of(const arb_ckpt *c) { return c->file.path; }
uint64_t arb_ckpt_file_bytes(const arb_ckpt *c) { return c->file.bytes; }
const arb_ckpt_meta *arb_ckpt_meta_of(const arb_ckpt *c) { return &c->file.m.meta; }
int arb_ckpt_array_count(const arb_ckpt *c) { return c->count; }

void arb_ckpt_world_of(const arb_ckpt *c, int *ranks, int *files) {
  *ranks = c->file.m.ranks;
  *files = c->file.m.file_count;
}

arb_ckpt_array arb_ckpt_array_at(const arb_ckpt *c, int i) {
  const arb_ckpt_item *e = c->arrays[i];
  return (arb_ckpt_array)ARB_CKPT_WHOLE(e->tensor, e->field, e->type, e->rows, e->columns, NULL);
}

/* ---- walks ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  XXH3_state_t *hash; /* of the slice so far */
  unsigned char *block;
  int64_t rows; /* of a full block */
  size_t row_bytes;
  const arb_ckpt_slice *slice; /* the one that is read next */
  int64_t done;                /* rows of it */
  char path[ARB_CKPT_PATH];    /* its file */
  int fd;                      /* -1: not open */
} walk_inside;

arb_status arb_ckpt_walk_begin(arb_ckpt_walk *w, const arb_ckpt *c, int i) {
  const arb_ckpt_item *e = c->arrays[i];
  *w = (arb_ckpt_walk){.c = c, .index = i, .array = arb_ckpt_array_at(c, i)};
  walk_inside *in = w->inside = calloc(1, sizeof *in);
  ARB_REQUIRE(in != NULL, ARB_ERR_NOMEM, "%s: no memory to read %s.%s", c->file.path, e->tensor, e->field);
  in->fd = -1;
  in->slice = &c->file.m.slices[e->slice];
  in->row_bytes = (size_t)e->columns * arb_dtype_size(e->type);
  in->rows = in->row_bytes == 0 ? e->rows : (int64_t)(BLOCK_BYTES / in->row_bytes);
  if (in->rows < 1) in->rows = 1; /* a row goes whole */
  if (in->rows > e->rows) in->rows = e->rows;
  in->hash = XXH3_createState();
  in->block = malloc((size_t)in->rows * in->row_bytes + 1);
  if (in->hash == NULL || in->block == NULL) {
    arb_ckpt_walk_end(w);
    return ARB_FAIL(ARB_ERR_NOMEM, "%s: no memory to read %s.%s", c->file.path, e->tensor, e->field);
  }
  XXH3_128bits_reset(in->hash);
  return ARB_OK;
}

static arb_status end_slice(const arb_ckpt_walk *w) {
  const arb_ckpt *c = w->c;
  walk_inside *in = w->inside;
  char hex[ARB_CKPT_HEX];
  arb_ckpt_hash_text(XXH3_128bits_digest(in->hash), hex);
  if (strcmp(hex, in->slice->digest) != 0) {
    ARB_REQUIRE(c->file.unverified, ARB_ERR_CHECKPOINT, "%s: %s.%s is damaged (digest %s, expected %s)", in->path,
                w->array.tensor, w->array.field, hex, in->slice->digest);
    if (c->damage->count++ == 0) snprintf(c->damage->first, sizeof c->damage->first, "%s.%s", w->array.tensor, w->array.field);
  }
  XXH3_128bits_reset(in->hash);
  if (in->fd >= 0) close(in->fd);
  in->fd = -1;
  in->slice++;
  in->done = 0;
  return ARB_OK;
}

/* Up to `rows` rows of the current slice. */
static arb_status read_rows(const arb_ckpt_walk *w, unsigned char *to, int64_t rows, int64_t *got) {
  walk_inside *in = w->inside;
  const arb_ckpt_slice *s = in->slice;
  uint64_t size;
  *got = s->rows - in->done < rows ? s->rows - in->done : rows;
  const size_t bytes = (size_t)*got * in->row_bytes;
  if (in->fd < 0) ARB_TRY(arb_ckpt_file_of(&w->c->file, s->file, in->path, &in->fd, &size));
  const int why = arb_ckpt_read_at(in->fd, to, bytes, s->offset + (uint64_t)in->done * in->row_bytes);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: %s.%s cannot be read: %s", in->path, w->array.tensor, w->array.field,
              why < 0 ? "the file ends early" : strerror(why));
  XXH3_128bits_update(in->hash, to, bytes);
  in->done += *got;
  return in->done == s->rows ? end_slice(w) : ARB_OK;
}

arb_status arb_ckpt_walk_next(arb_ckpt_walk *w) {
  walk_inside *in = w->inside;
  w->first += w->rows;
  w->rows = w->array.rows - w->first < in->rows ? w->array.rows - w->first : in->rows;
  w->data = NULL;
  if (w->rows == 0 || in->row_bytes == 0) return ARB_OK;
  int64_t got;
  for (int64_t r = 0; r < w->rows; r += got) ARB_TRY(read_rows(w, in->block + (size_t)r * in->row_bytes, w->rows - r, &got));
  w->data = in->block;
  return ARB_OK;
}

void arb_ckpt_walk_end(arb_ckpt_walk *w) {
  walk_inside *in = w->inside;
  if (in == NULL) return;
  if (in->fd >= 0) close(in->fd);
  XXH3_freeState(in->hash);
  free(in->block);
  free(in);
  w->inside = NULL;
}

/* ---- the state digest ------------------------------------------------------------------------------------------------- */

/* These names and numbers are those of src/model/state.c and src/train/trainer.c; tests/checkpoint compares with real runs. */
#define META_ARRAY 0xffffffffffffffffu

static arb_status array_id(const arb_ckpt *c, const arb_ckpt_array *a, uint64_t *id) {
  static const char *const fields[] = {"code", "e", "p", "r", "c", "m"};
  uint32_t tensor = 2166136261u; /* FNV-1a */
  for (const char *s = a->tensor; *s != '\0'; s++) tensor = (tensor ^ (unsigned char)*s) * 16777619u;
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (strcmp(a->field, fields[i]) == 0) {
      *id = (uint64_t)tensor * 16 + i;
      return ARB_OK;
    }
  return ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: %s.%s is not part of a training state", c->file.path, a->tensor, a->field);
}

/* Rows are padded with zeros to whole words. */
static arb_u128 digest_block(const arb_ckpt_walk *w, uint64_t array) {
  const size_t row_bytes = ((const walk_inside *)w->inside)->row_bytes;
  const uint64_t words = (row_bytes + 7) / 8;
  const unsigned char *row = w->data;
  arb_u128 sum = {0, 0};
  if (row_bytes == 0) return sum;
  for (int64_t r = 0; r < w->rows; r++, row += row_bytes)
    for (uint64_t i = 0; i < words; i++) {
      uint64_t word = 0;
      const size_t left = row_bytes - (size_t)i * 8;
      memcpy(&word, row + i * 8, left < 8 ? left : 8);
      sum = arb_u128_add(sum, arb_mix128(array, (uint64_t)(w->first + r) * words + i, word));
    }
  return sum;
}

static arb_u128 digest_meta(const arb_ckpt_meta *meta) {
  const uint64_t head[3] = {meta->seed, (uint64_t)meta->step, (uint64_t)meta->samples};
  const size_t length = strlen(meta->identity);
  arb_u128 sum = {0, 0};
  uint64_t index = 0;
  for (int i = 0; i < 3; i++) sum = arb_u128_add(sum, arb_mix128(META_ARRAY, index++, head[i]));
  for (size_t i = 0; i < length; i += 8) {
    uint64_t word = 0;
    memcpy(&word, meta->identity + i, length - i < 8 ? length - i : 8);
    sum = arb_u128_add(sum, arb_mix128(META_ARRAY, index++, word));
  }
  return sum;
}

static arb_status digest_array(const arb_ckpt *c, int i, void (*look)(const arb_ckpt_walk *w, void *arg), void *arg,
                               arb_u128 *sum) {
  arb_ckpt_walk w;
  uint64_t array = 0;
  const arb_ckpt_array a = arb_ckpt_array_at(c, i);
  ARB_TRY(array_id(c, &a, &array));
  ARB_TRY(arb_ckpt_walk_begin(&w, c, i));
  arb_status st;
  while ((st = arb_ckpt_walk_next(&w)) == ARB_OK && w.rows > 0) {
    *sum = arb_u128_add(*sum, digest_block(&w, array));
    if (look != NULL) look(&w, arg);
  }
  arb_ckpt_walk_end(&w);
  return st;
}

arb_status arb_ckpt_state_digest(const arb_ckpt *c, void (*look)(const arb_ckpt_walk *w, void *arg), void *arg, char hex[33]) {
  arb_u128 sum = digest_meta(&c->file.m.meta);
  for (int i = 0; i < c->count; i++) ARB_TRY(digest_array(c, i, look, arg, &sum));
  snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, sum.hi, sum.lo);
  return ARB_OK;
}
