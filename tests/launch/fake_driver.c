/* A libcuda.so.1 that is found before the real one and knows nothing but its version: what an installation that does not fit
 * looks like to the CUDA runtime, on a machine without a GPU too. FAKE_VERSION: cuDriverGetVersion's; FAKE_INIT: cuInit's
 * result. */
#include <stdlib.h>

int cuInit(unsigned flags);
int cuDriverGetVersion(int *version);

static int number(const char *name) {
  const char *text = getenv(name);
  return text ? atoi(text) : 0;
}

int cuInit(unsigned flags) {
  (void)flags;
  return number("FAKE_INIT");
}

int cuDriverGetVersion(int *version) {
  *version = number("FAKE_VERSION");
  return 0;
}
