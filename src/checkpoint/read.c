/* Reading the data of checkpoints: verifying, loading, the two texts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint_impl.h"

arb_status arb_ckpt_verify(const char *dir, int64_t step) {
  arb_ckpt_opened f;
  ARB_TRY(arb_ckpt_manifest_open(&f, dir, step, false));
  const arb_status st = arb_ckpt_files_check(&f, NULL);
  arb_ckpt_folder_close(&f);
  return st;
}

/* Past the structure check, so the slice lies in its file. */
static arb_status read_slice(const arb_ckpt_opened *f, const arb_ckpt_slice *s, char *out) {
  const arb_ckpt_item *a = &f->m.arrays[s->array];
  char path[ARB_CKPT_PATH], hex[ARB_CKPT_HEX];
  int fd;
  uint64_t size;
  ARB_TRY(arb_ckpt_file_of(f, s->file, path, &fd, &size));
  const int why = arb_ckpt_read_at(fd, out, (size_t)s->bytes, s->offset);
  close(fd);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: %s.%s cannot be read: %s", path, a->tensor, a->field,
              why < 0 ? "the file ends early" : strerror(why));
  arb_ckpt_hash_bytes(out, (size_t)s->bytes, hex);
  ARB_REQUIRE(f->unverified || strcmp(hex, s->digest) == 0, ARB_ERR_CHECKPOINT, "%s: %s.%s is damaged (digest %s, expected %s)",
              path, a->tensor, a->field, hex, s->digest);
  return ARB_OK;
}

arb_status arb_ckpt_read_text(const arb_ckpt_opened *f, const char *field, char **out) {
  const arb_ckpt_item *a = arb_ckpt_manifest_find(&f->m, ARB_CKPT_META, field);
  const arb_ckpt_slice *s = &f->m.slices[a->slice];
  *out = NULL;
  char *text = calloc((size_t)s->bytes + 1, 1);
  ARB_REQUIRE(text != NULL, ARB_ERR_NOMEM, "%s: no memory for %" PRIu64 " bytes of %s", f->path, s->bytes, field);
  arb_status st = read_slice(f, s, text);
  if (st == ARB_OK && strlen(text) != s->bytes && !f->unverified)
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: its %s has a NUL byte", f->path, field);
  if (st != ARB_OK) free(text);
  *out = st == ARB_OK ? text : NULL;
  return st;
}

/* ---- loading ---------------------------------------------------------------------------------------------------------- */

/* Fills wanted[], for each array of the manifest the caller's, and makes sure that the checkpoint holds nothing else. */
static arb_status match(const arb_ckpt_opened *f, const arb_ckpt_array *arrays, int count, const arb_ckpt_array **wanted) {
  for (int i = 0; i < count; i++) {
    const arb_ckpt_array *a = &arrays[i];
    const arb_ckpt_item *e = strcmp(a->tensor, ARB_CKPT_META) == 0 ? NULL : arb_ckpt_manifest_find(&f->m, a->tensor, a->field);
    ARB_REQUIRE(e != NULL, ARB_ERR_CHECKPOINT, "%s: %s.%s is missing, expected %s %" PRId64 " x %" PRId64, f->path, a->tensor,
                a->field, arb_dtype_name(a->type), a->rows, a->columns);
    ARB_REQUIRE(e->type == a->type && e->rows == a->rows && e->columns == a->columns, ARB_ERR_CHECKPOINT,
                "%s: %s.%s is %s %" PRId64 " x %" PRId64 ", expected %s %" PRId64 " x %" PRId64, f->path, a->tensor, a->field,
                arb_dtype_name(e->type), e->rows, e->columns, arb_dtype_name(a->type), a->rows, a->columns);
    ARB_REQUIRE(wanted[e - f->m.arrays] == NULL, ARB_ERR_ARG, "%s.%s: twice in one load", a->tensor, a->field);
    ARB_REQUIRE(a->first >= 0 && a->count >= 0 && a->count <= a->rows && a->first <= a->rows - a->count &&
                    (a->host != NULL || a->count * a->columns == 0),
                ARB_ERR_ARG, "%s.%s: no memory to load into, or rows %" PRId64 " + %" PRId64 " of %" PRId64, a->tensor,
                a->field, a->first, a->count, a->rows);
    wanted[e - f->m.arrays] = a;
  }
  for (int i = 0; i < f->m.array_count; i++)
    ARB_REQUIRE(wanted[i] != NULL || strcmp(f->m.arrays[i].tensor, ARB_CKPT_META) == 0, ARB_ERR_CHECKPOINT,
                "%s: holds %s.%s, which this run does not have", f->path, f->m.arrays[i].tensor, f->m.arrays[i].field);
  return ARB_OK;
}

/* A block of a slice to the rows that are wanted of it. Counted in bytes of the whole array. */
static void take(void *arg, const arb_ckpt_slice *s, uint64_t at, const unsigned char *bytes, size_t count) {
  const arb_ckpt_array *const *wanted = arg, *a = wanted[s->array];
  if (a == NULL) return; /* one of the texts */
  const uint64_t row = (uint64_t)a->columns * arb_dtype_size(a->type);
  const uint64_t begin = (uint64_t)s->first * row + at, end = begin + count;
  const uint64_t low = (uint64_t)a->first * row, high = low + (uint64_t)a->count * row;
  const uint64_t from = begin > low ? begin : low, to = end < high ? end : high;
  if (from < to) memcpy((unsigned char *)a->host + (from - low), bytes + (from - begin), (size_t)(to - from));
}

static arb_status load(const arb_ckpt_opened *f, const char *identity, const arb_ckpt_array *arrays, int count,
                       const arb_ckpt_array **wanted) {
  const arb_ckpt_sink sink = {take, wanted};
  char hex[ARB_CKPT_HEX], *saved;
  arb_ckpt_hash_bytes(identity, strlen(identity), hex);
  if (strcmp(hex, f->m.run) != 0) {
    /* Before anything else: a changed setting explains a missing tensor better than its name. */
    ARB_TRY(arb_ckpt_files_check(f, NULL));
    ARB_TRY(arb_ckpt_read_text(f, ARB_CKPT_IDENTITY, &saved));
    const arb_status st = arb_ckpt_compare_identity(f->path, saved, identity);
    free(saved);
    ARB_TRY(st);
    return ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: its run %s is not the digest of its identity, %s", f->manifest, f->m.run, hex);
  }
  ARB_TRY(match(f, arrays, count, wanted));
  ARB_TRY(arb_ckpt_files_check(f, &sink));
  ARB_TRY(arb_ckpt_read_text(f, ARB_CKPT_IDENTITY, &saved));
  const arb_status st = arb_ckpt_compare_identity(f->path, saved, identity);
  free(saved);
  return st;
}

arb_status arb_ckpt_load(const char *dir, int64_t step, arb_ckpt_meta *meta, const arb_ckpt_array *arrays, int count) {
  arb_ckpt_opened f;
  ARB_REQUIRE(step >= 0 && count >= 0 && meta->identity != NULL, ARB_ERR_ARG, "a load of step %" PRId64 ", %d arrays", step,
              count);
  ARB_TRY(arb_ckpt_manifest_open(&f, dir, step, false));
  const arb_ckpt_array **wanted = calloc((size_t)f.m.array_count + 1, sizeof *wanted);
  const arb_status st = wanted == NULL ? ARB_FAIL(ARB_ERR_NOMEM, "no memory for a list of %d arrays", f.m.array_count)
                                       : load(&f, meta->identity, arrays, count, wanted);
  if (st == ARB_OK) {
    meta->step = f.m.meta.step;
    meta->samples = f.m.meta.samples;
    meta->seed = f.m.meta.seed;
    memcpy(meta->digest, f.m.meta.digest, sizeof meta->digest);
  }
  free(wanted);
  arb_ckpt_folder_close(&f);
  return st;
}
