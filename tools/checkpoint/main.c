/* arbckpt: looks into checkpoints, on any machine. The only place of it that turns a status into an exit code. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/checkpoint/commands.h"

static int exit_code(arb_status st) {
  switch (st) {
    case ARB_OK:
      return 0;
    case ARB_ERR_CONFIG:
      return 2;
    case ARB_ERR_CHECKPOINT:
      return 4;
    default:
      return 7;
  }
}

static arb_status run(const arb_tool_args *args, int *answer) {
  switch (args->command) {
    case ARB_TOOL_LS:
      return arb_tool_ls(args);
    case ARB_TOOL_CAT:
      return arb_tool_cat(args);
    case ARB_TOOL_STAT:
      return arb_tool_stat(args);
    case ARB_TOOL_DIFF:
      return arb_tool_diff(args, answer);
    case ARB_TOOL_VERIFY:
      return arb_tool_verify(args);
    case ARB_TOOL_DIGEST:
      return arb_tool_digest(args);
    case ARB_TOOL_EXPORT:
      return arb_tool_export(args);
    case ARB_TOOL_VERSION:
      puts("arbckpt " ARB_VERSION);
      return ARB_OK;
    case ARB_TOOL_HELP:
      fputs(arb_tool_usage(), stdout);
      return ARB_OK;
  }
  return ARB_FAIL(ARB_ERR_ARG, "command %d", (int)args->command);
}

int main(int argc, char **argv) {
  arb_tool_args args;
  int answer = 0;
  arb_status st = arb_tool_args_parse(argc, argv, &args);
  if (st == ARB_OK) st = run(&args, &answer);
  if (fflush(stdout) != 0 && st == ARB_OK) st = ARB_FAIL(ARB_ERR_IO, "cannot write the output: %s", strerror(errno));
  if (st != ARB_OK) fprintf(stderr, "arbckpt: %s: %s\n", arb_status_name(st), arb_fail_message());
  return st == ARB_OK ? answer : exit_code(st);
}
