/* A table of I/O calls (src/checkpoint/io.h) in which one call fails, does half of its work, or kills the process. */
#ifndef ARB_TESTS_CHECKPOINT_FAULTS_H
#define ARB_TESTS_CHECKPOINT_FAULTS_H

#include <stdbool.h>

#include "src/checkpoint/io.h"

enum {
  CALL_OPEN,
  CALL_PWRITE,
  CALL_FSYNC,
  CALL_CLOSE,
  CALL_RENAME,
  CALL_EXCHANGE,
  CALL_MKDIR,
  CALL_RESERVE,
  CALL_MEMORY,
  CALL_REMOVE,
  CALLS /* any of them */
};
extern const char *const call_names[CALLS + 1];

typedef struct {
  bool on;          /* count and fail */
  int call;         /* CALL_*: which one fails */
  int after;        /* so many succeed first */
  int error;        /* 0: pwrite takes only a part of its bytes, reserve and exchange are not supported */
  bool for_ever;    /* all later ones fail, too */
  bool kill;        /* SIGKILL in place of a failure; with error 0, pwrite first writes a half */
  bool no_exchange; /* names cannot be exchanged on this file system */
  long slow;        /* nanoseconds that every write takes more */
  int seen, failed;
  char log[8192]; /* "fsync rank-00000.h5; rename step-00000002; ..." */
} faults;
extern faults fault;
extern const arb_io fault_io;

/* "CALL:AFTER:ERROR[:once]" or "kill:AFTER", or "slow:NANOSECONDS", as a script says it. False: not understood. */
bool fault_parse(const char *text);

#endif
