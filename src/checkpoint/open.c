/* Opening a checkpoint: the manifest, then every file's bytes past the digests that the manifest has of them, and only then, by
 * HDF5, the structure. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint_impl.h"

enum { BLOCK = 1 << 20 };

#define REFUSE(...) ARB_FAIL(ARB_ERR_CHECKPOINT, __VA_ARGS__)
#define REFUSE_UNLESS(cond, ...) ARB_REQUIRE(cond, ARB_ERR_CHECKPOINT, __VA_ARGS__)

/* ---- the manifest ----------------------------------------------------------------------------------------------------- */

/* Before version 2 a checkpoint was one file without manifest. */
static arb_status no_manifest(const arb_ckpt_opened *f, const char *reason) {
  char old[ARB_CKPT_PATH];
  ARB_TRY(arb_ckpt_path(old, "%s/state.h5", f->path));
  REFUSE_UNLESS(access(old, F_OK) != 0, "%s: a checkpoint of format 1, this program reads %d; h5dump reads it", old,
                ARB_CKPT_VERSION);
  return REFUSE("%s: cannot be opened: %s", f->manifest, reason);
}

static arb_status read_manifest(arb_ckpt_opened *f, int fd, uint64_t size) {
  REFUSE_UNLESS(size <= ARB_CKPT_MAX_MANIFEST, "%s: has %" PRIu64 " bytes, at most %d are read", f->manifest, size,
                ARB_CKPT_MAX_MANIFEST);
  char *text = malloc((size_t)size + 1);
  ARB_REQUIRE(text != NULL, ARB_ERR_NOMEM, "%s: no memory for %" PRIu64 " bytes", f->manifest, size);
  const int why = arb_ckpt_read_at(fd, text, (size_t)size, 0);
  text[size] = '\0';
  const arb_status st = why == 0 ? arb_ckpt_manifest_parse(f->manifest, text, (size_t)size, f->unverified, &f->m)
                                 : REFUSE("%s: cannot be read: %s", f->manifest, why < 0 ? "it ends early" : strerror(why));
  free(text);
  return st;
}

arb_status arb_ckpt_manifest_open(arb_ckpt_opened *f, const char *dir, int64_t step, bool unverified) {
  int fd = -1;
  uint64_t size = 0;
  *f = (arb_ckpt_opened){.unverified = unverified};
  ARB_TRY(arb_ckpt_path(f->path, "%s/step-%08" PRId64, dir, step));
  ARB_TRY(arb_ckpt_path(f->manifest, "%s/%s", f->path, ARB_CKPT_MANIFEST));
  if (access(f->manifest, F_OK) != 0 && errno == ENOENT) return no_manifest(f, strerror(ENOENT));
  arb_status st = arb_ckpt_open_plain(f->manifest, &fd, &size);
  if (st == ARB_OK) st = read_manifest(f, fd, size);
  if (fd >= 0) close(fd);
  if (st == ARB_OK && f->m.meta.step != step)
    st = REFUSE("%s: is of step %" PRId64 ", its folder says %" PRId64, f->manifest, f->m.meta.step, step);
  f->bytes = size;
  for (int i = 0; i < f->m.file_count && st == ARB_OK; i++) f->bytes += f->m.files[i].bytes;
  if (st != ARB_OK) arb_ckpt_folder_close(f);
  return st;
}

void arb_ckpt_folder_close(arb_ckpt_opened *f) { arb_ckpt_manifest_deinit(&f->m); }

/* ---- the files -------------------------------------------------------------------------------------------------------- */

arb_status arb_ckpt_file_of(const arb_ckpt_opened *f, int file, char path[ARB_CKPT_PATH], int *fd, uint64_t *size) {
  const arb_ckpt_listed *l = &f->m.files[file];
  *fd = -1;
  ARB_TRY(arb_ckpt_path(path, "%s/%s", f->path, l->name));
  arb_status st = arb_ckpt_open_plain(path, fd, size);
  if (st == ARB_OK && *size != l->bytes && !f->unverified)
    st = REFUSE("%s: has %" PRIu64 " bytes, but its manifest says %" PRIu64, path, *size, l->bytes);
  if (st != ARB_OK && *fd >= 0) {
    close(*fd);
    *fd = -1;
  }
  return st;
}

typedef struct {
  const arb_ckpt_opened *f;
  const char *path;
  int fd;
  XXH3_state_t *whole, *part; /* of the file, of a slice */
  unsigned char *block;
  const arb_ckpt_sink *sink;
} scanner;

static int by_offset(const void *a, const void *b) {
  const arb_ckpt_slice *const *x = a, *const *y = b;
  return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

/* Bytes from..to of the file; s is NULL between slices. */
static arb_status scan_range(const scanner *c, uint64_t from, uint64_t to, const arb_ckpt_slice *s) {
  for (uint64_t at = from; at < to;) {
    const size_t n = to - at < BLOCK ? (size_t)(to - at) : BLOCK;
    const int why = arb_ckpt_read_at(c->fd, c->block, n, at);
    REFUSE_UNLESS(why == 0, "%s: cannot be read: %s", c->path, why < 0 ? "the file ends early" : strerror(why));
    XXH3_128bits_update(c->whole, c->block, n);
    if (s != NULL) XXH3_128bits_update(c->part, c->block, n);
    if (s != NULL && c->sink != NULL) c->sink->take(c->sink->arg, s, at - from, c->block, n);
    at += n;
  }
  return ARB_OK;
}

static arb_status scan_slice(const scanner *c, const arb_ckpt_slice *s) {
  const arb_ckpt_item *a = &c->f->m.arrays[s->array];
  char hex[ARB_CKPT_HEX];
  XXH3_128bits_reset(c->part);
  ARB_TRY(scan_range(c, s->offset, s->offset + s->bytes, s));
  arb_ckpt_hash_text(XXH3_128bits_digest(c->part), hex);
  REFUSE_UNLESS(strcmp(hex, s->digest) == 0, "%s: %s.%s is damaged (digest %s, expected %s)", c->path, a->tensor, a->field, hex,
                s->digest);
  return ARB_OK;
}

/* The file once from front to back: every slice against its digest, and all of it against its own. */
static arb_status scan(const scanner *c, int file, uint64_t size, const arb_ckpt_slice **list) {
  const arb_ckpt_manifest *m = &c->f->m;
  char hex[ARB_CKPT_HEX];
  uint64_t at = 0;
  int n = 0;
  for (int i = 0; i < m->slice_count; i++)
    if (m->slices[i].file == file) list[n++] = &m->slices[i];
  qsort(list, (size_t)n, sizeof *list, by_offset);
  XXH3_128bits_reset(c->whole);
  for (int i = 0; i < n; i++) {
    if (list[i]->bytes > 0) ARB_TRY(scan_range(c, at, list[i]->offset, NULL));
    ARB_TRY(scan_slice(c, list[i]));
    if (list[i]->bytes > 0) at = list[i]->offset + list[i]->bytes;
  }
  ARB_TRY(scan_range(c, at, size, NULL));
  arb_ckpt_hash_text(XXH3_128bits_digest(c->whole), hex);
  REFUSE_UNLESS(strcmp(hex, m->files[file].digest) == 0, "%s: is damaged between its arrays (digest %s, expected %s)", c->path,
                hex, m->files[file].digest);
  return ARB_OK;
}

static arb_status check_file(scanner *c, int file, const arb_ckpt_slice **list) {
  char path[ARB_CKPT_PATH];
  uint64_t size;
  ARB_TRY(arb_ckpt_file_of(c->f, file, path, &c->fd, &size));
  c->path = path;
  arb_status st = c->f->unverified ? ARB_OK : scan(c, file, size, list);
  if (st == ARB_OK) st = arb_ckpt_structure_check(&c->f->m, file, path, c->fd, size, c->f->unverified);
  close(c->fd);
  return st;
}

arb_status arb_ckpt_files_check(const arb_ckpt_opened *f, const arb_ckpt_sink *sink) {
  scanner c = {.f = f, .sink = sink, .whole = XXH3_createState(), .part = XXH3_createState(), .block = malloc(BLOCK)};
  const arb_ckpt_slice **list = malloc(((size_t)f->m.slice_count + 1) * sizeof *list);
  arb_status st = c.whole && c.part && c.block && list ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "%s: no memory to read it", f->path);
  for (int i = 0; i < f->m.file_count && st == ARB_OK; i++) st = check_file(&c, i, list);
  free(list);
  free(c.block);
  XXH3_freeState(c.part);
  XXH3_freeState(c.whole);
  return st;
}
