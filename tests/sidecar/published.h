/* Published values of a flattened array, and whole arrays in ../shared/golden. */
#ifndef ARB_TESTS_SIDECAR_PUBLISHED_H
#define ARB_TESTS_SIDECAR_PUBLISHED_H

#include <stdint.h>

/* Sanitizers make arithmetic ten times slower and see the same code in less of it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PUBLISHED_QUICK 1
#else
#define PUBLISHED_QUICK 0
#endif

/* First 4 elements, last 2, mean, mean of the magnitudes. */
typedef struct {
  const char *name;
  double first[4], last[2], mean, magnitude;
} published_row;

/* Fails unless every value of x [count] that the row states is within `bound`. A NaN fails. */
void published_check(const published_row *row, const float *x, int64_t count, double bound);
/* [rows][width] to [width][rows]; the caller frees. */
float *published_transposed(const float *x, int64_t rows, int64_t width);
/* The floats of ../shared/golden/NAME, `count` of them; NULL, said aloud, without that folder. The caller frees. */
float *published_golden(const char *name, int64_t count);
/* Largest |a - b|; a NaN gives infinity. */
double published_difference(const float *a, const float *b, int64_t count);

#endif
