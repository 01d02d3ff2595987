/* The folder of a save: made beside the final one, filled by the writers, described by a manifest, and renamed. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint_impl.h"
#include "src/checkpoint/io.h"

static arb_status step_folder(const char *dir, int64_t step, char path[ARB_CKPT_PATH]) {
  return arb_ckpt_path(path, "%s/step-%08" PRId64, dir, step);
}

arb_status arb_ckpt_prepare(const char *dir, int64_t step, char folder[ARB_CKPT_FOLDER]) {
  char path[ARB_CKPT_PATH];
  ARB_REQUIRE(step >= 0, ARB_ERR_ARG, "checkpoint of step %" PRId64, step);
  snprintf(folder, ARB_CKPT_FOLDER, "step-%08" PRId64 ".tmp-%ld", step, (long)getpid());
  ARB_TRY(arb_ckpt_path(path, "%s/%s", dir, folder));
  ARB_TRY(arb_ckpt_make_folders(dir));
  /* A restarted container often gets the process number of the one that died here. */
  int why = arb_ckpt_remove_folder(path);
  if (why == 0 && arb_io_table()->mkdir(path) != 0) why = errno;
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: cannot be created: %s", path, strerror(why));
  return ARB_OK;
}

void arb_ckpt_abandon(const char *dir, const char *folder) {
  char path[ARB_CKPT_PATH];
  const int n = snprintf(path, sizeof path, "%s/%s", dir, folder);
  if (n > 0 && n < ARB_CKPT_PATH) arb_ckpt_remove_folder(path); /* the failure before it is what counts */
}

/* ---- the manifest ----------------------------------------------------------------------------------------------------- */

/* An entry and the file that it is in. */
typedef struct {
  const arb_ckpt_entry *entry;
  int file;
} found;

static int found_order(const void *a, const void *b) {
  const found *x = a, *y = b;
  int order = strcmp(x->entry->tensor, y->entry->tensor);
  if (order == 0) order = strcmp(x->entry->field, y->entry->field);
  if (order == 0) order = (x->entry->first > y->entry->first) - (x->entry->first < y->entry->first);
  return order;
}

static arb_status add_entry(arb_ckpt_manifest *m, const found *f) {
  const arb_ckpt_entry *e = f->entry;
  arb_ckpt_item *a = m->array_count > 0 ? &m->arrays[m->array_count - 1] : NULL;
  if (a == NULL || strcmp(a->tensor, e->tensor) != 0 || strcmp(a->field, e->field) != 0) {
    a = &m->arrays[m->array_count++];
    *a = (arb_ckpt_item){.type = e->type, .rows = e->rows, .columns = e->columns, .slice = m->slice_count};
    memcpy(a->tensor, e->tensor, sizeof a->tensor);
    memcpy(a->field, e->field, sizeof a->field);
  }
  ARB_REQUIRE(a->type == e->type && a->rows == e->rows && a->columns == e->columns, ARB_ERR_ARG,
              "%s.%s: ranks save different shapes", e->tensor, e->field);
  arb_ckpt_slice *s = &m->slices[m->slice_count++];
  *s = (arb_ckpt_slice){.array = m->array_count - 1, .file = f->file, .first = e->first, .rows = e->count, .bytes = e->bytes};
  if (e->bytes > 0) s->offset = e->offset;
  memcpy(s->digest, e->digest, sizeof s->digest);
  a->slices++;
  return ARB_OK;
}

static arb_status gather(arb_ckpt_manifest *m, const arb_ckpt_part *const *parts, int count, int all, found *list) {
  int n = 0;
  for (int i = 0; i < count; i++) {
    ARB_REQUIRE(parts[i]->rank == i, ARB_ERR_ARG, "part %d of a checkpoint is of rank %d", i, parts[i]->rank);
    m->files[i] = (arb_ckpt_listed){.rank = i, .bytes = parts[i]->bytes};
    arb_ckpt_file_name(i, m->files[i].name);
    memcpy(m->files[i].digest, parts[i]->digest, sizeof m->files[i].digest);
    for (int k = 0; k < parts[i]->count; k++) list[n++] = (found){&parts[i]->entries[k], i};
  }
  m->file_count = count;
  qsort(list, (size_t)all, sizeof *list, found_order);
  for (int i = 0; i < all; i++) ARB_TRY(add_entry(m, &list[i]));
  return ARB_OK;
}

static arb_status make_manifest(const arb_ckpt_world *world, const arb_ckpt_meta *meta, const arb_ckpt_part *const *parts,
                                int count, const char *path, char **text, size_t *length) {
  arb_ckpt_manifest m = {.meta = *meta, .ranks = world->ranks, .sharded = world->sharded};
  int all = 0;
  *text = NULL;
  ARB_REQUIRE(count == (world->sharded ? world->ranks : 1), ARB_ERR_ARG, "%d parts of a checkpoint of %d ranks", count,
              world->ranks);
  for (int i = 0; i < count; i++) all += parts[i]->count;
  arb_ckpt_hash_bytes(meta->identity, strlen(meta->identity), m.run);
  m.files = calloc((size_t)count, sizeof *m.files);
  m.arrays = calloc((size_t)all + 1, sizeof *m.arrays);
  m.slices = calloc((size_t)all + 1, sizeof *m.slices);
  found *list = calloc((size_t)all + 1, sizeof *list);
  arb_status st = m.files && m.arrays && m.slices && list ? gather(&m, parts, count, all, list)
                                                          : ARB_FAIL(ARB_ERR_NOMEM, "no memory for a list of %d arrays", all);
  if (st == ARB_OK) st = arb_ckpt_manifest_check(&m, path, ARB_ERR_ARG);
  if (st == ARB_OK) st = arb_ckpt_manifest_text(&m, text, length);
  free(list);
  arb_ckpt_manifest_deinit(&m);
  return st;
}

static arb_status write_text(const char *path, const char *text, size_t length) {
  ARB_REQUIRE(length <= ARB_CKPT_MAX_MANIFEST, ARB_ERR_CHECKPOINT, "%s: needs %zu bytes, at most %d are read", path, length,
              ARB_CKPT_MAX_MANIFEST);
  const int fd = arb_io_table()->open(path, O_WRONLY | O_CREAT | O_EXCL);
  ARB_REQUIRE(fd >= 0, ARB_ERR_CHECKPOINT, "%s: cannot be created: %s", path, strerror(errno));
  int why = arb_ckpt_write_at(fd, text, length, 0);
  if (why == 0) why = arb_ckpt_sync(fd);
  if (arb_io_table()->close(fd) != 0 && why == 0) why = errno;
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: cannot be written: %s", path, strerror(why));
  return ARB_OK;
}

/* ---- the commit point ------------------------------------------------------------------------------------------------- */

static arb_status cannot_rename(const char *from, const char *to, int why) {
  return ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be renamed to %s: %s", from, to, strerror(why));
}

/* A folder with files cannot be renamed over another one. Where a checkpoint of this step exists already, both change names at
 * once, so that there is no moment without a complete one; a file system that cannot do this has the old one moved aside
 * first. *done: the new one has its final name, so it must not be removed any more. */
static arb_status publish(const char *dir, const char *temporary, const char *final, bool *done) {
  const arb_io *io = arb_io_table();
  char aside[ARB_CKPT_PATH];
  *done = io->rename(temporary, final) == 0;
  if (*done) return arb_ckpt_sync_folder(dir);
  if (errno != ENOTEMPTY && errno != EEXIST) return cannot_rename(temporary, final, errno);
  ARB_TRY(arb_ckpt_path(aside, "%s", temporary));
  *done = io->exchange(temporary, final) == 0;
  if (!*done) {
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) return cannot_rename(temporary, final, errno);
    ARB_TRY(arb_ckpt_path(aside, "%s.old-%ld", final, (long)getpid()));
    int why = arb_ckpt_remove_folder(aside);
    if (why == 0 && io->rename(final, aside) != 0) why = errno;
    if (why != 0) return cannot_rename(final, aside, why);
    if (io->rename(temporary, final) != 0) {
      why = errno;
      if (io->rename(aside, final) != 0) why = errno;
      return cannot_rename(temporary, final, why);
    }
    *done = true;
  }
  ARB_TRY(arb_ckpt_sync_folder(dir));
  const int why = arb_ckpt_remove_folder(aside);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: cannot be removed: %s", aside, strerror(why));
  return ARB_OK;
}

static arb_status commit(const char *dir, const char *folder, const arb_ckpt_world *world, const arb_ckpt_meta *meta,
                         const arb_ckpt_part *const *parts, int count, bool *done) {
  char temporary[ARB_CKPT_PATH], final[ARB_CKPT_PATH], path[ARB_CKPT_PATH], *text;
  size_t length;
  ARB_TRY(arb_ckpt_check_meta(meta));
  ARB_TRY(arb_ckpt_path(temporary, "%s/%s", dir, folder));
  ARB_TRY(arb_ckpt_path(path, "%s/%s", temporary, ARB_CKPT_MANIFEST));
  ARB_TRY(step_folder(dir, meta->step, final));
  ARB_TRY(make_manifest(world, meta, parts, count, path, &text, &length));
  const arb_status st = write_text(path, text, length);
  free(text);
  ARB_TRY(st);
  ARB_TRY(arb_ckpt_sync_folder(temporary));
  return publish(dir, temporary, final, done);
}

arb_status arb_ckpt_commit(const char *dir, const char *folder, const arb_ckpt_world *world, const arb_ckpt_meta *meta,
                           const arb_ckpt_part *const *parts, int count) {
  bool done = false;
  const arb_status st = commit(dir, folder, world, meta, parts, count, &done);
  if (st != ARB_OK && !done) arb_ckpt_abandon(dir, folder);
  return st;
}

arb_status arb_ckpt_save(const char *dir, const arb_ckpt_meta *meta, const arb_ckpt_array *arrays, int count) {
  const arb_ckpt_world alone = {.rank = 0, .ranks = 1};
  char folder[ARB_CKPT_FOLDER];
  arb_ckpt_part *part;
  ARB_TRY(arb_ckpt_check_meta(meta));
  ARB_TRY(arb_ckpt_prepare(dir, meta->step, folder));
  arb_status st = arb_ckpt_write(dir, folder, &alone, meta, arrays, count, &part);
  if (st != ARB_OK) {
    arb_ckpt_abandon(dir, folder);
    return st;
  }
  const arb_ckpt_part *parts[1] = {part};
  st = arb_ckpt_commit(dir, folder, &alone, meta, parts, 1);
  free(part);
  return st;
}
