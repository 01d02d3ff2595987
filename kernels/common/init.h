/* Fresh weights: latents from N(0, 0.8) trit steps, clamped to +-1.9, and row exponents that give unit gain.
 *
 * The normal draw, part of a run's identity: element w of a tensor (w = n * pad8(K) + k) takes words 2 (w mod 2) and
 * 2 (w mod 2) + 1 of the Philox output at counter (w / 2 low, tensor id, w / 2 high, 0), purpose INIT; with u = (word / 2^8
 * + 0.5) * 2^-24 of the first and v the same of the second, the draw is sqrt(-2 log u) * cos(2 pi v) (Box & Muller 1958). */
#ifndef ARB_KERNELS_COMMON_INIT_H
#define ARB_KERNELS_COMMON_INIT_H

#include "kernels/common/math.h"
#include "kernels/common/philox.h"
#include "kernels/common/trit.h"

ARB_HD float arb_init_normal(uint64_t seed, uint32_t tensor, int64_t element) {
  const uint64_t pair = (uint64_t)element >> 1;
  const arb_philox_block b =
      arb_philox(arb_philox_key_of(seed, ARB_DRAW_INIT), (uint32_t)pair, tensor, (uint32_t)(pair >> 32), 0);
  const int w = 2 * (int)(element & 1);
  const float u = ((float)(b.v[w] >> 8) + 0.5f) * 0x1p-24f;
  const float v = ((float)(b.v[w + 1] >> 8) + 0.5f) * 0x1p-24f;
  return sqrtf(-2.0f * arb_logf(u)) * arb_cosf(6.2831855f * v);
}

ARB_HD uint8_t arb_init_code(float normal) {
  const float latent = arb_clamp(0.8f * normal, 1.9f);
  int t = (int)arb_rint_small(latent);
  t = t > 1 ? 1 : (t < -1 ? -1 : t);
  return arb_code_make(t, (int)arb_rint_small((float)ARB_UNITS * latent));
}

/* Row exponent -rint(4 log2(max(1, nnz))): the number of thresholds ceil(2^((2i - 1) / 8)), i = 1, 2, ..., that nnz reaches
 * (computed with 60 digits; enough for nnz < 2^31). */
ARB_HD int8_t arb_init_exponent(int64_t nnz) {
  const uint32_t threshold[124] = {
      2,          2,          2,          2,         3,         3,         4,         4,         5,         6,
      7,          8,          9,          11,        13,        15,        18,        21,        25,        30,
      35,         42,         50,         59,        70,        83,        99,        118,       140,       166,
      198,        235,        280,        332,       395,       470,       559,       664,       790,       940,
      1117,       1328,       1580,       1879,      2234,      2656,      3159,      3757,      4467,      5312,
      6317,       7513,       8934,       10624,     12634,     15025,     17867,     21248,     25268,     30049,
      35734,      42495,      50536,      60097,     71468,     84990,     101071,    120194,    142936,    169980,
      202141,     240388,     285871,     339959,    404282,    480775,    571741,    679918,    808563,    961549,
      1143481,    1359835,    1617126,    1923097,   2286961,   2719670,   3234251,   3846194,   4573921,   5439340,
      6468502,    7692388,    9147842,    10878679,  12937003,  15384775,  18295684,  21757358,  25874005,  30769550,
      36591368,   43514715,   51748009,   61539100,  73182736,  87029430,  103496017, 123078200, 146365471, 174058859,
      206992034,  246156399,  292730941,  348117718, 413984067, 492312797, 585461881, 696235435, 827968133, 984625594,
      1170923762, 1392470869, 1655936265, 1969251188};
  int e = 0;
  while (e < 124 && nnz >= (int64_t)threshold[e]) e++;
  return (int8_t)-e;
}

#endif
