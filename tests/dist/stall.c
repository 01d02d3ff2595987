/* A job whose last rank stops, as a debugger or a broken node would stop it; run by stall.sh. */
#include <signal.h>
#include <stdio.h>

#include "dist/mpi/mpi.h"
#include "dist/watchdog.h"

enum { EXIT_PEER_LOST = 5 };

static void on_silence(void *arg, const char *text) {
  (void)arg;
  fprintf(stderr, "watchdog: %s\n", text);
  arb_comm_mpi_abort(EXIT_PEER_LOST);
}

static arb_status run(arb_comm *c) {
  int8_t votes[3] = {1, 1, 1};
  arb_watchdog *dog = NULL;
  ARB_TRY(arb_watchdog_create(2.0, on_silence, NULL, &dog));
  ARB_TRY(arb_watchdog_attach(dog, c));
  ARB_TRY(arb_comm_barrier(c));
  if (c->rank == c->size - 1) raise(SIGSTOP);
  ARB_TRY(arb_comm_all_reduce(c, votes, 3, ARB_I8, ARB_SUM, ARB_TRAFFIC_VOTES)); /* the watchdog ends the job here */
  arb_watchdog_destroy(&dog);
  return ARB_OK;
}

int main(int argc, char **argv) {
  arb_comm *c = NULL;
  arb_status st = arb_comm_mpi_create(&argc, &argv, &c);
  if (st == ARB_OK) st = run(c);
  if (st != ARB_OK) {
    fprintf(stderr, "%s: %s\n", arb_status_name(st), arb_fail_message());
    arb_comm_mpi_abort(1);
  }
  arb_comm_destroy(&c);
  return 0;
}
