/* Input files of the user: regular ones only, read with bounds, never mapped (a mapped file that shrinks is a signal, not an
 * error).
 *
 * Status: what the user can mend (missing, a folder, a pipe, empty, cut while it was read) is ARB_ERR_DATA; handles, memory and
 * the disk are ARB_ERR_IO or ARB_ERR_NOMEM. */
#ifndef ARB_SRC_BASE_FILE_H
#define ARB_SRC_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "src/base/status.h"

typedef struct {
  char *path; /* a copy */
  int fd;
  uint64_t size;           /* at opening; at least 1 */
  struct timespec changed; /* modification time at opening */
} arb_file;

/* Waits for nobody: pipes, devices and sockets are refused before they are opened. Symbolic links are followed. Messages name
 * the file. After a failure there is nothing to close. */
ARB_NODISCARD arb_status arb_file_open(const char *path, arb_file *out);
void arb_file_close(arb_file *f);
/* Exactly `bytes` bytes from byte `at` on. ARB_ERR_DATA when the file ends before them. Messages do not name the file, callers
 * add that and what they were reading (arb_fail_context). Several threads may read one file. */
ARB_NODISCARD arb_status arb_file_read(const arb_file *f, uint64_t at, void *out, uint64_t bytes);
/* ARB_ERR_DATA when size or modification time are not those seen at opening. Messages do not name the file. */
ARB_NODISCARD arb_status arb_file_unchanged(const arb_file *f);

/* A whole file of at most `most` bytes, malloc'd; the caller frees it. Messages name the file. */
ARB_NODISCARD arb_status arb_file_slurp(const char *path, uint64_t most, unsigned char **out, size_t *bytes);

#endif
