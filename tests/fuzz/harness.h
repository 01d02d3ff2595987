/* What fuzz targets share: places for an input that a parser wants to open by its name. */
#ifndef ARB_TESTS_FUZZ_HARNESS_H
#define ARB_TESTS_FUZZ_HARNESS_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The path of a file in memory that holds these bytes; rewritten by the next call. */
const char *file_of(const void *bytes, size_t n);
/* The path of a file of this name in a folder of this process, holding these bytes. The folder lies in memory where there is
 * such a place, and goes away at exit. At most 8 names. */
const char *named_file(const char *name, const void *bytes, size_t n);

#endif
