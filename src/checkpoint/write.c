/* One rank's file of a checkpoint: the layout that HDF5 made in memory, and the data, by plain writes from front to back. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint_impl.h"
#include "src/checkpoint/io.h"

enum { BLOCK = 1 << 20 };

/* ---- what is to be written -------------------------------------------------------------------------------------------- */

arb_status arb_ckpt_check_meta(const arb_ckpt_meta *meta) {
  ARB_REQUIRE(meta->step >= 0 && meta->samples >= 0, ARB_ERR_ARG, "checkpoint of step %" PRId64 ", samples %" PRId64,
              meta->step, meta->samples);
  ARB_REQUIRE(arb_ckpt_hex_ok(meta->digest), ARB_ERR_ARG, "a checkpoint's digest must be 32 lower-case hex digits");
  ARB_REQUIRE(meta->identity != NULL && meta->config != NULL, ARB_ERR_ARG, "a checkpoint without identity or config");
  ARB_REQUIRE(strlen(meta->identity) <= ARB_CKPT_MAX_TEXT && strlen(meta->config) <= ARB_CKPT_MAX_TEXT, ARB_ERR_ARG,
              "identity or config of a checkpoint longer than %d bytes", ARB_CKPT_MAX_TEXT);
  return ARB_OK;
}

static void add_text(arb_ckpt_entry *e, const char *field, const char *text) {
  *e = (arb_ckpt_entry){.tensor = ARB_CKPT_META,
                        .type = ARB_U8,
                        .rows = 1,
                        .columns = (int64_t)strlen(text),
                        .count = 1,
                        .bytes = strlen(text),
                        .host = text};
  memcpy(e->field, field, strlen(field) + 1);
}

static arb_status add_array(arb_ckpt_entry *e, const arb_ckpt_array *a) {
  uint64_t whole;
  ARB_REQUIRE(arb_ckpt_name_ok(a->tensor, ARB_CKPT_TENSOR) && arb_ckpt_name_ok(a->field, ARB_CKPT_FIELD) &&
                  strcmp(a->tensor, ARB_CKPT_META) != 0,
              ARB_ERR_ARG, "no name for an array of a checkpoint: '%.200s', '%.200s'", a->tensor, a->field);
  *e = (arb_ckpt_entry){
      .type = a->type, .rows = a->rows, .columns = a->columns, .first = a->first, .count = a->count, .host = a->host};
  memcpy(e->tensor, a->tensor, strlen(a->tensor) + 1);
  memcpy(e->field, a->field, strlen(a->field) + 1);
  ARB_REQUIRE(!arb_dtype_is_float(a->type), ARB_ERR_ARG, "%s.%s: a checkpoint holds integers, not %s", a->tensor, a->field,
              arb_dtype_name(a->type));
  ARB_REQUIRE(arb_ckpt_bytes(a->type, a->rows, a->columns, &whole), ARB_ERR_ARG, "%s.%s: shape %" PRId64 " x %" PRId64,
              a->tensor, a->field, a->rows, a->columns);
  ARB_REQUIRE(a->first >= 0 && a->count >= 0 && a->count <= a->rows && a->first <= a->rows - a->count &&
                  arb_ckpt_bytes(a->type, a->count, a->columns, &e->bytes),
              ARB_ERR_ARG, "%s.%s: rows %" PRId64 " + %" PRId64 " of %" PRId64, a->tensor, a->field, a->first, a->count,
              a->rows);
  ARB_REQUIRE(a->host != NULL || e->bytes == 0, ARB_ERR_ARG, "%s.%s: no memory to save", a->tensor, a->field);
  return ARB_OK;
}

static int entry_order(const void *a, const void *b) {
  const arb_ckpt_entry *x = a, *y = b;
  const int tensor = strcmp(x->tensor, y->tensor);
  return tensor != 0 ? tensor : strcmp(x->field, y->field);
}

/* Fills the part in the order of the file: arrays of which this rank has rows; rank 0 also has those without any, and texts. */
static arb_status plan(const arb_ckpt_world *world, const arb_ckpt_meta *meta, const arb_ckpt_array *arrays, int count,
                       arb_ckpt_part *part) {
  arb_ckpt_entry *entries = part->entries;
  int n = 0;
  if (world->rank == 0) {
    add_text(&entries[n++], ARB_CKPT_IDENTITY, meta->identity);
    add_text(&entries[n++], ARB_CKPT_CONFIG, meta->config);
  }
  for (int i = 0; i < count; i++) {
    ARB_TRY(add_array(&entries[n], &arrays[i]));
    n += arrays[i].count > 0 || (arrays[i].rows == 0 && world->rank == 0);
  }
  qsort(entries, (size_t)n, sizeof *entries, entry_order);
  for (int i = 1; i < n; i++)
    ARB_REQUIRE(entry_order(&entries[i - 1], &entries[i]) != 0, ARB_ERR_ARG, "%s.%s: twice in one checkpoint",
                entries[i].tensor, entries[i].field);
  for (int i = 0; i < n; i++) arb_ckpt_hash_bytes(entries[i].host, (size_t)entries[i].bytes, entries[i].digest);
  part->count = n;
  return ARB_OK;
}

/* ---- to the disk ------------------------------------------------------------------------------------------------------ */

typedef struct {
  const char *path;
  int fd, image;
  XXH3_state_t *hash; /* of the file so far */
} output;

/* Hashed and written a block at a time, while it is in the cache. Returns 0 or errno. */
static int put_data(const output *o, const void *bytes, uint64_t count, uint64_t at) {
  const unsigned char *from = bytes;
  for (uint64_t done = 0; done < count;) {
    const size_t n = count - done < BLOCK ? (size_t)(count - done) : BLOCK;
    XXH3_128bits_update(o->hash, from + done, n);
    const int why = arb_ckpt_write_at(o->fd, from + done, n, at + done);
    if (why != 0) return why;
    done += n;
  }
  return 0;
}

static int put_layout(const output *o, uint64_t from, uint64_t to) {
  unsigned char block[1 << 14];
  while (from < to) {
    const size_t n = to - from < sizeof block ? (size_t)(to - from) : sizeof block;
    int why = arb_ckpt_read_at(o->image, block, n, from);
    if (why == 0) why = put_data(o, block, n, from);
    if (why != 0) return why < 0 ? EIO : why;
    from += n;
  }
  return 0;
}

/* A full disk shows here, before gigabytes are written. Returns 0 or errno. */
static int reserve(int fd, uint64_t size) {
  int rc;
  do rc = arb_io_table()->reserve(fd, (off_t)size);
  while (rc != 0 && errno == EINTR);
  /* A file system that cannot reserve only loses the early notice. */
  return rc == 0 || errno == EOPNOTSUPP || errno == ENOSYS ? 0 : errno;
}

static int entry_place(const void *a, const void *b) {
  const arb_ckpt_entry *x = a, *y = b;
  return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Front to back: the data from the caller's memory, what lies between from the image. Sorts the entries by place. */
static arb_status put_bytes(const output *o, arb_ckpt_part *part) {
  uint64_t at = 0;
  qsort(part->entries, (size_t)part->count, sizeof *part->entries, entry_place);
  int why = reserve(o->fd, part->bytes);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: no room for %" PRIu64 " bytes: %s", o->path, part->bytes, strerror(why));
  for (const arb_ckpt_entry *e = part->entries; e < part->entries + part->count; e++) {
    if (e->bytes == 0) continue;
    why = put_layout(o, at, e->offset);
    if (why == 0) why = put_data(o, e->host, e->bytes, e->offset);
    ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: cannot write %s.%s: %s", o->path, e->tensor, e->field, strerror(why));
    at = e->offset + e->bytes;
  }
  why = put_layout(o, at, part->bytes);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: cannot be written: %s", o->path, strerror(why));
  why = arb_ckpt_sync(o->fd);
  ARB_REQUIRE(why == 0, ARB_ERR_CHECKPOINT, "%s: fsync: %s", o->path, strerror(why));
  arb_ckpt_hash_text(XXH3_128bits_digest(o->hash), part->digest);
  return ARB_OK;
}

static arb_status write_file(const char *path, int image, arb_ckpt_part *part) {
  unsigned char head[ARB_CKPT_SUPERBLOCK];
  struct stat info;
  const bool read = fstat(image, &info) == 0 && arb_ckpt_read_at(image, head, sizeof head, 0) == 0;
  ARB_REQUIRE(read, ARB_ERR_CHECKPOINT, "%s: its layout cannot be read back", path);
  part->bytes = (uint64_t)info.st_size;
  ARB_TRY(arb_ckpt_superblock(path, head, part->bytes));
  output o = {.path = path, .image = image, .hash = XXH3_createState()};
  ARB_REQUIRE(o.hash != NULL, ARB_ERR_NOMEM, "%s: no memory for a digest", path);
  XXH3_128bits_reset(o.hash);
  o.fd = arb_io_table()->open(path, O_WRONLY | O_CREAT | O_EXCL);
  arb_status st =
      o.fd >= 0 ? put_bytes(&o, part) : ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: cannot be created: %s", path, strerror(errno));
  if (o.fd >= 0 && arb_io_table()->close(o.fd) != 0 && st == ARB_OK)
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "%s: close: %s", path, strerror(errno));
  XXH3_freeState(o.hash);
  return st;
}

static arb_status write_part(const char *dir, const char *folder, const arb_ckpt_world *world, const arb_ckpt_meta *meta,
                             const arb_ckpt_array *arrays, int count, arb_ckpt_part *part) {
  char inside[ARB_CKPT_PATH], path[ARB_CKPT_PATH], name[ARB_CKPT_FILE];
  arb_ckpt_head head = {.meta = meta, .rank = world->rank, .ranks = world->ranks};
  arb_ckpt_image image;
  arb_ckpt_file_name(world->rank, name);
  ARB_TRY(arb_ckpt_path(inside, "%s/%s", dir, folder));
  ARB_TRY(arb_ckpt_path(path, "%s/%s", inside, name));
  ARB_TRY(plan(world, meta, arrays, count, part));
  arb_ckpt_hash_bytes(meta->identity, strlen(meta->identity), head.run);
  arb_status st = arb_ckpt_lay_out(path, inside, &head, part->entries, part->count, &image);
  if (st == ARB_OK) st = write_file(path, image.fd, part);
  const arb_status dropped = arb_ckpt_image_drop(&image);
  return st != ARB_OK ? st : dropped;
}

size_t arb_ckpt_part_bytes(const arb_ckpt_part *part) { return (size_t)part->size; }
int64_t arb_ckpt_part_file_bytes(const arb_ckpt_part *part) { return (int64_t)part->bytes; }

arb_status arb_ckpt_write(const char *dir, const char *folder, const arb_ckpt_world *world, const arb_ckpt_meta *meta,
                          const arb_ckpt_array *arrays, int count, arb_ckpt_part **out) {
  *out = NULL;
  ARB_TRY(arb_ckpt_check_meta(meta));
  ARB_REQUIRE(count >= 0 && count <= ARB_CKPT_MAX_ARRAYS, ARB_ERR_ARG, "a checkpoint of %d arrays", count);
  ARB_REQUIRE(world->ranks >= 1 && world->ranks <= ARB_CKPT_MAX_RANKS && world->rank >= 0 && world->rank < world->ranks &&
                  (world->sharded || world->rank == 0),
              ARB_ERR_ARG, "rank %d of %d writes a checkpoint", world->rank, world->ranks);
  const size_t size = sizeof(arb_ckpt_part) + ((size_t)count + 3) * sizeof(arb_ckpt_entry);
  arb_ckpt_part *part = calloc(1, size);
  ARB_REQUIRE(part != NULL, ARB_ERR_NOMEM, "no memory for a checkpoint of %d arrays", count);
  part->rank = world->rank;
  const arb_status st = write_part(dir, folder, world, meta, arrays, count, part);
  if (st != ARB_OK) {
    free(part);
    return st;
  }
  for (int i = 0; i < part->count; i++) part->entries[i].host = NULL; /* means nothing to others */
  part->size = sizeof *part + (size_t)part->count * sizeof(arb_ckpt_entry);
  *out = part;
  return ARB_OK;
}
