/* arbckpt's commands. `answer` becomes the exit code when the status is ARB_OK. */
#ifndef ARB_TOOLS_CHECKPOINT_COMMANDS_H
#define ARB_TOOLS_CHECKPOINT_COMMANDS_H

#include "tools/checkpoint/args.h"
#include "tools/checkpoint/place.h"

ARB_NODISCARD arb_status arb_tool_ls(const arb_tool_args *args);
ARB_NODISCARD arb_status arb_tool_cat(const arb_tool_args *args);
ARB_NODISCARD arb_status arb_tool_stat(const arb_tool_args *args);
ARB_NODISCARD arb_status arb_tool_diff(const arb_tool_args *args, int *answer);
ARB_NODISCARD arb_status arb_tool_verify(const arb_tool_args *args);
ARB_NODISCARD arb_status arb_tool_digest(const arb_tool_args *args);
ARB_NODISCARD arb_status arb_tool_export(const arb_tool_args *args);

/* settings.c: differences between two texts of "key=value" lines, with or without [sections]. */

/* Prints "  key: a, b" for each key whose values differ, sorted, under `title`; returns how many. Keys of `except` (may be
 * NULL; another such text) are left out. Negative: no memory. */
int arb_settings_diff(FILE *out, const char *title, const char *a, const char *b, const char *except);

#endif
