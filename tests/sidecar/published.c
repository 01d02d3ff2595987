#include "tests/sidecar/published.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

static void near(const char *row, const char *what, double got, double want, double bound) {
  if (!(fabs(got - want) <= bound)) fail_msg("%s, %s: %.7f, published %.7f", row, what, got, want);
}

void published_check(const published_row *row, const float *x, int64_t count, double bound) {
  static const char *const names[6] = {"element 0", "element 1", "element 2", "element 3", "the last but one", "the last"};
  double sum = 0.0, magnitude = 0.0;
  for (int i = 0; i < 4; i++) near(row->name, names[i], (double)x[i], row->first[i], bound);
  for (int i = 0; i < 2; i++) near(row->name, names[4 + i], (double)x[count - 2 + i], row->last[i], bound);
  for (int64_t i = 0; i < count; i++) {
    sum += (double)x[i];
    magnitude += fabs((double)x[i]);
  }
  near(row->name, "mean", sum / (double)count, row->mean, bound / 20.0);
  near(row->name, "mean magnitude", magnitude / (double)count, row->magnitude, bound / 20.0);
}

float *published_transposed(const float *x, int64_t rows, int64_t width) {
  float *t = malloc((size_t)(rows * width) * sizeof *t);
  assert_non_null(t);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < width; c++) t[c * rows + r] = x[r * width + c];
  return t;
}

float *published_golden(const char *name, int64_t count) {
  char path[1024];
  snprintf(path, sizeof path, "%s/../shared/golden/%s", ARB_ROOT, name);
  FILE *f = fopen(path, "rb");
  if (f == NULL) {
    printf("NOT COMPARED WITH THE WHOLE ARRAY: no %s\n", path);
    return NULL;
  }
  float *x = malloc((size_t)(count + 1) * sizeof *x);
  assert_non_null(x);
  assert_int_equal(fread(x, sizeof *x, (size_t)count + 1, f), count); /* and not one more */
  fclose(f);
  return x;
}

double published_difference(const float *a, const float *b, int64_t count) {
  double most = 0.0;
  for (int64_t i = 0; i < count; i++) {
    const double d = fabs((double)a[i] - (double)b[i]);
    if (!(d <= most)) most = isnan(d) ? INFINITY : d;
  }
  return most;
}
