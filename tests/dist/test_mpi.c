/* Every rank runs the same tests. A test that fails on one rank ends the job, because the others would wait for it. */
#include "dist/mpi/mpi.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/dist/exact.h"
#include "tests/test.h"

static arb_comm *comm;

/* cmocka's failure would stay on this rank. */
static void must(arb_status st, const char *what) {
  if (st == ARB_OK) return;
  fprintf(stderr, "rank %d: %s: %s: %s (%s)\n", comm != NULL ? comm->rank : -1, what, arb_status_name(st), arb_fail_message(),
          arb_fail_place());
  arb_comm_mpi_abort(1);
}

static void run_case(void **state) {
  const exact_case *e = *state;
  arb_comm_mpi_set_chunk(comm, INT_MAX);
  must(e->run(comm, NULL), e->name);
}

/* The same, in many calls: most elements a call may carry, and the largest count that is tried with it. */
static void in_chunks(void **state) {
  (void)state;
  static int64_t plans[][2] = {{1, 7}, {3, 33}, {64, 1000}, {1000, 4097}};
  for (size_t p = 0; p < sizeof plans / sizeof plans[0]; p++) {
    arb_comm_mpi_set_chunk(comm, plans[p][0]);
    for (int i = 0; i < EXACT_CASES; i++) must(exact_cases[i].run(comm, &plans[p][1]), exact_cases[i].name);
  }
  arb_comm_mpi_set_chunk(comm, INT_MAX);
}

static arb_status check_translation(void) {
  int32_t x = 0;
  const arb_status st = comm->ops->broadcast(comm, &x, 1, ARB_I32, comm->size); /* past the entry that checks the root */
  ARB_REQUIRE(st == ARB_ERR_COMM && strstr(arb_fail_message(), "MPI_Bcast") != NULL &&
                  strstr(arb_fail_message(), "MPI_ERR_ROOT") != NULL,
              ARB_ERR_DATA, "status %s", arb_status_name(st));
  arb_fail_clear();
  return arb_comm_barrier(comm);
}

static void errors_of_mpi_are_translated(void **state) {
  (void)state;
  must(check_translation(), "translation");
}

static arb_status check_place(void) {
  const char *size = getenv("OMPI_COMM_WORLD_SIZE"), *local = getenv("OMPI_COMM_WORLD_LOCAL_RANK");
  ARB_REQUIRE(arb_mpi_launched() && strcmp(comm->ops->name, "mpi") == 0 && comm->board != NULL, ARB_ERR_DATA, "communicator");
  ARB_REQUIRE(size == NULL || atoi(size) == comm->size, ARB_ERR_DATA, "size %d of %s", comm->size, size);
  ARB_REQUIRE(local == NULL || atoi(local) == comm->local_rank, ARB_ERR_DATA, "local rank %d", comm->local_rank);
  ARB_REQUIRE(comm->local_size == comm->size, ARB_ERR_DATA, "the tests run on one node");
  return ARB_OK;
}

static void ranks_know_their_place(void **state) {
  (void)state;
  must(check_place(), "place");
}

int main(int argc, char **argv) {
  must(arb_comm_mpi_create(&argc, &argv, &comm), "create");
  static const struct CMUnitTest own[] = {cmocka_unit_test(in_chunks), cmocka_unit_test(errors_of_mpi_are_translated),
                                          cmocka_unit_test(ranks_know_their_place)};
  enum { OWN = sizeof own / sizeof own[0] };
  struct CMUnitTest tests[EXACT_CASES + OWN];
  for (int i = 0; i < EXACT_CASES; i++)
    tests[i] = (struct CMUnitTest){exact_cases[i].name, run_case, NULL, NULL, (void *)(uintptr_t)&exact_cases[i]};
  memcpy(tests + EXACT_CASES, own, sizeof own);
  const int failed = cmocka_run_group_tests_name("mpi", tests, NULL, NULL);
  if (failed != 0) arb_comm_mpi_abort(1);
  arb_comm_destroy(&comm);
  return comm == NULL ? 0 : 1;
}
