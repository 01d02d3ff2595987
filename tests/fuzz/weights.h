/* Opens bytes as a weight file and reads everything that it then claims to hold. */
#ifndef ARB_TESTS_FUZZ_WEIGHTS_H
#define ARB_TESTS_FUZZ_WEIGHTS_H

#include "tests/fuzz/harness.h"

void read_all(const char *path);

#endif
