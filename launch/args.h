/* The command line. */
#ifndef ARB_LAUNCH_ARGS_H
#define ARB_LAUNCH_ARGS_H

#include "src/base/status.h"

typedef enum {
  ARB_COMMAND_TRAIN,
  ARB_COMMAND_EVAL,
  ARB_COMMAND_GENERATE,
  ARB_COMMAND_AUDIT,
  ARB_COMMAND_BENCH,
  ARB_COMMAND_PLAN,
  ARB_COMMAND_SIDECAR,
  ARB_COMMAND_HELP,
  ARB_COMMAND_VERSION
} arb_command;

typedef struct {
  arb_command command;
  const char *config;     /* path of the ini file */
  const char *bench;      /* what to measure */
  const char *action;     /* of sidecar: check, encode, decode, transcribe */
  const char *file;       /* of the action, or NULL */
  const char *out;        /* --out, or NULL */
  int sidecars;           /* audit: --sidecars */
  const char **overrides; /* "section.key=value" */
  int override_count;
  int loopback; /* ranks as threads; 0: not asked for */
  int ranks;    /* to plan for; 0: not said */
} arb_args;

/* Borrows argv. ARB_ERR_CONFIG with what was wrong and the usage. Release with arb_args_deinit. */
ARB_NODISCARD arb_status arb_args_parse(int argc, char **argv, arb_args *out);
void arb_args_deinit(arb_args *a);
const char *arb_args_usage(void);

#endif
