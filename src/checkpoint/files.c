#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint_impl.h"
#include "src/checkpoint/io.h"

arb_status arb_ckpt_path(char out[ARB_CKPT_PATH], const char *format, ...) {
  va_list args;
  va_start(args, format);
  const int n = vsnprintf(out, ARB_CKPT_PATH, format, args);
  va_end(args);
  ARB_REQUIRE(n >= 0 && n < ARB_CKPT_PATH, ARB_ERR_CHECKPOINT, "%.200s...: path too long (%d bytes, limit %d)", out, n,
              ARB_CKPT_PATH - 1);
  return ARB_OK;
}

int arb_ckpt_sync(int fd) {
  int rc;
  do rc = arb_io_table()->fsync(fd);
  while (rc != 0 && errno == EINTR);
  return rc == 0 ? 0 : errno;
}

arb_status arb_ckpt_sync_folder(const char *dir) {
  const int fd = arb_io_table()->open_folder(dir);
  ARB_REQUIRE(fd >= 0, ARB_ERR_CHECKPOINT, "%s: cannot be opened: %s", dir, strerror(errno));
  const int why = arb_ckpt_sync(fd);
  arb_io_table()->close(fd); /* nothing was written through it */
  /* EINVAL: this file system has no fsync for folders; nothing more can be done there. */
  ARB_REQUIRE(why == 0 || why == EINVAL, ARB_ERR_CHECKPOINT, "%s: fsync: %s", dir, strerror(why));
  return ARB_OK;
}

arb_status arb_ckpt_make_folders(const char *dir) {
  char path[ARB_CKPT_PATH], parent[ARB_CKPT_PATH] = ".";
  ARB_REQUIRE(dir[0] != '\0', ARB_ERR_ARG, "an empty checkpoint folder");
  ARB_TRY(arb_ckpt_path(path, "%s", dir));
  for (char *c = path + 1;; c++) {
    if (*c != '/' && *c != '\0') continue;
    const char end = *c;
    *c = '\0';
    struct stat info;
    if (arb_io_table()->mkdir(path) == 0) {
      ARB_TRY(arb_ckpt_sync_folder(parent));
    } else {
      const int why = errno == EEXIST ? ENOTDIR : errno; /* other codes than EEXIST may come for a folder that is there */
      const bool there = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
      ARB_REQUIRE(there, ARB_ERR_CHECKPOINT, "%s: cannot be created: %s", path, strerror(why));
    }
    memcpy(parent, path, (size_t)(c - path) + 1);
    *c = end;
    if (end == '\0') return ARB_OK;
  }
}

int arb_ckpt_write_at(int fd, const void *bytes, uint64_t count, uint64_t offset) {
  const unsigned char *from = bytes;
  while (count > 0) {
    const size_t most = (size_t)1 << 30;
    const ssize_t put = arb_io_table()->pwrite(fd, from, count < most ? (size_t)count : most, (off_t)offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    if (put == 0) return ENOSPC;
    from += put;
    count -= (uint64_t)put;
    offset += (uint64_t)put;
  }
  return 0;
}

int arb_ckpt_read_at(int fd, void *out, size_t bytes, uint64_t offset) {
  unsigned char *to = out;
  while (bytes > 0) {
    const size_t most = (size_t)1 << 30; /* pread takes at most 2 GiB at a time */
    const ssize_t got = pread(fd, to, bytes < most ? bytes : most, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return -1;
    to += got;
    bytes -= (size_t)got;
    offset += (uint64_t)got;
  }
  return 0;
}

arb_status arb_ckpt_open_plain(const char *path, int *fd, uint64_t *size) {
  struct stat info;
  *fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
  if (*fd < 0) {
    /* Without descriptors or memory no file can be judged: that must not make a newer checkpoint look bad. */
    const int why = errno;
    const bool ours = why == EMFILE || why == ENFILE || why == ENOMEM;
    return ARB_FAIL(ours ? ARB_ERR_IO : ARB_ERR_CHECKPOINT, "%s: cannot be opened: %s", path, strerror(why));
  }
  ARB_REQUIRE(fstat(*fd, &info) == 0, ARB_ERR_CHECKPOINT, "%s: fstat: %s", path, strerror(errno));
  ARB_REQUIRE(S_ISREG(info.st_mode), ARB_ERR_CHECKPOINT, "%s: is not a regular file", path);
  *size = (uint64_t)info.st_size;
  return ARB_OK;
}

int arb_ckpt_remove_folder(const char *dir) {
  const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? 0 : errno;
  DIR *list = fdopendir(fd);
  if (list == NULL) {
    const int why = errno;
    close(fd);
    return why;
  }
  int failed = 0;
  for (const struct dirent *e; (e = readdir(list)) != NULL;) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    if (arb_io_table()->remove_at(fd, e->d_name) != 0 && errno != ENOENT && failed == 0) failed = errno;
  }
  closedir(list);
  if (arb_io_table()->remove_folder(dir) != 0 && errno != ENOENT && failed == 0) failed = errno;
  return failed;
}
