/* The state digest's mixing function: 128 bits of one aligned word at one place. The digest of a state is the sum of these
 * over all words mod 2^128, so shards are hashed where they lie and added in any order (docs/arithmetic.md, "Identity").
 * Built from the 64-bit finalizer of SplitMix64 (Steele, Lea, Flood 2014), which is a bijection: for a fixed place, two
 * different words always give two different values. Not cryptographic. */
#ifndef ARB_KERNELS_COMMON_MIX128_H
#define ARB_KERNELS_COMMON_MIX128_H

#include "kernels/common/bits.h"

typedef struct {
  uint64_t lo, hi;
} arb_u128;

ARB_HD uint64_t arb_mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBu;
  x ^= x >> 31;
  return x;
}

/* array: id of the array (tensor id * 16 + field); index: number of the word within it; word: its eight bytes,
 * little-endian, zero-filled past the end of a row. */
ARB_HD arb_u128 arb_mix128(uint64_t array, uint64_t index, uint64_t word) {
  const uint64_t place = arb_mix64(index + 0x9E3779B97F4A7C15u * (array + 1));
  arb_u128 r;
  r.lo = arb_mix64(word ^ place);
  r.hi = arb_mix64((word + 0xD1B54A32D192ED03u) ^ arb_mix64(place + 0x8CB92BA72F3D8DD7u));
  return r;
}

ARB_HD arb_u128 arb_u128_add(arb_u128 a, arb_u128 b) {
  arb_u128 r;
  r.lo = a.lo + b.lo;
  r.hi = a.hi + b.hi + (r.lo < a.lo);
  return r;
}

#endif
