/* Opening by content, finding, reading, converting. */
#include "src/safetensors/weights.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "src/safetensors/weights_impl.h"

static bool ends_with(const char *text, const char *end) {
  const size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

arb_status arb_weights_add_file(arb_weights *w, const char *path) {
  arb_file *grown = realloc(w->files, ((size_t)w->file_count + 1) * sizeof *grown);
  ARB_REQUIRE(grown != NULL, ARB_ERR_NOMEM, "no memory to open %s", path);
  w->files = grown;
  ARB_TRY(arb_file_open(path, &w->files[w->file_count]));
  w->file_count++;
  return ARB_OK;
}

static arb_status parse(arb_weights *w, const char *path) {
  static const char lfs[] = "version https://git-lfs";
  char head[sizeof lfs] = "";
  const arb_file *f = &w->files[0];
  ARB_TRY(arb_file_read(f, 0, head, f->size < sizeof head ? f->size : sizeof head));
  ARB_REQUIRE(memcmp(head, lfs, sizeof lfs - 1) != 0, ARB_ERR_DATA,
              "is a Git LFS pointer, not the weights: run 'git lfs pull'");
  ARB_REQUIRE(memcmp(head, "PK\3\4", 4) != 0, ARB_ERR_DATA,
              "is a zip archive (a PyTorch pickle?), expected safetensors or GGUF");
  const bool gguf = memcmp(head, "GGUF", 4) == 0;
  ARB_REQUIRE(gguf || !ends_with(path, ".gguf"), ARB_ERR_DATA, "no GGUF file: does not begin with 'GGUF'");
  ARB_REQUIRE(!gguf || !ends_with(path, ".safetensors"), ARB_ERR_DATA, "is a GGUF file, by its name a safetensors file");
  w->container = gguf ? "GGUF" : "safetensors";
  return gguf ? arb_weights_parse_gguf(w, 0) : arb_weights_parse_safetensors(w, 0);
}

static arb_status open_one(arb_weights *w, const char *path) {
  ARB_TRY(arb_weights_add_file(w, path));
  const arb_status st = parse(w, path);
  if (st != ARB_OK) arb_fail_context("%s", path);
  return st;
}

/* The only file of a folder whose name ends in one of these. *found: how many. */
static arb_status only_weights(const char *folder, char *name, size_t room, int *found) {
  const struct dirent *entry;
  DIR *dir = opendir(folder);
  *found = 0;
  ARB_REQUIRE(dir != NULL, ARB_ERR_DATA, "%s: cannot be opened: %s", folder, strerror(errno));
  while ((entry = readdir(dir)) != NULL) {
    if (!ends_with(entry->d_name, ".safetensors") && !ends_with(entry->d_name, ".gguf")) continue;
    if (strlen(entry->d_name) < room) memcpy(name, entry->d_name, strlen(entry->d_name) + 1);
    ++*found;
  }
  closedir(dir);
  return ARB_OK;
}

static arb_status open_folder(arb_weights *w, const char *folder) {
  char path[ARB_WEIGHTS_PATH], index[ARB_WEIGHTS_PATH], name[256] = "";
  struct stat info;
  int found;
  const int n = snprintf(path, sizeof path, "%s/model.safetensors", folder);
  const int m = snprintf(index, sizeof index, "%s/model.safetensors.index.json", folder);
  ARB_REQUIRE(n > 0 && n < ARB_WEIGHTS_PATH && m > 0 && m < ARB_WEIGHTS_PATH, ARB_ERR_DATA, "%.200s...: path too long", folder);
  /* lstat: a link that leads nowhere is reported by opening it. */
  const bool single = lstat(path, &info) == 0, sharded = lstat(index, &info) == 0;
  ARB_REQUIRE(!single || !sharded, ARB_ERR_DATA,
              "%s: holds both model.safetensors and model.safetensors.index.json: name one of them", folder);
  if (single) return open_one(w, path);
  if (sharded) return arb_weights_open_index(w, index);
  ARB_TRY(only_weights(folder, name, sizeof name, &found));
  ARB_REQUIRE(found > 0, ARB_ERR_DATA,
              "%s: no weights: no model.safetensors, model.safetensors.index.json, *.safetensors or *.gguf", folder);
  ARB_REQUIRE(found == 1, ARB_ERR_DATA, "%s: %d files of weights and no model.safetensors: name one of them", folder, found);
  const int k = snprintf(path, sizeof path, "%s/%s", folder, name);
  ARB_REQUIRE(k > 0 && k < ARB_WEIGHTS_PATH, ARB_ERR_DATA, "%.200s...: path too long", folder);
  return open_one(w, path);
}

arb_status arb_weights_open(const char *path, arb_weights **out) {
  struct stat info;
  *out = NULL;
  arb_weights *w = calloc(1, sizeof *w);
  ARB_REQUIRE(w != NULL, ARB_ERR_NOMEM, "no memory to open %s", path);
  const bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
  arb_status st = folder                                       ? open_folder(w, path)
                  : ends_with(path, ".safetensors.index.json") ? arb_weights_open_index(w, path)
                                                               : open_one(w, path);
  if (st == ARB_OK) st = arb_weights_sort(w);
  if (st != ARB_OK) arb_weights_close(&w);
  *out = w;
  return st;
}

void arb_weights_close(arb_weights **w) {
  if (*w == NULL) return;
  for (int i = 0; i < (*w)->file_count; i++) arb_file_close(&(*w)->files[i]);
  for (int i = 0; i < (*w)->count; i++) free((char *)(uintptr_t)(*w)->tensors[i].name);
  free((*w)->files);
  free((*w)->tensors);
  free(*w);
  *w = NULL;
}

/* ---- finding ---------------------------------------------------------------------------------------------------------- */

const char *arb_weights_container(const arb_weights *w) { return w->container; }
int arb_weights_count(const arb_weights *w) { return w->count; }
const arb_weights_tensor *arb_weights_at(const arb_weights *w, int index) { return &w->tensors[index]; }
int arb_weights_file_count(const arb_weights *w) { return w->file_count; }
const char *arb_weights_file_path(const arb_weights *w, int file) { return w->files[file].path; }
uint64_t arb_weights_file_bytes(const arb_weights *w, int file) { return w->files[file].size; }

static const arb_weights_tensor *find(const arb_weights *w, const char *name) {
  for (int low = 0, high = w->count; low < high;) {
    const int middle = low + (high - low) / 2;
    const int order = strcmp(name, w->tensors[middle].name);
    if (order == 0) return &w->tensors[middle];
    if (order < 0) high = middle;
    if (order > 0) low = middle + 1;
  }
  return NULL;
}

bool arb_weights_has(const arb_weights *w, const char *name) { return find(w, name) != NULL; }

arb_status arb_weights_find(const arb_weights *w, const char *name, arb_weights_tensor *out) {
  const arb_weights_tensor *t = find(w, name);
  ARB_REQUIRE(t != NULL, ARB_ERR_DATA, "%s%s: no tensor '%s' among its %d", w->files[0].path,
              w->file_count > 1 ? " and the other shards" : "", name, w->count);
  *out = *t;
  return ARB_OK;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

/* first + bytes within the tensor. */
static arb_status read_bytes(const arb_weights *w, const arb_weights_tensor *t, uint64_t first, uint64_t bytes, void *out) {
  const arb_file *f = &w->files[t->file];
  arb_status st = arb_file_read(f, t->offset + first, out, bytes);
  if (st == ARB_OK) st = arb_file_unchanged(f);
  if (st != ARB_OK) arb_fail_context("%s: tensor '%s'", f->path, t->name);
  return st;
}

arb_status arb_weights_read(const arb_weights *w, const char *name, void *out, uint64_t bytes) {
  arb_weights_tensor t;
  ARB_TRY(arb_weights_find(w, name, &t));
  ARB_REQUIRE(bytes == t.bytes, ARB_ERR_ARG, "%s: tensor '%s' has %" PRIu64 " bytes, the buffer %" PRIu64,
              w->files[t.file].path, name, t.bytes, bytes);
  return read_bytes(w, &t, 0, bytes, out);
}

/* IEEE half precision: 5 bits of exponent, 10 of fraction. Exact. */
static float half_value(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
  uint32_t bits;
  float value;
  if (exponent == 0) {
    value = (float)fraction * 0x1p-24f;
    memcpy(&bits, &value, sizeof bits);
    bits |= sign;
  } else {
    bits = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
  }
  memcpy(&value, &bits, sizeof value);
  return value;
}

static float value_at(arb_weights_type type, const unsigned char *from, size_t i) {
  uint16_t half;
  uint32_t bits;
  float value;
  double wide;
  switch (type) {
    case ARB_WEIGHTS_F16:
      memcpy(&half, from + 2 * i, 2);
      return half_value(half);
    case ARB_WEIGHTS_BF16:
      memcpy(&half, from + 2 * i, 2);
      bits = (uint32_t)half << 16;
      memcpy(&value, &bits, sizeof value);
      return value;
    case ARB_WEIGHTS_F64:
      memcpy(&wide, from + 8 * i, 8);
      return (float)wide;
    default:
      memcpy(&value, from + 4 * i, 4);
      return value;
  }
}

arb_status arb_weights_read_f32_part(const arb_weights *w, const arb_weights_tensor *t, int64_t first, int64_t count,
                                     float *out) {
  unsigned char block[1 << 15];
  const char *path = w->files[t->file].path;
  const size_t size = arb_weights_type_size(t->type);
  ARB_REQUIRE(first >= 0 && count >= 0 && first <= t->count && count <= t->count - first, ARB_ERR_ARG,
              "%s: tensor '%s' has %" PRId64 " elements, asked for %" PRId64 " from %" PRId64, path, t->name, t->count, count,
              first);
  ARB_REQUIRE(
      t->type == ARB_WEIGHTS_F32 || t->type == ARB_WEIGHTS_F16 || t->type == ARB_WEIGHTS_BF16 || t->type == ARB_WEIGHTS_F64,
      ARB_ERR_DATA, "%s: tensor '%s' is %s, expected F16, BF16, F32 or F64", path, t->name, arb_weights_type_name(t->type));
  for (int64_t done = 0; done < count;) {
    const int64_t most = (int64_t)(sizeof block / size), n = count - done < most ? count - done : most;
    ARB_TRY(read_bytes(w, t, (uint64_t)(first + done) * size, (uint64_t)n * size, block));
    for (int64_t i = 0; i < n; i++) {
      const float value = value_at(t->type, block, (size_t)i);
      ARB_REQUIRE(isfinite(value), ARB_ERR_DATA, "%s: tensor '%s': element %" PRId64 " is not finite", path, t->name,
                  first + done + i);
      out[done + i] = value;
    }
    done += n;
  }
  return ARB_OK;
}

static const char *shape_text(int rank, const int64_t *shape, char out[200]) {
  int used = snprintf(out, 200, "(");
  for (int i = 0; i < rank && used < 170; i++) used += snprintf(out + used, 30, "%s%" PRId64, i > 0 ? ", " : "", shape[i]);
  snprintf(out + used, 2, ")");
  return out;
}

arb_status arb_weights_read_f32(const arb_weights *w, const char *name, int rank, const int64_t *shape, float *out) {
  arb_weights_tensor t;
  char found[200], expected[200];
  ARB_TRY(arb_weights_find(w, name, &t));
  bool same = rank == t.rank;
  for (int i = 0; i < rank && same; i++) same = shape[i] == t.shape[i];
  ARB_REQUIRE(same, ARB_ERR_DATA, "%s: tensor '%s' has the shape %s, expected %s", w->files[t.file].path, name,
              shape_text(t.rank, t.shape, found), shape_text(rank, shape, expected));
  return arb_weights_read_f32_part(w, &t, 0, t.count, out);
}

/* ---- digests ---------------------------------------------------------------------------------------------------------- */

static void hash_text(XXH128_hash_t hash, char hex[ARB_WEIGHTS_DIGEST]) {
  XXH128_canonical_t bytes; /* big-endian, what xxhsum -H2 prints */
  XXH128_canonicalFromHash(&bytes, hash);
  for (size_t i = 0; i < sizeof bytes.digest; i++) snprintf(hex + 2 * i, 3, "%02x", bytes.digest[i]);
}

static arb_status hash_file(const arb_file *f, XXH3_state_t *state, unsigned char *block, size_t room) {
  XXH3_128bits_reset(state);
  for (uint64_t at = 0; at < f->size;) {
    const uint64_t n = f->size - at < room ? f->size - at : room;
    ARB_TRY(arb_file_read(f, at, block, n));
    XXH3_128bits_update(state, block, (size_t)n);
    at += n;
  }
  return arb_file_unchanged(f);
}

arb_status arb_weights_file_digest(const arb_weights *w, int file, char hex[ARB_WEIGHTS_DIGEST]) {
  const size_t room = (size_t)1 << 20;
  XXH3_state_t *state = XXH3_createState();
  unsigned char *block = malloc(room);
  arb_status st = state != NULL && block != NULL ? hash_file(&w->files[file], state, block, room)
                                                 : ARB_FAIL(ARB_ERR_NOMEM, "no memory for a digest");
  if (st == ARB_OK) hash_text(XXH3_128bits_digest(state), hex);
  if (st != ARB_OK) arb_fail_context("%s", w->files[file].path);
  XXH3_freeState(state);
  free(block);
  return st;
}

arb_status arb_weights_digest(const arb_weights *w, char hex[ARB_WEIGHTS_DIGEST]) {
  char all[ARB_WEIGHTS_MAX_FILES * (ARB_WEIGHTS_DIGEST - 1) + 1];
  for (int i = 0; i < w->file_count; i++) ARB_TRY(arb_weights_file_digest(w, i, all + i * (ARB_WEIGHTS_DIGEST - 1)));
  if (w->file_count == 1) {
    memcpy(hex, all, ARB_WEIGHTS_DIGEST);
  } else {
    hash_text(XXH3_128bits(all, (size_t)w->file_count * (ARB_WEIGHTS_DIGEST - 1)), hex);
  }
  return ARB_OK;
}
