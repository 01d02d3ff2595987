/* What the tests of encoders on a GPU share: comparing bits with the CPU's, finding the first difference. */
#ifndef ARB_TESTS_GPU_ENCODER_TEST_H
#define ARB_TESTS_GPU_ENCODER_TEST_H

#include <math.h>

#include "kernels/cuda/dense.h"
#include "src/sidecar/sidecar.h"
#include "src/sidecar/source.h"
#include "tests/gpu/gpu_test.h"

enum { KEPT = 512 /* results inside of an encoder */ };

static inline arb_sidecar_options on_cpu(void) { return (arb_sidecar_options){.threads = 16}; }

static inline arb_sidecar_options on_gpu(void) {
  arb_sidecar_options o = on_cpu();
  o.place = (arb_dense_place){arb_cuda_dense_open, 0};
  return o;
}

static inline float *floats(int64_t count) {
  float *x = calloc((size_t)count, sizeof *x);
  if (x) return x;
  printf("out of host memory\n");
  exit(1);
}

/* Equal bits; else the first difference, and how many there are. */
static inline void same(const char *what, const float *cpu, const float *gpu, int64_t count) {
  int64_t first = -1, different = 0;
  double largest = 0.0, magnitude = 0.0;
  for (int64_t i = 0; i < count; i++) {
    magnitude += fabs((double)cpu[i]);
    if (memcmp(&cpu[i], &gpu[i], sizeof *cpu) == 0) continue;
    const double by = fabs((double)cpu[i] - (double)gpu[i]);
    if (first < 0) first = i;
    if (!(by <= largest)) largest = by;
    different++;
  }
  gpu_check(different == 0 && magnitude > 0.0, what);
  if (different)
    printf("  %s: %lld of %lld differ, the first at %lld: %.9g, on the GPU %.9g; largest difference %g\n", what,
           (long long)different, (long long)count, (long long)first, (double)cpu[first], (double)gpu[first], largest);
}

/* ---- where the first difference arises ---- */

typedef struct {
  float *kept[KEPT];
  int64_t count[KEPT];
  int n, at;
  const char *model;
} trace;

static inline void keep(void *arg, const char *name, const float *x, int64_t rows, int64_t width) {
  trace *t = arg;
  (void)name;
  if (t->n == KEPT) return;
  t->kept[t->n] = floats(rows * width);
  memcpy(t->kept[t->n], x, (size_t)(rows * width) * sizeof *x);
  t->count[t->n++] = rows * width;
}

static inline void compare(void *arg, const char *name, const float *x, int64_t rows, int64_t width) {
  trace *t = arg;
  char what[128];
  snprintf(what, sizeof what, "%s: %s", t->model, name);
  if (t->at < t->n && t->count[t->at] == rows * width)
    same(what, t->kept[t->at], x, rows * width);
  else
    gpu_check(0, what);
  t->at++;
}

static inline void trace_free(trace *t) {
  for (int i = 0; i < t->n; i++) free(t->kept[i]);
  *t = (trace){0};
}

#endif
