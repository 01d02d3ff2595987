/* Counter-based random numbers: Philox4x32-7 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
 *
 * Numbering, part of a run's identity (docs/arithmetic.md, "Random numbers"):
 *   key     = seed ^ (purpose << 56), as two 32-bit words (low, high)
 *   counter = (element / 8, tensor id, step, grain)
 *   draw of an element = 16-bit half (element mod 8) of the output, low half of word 0 first.
 * `element` is logical, never a buffer slot: weight n * pad8(K) + k; activation
 * ((position in the grain * uses) + use) * pad8(N) + n, N the width of the stack. pad8 rounds up to a multiple of 8, so that a
 * row always begins on an output of the generator. */
#ifndef ARB_KERNELS_COMMON_PHILOX_H
#define ARB_KERNELS_COMMON_PHILOX_H

#include "kernels/common/bits.h"

/* The purpose sits in the key's top byte, so that small seeds and purposes never share a stream. */
typedef enum {
  ARB_DRAW_INIT = 1,
  ARB_DRAW_DX,
  ARB_DRAW_DW,
  ARB_DRAW_VOTE,
  ARB_DRAW_UPDATE,
  ARB_DRAW_EXPONENT,
  ARB_DRAW_RESEED,
  ARB_DRAW_DATA,
  ARB_DRAW_SAMPLE
} arb_draw_purpose;

typedef struct {
  uint32_t v[4];
} arb_philox_block;

typedef struct {
  uint32_t k0, k1;
} arb_philox_key;

ARB_HD arb_philox_key arb_philox_key_of(uint64_t seed, arb_draw_purpose purpose) {
  const uint64_t k = seed ^ ((uint64_t)purpose << 56);
  arb_philox_key key;
  key.k0 = (uint32_t)k;
  key.k1 = (uint32_t)(k >> 32);
  return key;
}

#define ARB_PHILOX_M0 0xD2511F53u
#define ARB_PHILOX_M1 0xCD9E8D57u
#define ARB_PHILOX_W0 0x9E3779B9u
#define ARB_PHILOX_W1 0xBB67AE85u
#define ARB_PHILOX_ROUNDS 7

/* Both halves of a product. The device has one instruction for it, which its compiler finds only with additions of zero. */
ARB_HD uint32_t arb_mul_wide(uint32_t a, uint32_t b, uint32_t *high) {
#ifdef __CUDA_ARCH__
  uint32_t low;
  asm("{.reg .b64 p; mul.wide.u32 p, %2, %3; mov.b64 {%0, %1}, p;}" : "=r"(low), "=r"(*high) : "r"(a), "r"(b));
  return low;
#else
  const uint64_t p = (uint64_t)a * b;
  *high = (uint32_t)(p >> 32);
  return (uint32_t)p;
#endif
}

ARB_HD arb_philox_block arb_philox(arb_philox_key key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  for (int round = 0; round < ARB_PHILOX_ROUNDS; round++) {
    uint32_t h0, h1;
    const uint32_t l0 = arb_mul_wide(ARB_PHILOX_M0, c0, &h0), l1 = arb_mul_wide(ARB_PHILOX_M1, c2, &h1);
    c0 = h1 ^ c1 ^ key.k0;
    c1 = l1;
    c2 = h0 ^ c3 ^ key.k1;
    c3 = l0;
    key.k0 += ARB_PHILOX_W0;
    key.k1 += ARB_PHILOX_W1;
  }
  arb_philox_block b;
  b.v[0] = c0;
  b.v[1] = c1;
  b.v[2] = c2;
  b.v[3] = c3;
  return b;
}

/* arb_philox of many c0 and c3 beside one key, c1 and c2: what these alone decide in the first three rounds, and the keys. */
typedef struct {
  uint32_t c3, n0, n2, k0[ARB_PHILOX_ROUNDS - 2], k1[ARB_PHILOX_ROUNDS - 2];
} arb_philox_plan;

ARB_HD arb_philox_plan arb_philox_plan_of(arb_philox_key key, uint32_t c1, uint32_t c2) {
  arb_philox_plan p;
  uint32_t h1, h0;
  const uint32_t l1 = arb_mul_wide(ARB_PHILOX_M1, c2, &h1), l0 = arb_mul_wide(ARB_PHILOX_M0, h1 ^ c1 ^ key.k0, &h0);
  p.c3 = key.k1;
  p.n0 = l1 ^ (key.k0 + ARB_PHILOX_W0);
  p.n2 = h0 ^ (key.k1 + ARB_PHILOX_W1);
  for (int i = 0; i < ARB_PHILOX_ROUNDS - 2; i++) {
    p.k0[i] = key.k0 + (uint32_t)(i + 2) * ARB_PHILOX_W0;
    p.k1[i] = key.k1 + (uint32_t)(i + 2) * ARB_PHILOX_W1;
  }
  p.k1[0] ^= l0;
  return p;
}

ARB_HD arb_philox_block arb_philox_planned(const arb_philox_plan *p, uint32_t c0, uint32_t c3) {
  arb_philox_block b;
  uint32_t h0, h1;
  const uint32_t l = arb_mul_wide(ARB_PHILOX_M0, c0, &h0);
  b.v[1] = arb_mul_wide(ARB_PHILOX_M1, h0 ^ c3 ^ p->c3, &h1);
  b.v[0] = h1 ^ p->n0;
  b.v[2] = l ^ p->n2;
  b.v[3] = 0;
  for (int i = 0; i < ARB_PHILOX_ROUNDS - 2; i++) {
    const uint32_t l0 = arb_mul_wide(ARB_PHILOX_M0, b.v[0], &h0), l1 = arb_mul_wide(ARB_PHILOX_M1, b.v[2], &h1);
    b.v[0] = h1 ^ b.v[1] ^ p->k0[i];
    b.v[1] = l1;
    b.v[2] = h0 ^ b.v[3] ^ p->k1[i];
    b.v[3] = l0;
  }
  return b;
}

/* 16-bit draw j (0..7) of a block. */
ARB_HD uint16_t arb_philox_half(const arb_philox_block *b, int j) { return (uint16_t)(b->v[j >> 1] >> (16 * (j & 1))); }

ARB_HD int64_t arb_pad8(int64_t n) { return (n + 7) & ~(int64_t)7; }

/* floor and nearest-even of a value that is already clamped to |x| < 2^22: exact, and single instructions on every chip. */
ARB_HD float arb_floor_small(float x) {
  const float t = (float)(int32_t)x;
  return t - (t > x ? 1.0f : 0.0f);
}
ARB_HD float arb_rint_small(float x) {
  const float magic = 0x1.8p23f;
  return (x + magic) - magic;
}

/* x limited to [-limit, limit]; NaN becomes limit, so that a later conversion to integer is always defined. */
ARB_HD float arb_clamp(float x, float limit) {
  const float y = x < limit ? x : limit;
  return y > -limit ? y : -limit;
}

/* Stochastic rounding with 16 random bits: floor(x), plus one with probability frac(x) (to 2^-16). |x| < 2^22. */
ARB_HD float arb_stochastic_round(float x, uint16_t r) {
  const float f = arb_floor_small(x);
  const float d = x - f;
  return f + (((float)r + 0.5f) * 0x1p-16f < d ? 1.0f : 0.0f);
}

/* The same to 2^-15, in integers after the first product: for gradient rows, |x| <= 127. */
ARB_HD int32_t arb_round_gradient(float x, uint16_t r) { return ((int32_t)arb_rint_small(x * 0x1p15f) * 2 + (int32_t)r) >> 16; }

#endif
