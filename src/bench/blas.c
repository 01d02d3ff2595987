#include "src/bench/blas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From cblas.h. */
enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };
typedef void (*sgemm_fn)(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a, int lda,
                         const float *b, int ldb, float beta, float *c, int ldc);
typedef void (*threads_fn)(int threads);
typedef char *(*text_fn)(void);

struct arb_blas {
  void *library;
  sgemm_fn sgemm;
  char name[256];
};

/* POSIX lets dlsym's object pointer hold a function; ISO C has no cast for it. */
static int find(void *library, const char *symbol, void *function) {
  void *p = dlsym(library, symbol);
  memcpy(function, &p, sizeof p);
  return p != NULL;
}

arb_status arb_blas_open(const char *library, int threads, arb_blas **out) {
  *out = NULL;
  void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  ARB_REQUIRE(handle != NULL, ARB_ERR_UNSUPPORTED, "cannot load %s", library);
  arb_blas *b = calloc(1, sizeof *b);
  if (b == NULL || !find(handle, "cblas_sgemm", &b->sgemm)) {
    const int found = b == NULL;
    free(b);
    dlclose(handle);
    return found ? ARB_FAIL(ARB_ERR_NOMEM, "no memory for %s", library)
                 : ARB_FAIL(ARB_ERR_UNSUPPORTED, "%s has no cblas_sgemm", library);
  }
  b->library = handle;
  threads_fn set_threads;
  text_fn config, core;
  if (find(handle, "openblas_set_num_threads", &set_threads)) set_threads(threads);
  const int named = find(handle, "openblas_get_config", &config), cored = find(handle, "openblas_get_corename", &core);
  snprintf(b->name, sizeof b->name, "%s%s%s", named ? config() : library, cored ? ", core " : "", cored ? core() : "");
  *out = b;
  return ARB_OK;
}

const char *arb_blas_name(const arb_blas *b) { return b->name; }

void arb_blas_sgemm(const arb_blas *b, int transpose_a, int transpose_b, int64_t rows, int64_t columns, int64_t depth,
                    const float *x, const float *y, float *c) {
  b->sgemm(ROW_MAJOR, transpose_a ? TRANSPOSED : PLAIN, transpose_b ? TRANSPOSED : PLAIN, (int)rows, (int)columns, (int)depth,
           1.0f, x, (int)(transpose_a ? rows : depth), y, (int)(transpose_b ? depth : columns), 0.0f, c, (int)columns);
}

void arb_blas_close(arb_blas **b) {
  if (*b == NULL) return;
  /* The library stays loaded: its threads may still be on their way to sleep. */
  free(*b);
  *b = NULL;
}
