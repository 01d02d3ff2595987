/* Leveled log lines on stderr: "LEVEL rank subsystem: message". Rank 0 speaks from INFO up, the others from WARN up.
 * Program output that a user asked for (tables, samples, the digest) goes to stdout by its own printf, not through here. */
#ifndef ARB_SRC_BASE_LOG_H
#define ARB_SRC_BASE_LOG_H

#include "src/base/status.h"

typedef enum { ARB_LOG_DEBUG, ARB_LOG_INFO, ARB_LOG_WARN, ARB_LOG_ERROR } arb_log_level;

/* Sets this process's rank (for the prefix) and the lowest level shown. Call once, before threads start. */
void arb_log_setup(int rank, arb_log_level lowest);
void arb_log(arb_log_level level, const char *subsystem, const char *format, ...) ARB_PRINTF(3, 4);

#endif
