/* Opens bytes as a weight file and reads everything that it then claims to hold. */
#ifndef ARB_TESTS_FUZZ_WEIGHTS_H
#define ARB_TESTS_FUZZ_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The path of a file in memory that holds these bytes; rewritten by the next call. */
const char *file_of(const void *bytes, size_t n);
void read_all(const char *path);

#endif
