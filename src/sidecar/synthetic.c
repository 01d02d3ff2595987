#include <math.h>
#include <string.h>

#include "kernels/common/mix128.h"
#include "src/sidecar/source.h"

uint64_t arb_synthetic_stream(const char *name) {
  uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, 64 bits */
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
  return h;
}

double arb_synthetic_draw(uint64_t stream, uint64_t i) {
  const uint64_t x = arb_mix64(stream + (i + 1) * 0x9E3779B97F4A7C15u);
  return (double)(x >> 40) * 0x1p-23 - 1.0;
}

static bool ends(const char *name, const char *end) {
  const size_t n = strlen(name), m = strlen(end);
  return n >= m && memcmp(name + n - m, end, m) == 0;
}

void arb_synthetic_tensor(const char *name, int rank, const int64_t *shape, float *out) {
  int64_t count = 1, fan_in = 1;
  for (int i = 0; i < rank; i++) count *= shape[i];
  for (int i = 1; i < rank; i++) fan_in *= shape[i];
  double base = 0.0, scale;
  if (ends(name, "gamma") || ends(name, "lambda1") || (strstr(name, "norm") && ends(name, "weight"))) {
    base = 1.0;
    scale = 0.1;
  } else if (ends(name, "bias")) {
    scale = 0.05;
  } else if (ends(name, "cls_token") || ends(name, "mask_token") || ends(name, "position_embeddings") ||
             ends(name, "embed_tokens.weight")) {
    scale = 0.5;
  } else {
    scale = sqrt(3.0 / (double)fan_in);
  }
  const uint64_t stream = arb_synthetic_stream(name);
  for (int64_t i = 0; i < count; i++) out[i] = (float)(base + scale * arb_synthetic_draw(stream, (uint64_t)i));
}

void arb_synthetic_input(const char *name, int64_t count, float *out) {
  const uint64_t stream = arb_synthetic_stream(name);
  for (int64_t i = 0; i < count; i++) out[i] = (float)arb_synthetic_draw(stream, (uint64_t)i);
}
