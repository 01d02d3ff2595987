/* Weight files of a given header, and checks that a reader refuses a file. */
#ifndef ARB_TESTS_SAFETENSORS_REFUSED_H
#define ARB_TESTS_SAFETENSORS_REFUSED_H

#include <stddef.h>

#include "tests/forge.h"

/* A safetensors file: length prefix, header as it is, data_bytes zeros. */
void forge_safetensors(const char *path, const char *header, size_t data_bytes);
/* Opening fails with ARB_ERR_DATA; the message holds the file's path and every string of `texts` (NULL ends the list). */
void refused(const char *path, const char *const *texts);
#define REFUSED(path, ...) refused(path, (const char *const[]){__VA_ARGS__, NULL})

#endif
