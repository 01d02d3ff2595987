/* Tests of the collectives that every transport must pass bit for bit. Threads of loopback cannot use cmocka's assertions,
 * so a case returns a status, with the first difference as its message. */
#ifndef ARB_TESTS_DIST_EXACT_H
#define ARB_TESTS_DIST_EXACT_H

#include "dist/comm.h"

typedef struct {
  const char *name;
  /* Collective. arg: const int64_t *, the largest element count to try; NULL tries all. */
  arb_status (*run)(arb_comm *c, void *arg);
} exact_case;

enum { EXACT_CASES = 12 };
extern const exact_case exact_cases[EXACT_CASES];

#endif
