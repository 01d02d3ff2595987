/* Opening a checkpoint file that may be damaged or made by someone else: its whole structure is checked before any data is
 * read. HDF5 is only asked where things are; the data is read with pread from our own descriptor. Follows no link but hard
 * ones, loads no plugin, knows one layout and eight types, and takes no size on trust. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint_impl.h"

#define REFUSE(...) ARB_FAIL(ARB_ERR_CHECKPOINT, __VA_ARGS__)
#define REFUSE_UNLESS(cond, ...) ARB_REQUIRE(cond, ARB_ERR_CHECKPOINT, __VA_ARGS__)

typedef struct {
  arb_ckpt_file *f;
  hid_t file;
  int capacity;
  char manifest[ARB_CKPT_HEX];
} reader;

/* ---- names of a group ------------------------------------------------------------------------------------------------- */

typedef struct {
  const char *path, *group; /* group: "" for the root */
  size_t limit;             /* bytes of a name, NUL included */
  char (*names)[ARB_CKPT_TENSOR];
  int count, capacity;
  arb_status st;
} name_list;

static const char *link_kind(H5L_type_t type) {
  if (type == H5L_TYPE_SOFT) return "a soft link";
  if (type == H5L_TYPE_EXTERNAL) return "an external link";
  return "a user-defined link";
}

static arb_status add_name(name_list *list, const char *name, H5L_type_t type) {
  char shown[ARB_CKPT_TENSOR];
  snprintf(shown, sizeof shown, "%s", name);
  for (char *c = shown; *c != '\0'; c++)
    if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e) *c = '?';
  REFUSE_UNLESS(arb_ckpt_name_ok(name, list->limit), "%s: '%s' in group /%s is no name of a checkpoint", list->path, shown,
                list->group);
  REFUSE_UNLESS(type == H5L_TYPE_HARD, "%s: %s in group /%s is %s, expected the object itself", list->path, shown, list->group,
                link_kind(type));
  REFUSE_UNLESS(list->count < ARB_CKPT_MAX_ARRAYS, "%s: more than %d objects in group /%s", list->path, ARB_CKPT_MAX_ARRAYS,
                list->group);
  if (list->count == list->capacity) {
    const int capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
    void *more = realloc(list->names, (size_t)capacity * sizeof *list->names);
    ARB_REQUIRE(more != NULL, ARB_ERR_NOMEM, "%s: no memory for %d names", list->path, capacity);
    list->names = more;
    list->capacity = capacity;
  }
  memcpy(list->names[list->count++], shown, sizeof shown);
  return ARB_OK;
}

static herr_t on_link(hid_t group, const char *name, const H5L_info_t *info, void *arg) {
  (void)group;
  name_list *list = arg;
  list->st = add_name(list, name, info->type);
  return list->st == ARB_OK ? 0 : -1;
}

static arb_status list_names(name_list *list, hid_t group) {
  H5G_info_t info;
  REFUSE_UNLESS(H5Gget_info(group, &info) >= 0, "%s: group /%s: %s", list->path, list->group, arb_ckpt_h5_reason());
  /* Symbol tables have no checksums; superblock 3 never needs them. */
  REFUSE_UNLESS(info.storage_type != H5G_STORAGE_TYPE_SYMBOL_TABLE && info.mounted == 0,
                "%s: group /%s is stored in the old format", list->path, list->group);
  const herr_t rc = H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, on_link, list);
  if (list->st != ARB_OK) return list->st;
  REFUSE_UNLESS(rc >= 0, "%s: group /%s: %s", list->path, list->group, arb_ckpt_h5_reason());
  return ARB_OK;
}

/* ---- attributes ------------------------------------------------------------------------------------------------------- */

/* One scalar of exactly this type. `where` names the object. */
static arb_status get_attribute(const char *path, const char *where, hid_t object, const char *name, hid_t type, void *value) {
  REFUSE_UNLESS(H5Aexists(object, name) > 0, "%s: %s has no attribute %s", path, where, name);
  const hid_t id = H5Aopen(object, name, H5P_DEFAULT);
  const hid_t have = id < 0 ? id : H5Aget_type(id), space = id < 0 ? id : H5Aget_space(id);
  arb_status st = ARB_OK;
  if (have < 0 || space < 0)
    st = REFUSE("%s: attribute %s of %s: %s", path, name, where, arb_ckpt_h5_reason());
  else if (H5Tequal(have, type) <= 0 || H5Sget_simple_extent_type(space) != H5S_SCALAR)
    st = REFUSE("%s: attribute %s of %s has an unexpected type or shape", path, name, where);
  else if (H5Aread(id, type, value) < 0)
    st = REFUSE("%s: attribute %s of %s: %s", path, name, where, arb_ckpt_h5_reason());
  arb_ckpt_h5_drop(space, H5Sclose);
  arb_ckpt_h5_drop(have, H5Tclose);
  arb_ckpt_h5_drop(id, H5Aclose);
  return st;
}

static arb_status get_hex(const char *path, const char *where, hid_t object, const char *name, char hex[ARB_CKPT_HEX]) {
  const hid_t type = arb_ckpt_h5_hex_type();
  const arb_status st = get_attribute(path, where, object, name, type, hex);
  arb_ckpt_h5_drop(type, H5Tclose);
  if (st != ARB_OK) return st;
  hex[ARB_CKPT_HEX - 1] = '\0';
  REFUSE_UNLESS(arb_ckpt_hex_ok(hex), "%s: attribute %s of %s is not 32 lower-case hex digits", path, name, where);
  return ARB_OK;
}

static arb_status attributes_are(const char *path, const char *where, hid_t object, int expected) {
  const int have = H5Aget_num_attrs(object);
  REFUSE_UNLESS(have == expected, "%s: %s has %d attributes, expected %d", path, where, have, expected);
  return ARB_OK;
}

static arb_status get_meta(reader *r, hid_t group) {
  arb_ckpt_meta *meta = &r->f->meta;
  const char *path = r->f->path;
  int32_t version = 0;
  ARB_TRY(get_attribute(path, ARB_CKPT_META, group, "format_version", H5T_STD_I32LE, &version));
  REFUSE_UNLESS(version == ARB_CKPT_VERSION, "%s: checkpoint format %" PRId32 ", this program reads %d", path, version,
                ARB_CKPT_VERSION);
  ARB_TRY(attributes_are(path, ARB_CKPT_META, group, ARB_CKPT_META_ATTRIBUTES));
  ARB_TRY(get_attribute(path, ARB_CKPT_META, group, "step", H5T_STD_I64LE, &meta->step));
  ARB_TRY(get_attribute(path, ARB_CKPT_META, group, "samples", H5T_STD_I64LE, &meta->samples));
  ARB_TRY(get_attribute(path, ARB_CKPT_META, group, "seed", H5T_STD_U64LE, &meta->seed));
  ARB_TRY(get_hex(path, ARB_CKPT_META, group, "digest", meta->digest));
  ARB_TRY(get_hex(path, ARB_CKPT_META, group, "manifest", r->manifest));
  REFUSE_UNLESS(meta->step >= 0 && meta->samples >= 0, "%s: step %" PRId64 ", samples %" PRId64 ", expected no negative number",
                path, meta->step, meta->samples);
  return ARB_OK;
}

/* ---- datasets --------------------------------------------------------------------------------------------------------- */

static arb_status get_type(const char *path, const char *where, hid_t type, arb_dtype *out) {
  REFUSE_UNLESS(type >= 0, "%s: type of %s: %s", path, where, arb_ckpt_h5_reason());
  REFUSE_UNLESS(H5Tcommitted(type) == 0, "%s: %s has a committed type, expected a plain integer", path, where);
  for (int t = 0; t < ARB_DTYPE__COUNT; t++) {
    const hid_t known = arb_ckpt_h5_type((arb_dtype)t);
    if (known < 0 || H5Tequal(type, known) <= 0) continue;
    *out = (arb_dtype)t;
    return ARB_OK;
  }
  return REFUSE("%s: %s has a type that is not a little-endian integer of 8 to 64 bits", path, where);
}

static arb_status get_shape(const char *path, const char *where, hid_t space, arb_ckpt_entry *e) {
  hsize_t dims[2], most[2];
  REFUSE_UNLESS(space >= 0, "%s: shape of %s: %s", path, where, arb_ckpt_h5_reason());
  REFUSE_UNLESS(H5Sget_simple_extent_type(space) == H5S_SIMPLE, "%s: %s is a scalar or empty, expected rank 2", path, where);
  const int rank = H5Sget_simple_extent_ndims(space);
  REFUSE_UNLESS(rank == 2, "%s: %s has rank %d, expected 2", path, where, rank);
  REFUSE_UNLESS(H5Sget_simple_extent_dims(space, dims, most) == 2, "%s: shape of %s: %s", path, where, arb_ckpt_h5_reason());
  REFUSE_UNLESS(dims[0] == most[0] && dims[1] == most[1], "%s: %s can grow, expected a fixed shape", path, where);
  e->rows = dims[0] <= INT64_MAX ? (int64_t)dims[0] : -1;
  e->columns = dims[1] <= INT64_MAX ? (int64_t)dims[1] : -1;
  REFUSE_UNLESS(arb_ckpt_bytes(e->type, e->rows, e->columns, &e->bytes), "%s: %s has an impossible shape", path, where);
  return ARB_OK;
}

static arb_status get_layout(const char *path, const char *where, hid_t how) {
  REFUSE_UNLESS(how >= 0, "%s: layout of %s: %s", path, where, arb_ckpt_h5_reason());
  REFUSE_UNLESS(H5Pget_layout(how) == H5D_CONTIGUOUS, "%s: %s is chunked, compact or virtual, expected contiguous", path,
                where);
  REFUSE_UNLESS(H5Pget_external_count(how) == 0, "%s: %s keeps its data in another file", path, where);
  REFUSE_UNLESS(H5Pget_nfilters(how) == 0, "%s: %s is filtered, expected plain bytes", path, where);
  return ARB_OK;
}

/* The declared size must be the stored size, and the bytes must lie inside the file. */
static arb_status get_place(const reader *r, const char *where, hid_t id, arb_ckpt_entry *e) {
  const uint64_t stored = H5Dget_storage_size(id), size = r->f->size;
  REFUSE_UNLESS(stored == e->bytes, "%s: %s has %" PRIu64 " bytes stored, but its shape needs %" PRIu64, r->f->path, where,
                stored, e->bytes);
  if (e->bytes == 0) return ARB_OK;
  const haddr_t offset = H5Dget_offset(id);
  REFUSE_UNLESS(offset != HADDR_UNDEF && offset >= ARB_CKPT_SUPERBLOCK && e->bytes <= size && offset <= size - e->bytes,
                "%s: %s lies outside of the file", r->f->path, where);
  e->offset = offset;
  return ARB_OK;
}

static arb_status get_dataset(reader *r, const char *where, hid_t id, arb_ckpt_entry *e) {
  const char *path = r->f->path;
  const hid_t how = H5Dget_create_plist(id), type = H5Dget_type(id), space = H5Dget_space(id);
  arb_status st;
  ARB_TRY_OUT(st, get_layout(path, where, how));
  ARB_TRY_OUT(st, get_type(path, where, type, &e->type));
  ARB_TRY_OUT(st, get_shape(path, where, space, e));
  ARB_TRY_OUT(st, get_place(r, where, id, e));
  ARB_TRY_OUT(st, get_hex(path, where, id, ARB_CKPT_DIGEST, e->digest));
  ARB_TRY_OUT(st, attributes_are(path, where, id, 1));
out:
  arb_ckpt_h5_drop(space, H5Sclose);
  arb_ckpt_h5_drop(type, H5Tclose);
  arb_ckpt_h5_drop(how, H5Pclose);
  return st;
}

static arb_status add_entry(reader *r, const arb_ckpt_entry *e) {
  arb_ckpt_file *f = r->f;
  REFUSE_UNLESS(f->count < ARB_CKPT_MAX_ARRAYS + 2, "%s: more than %d datasets", f->path, ARB_CKPT_MAX_ARRAYS);
  if (f->count == r->capacity) {
    const int capacity = r->capacity == 0 ? 64 : 2 * r->capacity;
    void *more = realloc(f->entries, (size_t)capacity * sizeof *f->entries);
    ARB_REQUIRE(more != NULL, ARB_ERR_NOMEM, "%s: no memory for a list of %d datasets", f->path, capacity);
    f->entries = more;
    r->capacity = capacity;
  }
  f->entries[f->count++] = *e;
  return ARB_OK;
}

/* Opens tensor (field NULL) or tensor/field and checks what it is. The link was seen to be a hard one. */
static arb_status open_object(const reader *r, hid_t parent, const char *name, const char *where, H5I_type_t kind, hid_t *out) {
  const hid_t id = H5Oopen(parent, name, H5P_DEFAULT);
  REFUSE_UNLESS(id >= 0, "%s: %s cannot be opened: %s", r->f->path, where, arb_ckpt_h5_reason());
  *out = id;
  REFUSE_UNLESS(H5Iget_type(id) == kind, "%s: %s is not a %s", r->f->path, where, kind == H5I_GROUP ? "group" : "dataset");
  return ARB_OK;
}

static arb_status get_field(reader *r, hid_t group, const char *tensor, const char *field) {
  char where[ARB_CKPT_TENSOR + ARB_CKPT_FIELD];
  arb_ckpt_entry e = {0};
  hid_t id = H5I_INVALID_HID;
  arb_status st;
  snprintf(where, sizeof where, "%s.%s", tensor, field);
  snprintf(e.tensor, sizeof e.tensor, "%s", tensor);
  snprintf(e.field, sizeof e.field, "%s", field);
  ARB_TRY_OUT(st, open_object(r, group, field, where, H5I_DATASET, &id));
  ARB_TRY_OUT(st, get_dataset(r, where, id, &e));
  ARB_TRY_OUT(st, add_entry(r, &e));
out:
  arb_ckpt_h5_drop(id, H5Oclose);
  return st;
}

static arb_status get_tensor(reader *r, const char *tensor) {
  name_list fields = {.path = r->f->path, .group = tensor, .limit = ARB_CKPT_FIELD};
  hid_t id = H5I_INVALID_HID;
  arb_status st;
  ARB_TRY_OUT(st, open_object(r, r->file, tensor, tensor, H5I_GROUP, &id));
  if (strcmp(tensor, ARB_CKPT_META) == 0)
    ARB_TRY_OUT(st, get_meta(r, id));
  else
    ARB_TRY_OUT(st, attributes_are(r->f->path, tensor, id, 0));
  ARB_TRY_OUT(st, list_names(&fields, id));
  for (int i = 0; i < fields.count; i++) ARB_TRY_OUT(st, get_field(r, id, tensor, fields.names[i]));
out:
  free(fields.names);
  arb_ckpt_h5_drop(id, H5Oclose);
  return st;
}

/* ---- the file --------------------------------------------------------------------------------------------------------- */

/* Our descriptor and HDF5's must be the same file, whatever happens to the folder meanwhile. */
static arb_status same_file(const reader *r, hid_t access) {
  struct stat ours, theirs;
  int *fd = NULL;
  const bool got =
      H5Fget_vfd_handle(r->file, access, (void **)&fd) >= 0 && fstat(*fd, &theirs) == 0 && fstat(r->f->fd, &ours) == 0;
  REFUSE_UNLESS(got && ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino, "%s: was replaced while it was opened",
                r->f->path);
  return ARB_OK;
}

static arb_status get_structure(reader *r) {
  const char *path = r->f->path;
  name_list tensors = {.path = path, .group = "", .limit = ARB_CKPT_TENSOR};
  arb_status st;
  arb_ckpt_h5_lock();
  const hid_t access = arb_ckpt_h5_access(false);
  r->file = access < 0 ? H5I_INVALID_HID : H5Fopen(path, H5F_ACC_RDONLY, access);
  if (r->file < 0) {
    st = REFUSE("%s: is damaged: %s", path, arb_ckpt_h5_reason());
    goto out;
  }
  ARB_TRY_OUT(st, same_file(r, access));
  ARB_TRY_OUT(st, list_names(&tensors, r->file));
  if (H5Lexists(r->file, ARB_CKPT_META, H5P_DEFAULT) <= 0) {
    st = REFUSE("%s: has no group %s: not a checkpoint", path, ARB_CKPT_META);
    goto out;
  }
  for (int i = 0; i < tensors.count; i++) ARB_TRY_OUT(st, get_tensor(r, tensors.names[i]));
out:
  free(tensors.names);
  arb_ckpt_h5_drop(r->file, H5Fclose);
  arb_ckpt_h5_drop(access, H5Pclose);
  arb_ckpt_h5_unlock();
  return st;
}

static int by_offset(const void *a, const void *b) {
  const arb_ckpt_entry *const *x = a, *const *y = b;
  return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

/* Two names for the same bytes: a second hard link, or a forged offset. */
static arb_status no_overlap(const arb_ckpt_file *f) {
  const arb_ckpt_entry **sorted = malloc(((size_t)f->count + 1) * sizeof *sorted);
  ARB_REQUIRE(sorted != NULL, ARB_ERR_NOMEM, "%s: no memory for a list of %d datasets", f->path, f->count);
  int n = 0;
  for (int i = 0; i < f->count; i++)
    if (f->entries[i].bytes > 0) sorted[n++] = &f->entries[i];
  qsort(sorted, (size_t)n, sizeof *sorted, by_offset);
  arb_status st = ARB_OK;
  for (int i = 1; i < n && st == ARB_OK; i++)
    if (sorted[i]->offset - sorted[i - 1]->offset < sorted[i - 1]->bytes)
      st = REFUSE("%s: %s.%s and %s.%s share bytes", f->path, sorted[i - 1]->tensor, sorted[i - 1]->field, sorted[i]->tensor,
                  sorted[i]->field);
  free(sorted);
  return st;
}

static arb_status check_texts(const arb_ckpt_file *f) {
  static const char *const texts[] = {ARB_CKPT_IDENTITY, ARB_CKPT_CONFIG};
  for (int i = 0; i < 2; i++) {
    const arb_ckpt_entry *e = arb_ckpt_file_find(f, ARB_CKPT_META, texts[i]);
    REFUSE_UNLESS(e != NULL, "%s: %s.%s is missing", f->path, ARB_CKPT_META, texts[i]);
    REFUSE_UNLESS(e->type == ARB_U8 && e->rows == 1 && e->columns <= ARB_CKPT_MAX_TEXT,
                  "%s: %s.%s is %s %" PRId64 " x %" PRId64 ", expected u8 1 x at most %d", f->path, e->tensor, e->field,
                  arb_dtype_name(e->type), e->rows, e->columns, ARB_CKPT_MAX_TEXT);
  }
  const arb_ckpt_entry *e = f->entries;
  while (e < f->entries + f->count && strcmp(e->tensor, ARB_CKPT_META) != 0) e++;
  for (; e < f->entries + f->count && strcmp(e->tensor, ARB_CKPT_META) == 0; e++)
    REFUSE_UNLESS(strcmp(e->field, ARB_CKPT_IDENTITY) == 0 || strcmp(e->field, ARB_CKPT_CONFIG) == 0,
                  "%s: %s.%s is not part of a checkpoint", f->path, e->tensor, e->field);
  return ARB_OK;
}

static arb_status file_open(arb_ckpt_file *f, int64_t step) {
  unsigned char head[ARB_CKPT_SUPERBLOCK];
  reader r = {.f = f, .file = H5I_INVALID_HID};
  char manifest[ARB_CKPT_HEX];
  ARB_TRY(arb_ckpt_open_plain(f->path, &f->fd, &f->size));
  REFUSE_UNLESS(f->size >= sizeof head, "%s: has %" PRIu64 " bytes: not an HDF5 file", f->path, f->size);
  const int why = arb_ckpt_read_at(f->fd, head, sizeof head, 0);
  REFUSE_UNLESS(why == 0, "%s: cannot be read: %s", f->path, why < 0 ? "it ends early" : strerror(why));
  ARB_TRY(arb_ckpt_superblock(f->path, head, f->size));
  ARB_TRY(get_structure(&r));
  qsort(f->entries, (size_t)f->count, sizeof *f->entries, arb_ckpt_entry_order);
  ARB_TRY(check_texts(f));
  ARB_TRY(no_overlap(f));
  ARB_TRY(arb_ckpt_manifest(&f->meta, f->entries, f->count, manifest));
  REFUSE_UNLESS(strcmp(manifest, r.manifest) == 0,
                "%s: its list of datasets or its metadata was changed (digest %s, expected %s)", f->path, manifest, r.manifest);
  REFUSE_UNLESS(f->meta.step == step, "%s: holds step %" PRId64 ", its folder says %" PRId64, f->path, f->meta.step, step);
  return ARB_OK;
}

arb_status arb_ckpt_file_open(arb_ckpt_file *f, const char *dir, int64_t step) {
  *f = (arb_ckpt_file){.fd = -1};
  arb_status st = arb_ckpt_path(f->path, "%s/step-%08" PRId64 "/%s", dir, step, ARB_CKPT_FILE);
  if (st == ARB_OK) st = file_open(f, step);
  if (st != ARB_OK) arb_ckpt_file_close(f);
  return st;
}

void arb_ckpt_file_close(arb_ckpt_file *f) {
  free(f->entries);
  if (f->fd >= 0) close(f->fd);
  f->entries = NULL;
  f->count = 0;
  f->fd = -1;
}

const arb_ckpt_entry *arb_ckpt_file_find(const arb_ckpt_file *f, const char *tensor, const char *field) {
  arb_ckpt_entry key = {0};
  if (f->count == 0 || strlen(tensor) >= sizeof key.tensor || strlen(field) >= sizeof key.field) return NULL;
  memcpy(key.tensor, tensor, strlen(tensor) + 1);
  memcpy(key.field, field, strlen(field) + 1);
  return bsearch(&key, f->entries, (size_t)f->count, sizeof *f->entries, arb_ckpt_entry_order);
}
