/* Plain totals for the GPU tests: a program that finds no GPU says so and exits 77. */
#ifndef ARB_TESTS_GPU_GPU_TEST_H
#define ARB_TESTS_GPU_GPU_TEST_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

static int gpu_passed, gpu_failed, gpu_skipped;

static inline void gpu_check(int ok, const char *what) {
  if (ok) {
    gpu_passed++;
    return;
  }
  if (++gpu_failed <= 40) printf("FAILED: %s\n", what);
}

/* Anything but ARB_OK ends the program. */
static inline void gpu_must(arb_status st, const char *what) {
  if (st == ARB_OK) return;
  printf("FAILED: %s: %s: %s (%s)\n%d passed, %d failed, %d skipped\n", what, arb_status_name(st), arb_fail_message(),
         arb_fail_place(), gpu_passed, gpu_failed + 1, gpu_skipped);
  exit(1);
}
#define MUST(call) gpu_must((call), #call)

static inline arb_backend *gpu_backend(void) {
  arb_backend *be = NULL;
  const arb_status st = arb_backend_cuda_create(0, &be);
  if (st == ARB_ERR_UNSUPPORTED) {
    printf("NO GPU: NOTHING WAS TESTED: %s\n0 passed, 0 failed, 1 skipped\n", arb_fail_message());
    exit(77);
  }
  gpu_must(st, "arb_backend_cuda_create");
  gpu_must(arb_backend_validate(be), "arb_backend_validate");
  printf("backend %s\n", be->ops.name);
  return be;
}

static inline int gpu_totals(void) {
  printf("%d passed, %d failed, %d skipped\n", gpu_passed, gpu_failed, gpu_skipped);
  return gpu_failed ? 1 : 0;
}

/* xorshift64* */
static uint64_t gpu_random_state = 0x9E3779B97F4A7C15u;
static inline uint64_t gpu_random(void) {
  gpu_random_state ^= gpu_random_state >> 12;
  gpu_random_state ^= gpu_random_state << 25;
  gpu_random_state ^= gpu_random_state >> 27;
  return gpu_random_state * 0x2545F4914F6CDD1Du;
}
static inline int64_t gpu_below(int64_t n) { return (int64_t)((gpu_random() >> 33) % (uint64_t)n); }

#endif
