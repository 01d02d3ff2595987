#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/safetensors/safetensors.h"

enum { PATH_BYTES = 4096 };

struct arb_st_writer {
  char path[PATH_BYTES], temporary[PATH_BYTES];
  int fd;
  uint64_t left; /* data bytes still to come */
};

/* ---- the header ------------------------------------------------------------------------------------------------------- */

static const char *type_name(arb_dtype type) {
  static const char *const names[ARB_DTYPE__COUNT] = {"U8", "I8", "U16", "I16", "BF16", "I32", "U32", "F32", "I64", "U64"};
  return names[type];
}

static bool tensor_bytes(const arb_st_tensor *t, uint64_t *bytes) {
  int64_t n = (int64_t)arb_dtype_size(t->type);
  bool empty = false;
  for (int i = 0; i < t->rank; i++) empty |= t->shape[i] == 0;
  for (int i = 0; i < t->rank; i++) {
    if (t->shape[i] < 0 || (!empty && n > INT64_MAX / t->shape[i])) return false;
    if (!empty) n *= t->shape[i];
  }
  *bytes = empty ? 0 : (uint64_t)n;
  return true;
}

/* Takes over `value`; ARB_ERR_ARG when a name is no UTF-8 or out of memory, which jansson does not tell apart. */
static arb_status set_new(json_t *object, const char *key, json_t *value) {
  ARB_REQUIRE(json_object_set_new(object, key, value) == 0, ARB_ERR_ARG, "safetensors: '%.100s' or its value is not UTF-8",
              key);
  return ARB_OK;
}

static arb_status add_tensor(json_t *header, const arb_st_tensor *t, uint64_t *offset) {
  uint64_t bytes;
  ARB_REQUIRE(t->rank >= 0 && t->rank <= ARB_ST_MAX_RANK && tensor_bytes(t, &bytes) && bytes <= INT64_MAX - *offset,
              ARB_ERR_ARG, "safetensors: shape of %.100s", t->name);
  ARB_REQUIRE(*offset % arb_dtype_size(t->type) == 0, ARB_ERR_ARG, "safetensors: %.100s begins at %" PRIu64 ", not aligned",
              t->name, *offset);
  ARB_REQUIRE(t->name[0] != '\0' && json_object_get(header, t->name) == NULL, ARB_ERR_ARG,
              "safetensors: tensor '%.100s' twice or without a name", t->name);
  json_t *entry = json_object(), *shape = json_array();
  bool good = entry != NULL && shape != NULL;
  for (int i = 0; i < t->rank && good; i++) good = json_array_append_new(shape, json_integer(t->shape[i])) == 0;
  good =
      good && json_object_set_new(entry, "dtype", json_string(type_name(t->type))) == 0 &&
      json_object_set(entry, "shape", shape) == 0 &&
      json_object_set_new(entry, "data_offsets", json_pack("[I,I]", (json_int_t)*offset, (json_int_t)(*offset + bytes))) == 0;
  json_decref(shape);
  if (!good) {
    json_decref(entry);
    return ARB_FAIL(ARB_ERR_NOMEM, "no memory for the header of a safetensors file");
  }
  *offset += bytes;
  return set_new(header, t->name, entry);
}

/* *text: malloc'd, a multiple of 8 long. */
static arb_status make_header(const arb_st_tensor *tensors, int count, const arb_st_note *notes, int note_count, char **text,
                              uint64_t *length, uint64_t *data_bytes) {
  json_t *header = json_object(), *metadata = json_object();
  arb_status st = ARB_OK;
  *data_bytes = 0;
  if (header == NULL || metadata == NULL || json_object_set(header, "__metadata__", metadata) != 0)
    st = ARB_FAIL(ARB_ERR_NOMEM, "no memory for the header of a safetensors file");
  for (int i = 0; i < note_count && st == ARB_OK; i++)
    st = json_object_get(metadata, notes[i].key) != NULL
             ? ARB_FAIL(ARB_ERR_ARG, "safetensors: note '%.100s' twice", notes[i].key)
             : set_new(metadata, notes[i].key, json_string(notes[i].value));
  for (int i = 0; i < count && st == ARB_OK; i++) st = add_tensor(header, &tensors[i], data_bytes);
  char *plain = st == ARB_OK ? json_dumps(header, JSON_COMPACT) : NULL;
  json_decref(metadata);
  json_decref(header);
  if (st != ARB_OK) return st;
  const size_t used = plain != NULL ? strlen(plain) : 0;
  *length = (used + 7) / 8 * 8;
  *text = plain != NULL ? malloc(*length) : NULL;
  if (*text == NULL) st = ARB_FAIL(ARB_ERR_NOMEM, "no memory for the header of a safetensors file");
  if (st == ARB_OK) {
    memset(*text, ' ', *length);
    memcpy(*text, plain, used);
  }
  free(plain);
  return st;
}

/* ---- the file --------------------------------------------------------------------------------------------------------- */

static arb_status put_bytes(arb_st_writer *w, const void *data, uint64_t bytes) {
  const unsigned char *from = data;
  while (bytes > 0) {
    const size_t most = (size_t)1 << 30; /* write takes at most 2 GiB at a time */
    const ssize_t put = write(w->fd, from, bytes < most ? (size_t)bytes : most);
    if (put < 0 && errno == EINTR) continue;
    ARB_REQUIRE(put > 0, ARB_ERR_IO, "%s: cannot be written: %s", w->path, strerror(put < 0 ? errno : ENOSPC));
    from += put;
    bytes -= (uint64_t)put;
  }
  return ARB_OK;
}

static arb_status open_temporary(arb_st_writer *w, const char *path) {
  const int n = snprintf(w->temporary, sizeof w->temporary, "%s.tmp-%ld", path, (long)getpid());
  ARB_REQUIRE(n > 0 && n < PATH_BYTES, ARB_ERR_IO, "%.200s...: path too long", path);
  memcpy(w->path, path, strlen(path) + 1);
  unlink(w->temporary); /* a dead process that had our number */
  w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  ARB_REQUIRE(w->fd >= 0, ARB_ERR_IO, "%s: cannot be created: %s", w->temporary, strerror(errno));
  return ARB_OK;
}

arb_status arb_st_create(const char *path, const arb_st_tensor *tensors, int count, const arb_st_note *notes, int note_count,
                         arb_st_writer **out) {
  char *text = NULL;
  uint64_t length = 0, data_bytes;
  unsigned char prefix[8];
  *out = NULL;
  ARB_TRY(make_header(tensors, count, notes, note_count, &text, &length, &data_bytes));
  arb_st_writer *w = calloc(1, sizeof *w);
  arb_status st = w != NULL ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "no memory to write %s", path);
  if (w != NULL) w->fd = -1;
  if (st == ARB_OK && length > ARB_ST_MAX_HEADER)
    st = ARB_FAIL(ARB_ERR_ARG, "%s: a header of %" PRIu64 " bytes, limit %d", path, length, ARB_ST_MAX_HEADER);
  if (st == ARB_OK) st = open_temporary(w, path);
  for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)(length >> (8 * i));
  if (st == ARB_OK) st = put_bytes(w, prefix, sizeof prefix);
  if (st == ARB_OK) st = put_bytes(w, text, length);
  free(text);
  if (st != ARB_OK) {
    arb_st_abandon(&w);
    return st;
  }
  w->left = data_bytes;
  *out = w;
  return ARB_OK;
}

arb_status arb_st_put(arb_st_writer *w, const void *data, uint64_t bytes) {
  ARB_REQUIRE(bytes <= w->left, ARB_ERR_ARG, "%s: %" PRIu64 " bytes more than its header says", w->path, bytes - w->left);
  ARB_TRY(put_bytes(w, data, bytes));
  w->left -= bytes;
  return ARB_OK;
}

/* The folder's own fsync makes the new name durable. */
static arb_status sync_parent(const char *path) {
  char parent[PATH_BYTES];
  const char *slash = strrchr(path, '/');
  const size_t used = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
  memcpy(parent, path, used);
  memcpy(parent + used, used == 0 ? "." : "", used == 0 ? 2 : 1);
  const int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ARB_REQUIRE(fd >= 0, ARB_ERR_IO, "%s: cannot be opened: %s", parent, strerror(errno));
  const int why = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  /* EINVAL: this file system has no fsync for folders; nothing more can be done there. */
  ARB_REQUIRE(why == 0 || why == EINVAL, ARB_ERR_IO, "%s: fsync: %s", parent, strerror(why));
  return ARB_OK;
}

static arb_status publish(arb_st_writer *w) {
  ARB_REQUIRE(w->left == 0, ARB_ERR_ARG, "%s: %" PRIu64 " bytes fewer than its header says", w->path, w->left);
  ARB_REQUIRE(fsync(w->fd) == 0, ARB_ERR_IO, "%s: fsync: %s", w->path, strerror(errno));
  const int closed = close(w->fd);
  w->fd = -1;
  ARB_REQUIRE(closed == 0, ARB_ERR_IO, "%s: close: %s", w->path, strerror(errno));
  ARB_REQUIRE(rename(w->temporary, w->path) == 0, ARB_ERR_IO, "%s: cannot be renamed to %s: %s", w->temporary, w->path,
              strerror(errno));
  w->temporary[0] = '\0';
  return sync_parent(w->path);
}

arb_status arb_st_finish(arb_st_writer **w) {
  const arb_status st = publish(*w);
  arb_st_abandon(w);
  return st;
}

void arb_st_abandon(arb_st_writer **w) {
  if (*w == NULL) return;
  if ((*w)->fd >= 0) close((*w)->fd);
  if ((*w)->temporary[0] != '\0') unlink((*w)->temporary);
  free(*w);
  *w = NULL;
}
