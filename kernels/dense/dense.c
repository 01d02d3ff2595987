/* Which level this machine gets. */
#include "kernels/dense/dense_impl.h"

#include <string.h>

#define ROW(shown, level)                                                                                                  \
  {                                                                                                                        \
    shown, arb_dense_product_##level, arb_dense_layer_norm_##level, arb_dense_softmax_##level, arb_dense_activate_##level, \
        arb_dense_gate_##level                                                                                             \
  }

static const arb_dense_kernels levels[] = {
    ROW("scalar", plain),
#if defined(__x86_64__)
    ROW("avx2", avx2),
    ROW("avx512", avx512),
#endif
};

static int present(const char *name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (strcmp(name, "avx2") == 0) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (strcmp(name, "avx512") == 0)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return strcmp(name, "scalar") == 0;
}

const arb_dense_kernels *arb_dense_pick(const char *isa) {
  for (int i = (int)(sizeof levels / sizeof levels[0]) - 1; i >= 0; i--)
    if ((strcmp(isa, "auto") == 0 || strcmp(isa, levels[i].name) == 0) && present(levels[i].name)) return &levels[i];
  return NULL;
}

int64_t arb_dense_scratch(int64_t depth) {
  return (int64_t)ARB_DENSE_PANEL * ((depth > ARB_DENSE_DEPTH ? depth : ARB_DENSE_DEPTH) + ARB_DENSE_ROWS) + 16;
}
