/* Saving. HDF5 only lays the file out, in memory; our own writes bring it and the data to the disk, into a temporary folder
 * that one rename makes the checkpoint. */
#define _GNU_SOURCE /* fallocate, memfd_create */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint_impl.h"

/* ---- what is to be written -------------------------------------------------------------------------------------------- */

static arb_status check_meta(const arb_ckpt_meta *meta) {
  ARB_REQUIRE(meta->step >= 0 && meta->samples >= 0, ARB_ERR_ARG, "checkpoint of step %" PRId64 ", samples %" PRId64,
              meta->step, meta->samples);
  ARB_REQUIRE(arb_ckpt_hex_ok(meta->digest), ARB_ERR_ARG, "a checkpoint's digest must be 32 lower-case hex digits");
  ARB_REQUIRE(meta->identity != NULL && meta->config != NULL, ARB_ERR_ARG, "a checkpoint without identity or config");
  ARB_REQUIRE(strlen(meta->identity) <= ARB_CKPT_MAX_TEXT && strlen(meta->config) <= ARB_CKPT_MAX_TEXT, ARB_ERR_ARG,
              "identity or config of a checkpoint longer than %d bytes", ARB_CKPT_MAX_TEXT);
  return ARB_OK;
}

static void add_text(arb_ckpt_entry *e, const char *field, const char *text) {
  *e = (arb_ckpt_entry){.tensor = ARB_CKPT_META, .type = ARB_U8, .rows = 1, .columns = (int64_t)strlen(text), .host = text};
  memcpy(e->field, field, strlen(field) + 1);
  e->bytes = (uint64_t)e->columns;
}

static arb_status add_array(arb_ckpt_entry *e, const arb_ckpt_array *a) {
  ARB_REQUIRE(arb_ckpt_name_ok(a->tensor, ARB_CKPT_TENSOR) && arb_ckpt_name_ok(a->field, ARB_CKPT_FIELD) &&
                  strcmp(a->tensor, ARB_CKPT_META) != 0,
              ARB_ERR_ARG, "no name for an array of a checkpoint: '%.200s', '%.200s'", a->tensor, a->field);
  *e = (arb_ckpt_entry){.type = a->type, .rows = a->rows, .columns = a->columns, .host = a->host};
  memcpy(e->tensor, a->tensor, strlen(a->tensor) + 1);
  memcpy(e->field, a->field, strlen(a->field) + 1);
  ARB_REQUIRE(!arb_dtype_is_float(a->type), ARB_ERR_ARG, "%s.%s: a checkpoint holds integers, not %s", a->tensor, a->field,
              arb_dtype_name(a->type));
  ARB_REQUIRE(arb_ckpt_bytes(a->type, a->rows, a->columns, &e->bytes), ARB_ERR_ARG, "%s.%s: shape %" PRId64 " x %" PRId64,
              a->tensor, a->field, a->rows, a->columns);
  ARB_REQUIRE(a->host != NULL || e->bytes == 0, ARB_ERR_ARG, "%s.%s: no memory to save", a->tensor, a->field);
  return ARB_OK;
}

/* Fills entries[count + 2] in the order of the file. */
static arb_status plan(const arb_ckpt_meta *meta, const arb_ckpt_array *arrays, int count, arb_ckpt_entry *entries) {
  add_text(&entries[0], ARB_CKPT_IDENTITY, meta->identity);
  add_text(&entries[1], ARB_CKPT_CONFIG, meta->config);
  for (int i = 0; i < count; i++) ARB_TRY(add_array(&entries[i + 2], &arrays[i]));
  const int all = count + 2;
  qsort(entries, (size_t)all, sizeof *entries, arb_ckpt_entry_order);
  for (int i = 1; i < all; i++)
    ARB_REQUIRE(arb_ckpt_entry_order(&entries[i - 1], &entries[i]) != 0, ARB_ERR_ARG, "%s.%s: twice in one checkpoint",
                entries[i].tensor, entries[i].field);
  for (int i = 0; i < all; i++) arb_ckpt_hash_text(XXH3_128bits(entries[i].host, (size_t)entries[i].bytes), entries[i].digest);
  return ARB_OK;
}

/* ---- the layout, by HDF5 ----------------------------------------------------------------------------------------------------
 */

static bool put_attribute(hid_t object, const char *name, hid_t type, const void *value) {
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t id = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  const bool good = id >= 0 && H5Awrite(id, type, value) >= 0;
  arb_ckpt_h5_drop(id, H5Aclose);
  arb_ckpt_h5_drop(space, H5Sclose);
  return good;
}

static bool put_hex(hid_t object, const char *name, const char *hex) {
  const hid_t type = arb_ckpt_h5_hex_type();
  const bool good = put_attribute(object, name, type, hex);
  arb_ckpt_h5_drop(type, H5Tclose);
  return good;
}

static bool put_meta(hid_t group, const arb_ckpt_meta *meta, const char *manifest) {
  const int32_t version = ARB_CKPT_VERSION;
  return put_attribute(group, "format_version", H5T_STD_I32LE, &version) &&
         put_attribute(group, "step", H5T_STD_I64LE, &meta->step) &&
         put_attribute(group, "samples", H5T_STD_I64LE, &meta->samples) &&
         put_attribute(group, "seed", H5T_STD_U64LE, &meta->seed) && put_hex(group, "digest", meta->digest) &&
         put_hex(group, "manifest", manifest);
}

/* Object times are left out, so that equal states give equal files. */
static hid_t untimed(hid_t class) {
  const hid_t id = H5Pcreate(class);
  if (id >= 0 && H5Pset_obj_track_times(id, 0) >= 0) return id;
  arb_ckpt_h5_drop(id, H5Pclose);
  return H5I_INVALID_HID;
}

/* Space without content: early allocation fixes the place of the bytes, which write_file puts there. */
static bool put_dataset(hid_t group, arb_ckpt_entry *e) {
  const hsize_t dims[2] = {(hsize_t)e->rows, (hsize_t)e->columns};
  const hid_t type = arb_ckpt_h5_type(e->type), space = H5Screate_simple(2, dims, NULL), how = untimed(H5P_DATASET_CREATE);
  hid_t id = H5I_INVALID_HID;
  if (how >= 0 && H5Pset_layout(how, H5D_CONTIGUOUS) >= 0 && H5Pset_fill_time(how, H5D_FILL_TIME_NEVER) >= 0 &&
      H5Pset_alloc_time(how, H5D_ALLOC_TIME_EARLY) >= 0)
    id = H5Dcreate2(group, e->field, type, space, H5P_DEFAULT, how, H5P_DEFAULT);
  bool good = id >= 0 && put_hex(id, ARB_CKPT_DIGEST, e->digest);
  if (good && e->bytes > 0) {
    e->offset = H5Dget_offset(id);
    good = e->offset != HADDR_UNDEF;
  }
  arb_ckpt_h5_drop(id, H5Dclose);
  arb_ckpt_h5_drop(how, H5Pclose);
  arb_ckpt_h5_drop(space, H5Sclose);
  return good;
}

static arb_status put_all(hid_t file, const char *path, const arb_ckpt_meta *meta, const char *manifest,
                          arb_ckpt_entry *entries, int all) {
  arb_status st = ARB_OK;
  const hid_t how = untimed(H5P_GROUP_CREATE);
  hid_t group = H5I_INVALID_HID;
  for (int i = 0; i < all && st == ARB_OK; i++) {
    arb_ckpt_entry *e = &entries[i];
    bool good = true;
    if (i == 0 || strcmp(e->tensor, entries[i - 1].tensor) != 0) {
      arb_ckpt_h5_drop(group, H5Gclose);
      group = H5Gcreate2(file, e->tensor, H5P_DEFAULT, how, H5P_DEFAULT);
      good = group >= 0 && (strcmp(e->tensor, ARB_CKPT_META) != 0 || put_meta(group, meta, manifest));
    }
    if (!good || !put_dataset(group, e))
      st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot lay out %s.%s: %s", path, e->tensor, e->field, arb_ckpt_h5_reason());
  }
  arb_ckpt_h5_drop(group, H5Gclose);
  arb_ckpt_h5_drop(how, H5Pclose);
  return st;
}

typedef struct {
  char name[ARB_CKPT_PATH]; /* how HDF5 opens it */
  int fd;
  bool in_memory;
} layout_file;

/* Makes the file with all metadata and holes for the data; path is for messages. */
static arb_status lay_out(const char *path, const layout_file *image, const arb_ckpt_meta *meta, const char *manifest,
                          arb_ckpt_entry *entries, int all) {
  arb_status st;
  arb_ckpt_h5_lock();
  const hid_t access = arb_ckpt_h5_access(image->in_memory), how = untimed(H5P_FILE_CREATE);
  hid_t file = access < 0 || how < 0 ? H5I_INVALID_HID : H5Fcreate(image->name, H5F_ACC_TRUNC, how, access);
  if (file < 0) {
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be laid out: %s", path, arb_ckpt_h5_reason());
    goto out;
  }
  ARB_TRY_OUT(st, put_all(file, path, meta, manifest, entries, all));
  if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0) {
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be laid out: %s", path, arb_ckpt_h5_reason());
    goto out;
  }
  const herr_t closed = H5Fclose(file);
  file = H5I_INVALID_HID;
  if (closed < 0) st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be laid out: %s", path, arb_ckpt_h5_reason());
out:
  arb_ckpt_h5_drop(file, H5Fclose);
  arb_ckpt_h5_drop(how, H5Pclose);
  arb_ckpt_h5_drop(access, H5Pclose);
  arb_ckpt_h5_unlock();
  return st;
}

/* A sparse file for the layout that never touches the disk: HDF5 1.10 swallows some write errors, and after a failed close it
 * crashes at exit. In memory there are none of these, and everything that reaches the disk goes through write_range. Where
 * Linux's memory files or /proc are missing, a file in the temporary folder has to do. */
static arb_status open_layout(const char *folder, layout_file *image) {
#ifdef __linux__
  image->fd = memfd_create("arbdist-checkpoint", MFD_CLOEXEC);
  if (image->fd >= 0) {
    ARB_TRY(arb_ckpt_path(image->name, "/proc/self/fd/%d", image->fd));
    image->in_memory = access(image->name, F_OK) == 0;
    if (image->in_memory) return ARB_OK;
    close(image->fd);
  }
#endif
  ARB_TRY(arb_ckpt_path(image->name, "%s/layout.h5", folder));
  image->fd = open(image->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  ARB_REQUIRE(image->fd >= 0, ARB_ERR_CHECKPOINT, "%s: cannot be created: %s", image->name, strerror(errno));
  return ARB_OK;
}

/* ---- to the disk ------------------------------------------------------------------------------------------------------ */

/* Returns 0 or errno. */
static int write_range(int fd, const void *bytes, uint64_t count, uint64_t offset) {
  const unsigned char *from = bytes;
  while (count > 0) {
    const size_t most = (size_t)1 << 30;
    const ssize_t put = pwrite(fd, from, count < most ? (size_t)count : most, (off_t)offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    if (put == 0) return ENOSPC;
    from += put;
    count -= (uint64_t)put;
    offset += (uint64_t)put;
  }
  return 0;
}

static int copy_range(int image, int fd, uint64_t from, uint64_t to) {
  unsigned char block[1 << 14];
  while (from < to) {
    const size_t n = to - from < sizeof block ? (size_t)(to - from) : sizeof block;
    int why = arb_ckpt_read_at(image, block, n, from);
    if (why == 0) why = write_range(fd, block, n, from);
    if (why != 0) return why < 0 ? EIO : why;
    from += n;
  }
  return 0;
}

/* A full disk shows here, before gigabytes are written. Returns 0 or errno. */
static int reserve(int fd, uint64_t size) {
#ifdef __linux__
  int rc;
  do rc = fallocate(fd, 0, 0, (off_t)size);
  while (rc != 0 && errno == EINTR);
  /* A file system that cannot reserve only loses the early notice. */
  return rc == 0 || errno == EOPNOTSUPP || errno == ENOSYS ? 0 : errno;
#else
  (void)fd, (void)size;
  return 0;
#endif
}

static int entry_place(const void *a, const void *b) {
  const arb_ckpt_entry *x = a, *y = b;
  return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Front to back: the data from the caller's memory, what lies between from the image. Sorts the entries by place. */
static arb_status put_bytes(const char *path, int fd, int image, uint64_t size, arb_ckpt_entry *entries, int all) {
  uint64_t at = 0;
  qsort(entries, (size_t)all, sizeof *entries, entry_place);
  int why = reserve(fd, size);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: no room for %" PRIu64 " bytes: %s", path, size, strerror(why));
  for (const arb_ckpt_entry *e = entries; e < entries + all; e++) {
    if (e->bytes == 0) continue;
    why = copy_range(image, fd, at, e->offset);
    if (why == 0) why = write_range(fd, e->host, e->bytes, e->offset);
    ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: cannot write %s.%s: %s", path, e->tensor, e->field, strerror(why));
    at = e->offset + e->bytes;
  }
  why = copy_range(image, fd, at, size);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: cannot be written: %s", path, strerror(why));
  why = arb_ckpt_sync(fd);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: fsync: %s", path, strerror(why));
  return ARB_OK;
}

static arb_status write_file(const char *path, int image, arb_ckpt_entry *entries, int all) {
  unsigned char head[ARB_CKPT_SUPERBLOCK];
  struct stat info;
  const bool read = fstat(image, &info) == 0 && arb_ckpt_read_at(image, head, sizeof head, 0) == 0;
  ARB_REQUIRE(read, ARB_ERR_CHECKPOINT, "%s: its layout cannot be read back", path);
  ARB_TRY(arb_ckpt_superblock(path, head, (uint64_t)info.st_size));
  const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  ARB_REQUIRE(fd >= 0, ARB_ERR_CHECKPOINT, "%s: cannot be created: %s", path, strerror(errno));
  arb_status st = put_bytes(path, fd, image, (uint64_t)info.st_size, entries, all);
  if (close(fd) != 0 && st == ARB_OK) st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: close: %s", path, strerror(errno));
  return st;
}

static arb_status write_state(const char *folder, const arb_ckpt_meta *meta, const char *manifest, arb_ckpt_entry *entries,
                              int all) {
  char path[ARB_CKPT_PATH];
  layout_file image = {.fd = -1};
  arb_status st;
  ARB_TRY_OUT(st, arb_ckpt_path(path, "%s/%s", folder, ARB_CKPT_FILE));
  ARB_TRY_OUT(st, open_layout(folder, &image));
  ARB_TRY_OUT(st, lay_out(path, &image, meta, manifest, entries, all));
  ARB_TRY_OUT(st, write_file(path, image.fd, entries, all));
  if (!image.in_memory && unlink(image.name) != 0)
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be removed: %s", image.name, strerror(errno));
out:
  if (image.fd >= 0) close(image.fd);
  return st;
}

/* ---- the folder ------------------------------------------------------------------------------------------------------- */

/* The commit point. A folder with files cannot be renamed over another one, so for a step that exists already the file itself
 * changes place: there is no moment without a complete checkpoint of this step. */
static arb_status publish(const char *dir, const char *temporary, const char *final) {
  if (rename(temporary, final) == 0) return arb_ckpt_sync_folder(dir);
  ARB_REQUIRE(errno == ENOTEMPTY || errno == EEXIST, ARB_ERR_CHECKPOINT, "%s: cannot be renamed to %s: %s", temporary, final,
              strerror(errno));
  char from[ARB_CKPT_PATH], to[ARB_CKPT_PATH];
  ARB_TRY(arb_ckpt_path(from, "%s/%s", temporary, ARB_CKPT_FILE));
  ARB_TRY(arb_ckpt_path(to, "%s/%s", final, ARB_CKPT_FILE));
  ARB_REQUIRE(rename(from, to) == 0, ARB_ERR_CHECKPOINT, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
  ARB_TRY(arb_ckpt_sync_folder(final));
  const int why = arb_ckpt_remove_folder(temporary);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: cannot be removed: %s", temporary, strerror(why));
  return arb_ckpt_sync_folder(dir);
}

arb_status arb_ckpt_save(const char *dir, const arb_ckpt_meta *meta, const arb_ckpt_array *arrays, int count) {
  char temporary[ARB_CKPT_PATH], final[ARB_CKPT_PATH], manifest[ARB_CKPT_HEX];
  ARB_TRY(check_meta(meta));
  ARB_REQUIRE(count >= 0 && count <= ARB_CKPT_MAX_ARRAYS, ARB_ERR_ARG, "a checkpoint of %d arrays", count);
  ARB_TRY(arb_ckpt_path(final, "%s/step-%08" PRId64, dir, meta->step));
  ARB_TRY(arb_ckpt_path(temporary, "%s.tmp-%ld", final, (long)getpid()));
  const int all = count + 2; /* the two texts */
  arb_ckpt_entry *entries = calloc((size_t)all, sizeof *entries);
  ARB_REQUIRE(entries != NULL, ARB_ERR_NOMEM, "no memory for a checkpoint of %d arrays", count);
  arb_status st;
  bool ours = false;
  ARB_TRY_OUT(st, plan(meta, arrays, count, entries));
  ARB_TRY_OUT(st, arb_ckpt_manifest(meta, entries, all, manifest));
  ARB_TRY_OUT(st, arb_ckpt_make_folders(dir));
  /* A restarted container often gets the process number of the one that died here. */
  int why = arb_ckpt_remove_folder(temporary);
  if (why == 0 && mkdir(temporary, 0777) != 0) why = errno;
  if (why != 0) {
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be created: %s", temporary, strerror(why));
    goto out;
  }
  ours = true;
  ARB_TRY_OUT(st, write_state(temporary, meta, manifest, entries, all));
  ARB_TRY_OUT(st, arb_ckpt_sync_folder(temporary));
  ARB_TRY_OUT(st, publish(dir, temporary, final));
out:
  if (st != ARB_OK && ours) arb_ckpt_remove_folder(temporary); /* the first failure is what counts */
  free(entries);
  return st;
}
