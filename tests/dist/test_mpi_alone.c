/* Without a launcher MPI is not touched. */
#include <stdlib.h>
#include <string.h>

#include "dist/mpi/mpi.h"
#include "tests/test.h"

static const char *const launchers[] = {
    "OMPI_COMM_WORLD_SIZE", "PMIX_RANK",      "PMIX_NAMESPACE", "PMI_RANK", "PMI_SIZE", "PMI_FD",
    "MV2_COMM_WORLD_SIZE",  "MPI_LOCALNRANKS"};
enum { LAUNCHERS = sizeof launchers / sizeof launchers[0] };

static void a_plain_start_is_refused(void **state) {
  (void)state;
  for (int i = 0; i < LAUNCHERS; i++) unsetenv(launchers[i]);
  arb_comm *c = (arb_comm *)&c;
  assert_false(arb_mpi_launched());
  arb_assert_fails(arb_comm_mpi_create(NULL, NULL, &c), ARB_ERR_UNSUPPORTED, "mpirun");
  assert_null(c);
}

static void every_launcher_is_known(void **state) {
  (void)state;
  for (int i = 0; i < LAUNCHERS; i++) {
    setenv(launchers[i], "0", 1);
    assert_true(arb_mpi_launched());
    unsetenv(launchers[i]);
    assert_false(arb_mpi_launched());
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_plain_start_is_refused), cmocka_unit_test(every_launcher_is_known)};
  return cmocka_run_group_tests_name("mpi alone", tests, NULL, NULL);
}
