/* Work on files that may be hostile, in a child process with limits: HDF5 is a large parser and not made for attackers. When
 * the child crashes, loops or wants too much memory, the file is refused and this process goes on. */
#ifndef ARB_TOOLS_CHECKPOINT_GUARD_H
#define ARB_TOOLS_CHECKPOINT_GUARD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "src/base/status.h"

enum { ARB_GUARD_RESULT = 256 };

typedef struct {
  /* Runs in the child; its memory is a copy, only *result comes back. out: to this process's stdout, all of it when the work
   * has succeeded and nothing otherwise; with `direct` as it is written. */
  arb_status (*work)(FILE *out, void *arg, void *result);
  void *arg;
  void *result;        /* may be NULL */
  size_t result_bytes; /* at most ARB_GUARD_RESULT */
  bool direct;
  const char *path;               /* for messages */
  uint64_t bytes;                 /* of the files: the limits grow with them */
  uint64_t memory_bytes, seconds; /* of address space and processor; 0: from `bytes` */
  long pid;                       /* out: the child's number */
} arb_guard;

/* The work's status and message. ARB_ERR_CHECKPOINT when the child crashed or reached a limit. A signal from a user (Ctrl-C, a
 * closed pipe) ends this process the same way. */
ARB_NODISCARD arb_status arb_guard_run(arb_guard *g);

#endif
