/* The operating system's calls that change a disk, in one table: everything a save does to files goes through it. A test puts
 * its own table here and lets the n-th write, fsync, rename, open or close fail, or kills the process at it; the product never
 * changes it. */
#ifndef ARB_SRC_CHECKPOINT_IO_H
#define ARB_SRC_CHECKPOINT_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Each as the call of its name: -1 and errno on failure. */
typedef struct {
  int (*open)(const char *path, int flags); /* for writing; new files get mode 0666 */
  int (*open_folder)(const char *path);     /* for fsync alone */
  int (*memory_file)(const char *name);     /* memfd_create; -1 and ENOSYS where there is none */
  int (*reserve)(int fd, off_t bytes);      /* fallocate; EOPNOTSUPP where the file system cannot */
  ssize_t (*pwrite)(int fd, const void *bytes, size_t count, off_t at);
  int (*fsync)(int fd);
  int (*close)(int fd);
  int (*mkdir)(const char *path); /* mode 0777 */
  int (*rename)(const char *from, const char *to);
  int (*exchange)(const char *a,
                  const char *b); /* both names change places at once; EINVAL or ENOSYS where that is not known */
  int (*remove_at)(int folder, const char *name); /* a file of an open folder */
  int (*remove_folder)(const char *path);         /* an empty one */
} arb_io;

extern const arb_io arb_io_system;
/* The table in use. */
const arb_io *arb_io_table(void);
/* For tests, before any thread saves; NULL: the system's. `io` must stay. */
void arb_io_use(const arb_io *io);

#endif
