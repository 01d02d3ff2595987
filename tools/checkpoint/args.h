/* arbckpt's command line. */
#ifndef ARB_TOOLS_CHECKPOINT_ARGS_H
#define ARB_TOOLS_CHECKPOINT_ARGS_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/status.h"

typedef enum {
  ARB_TOOL_LS,
  ARB_TOOL_CAT,
  ARB_TOOL_STAT,
  ARB_TOOL_DIFF,
  ARB_TOOL_VERIFY,
  ARB_TOOL_DIGEST,
  ARB_TOOL_EXPORT,
  ARB_TOOL_HELP,
  ARB_TOOL_VERSION
} arb_tool_command;

typedef enum { ARB_SHOW_VALUES, ARB_SHOW_TRITS, ARB_SHOW_ACCUMULATORS } arb_tool_show;

typedef struct {
  arb_tool_command command;
  const char *dir;
  const char *what;   /* diff: the other DIR; cat: TENSOR[.FIELD]; stat: TENSOR or NULL; export: FILE */
  int64_t step;       /* --step; -1: none given */
  int64_t begin, end; /* --rows, end excluded; end -1: to the last */
  arb_tool_show show;
  bool unverified; /* --unverified */
} arb_tool_args;

const char *arb_tool_usage(void);
/* ARB_ERR_CONFIG with a message for a bad command line. The strings are argv's. */
ARB_NODISCARD arb_status arb_tool_args_parse(int argc, char **argv, arb_tool_args *out);

#endif
