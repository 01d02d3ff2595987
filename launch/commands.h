/* The commands behind the command line, on a communicator and a backend that exist. */
#ifndef ARB_LAUNCH_COMMANDS_H
#define ARB_LAUNCH_COMMANDS_H

#include <signal.h>
#include <stdio.h>

#include "dist/comm.h"
#include "kernels/backend.h"
#include "launch/args.h"
#include "src/config/config.h"

/* ARB_CONFIG_NEED_* of a command. */
unsigned arb_command_needs(const arb_args *args);
/* Collective. out is NULL on all ranks but 0. */
ARB_NODISCARD arb_status arb_command_run(const arb_args *args, const arb_config *cfg, arb_backend *be, arb_comm *comm,
                                         arb_comm *device_comm, volatile sig_atomic_t *stop, FILE *out);
/* Prints the plan of a config for args->ranks ranks, on this machine alone. */
ARB_NODISCARD arb_status arb_command_plan(const arb_args *args, const arb_config *cfg, FILE *out);

#endif
