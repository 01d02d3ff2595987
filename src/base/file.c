#include "src/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind_of(mode_t mode) {
  return S_ISDIR(mode)    ? "a folder"
         : S_ISFIFO(mode) ? "a named pipe"
         : S_ISCHR(mode)  ? "a character device"
         : S_ISBLK(mode)  ? "a block device"
         : S_ISSOCK(mode) ? "a socket"
                          : "no regular file";
}

/* What the user can mend is a data error; memory, handles and the disk are the machine's. */
static arb_status os_status(int why) {
  const bool ours = why == ENOMEM || why == EMFILE || why == ENFILE || why == EIO;
  return ours ? ARB_ERR_IO : ARB_ERR_DATA;
}

static arb_status open_checked(const char *path, arb_file *f) {
  struct stat before, info;
  /* Looked at first, because opening a device can have effects of its own; and again, because the name may be another's by
   * then. */
  ARB_REQUIRE(stat(path, &before) == 0, os_status(errno), "%s: cannot be opened: %s", path, strerror(errno));
  ARB_REQUIRE(S_ISREG(before.st_mode), ARB_ERR_DATA, "%s: is %s, expected a regular file", path, kind_of(before.st_mode));
  f->fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  ARB_REQUIRE(f->fd >= 0, os_status(errno), "%s: cannot be opened: %s", path, strerror(errno));
  ARB_REQUIRE(fstat(f->fd, &info) == 0, ARB_ERR_IO, "%s: fstat: %s", path, strerror(errno));
  ARB_REQUIRE(S_ISREG(info.st_mode), ARB_ERR_DATA, "%s: is %s, expected a regular file", path, kind_of(info.st_mode));
  ARB_REQUIRE(info.st_size > 0, ARB_ERR_DATA, "%s: is empty", path);
  f->size = (uint64_t)info.st_size;
  f->changed = info.st_mtim;
  f->path = strdup(path);
  ARB_REQUIRE(f->path != NULL, ARB_ERR_NOMEM, "no memory to open %s", path);
  return ARB_OK;
}

arb_status arb_file_open(const char *path, arb_file *out) {
  memset(out, 0, sizeof *out);
  out->fd = -1;
  const arb_status st = open_checked(path, out);
  if (st != ARB_OK) arb_file_close(out);
  return st;
}

void arb_file_close(arb_file *f) {
  if (f->fd >= 0) close(f->fd);
  free(f->path);
  f->fd = -1;
  f->path = NULL;
}

arb_status arb_file_read(const arb_file *f, uint64_t at, void *out, uint64_t bytes) {
  unsigned char *to = out;
  ARB_REQUIRE(at <= INT64_MAX && bytes <= INT64_MAX - at, ARB_ERR_DATA, "bytes %" PRIu64 " + %" PRIu64 " lie beyond the end",
              at, bytes);
  while (bytes > 0) {
    const size_t most = (size_t)1 << 30; /* read takes at most 2 GiB at a time */
    const ssize_t got = pread(f->fd, to, bytes < most ? (size_t)bytes : most, (off_t)at);
    if (got < 0 && errno == EINTR) continue;
    ARB_REQUIRE(got >= 0, ARB_ERR_IO, "cannot be read: %s", strerror(errno));
    ARB_REQUIRE(got > 0, ARB_ERR_DATA, "ends at byte %" PRIu64 ", %" PRIu64 " bytes too early", at, bytes);
    to += got;
    at += (uint64_t)got;
    bytes -= (uint64_t)got;
  }
  return ARB_OK;
}

arb_status arb_file_unchanged(const arb_file *f) {
  struct stat info;
  ARB_REQUIRE(fstat(f->fd, &info) == 0, ARB_ERR_IO, "fstat: %s", strerror(errno));
  ARB_REQUIRE((uint64_t)info.st_size == f->size && info.st_mtim.tv_sec == f->changed.tv_sec &&
                  info.st_mtim.tv_nsec == f->changed.tv_nsec,
              ARB_ERR_DATA, "was changed while it was in use (%" PRIu64 " bytes when it was opened, %lld now)", f->size,
              (long long)info.st_size);
  return ARB_OK;
}

arb_status arb_file_slurp(const char *path, uint64_t most, unsigned char **out, size_t *bytes) {
  arb_file f;
  *out = NULL;
  ARB_TRY(arb_file_open(path, &f));
  arb_status st = f.size <= most ? ARB_OK : ARB_FAIL(ARB_ERR_DATA, "%s: %" PRIu64 " bytes, limit %" PRIu64, path, f.size, most);
  unsigned char *all = st == ARB_OK ? malloc((size_t)f.size) : NULL;
  if (st == ARB_OK && all == NULL) st = ARB_FAIL(ARB_ERR_NOMEM, "%s: no memory for %" PRIu64 " bytes", path, f.size);
  if (all != NULL) {
    st = arb_file_read(&f, 0, all, f.size);
    if (st == ARB_OK) st = arb_file_unchanged(&f);
    if (st != ARB_OK) arb_fail_context("%s", path);
  }
  if (st == ARB_OK) {
    *out = all;
    *bytes = (size_t)f.size;
  } else {
    free(all);
  }
  arb_file_close(&f);
  return st;
}
