/* The structure of an HDF5 file that may be damaged or made by someone else, against its manifest: HDF5 is only asked what
 * there is and where; data is read with pread from our own descriptor. Follows no link but hard ones, loads no plugin, knows
 * one layout and eight types, and takes no size on trust. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/checkpoint/checkpoint_impl.h"

#define REFUSE(...) ARB_FAIL(ARB_ERR_CHECKPOINT, __VA_ARGS__)
#define REFUSE_UNLESS(cond, ...) ARB_REQUIRE(cond, ARB_ERR_CHECKPOINT, __VA_ARGS__)

typedef struct {
  const arb_ckpt_manifest *m;
  int number; /* of the file */
  const char *path;
  int fd;
  uint64_t size;
  bool unverified;
  hid_t file;
  int found; /* datasets */
} reader;

/* One dataset as the file has it. */
typedef struct {
  arb_dtype type;
  int64_t count, columns, rows, first;
  uint64_t bytes, offset;
  char digest[ARB_CKPT_HEX];
} found;

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

/* The numbers of the manifest once more: files of different saves cannot be mixed unseen. */
static arb_status get_meta(const reader *r, hid_t group) {
  const arb_ckpt_meta *meta = &r->m->meta;
  const char *path = r->path;
  int32_t version = 0, rank, ranks;
  int64_t step, samples;
  uint64_t seed;
  char digest[ARB_CKPT_HEX], run[ARB_CKPT_HEX];
  ARB_TRY(get_attribute(path, ARB_CKPT_META, group, "format_version", H5T_STD_I32LE, &version));
  REFUSE_UNLESS(version == ARB_CKPT_VERSION, "%s: checkpoint format %" PRId32 ", this program reads %d", path, version,
                ARB_CKPT_VERSION);
  ARB_TRY(attributes_are(path, ARB_CKPT_META, group, ARB_CKPT_META_ATTRIBUTES));
  ARB_TRY(get_attribute(path, ARB_CKPT_META, group, "step", H5T_STD_I64LE, &step));
  ARB_TRY(get_attribute(path, ARB_CKPT_META, group, "samples", H5T_STD_I64LE, &samples));
  ARB_TRY(get_attribute(path, ARB_CKPT_META, group, "seed", H5T_STD_U64LE, &seed));
  ARB_TRY(get_hex(path, ARB_CKPT_META, group, "digest", digest));
  ARB_TRY(get_hex(path, ARB_CKPT_META, group, "run", run));
  ARB_TRY(get_attribute(path, ARB_CKPT_META, group, "rank", H5T_STD_I32LE, &rank));
  ARB_TRY(get_attribute(path, ARB_CKPT_META, group, "ranks", H5T_STD_I32LE, &ranks));
  REFUSE_UNLESS(step == meta->step, "%s: is of step %" PRId64 ", its manifest of step %" PRId64, path, step, meta->step);
  REFUSE_UNLESS(strcmp(run, r->m->run) == 0, "%s: is of another run than its manifest (%s, expected %s)", path, run, r->m->run);
  REFUSE_UNLESS(rank == r->m->files[r->number].rank && ranks == r->m->ranks,
                "%s: is of rank %" PRId32 " of %" PRId32 ", its manifest expects rank %d of %d", path, rank, ranks,
                r->m->files[r->number].rank, r->m->ranks);
  REFUSE_UNLESS(samples == meta->samples && seed == meta->seed && strcmp(digest, meta->digest) == 0,
                "%s: its samples, seed or state digest are not those of its manifest", path);
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

static arb_status get_shape(const char *path, const char *where, hid_t space, found *e) {
  hsize_t dims[2], most[2];
  REFUSE_UNLESS(space >= 0, "%s: shape of %s: %s", path, where, arb_ckpt_h5_reason());
  REFUSE_UNLESS(H5Sget_simple_extent_type(space) == H5S_SIMPLE, "%s: %s is a scalar or empty, expected rank 2", path, where);
  const int rank = H5Sget_simple_extent_ndims(space);
  REFUSE_UNLESS(rank == 2, "%s: %s has rank %d, expected 2", path, where, rank);
  REFUSE_UNLESS(H5Sget_simple_extent_dims(space, dims, most) == 2, "%s: shape of %s: %s", path, where, arb_ckpt_h5_reason());
  REFUSE_UNLESS(dims[0] == most[0] && dims[1] == most[1], "%s: %s can grow, expected a fixed shape", path, where);
  e->count = dims[0] <= INT64_MAX ? (int64_t)dims[0] : -1;
  e->columns = dims[1] <= INT64_MAX ? (int64_t)dims[1] : -1;
  REFUSE_UNLESS(arb_ckpt_bytes(e->type, e->count, e->columns, &e->bytes), "%s: %s has an impossible shape", path, where);
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
static arb_status get_place(const reader *r, const char *where, hid_t id, found *e) {
  const uint64_t stored = H5Dget_storage_size(id), size = r->size;
  REFUSE_UNLESS(stored == e->bytes, "%s: %s has %" PRIu64 " bytes stored, but its shape needs %" PRIu64, r->path, where, stored,
                e->bytes);
  if (e->bytes == 0) return ARB_OK;
  const haddr_t offset = H5Dget_offset(id);
  REFUSE_UNLESS(offset != HADDR_UNDEF && offset >= ARB_CKPT_SUPERBLOCK && e->bytes <= size && offset <= size - e->bytes,
                "%s: %s lies outside of the file", r->path, where);
  e->offset = offset;
  return ARB_OK;
}

static arb_status get_dataset(const reader *r, const char *where, hid_t id, found *e) {
  const char *path = r->path;
  const hid_t how = H5Dget_create_plist(id), type = H5Dget_type(id), space = H5Dget_space(id);
  arb_status st;
  ARB_TRY_OUT(st, get_layout(path, where, how));
  ARB_TRY_OUT(st, get_type(path, where, type, &e->type));
  ARB_TRY_OUT(st, get_shape(path, where, space, e));
  ARB_TRY_OUT(st, get_place(r, where, id, e));
  ARB_TRY_OUT(st, get_hex(path, where, id, ARB_CKPT_DIGEST, e->digest));
  ARB_TRY_OUT(st, get_attribute(path, where, id, ARB_CKPT_ROWS, H5T_STD_I64LE, &e->rows));
  ARB_TRY_OUT(st, get_attribute(path, where, id, ARB_CKPT_FIRST, H5T_STD_I64LE, &e->first));
  ARB_TRY_OUT(st, attributes_are(path, where, id, ARB_CKPT_ARRAY_ATTRIBUTES));
out:
  arb_ckpt_h5_drop(space, H5Sclose);
  arb_ckpt_h5_drop(type, H5Tclose);
  arb_ckpt_h5_drop(how, H5Pclose);
  return st;
}

/* The slice of an array that the manifest puts into this file; NULL: none. */
static const arb_ckpt_slice *slice_here(const reader *r, const arb_ckpt_item *a) {
  for (int i = a->slice; i < a->slice + a->slices; i++)
    if (r->m->slices[i].file == r->number) return &r->m->slices[i];
  return NULL;
}

/* The file and the manifest say the same of it. */
static arb_status compare(const reader *r, const char *where, const char *tensor, const char *field, const found *e) {
  const arb_ckpt_item *a = arb_ckpt_manifest_find(r->m, tensor, field);
  const arb_ckpt_slice *s = a != NULL ? slice_here(r, a) : NULL;
  REFUSE_UNLESS(s != NULL, "%s: holds %s, which its manifest does not put there", r->path, where);
  REFUSE_UNLESS(e->type == a->type && e->count == s->rows && e->columns == a->columns,
                "%s: %s is %s %" PRId64 " x %" PRId64 ", its manifest says %s %" PRId64 " x %" PRId64, r->path, where,
                arb_dtype_name(e->type), e->count, e->columns, arb_dtype_name(a->type), s->rows, a->columns);
  REFUSE_UNLESS(e->rows == a->rows && e->first == s->first,
                "%s: %s is from row %" PRId64 " of %" PRId64 ", its manifest says row %" PRId64 " of %" PRId64, r->path, where,
                e->first, e->rows, s->first, a->rows);
  REFUSE_UNLESS(e->offset == s->offset, "%s: %s is at byte %" PRIu64 ", its manifest says %" PRIu64, r->path, where, e->offset,
                s->offset);
  REFUSE_UNLESS(r->unverified || strcmp(e->digest, s->digest) == 0, "%s: %s has digest %s, its manifest says %s", r->path,
                where, e->digest, s->digest);
  return ARB_OK;
}

/* Opens tensor (field NULL) or tensor/field and checks what it is. The link was seen to be a hard one. */
static arb_status open_object(const reader *r, hid_t parent, const char *name, const char *where, H5I_type_t kind, hid_t *out) {
  const hid_t id = H5Oopen(parent, name, H5P_DEFAULT);
  REFUSE_UNLESS(id >= 0, "%s: %s cannot be opened: %s", r->path, where, arb_ckpt_h5_reason());
  *out = id;
  REFUSE_UNLESS(H5Iget_type(id) == kind, "%s: %s is not a %s", r->path, where, kind == H5I_GROUP ? "group" : "dataset");
  return ARB_OK;
}

static arb_status get_field(reader *r, hid_t group, const char *tensor, const char *field) {
  char where[ARB_CKPT_TENSOR + ARB_CKPT_FIELD];
  found e = {.offset = 0};
  hid_t id = H5I_INVALID_HID;
  arb_status st;
  snprintf(where, sizeof where, "%s.%s", tensor, field);
  ARB_TRY_OUT(st, open_object(r, group, field, where, H5I_DATASET, &id));
  ARB_TRY_OUT(st, get_dataset(r, where, id, &e));
  ARB_TRY_OUT(st, compare(r, where, tensor, field, &e));
  r->found++;
out:
  arb_ckpt_h5_drop(id, H5Oclose);
  return st;
}

static arb_status get_tensor(reader *r, const char *tensor) {
  name_list fields = {.path = r->path, .group = tensor, .limit = ARB_CKPT_FIELD};
  hid_t id = H5I_INVALID_HID;
  arb_status st;
  ARB_TRY_OUT(st, open_object(r, r->file, tensor, tensor, H5I_GROUP, &id));
  if (strcmp(tensor, ARB_CKPT_META) == 0)
    ARB_TRY_OUT(st, get_meta(r, id));
  else
    ARB_TRY_OUT(st, attributes_are(r->path, tensor, id, 0));
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
      H5Fget_vfd_handle(r->file, access, (void **)&fd) >= 0 && fstat(*fd, &theirs) == 0 && fstat(r->fd, &ours) == 0;
  REFUSE_UNLESS(got && ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino, "%s: was replaced while it was opened",
                r->path);
  return ARB_OK;
}

/* Names that the manifest has and the file has not: a name cannot be there twice, so there are fewer. */
static arb_status none_missing(const reader *r) {
  int expected = 0;
  for (int i = 0; i < r->m->slice_count; i++) expected += r->m->slices[i].file == r->number;
  if (r->found == expected) return ARB_OK;
  for (int i = 0; i < r->m->slice_count; i++) {
    const arb_ckpt_item *a = &r->m->arrays[r->m->slices[i].array];
    char name[ARB_CKPT_TENSOR + ARB_CKPT_FIELD];
    snprintf(name, sizeof name, "%s/%s", a->tensor, a->field);
    if (r->m->slices[i].file != r->number) continue;
    REFUSE_UNLESS(H5Lexists(r->file, a->tensor, H5P_DEFAULT) > 0 && H5Lexists(r->file, name, H5P_DEFAULT) > 0,
                  "%s: %s.%s is missing, its manifest puts it there", r->path, a->tensor, a->field);
  }
  return REFUSE("%s: has %d datasets, its manifest %d", r->path, r->found, expected);
}

arb_status arb_ckpt_structure_check(const arb_ckpt_manifest *m, int file, const char *path, int fd, uint64_t size,
                                    bool unverified) {
  reader r = {.m = m, .number = file, .path = path, .fd = fd, .size = size, .unverified = unverified, .file = H5I_INVALID_HID};
  name_list tensors = {.path = path, .group = "", .limit = ARB_CKPT_TENSOR};
  unsigned char head[ARB_CKPT_SUPERBLOCK];
  REFUSE_UNLESS(size >= sizeof head, "%s: has %" PRIu64 " bytes: not an HDF5 file", path, size);
  const int why = arb_ckpt_read_at(fd, head, sizeof head, 0);
  REFUSE_UNLESS(why == 0, "%s: cannot be read: %s", path, why < 0 ? "it ends early" : strerror(why));
  ARB_TRY(arb_ckpt_superblock(path, head, size));
  arb_status st;
  arb_ckpt_h5_lock();
  const hid_t access = arb_ckpt_h5_access(false);
  r.file = access < 0 ? H5I_INVALID_HID : H5Fopen(path, H5F_ACC_RDONLY, access);
  if (r.file < 0) {
    st = REFUSE("%s: is damaged: %s", path, arb_ckpt_h5_reason());
    goto out;
  }
  ARB_TRY_OUT(st, same_file(&r, access));
  ARB_TRY_OUT(st, list_names(&tensors, r.file));
  if (H5Lexists(r.file, ARB_CKPT_META, H5P_DEFAULT) <= 0) {
    st = REFUSE("%s: has no group %s: not a checkpoint", path, ARB_CKPT_META);
    goto out;
  }
  for (int i = 0; i < tensors.count; i++) ARB_TRY_OUT(st, get_tensor(&r, tensors.names[i]));
  ARB_TRY_OUT(st, none_missing(&r));
out:
  free(tensors.names);
  arb_ckpt_h5_drop(r.file, H5Fclose);
  arb_ckpt_h5_drop(access, H5Pclose);
  arb_ckpt_h5_unlock();
  return st;
}
