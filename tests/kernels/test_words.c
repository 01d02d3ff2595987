/* The shorter forms of kernels/common/words.h, as GPUs compute them, against their definitions: trits of all neighbouring
 * codes, and rounding just beside the places where it turns, for all draws. */
#include "kernels/common/words.h"

#include <string.h>

#include "tests/test.h"

static uint32_t word_of(int a, int b, int c, int d) {
  return (uint32_t)a | (uint32_t)b << 8 | (uint32_t)c << 16 | (uint32_t)d << 24;
}
static int byte_of(uint32_t w, int j) { return (int8_t)(w >> (8 * j)); }

static void test_trits(void **state) {
  (void)state;
  static const int others[] = {0, 84, 85, 169, 170, 254};
  for (int a = 0; a < 255; a++)
    for (int b = 0; b < 255; b++)
      for (size_t i = 0; i < 6; i++)
        for (int turn = 0; turn < 4; turn++) {
          const int code[4] = {a, b, others[i], others[5 - i]};
          const uint32_t w = word_of(code[turn], code[(turn + 1) % 4], code[(turn + 2) % 4], code[(turn + 3) % 4]);
          const uint32_t trits = arb_trits4(w);
          for (int j = 0; j < 4; j++)
            if (byte_of(trits, j) != arb_code_trit((uint8_t)(w >> (8 * j))))
              fail_msg("codes %08x: trits %08x", (unsigned)w, (unsigned)trits);
        }
}

static void test_transpose(void **state) {
  (void)state;
  uint32_t r[4];
  for (int i = 0; i < 4; i++) r[i] = word_of(10 * i, 10 * i + 1, 10 * i + 2, 10 * i + 3);
  arb_transpose4(r);
  for (int j = 0; j < 4; j++) assert_int_equal(r[j], word_of(j, 10 + j, 20 + j, 30 + j));
  const uint32_t b[4] = {0xaaaaaa01u, 0xbbbbbb82u, 0x03u, 0xfffffffcu};
  assert_int_equal(arb_pack4(b), 0xfc038201u);
  assert_int_equal(arb_byte_perm(0x80u, 0x7f000000u, 0xf8f8u), 0x00ff00ffu); /* signs spread */
}

/* Multiples of 2^-6, moved by the draw's unit, and floats just beside. */
static void test_bytes(void **state) {
  (void)state;
  for (int i = -127 * 64; i <= 127 * 64; i += 7)
    for (uint32_t r = (uint32_t)(i & 15); r < 65536; r += 61)
      for (int j = -1; j <= 1; j++) {
        const float base = (float)i * 0x1p-6f + ((float)r + 0.5f) * 0x1p-22f * (float)(i & 31);
        const float x = arb_clamp(arb_f32_of_bits(arb_bits_of_f32(base) + (uint32_t)j), 127.0f);
        const int want = (int)arb_stochastic_round(x, (uint16_t)r);
        if ((int8_t)arb_stochastic_byte(x, arb_draw_unit(r, 0)) != want ||
            (int8_t)arb_stochastic_byte(x, arb_draw_unit(r << 16, 1)) != want)
          fail_msg("%a, draw %u: not %d", (double)x, (unsigned)r, want);
        if ((int8_t)arb_round_byte(x) != (int)arb_rint_small(x)) fail_msg("%a: nearest", (double)x);
      }
}

/* Sums D whose votes turn at this draw, and their neighbours, at scales from 2^-8 to 2^-40: below zero the definition's
 * fraction rounds when a scale is small, which random votes show once in 10^8. */
static void test_votes(void **state) {
  (void)state;
  long votes = 0;
  for (uint32_t r = 0; r < 65536; r += 7)
    for (int bits = 8; bits <= 40; bits++)
      for (int whole = -16; whole <= 15; whole++)
        for (int step = -3; step <= 3; step++) {
          const float scale = arb_pow2i(-bits);
          const double sum = ((double)whole + ((double)r + 0.5) * 0x1p-16) / (double)scale;
          if (sum >= 0x1p31 - 4.0 || sum <= -0x1p31 + 4.0) continue;
          const int32_t d = (int32_t)sum + step;
          const int want = (int)arb_stochastic_round(arb_clamp((float)d * scale, 15.0f), (uint16_t)r);
          votes++;
          if ((int8_t)arb_vote_byte(d, scale, 15.0f, arb_draw_unit(r, 0)) != want)
            fail_msg("D %d at 2^-%d, draw %u: not %d", (int)d, bits, (unsigned)r, want);
          if ((int8_t)(arb_vote_bits(d, scale, 15.0f, r | (~r << 16), 0) >> 16) != want ||
              (int8_t)(arb_vote_bits(d, scale, 15.0f, r << 16 | (~r & 0xffffu), 1) >> 16) != want)
            fail_msg("D %d at 2^-%d, draw %u: not %d from bits", (int)d, bits, (unsigned)r, want);
        }
  assert_true(votes > 10000000);
  /* no scale, the smallest, the largest, and limits */
  static const float scales[] = {0.0f, 0x1p-126f, 0x1p-110f, 0x1p-30f, 1.0f, 0x1p96f};
  static const int32_t sums[] = {INT32_MIN + 1, -16777217, -1, 0, 1, 16777217, INT32_MAX};
  for (uint32_t r = 0; r < 65536; r++)
    for (size_t i = 0; i < 6; i++)
      for (size_t j = 0; j < 7; j++)
        for (int vmax = 1; vmax <= 127; vmax += 63) {
          const int want = (int)arb_stochastic_round(arb_clamp((float)sums[j] * scales[i], (float)vmax), (uint16_t)r);
          if ((int8_t)(arb_vote_bits(sums[j], scales[i], (float)vmax, r | 0xabcd0000u, 0) >> 16) != want)
            fail_msg("D %d at %a, draw %u: not %d", (int)sums[j], (double)scales[i], (unsigned)r, want);
        }
}

static void test_gradient_rows(void **state) {
  (void)state;
  for (uint32_t r = 0; r < 65536; r += 5)
    for (int i = -127; i <= 127; i += 2) {
      const float most = 0x1.36p-9f, unit = (127.0f / most) * 0x1p15f;
      float h[4];
      for (int j = 0; j < 4; j++)
        h[j] = arb_clamp(most / 127.0f * ((float)i + ((float)(65535 - r) + (float)(j - 1)) * 0x1p-16f), most);
      const uint32_t other = 65535 - r, w = arb_round4(h, unit, r | other << 16, r << 16 | other);
      for (int j = 0; j < 4; j++) {
        const uint32_t draw = j == 0 || j == 3 ? r : other;
        const int want = arb_round_gradient(h[j] * (127.0f / most), (uint16_t)draw);
        if (byte_of(w, j) != want) fail_msg("h %a, draw %u: %d, not %d", (double)h[j], (unsigned)draw, byte_of(w, j), want);
      }
    }
}

static void test_rescaling(void **state) {
  (void)state;
  static const int32_t ratios[] = {0, 1, 2, 255, 256, 32767, 32768, 32769, 65280, 65534, 65535, 65536};
  for (size_t i = 0; i < sizeof ratios / sizeof *ratios; i++)
    for (uint32_t r = 0; r < 65536; r += 3)
      for (int q = -127; q <= 124; q += 4) {
        const uint32_t other = r * 40503u & 0xffffu, w = arb_rescale4(word_of(q & 255, (q + 1) & 255, (q + 2) & 255, -q & 255),
                                                                      ratios[i], r | other << 16, other | r << 16);
        const int from[4] = {q, q + 1, q + 2, -q};
        for (int j = 0; j < 4; j++) {
          const uint32_t draw = j == 0 || j == 3 ? r : other;
          if (byte_of(w, j) != arb_rescale(from[j], ratios[i], draw))
            fail_msg("%d * %d, draw %u: %d", from[j], (int)ratios[i], (unsigned)draw, byte_of(w, j));
        }
      }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_trits),         cmocka_unit_test(test_transpose),
                                     cmocka_unit_test(test_bytes),         cmocka_unit_test(test_votes),
                                     cmocka_unit_test(test_gradient_rows), cmocka_unit_test(test_rescaling)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
