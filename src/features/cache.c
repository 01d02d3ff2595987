#define _GNU_SOURCE /* gethostname, memfd_create */
#include "src/features/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "src/base/log.h"
#include "src/checkpoint/hdf5_lock.h"

enum { BLOCK = 512, HEX = 33 };

static void hex_of(XXH128_hash_t h, char out[HEX]) {
  snprintf(out, HEX, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}

/* mkdir -p */
static arb_status make_folders(char *path) {
  for (char *p = path + 1;; p++) {
    if (*p != '/' && *p != '\0') continue;
    const char saved = *p;
    struct stat info;
    *p = '\0';
    const int rc = mkdir(path, 0777), err = errno;
    ARB_REQUIRE(rc == 0 || (stat(path, &info) == 0 && S_ISDIR(info.st_mode)), ARB_ERR_IO,
                "the feature cache %s cannot be created: %s", path, strerror(err == EEXIST ? ENOTDIR : err));
    *p = saved;
    if (saved == '\0') return ARB_OK;
  }
}

arb_status arb_feature_cache_open(const char *dir, const arb_encoder *e, arb_feature_cache **out) {
  arb_feature_cache *c = calloc(1, sizeof *c);
  ARB_REQUIRE(c, ARB_ERR_NOMEM, "out of host memory");
  char digest[HEX];
  snprintf(c->key, sizeof c->key, "%s; %s", e->key, ARB_FEATURES_FORM);
  hex_of(XXH3_128bits(c->key, strlen(c->key)), digest);
  const int length = snprintf(c->dir, sizeof c->dir, "%s/%s", dir, digest);
  c->rows = e->rows;
  c->width = e->width;
  arb_status st = length < (int)sizeof c->dir ? make_folders(c->dir) : ARB_FAIL(ARB_ERR_IO, "%s: the path is too long", dir);
  if (st == ARB_OK && pthread_mutex_init(&c->lock, NULL) != 0) st = ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st != ARB_OK) {
    free(c);
    return st;
  }
  *out = c;
  return ARB_OK;
}

void arb_feature_cache_close(arb_feature_cache **cache) {
  if (!cache || !*cache) return;
  pthread_mutex_destroy(&(*cache)->lock);
  free(*cache);
  *cache = NULL;
}

void arb_feature_cache_path(const arb_feature_cache *c, const uint64_t hash[2], char *path, size_t size) {
  snprintf(path, size, "%s/%02x/%016" PRIx64 "%016" PRIx64 ".h5", c->dir, (unsigned)(hash[0] >> 56), hash[0], hash[1]);
}

static void count(arb_feature_cache *c, int64_t *what) {
  pthread_mutex_lock(&c->lock);
  ++*what;
  pthread_mutex_unlock(&c->lock);
}

/* ---- the front of a file: where the arrays lie, and digests of all of it ---- */

typedef struct {
  uint64_t q, s; /* offsets in the file */
} layout;

/* The last line is the digest of what stands before it. */
static void write_front(const arb_feature_cache *c, const uint64_t hash[2], const layout *at, XXH128_hash_t rest, char *front) {
  char digest[HEX];
  memset(front, 0, BLOCK);
  hex_of(rest, digest);
  int n = snprintf(front, BLOCK,
                   "arbdist features 1\nsample %016" PRIx64 "%016" PRIx64 "\nrows %" PRId64 " width %" PRId64 " q %" PRIu64
                   " s %" PRIu64 "\nbehind %s\n",
                   hash[0], hash[1], c->rows, c->width, at->q, at->s, digest);
  hex_of(XXH3_128bits(front, (size_t)n), digest);
  snprintf(front + n, (size_t)(BLOCK - n), "front %s\n", digest);
}

/* What is wrong with a file of `size` bytes, or NULL. */
static const char *check(const arb_feature_cache *c, const uint64_t hash[2], const unsigned char *file, size_t size,
                         layout *at) {
  char front[BLOCK];
  if (size <= BLOCK) return "it is cut short";
  memcpy(front, file, BLOCK);
  if (memchr(front, '\0', BLOCK) == NULL) return "its first block is not ours";
  if (sscanf(front, "arbdist features 1\nsample %*32s\nrows %*d width %*d q %" SCNu64 " s %" SCNu64, &at->q, &at->s) != 2)
    return "its first block is not ours";
  write_front(c, hash, at, XXH3_128bits(file + BLOCK, size - BLOCK), front); /* what it must be, for these bytes */
  if (memcmp(front, file, BLOCK) != 0) return "its digest does not match";
  const uint64_t q = (uint64_t)(c->rows * c->width), s = (uint64_t)c->rows * sizeof(float);
  if (at->q > size || q > size - at->q || at->s > size || s > size - at->s) return "its arrays lie outside of it";
  return NULL;
}

static int read_all(int fd, unsigned char *to, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t got = read(fd, to + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return 0;
    done += (size_t)got;
  }
  return 1;
}

int arb_feature_cache_get(arb_feature_cache *c, const uint64_t hash[2], int8_t *q, float *s) {
  char path[2048];
  arb_feature_cache_path(c, hash, path, sizeof path);
  const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    count(c, &c->misses);
    return 0;
  }
  const size_t most = (size_t)(c->rows * c->width) + (size_t)c->rows * sizeof(float) + 65536; /* arrays and HDF5's own bytes */
  struct stat info;
  layout at = {0, 0};
  const char *wrong = NULL;
  unsigned char *file = NULL;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < 0 || (size_t)info.st_size > most)
    wrong = "it is no file of features of this shape";
  else if ((file = malloc((size_t)info.st_size + 1)) == NULL)
    wrong = "there is no memory to read it";
  else if (!read_all(fd, file, (size_t)info.st_size))
    wrong = "it cannot be read";
  else
    wrong = check(c, hash, file, (size_t)info.st_size, &at);
  close(fd);
  if (wrong == NULL) {
    memcpy(q, file + at.q, (size_t)(c->rows * c->width));
    memcpy(s, file + at.s, (size_t)c->rows * sizeof *s);
  } else {
    arb_log(ARB_LOG_WARN, "features", "%s: not used, %s; it is written anew", path, wrong);
  }
  free(file);
  count(c, wrong ? &c->rejected : &c->hits);
  return wrong == NULL;
}

/* ---- writing: HDF5 lays the file out in memory, our own calls bring it to the disk ---- */

static hid_t put_array(hid_t file, const char *name, hid_t type, int64_t rows, int64_t columns, const void *data) {
  const hsize_t dims[2] = {(hsize_t)rows, (hsize_t)columns};
  const hid_t space = H5Screate_simple(columns ? 2 : 1, dims, NULL), how = H5Pcreate(H5P_DATASET_CREATE);
  hid_t id = H5I_INVALID_HID;
  if (H5Pset_alloc_time(how, H5D_ALLOC_TIME_EARLY) >= 0 && H5Pset_obj_track_times(how, 0) >= 0)
    id = H5Dcreate2(file, name, type, space, H5P_DEFAULT, how, H5P_DEFAULT);
  if (id >= 0 && H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
    H5Dclose(id);
    id = H5I_INVALID_HID;
  }
  H5Sclose(space);
  H5Pclose(how);
  return id;
}

static int put_text(hid_t file, const char *name, const char *text) {
  const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
  H5Tset_size(type, strlen(text));
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  const hid_t id = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  const int good = id >= 0 && H5Awrite(id, type, text) >= 0;
  if (id >= 0) H5Aclose(id);
  H5Sclose(space);
  H5Tclose(type);
  return good;
}

/* Fills an HDF5 file; returns 1 and the places of the arrays. The user block of BLOCK bytes is ours: HDF5 leaves it alone, and
 * its tools skip it. */
static int fill_file(const arb_feature_cache *c, const char *name, const int8_t *q, const float *s, layout *at) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = H5Pcreate(H5P_FILE_CREATE);
  hid_t file = H5I_INVALID_HID, dq = H5I_INVALID_HID, ds = H5I_INVALID_HID;
  if (H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 && H5Pset_fapl_stdio(access) >= 0 &&
      H5Pset_userblock(create, BLOCK) >= 0)
    file = H5Fcreate(name, H5F_ACC_TRUNC, create, access);
  if (file >= 0) {
    dq = put_array(file, "q", H5T_STD_I8LE, c->rows, c->width, q);
    ds = put_array(file, "s", H5T_IEEE_F32LE, c->rows, 0, s);
  }
  int good = dq >= 0 && ds >= 0 && put_text(file, "encoder", c->key);
  if (good) *at = (layout){(uint64_t)H5Dget_offset(dq), (uint64_t)H5Dget_offset(ds)};
  if (dq >= 0) H5Dclose(dq);
  if (ds >= 0) H5Dclose(ds);
  if (file >= 0 && H5Fclose(file) < 0) good = 0;
  H5Pclose(create);
  H5Pclose(access);
  return good;
}

/* The file in memory, with room for the front; NULL: see arb_ckpt_h5_reason. A file of the kernel's memory, since HDF5's own
 * images (H5Fget_file_image of 1.10.8) have a wrong checksum in their superblock. Called under the lock of HDF5. */
static unsigned char *lay_out(const arb_feature_cache *c, const int8_t *q, const float *s, layout *at, size_t *size) {
  char name[64];
  struct stat info;
  unsigned char *image = NULL;
  const size_t q_bytes = (size_t)(c->rows * c->width), s_bytes = (size_t)c->rows * sizeof *s;
  const int fd = memfd_create("features", MFD_CLOEXEC);
  if (fd < 0) return NULL;
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  if (fill_file(c, name, q, s, at) && fstat(fd, &info) == 0 && (image = malloc((size_t)info.st_size + 1)) != NULL) {
    *size = (size_t)info.st_size;
    if (lseek(fd, 0, SEEK_SET) != 0 || !read_all(fd, image, *size) || at->q + q_bytes > *size || at->s + s_bytes > *size ||
        memcmp(image + at->q, q, q_bytes) != 0 || memcmp(image + at->s, s, s_bytes) != 0) {
      free(image);
      image = NULL;
    }
  }
  close(fd);
  return image;
}

/* Returns 0 or errno. */
static int write_file(const char *path, const unsigned char *bytes, size_t size) {
  static uint64_t turn;
  char temporary[2300], host[64] = "";
  gethostname(host, sizeof host - 1);
  snprintf(temporary, sizeof temporary, "%s.%s-%ld-%" PRIu64 ".tmp", path, host, (long)getpid(),
           __atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED));
  const int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return errno;
  int err = 0;
  for (size_t done = 0; done < size && err == 0;) {
    const ssize_t put = write(fd, bytes + done, size - done);
    if (put < 0 && errno != EINTR) err = errno;
    if (put > 0) done += (size_t)put;
  }
  if (close(fd) != 0 && err == 0) err = errno;
  if (err == 0 && rename(temporary, path) != 0) err = errno;
  if (err != 0) unlink(temporary);
  return err;
}

void arb_feature_cache_put(arb_feature_cache *c, const uint64_t hash[2], const int8_t *q, const float *s) {
  char path[2048], reason[320] = "";
  layout at;
  size_t size = 0;
  arb_feature_cache_path(c, hash, path, sizeof path);
  arb_ckpt_h5_lock();
  unsigned char *file = lay_out(c, q, s, &at, &size);
  if (file == NULL) snprintf(reason, sizeof reason, "%s", arb_ckpt_h5_reason());
  arb_ckpt_h5_unlock();
  if (file != NULL) {
    char folder[2048];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    write_front(c, hash, &at, XXH3_128bits(file + BLOCK, size - BLOCK), (char *)file);
    const int err = mkdir(folder, 0777) != 0 && errno != EEXIST ? errno : write_file(path, file, size);
    if (err != 0) snprintf(reason, sizeof reason, "%s", strerror(err));
  }
  free(file);
  pthread_mutex_lock(&c->lock);
  c->writes += reason[0] == '\0';
  const int say = reason[0] != '\0' && !c->warned;
  c->warned |= say;
  pthread_mutex_unlock(&c->lock);
  if (say)
    arb_log(ARB_LOG_WARN, "features", "%s: cannot be written: %s; the run goes on without writing to the cache", path, reason);
}
