#define _GNU_SOURCE /* fallocate, memfd_create, renameat2 */
#include "src/checkpoint/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

static int system_open(const char *path, int flags) { return open(path, flags | O_CLOEXEC, 0666); }

static int system_open_folder(const char *path) { return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

static int system_mkdir(const char *path) { return mkdir(path, 0777); }

static int system_remove_at(int folder, const char *name) { return unlinkat(folder, name, 0); }

static int system_memory_file(const char *name) {
#ifdef __linux__
  return memfd_create(name, MFD_CLOEXEC);
#else
  (void)name;
  errno = ENOSYS;
  return -1;
#endif
}

static int system_reserve(int fd, off_t bytes) {
#ifdef __linux__
  return fallocate(fd, 0, 0, bytes);
#else
  (void)fd, (void)bytes;
  errno = EOPNOTSUPP;
  return -1;
#endif
}

static int system_exchange(const char *a, const char *b) {
#ifdef RENAME_EXCHANGE
  return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
#else
  (void)a, (void)b;
  errno = ENOSYS;
  return -1;
#endif
}

const arb_io arb_io_system = {.open = system_open,
                              .open_folder = system_open_folder,
                              .memory_file = system_memory_file,
                              .reserve = system_reserve,
                              .pwrite = pwrite,
                              .fsync = fsync,
                              .close = close,
                              .mkdir = system_mkdir,
                              .rename = rename,
                              .exchange = system_exchange,
                              .remove_at = system_remove_at,
                              .remove_folder = rmdir};

static const arb_io *in_use = &arb_io_system;

const arb_io *arb_io_table(void) { return in_use; }

void arb_io_use(const arb_io *io) { in_use = io != NULL ? io : &arb_io_system; }
