/* arbdist: from the command line to a run. The only place that turns a status into an exit code, installs signal handlers,
 * and chooses device and transport. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dist/loopback/loopback.h"
#include "dist/single/single.h"
#include "dist/watchdog.h"
#include "launch/args.h"
#include "launch/commands.h"
#include "launch/device.h"
#include "launch/sidecar.h"
#include "src/base/log.h"
#ifdef ARB_WITH_MPI
#include "dist/mpi/mpi.h"
#endif

#ifndef ARB_VERSION
#define ARB_VERSION "unknown"
#endif

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal_number) {
  (void)signal_number;
  stop_requested = 1;
}

static int exit_code(arb_status st) {
  switch (st) {
    case ARB_OK:
      return 0;
    case ARB_ERR_CONFIG:
      return 2;
    case ARB_ERR_DATA:
      return 3;
    case ARB_ERR_CHECKPOINT:
      return 4;
    case ARB_ERR_PEER:
    case ARB_ERR_COMM:
      return 5;
    case ARB_ERR_NUMERIC:
      return 6;
    case ARB_REQUEUE:
      return 75;
    default:
      return 7;
  }
}

typedef struct {
  const arb_args *args;
  const arb_config *cfg;
  FILE *out;
  arb_watchdog *dog; /* NULL: ranks as threads are not watched */
} job;

/* One rank's work. Collective. */
static arb_status body(arb_comm *comm, void *arg) {
  const job *j = arg;
  FILE *out = comm->rank == 0 ? j->out : NULL;
  arb_backend *be = NULL;
  arb_comm *device_comm = NULL;
  arb_status st = arb_comm_agree(comm, arb_config_check_ranks(j->cfg, comm->size));
  if (st == ARB_OK) st = arb_device_open(j->cfg, comm, &be, &device_comm);
  if (st == ARB_OK && device_comm && j->dog) st = arb_comm_agree(comm, arb_watchdog_attach(j->dog, device_comm));
  if (st == ARB_OK) st = arb_command_run(j->args, j->cfg, be, comm, device_comm, &stop_requested, out);
  if (st == ARB_ERR_COMM && device_comm) return st; /* a device that waits for a lost peer cannot be closed */
  arb_comm_destroy(&device_comm);
  arb_backend_destroy(&be);
  return st;
}

/* A rank is silent: say which, and end the job, since nothing can wake the ranks that wait. */
static void on_silence(void *arg, const char *text) {
  (void)arg;
  arb_log(ARB_LOG_ERROR, "comm", "%s", text);
#ifdef ARB_WITH_MPI
  if (arb_mpi_launched()) arb_comm_mpi_abort(5);
#endif
  _exit(5);
}

#ifdef ARB_WITH_MPI
static const char no_mpi[] = "no launcher started this process (mpirun, srun --mpi=pmix)";
#else
static const char no_mpi[] = "this build has no MPI";
#endif

static void report(arb_status st) {
  if (st == ARB_OK || st == ARB_REQUEUE) return;
  fprintf(stderr, "arbdist: %s: %s\n", arb_status_name(st), arb_fail_message());
}

/* This process's rank as its launcher says, before any transport exists; 0 alone. */
static int launcher_rank(void) {
  static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (getenv(names[i])) return atoi(getenv(names[i]));
  return 0;
}

/* Before ranks can talk. All of them usually read the same command line and file, so rank 0 speaks first; another rank that
 * still lives a moment later failed alone. */
static void report_early(arb_status st) {
  if (st != ARB_OK && launcher_rank() != 0) sleep(1);
  report(st);
}

static arb_status run_with_comm(job *j, int *argc, char ***argv, int *reported) {
  arb_comm *comm = NULL;
  arb_watchdog *dog = NULL;
  arb_status st;
  int use_mpi = 0;
#ifdef ARB_WITH_MPI
  use_mpi = j->cfg->dist.transport != ARB_CONFIG_TRANSPORT_SINGLE && arb_mpi_launched();
#endif
  if (j->cfg->dist.transport == ARB_CONFIG_TRANSPORT_MPI && !use_mpi)
    return ARB_FAIL(ARB_ERR_CONFIG, "%s: dist.transport = mpi, but %s", arb_config_origin(j->cfg, "dist.transport"), no_mpi);
  if (use_mpi) {
#ifdef ARB_WITH_MPI
    ARB_TRY(arb_comm_mpi_create(argc, argv, &comm));
#endif
  } else {
    const char *tasks = getenv("SLURM_NTASKS");
    const char *step = getenv("SLURM_STEP_ID");
    if (step && tasks && atoi(tasks) > 1)
      return ARB_FAIL(ARB_ERR_CONFIG, "srun started %s tasks without a PMI, so each would train alone: use srun --mpi=pmix",
                      tasks);
    ARB_TRY(arb_comm_single_create(&comm));
  }
  (void)argc;
  (void)argv;
  *reported = 1;
  arb_log_setup(comm->rank, ARB_LOG_INFO);
  st = arb_watchdog_create((double)j->cfg->dist.timeout_s, on_silence, NULL, &dog);
  if (st == ARB_OK) st = arb_watchdog_attach(dog, comm);
  st = arb_comm_agree(comm, st);
  j->dog = dog;
  if (st == ARB_OK) st = body(comm, j);
  /* Every rank leaves with the same code, and one of them says why: the one that the ranks agreed on, or, where nothing could
   * be agreed, each for itself. */
  if (comm->blamed < 0 || comm->blamed == comm->rank) report(st);
#ifdef ARB_WITH_MPI
  if (st == ARB_ERR_COMM && use_mpi) arb_comm_mpi_abort(exit_code(st)); /* a broken transport cannot be closed in order */
#endif
  arb_watchdog_destroy(&dog);
  arb_comm_destroy(&comm);
  return st;
}

int main(int argc, char **argv) {
  arb_args args;
  arb_config cfg;
  arb_status st = arb_args_parse(argc, argv, &args);
  if (st == ARB_OK && args.command == ARB_COMMAND_HELP) {
    fputs(arb_args_usage(), stdout);
    fputs("\nconfiguration\n", stdout);
    st = arb_config_help(stdout);
  } else if (st == ARB_OK && args.command == ARB_COMMAND_VERSION) {
    puts("arbdist " ARB_VERSION);
  } else if (st == ARB_OK) {
    st = arb_config_load(&cfg, args.config, args.overrides, args.override_count);
    if (st == ARB_OK) st = arb_config_check(&cfg, arb_command_needs(&args));
    if (st == ARB_OK) {
      struct sigaction action = {.sa_handler = request_stop, .sa_flags = SA_RESTART};
      sigaction(SIGUSR1, &action, NULL);
      sigaction(SIGTERM, &action, NULL);
      job j = {&args, &cfg, stdout, NULL};
      if (args.command == ARB_COMMAND_PLAN) {
        if (launcher_rank() == 0) st = arb_command_plan(&args, &cfg, stdout);
        report(st);
      } else if (args.command == ARB_COMMAND_SIDECAR || (args.bench && strcmp(args.bench, "sidecar") == 0)) {
        st = args.bench ? arb_command_bench_sidecar(&cfg, stdout) : arb_command_sidecar(&args, &cfg, stdout);
        report(st);
      } else if (args.loopback > 0) {
        st = arb_loopback_run(args.loopback, body, &j);
        report(st);
      } else {
        int reported = 0;
        st = run_with_comm(&j, &argc, &argv, &reported);
        if (!reported) report_early(st);
      }
      arb_args_deinit(&args);
      return exit_code(st);
    }
  }
  report_early(st);
  arb_args_deinit(&args);
  return exit_code(st);
}
