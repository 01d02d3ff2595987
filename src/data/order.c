#include "src/data/order.h"

#include <assert.h>
#include <inttypes.h>

enum { ROUNDS = 8 }; /* four make a Feistel network pseudo-random; small domains (few bits a half) want more */

typedef enum { DRAW_PHASE = 1, DRAW_PERMUTATION = 2 } draw;

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits in which every input bit reaches all. */
static uint64_t mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
  return x ^ (x >> 31);
}

/* 2^64 / golden ratio: moves nearby counters, and zero, far apart before they are mixed. */
static uint64_t spread(uint64_t x) { return (x + 1) * UINT64_C(0x9E3779B97F4A7C15); }

static uint64_t epoch_key(const arb_order *o, int64_t epoch, draw what) {
  return mix64(mix64(mix64(spread(o->seed)) ^ spread((uint64_t)epoch)) ^ spread((uint64_t)what));
}

arb_status arb_order_init(arb_order *o, uint64_t seed, int64_t length, int64_t context) {
  ARB_REQUIRE(context > 0 && context < INT64_MAX, ARB_ERR_ARG, "context %" PRId64 " must be positive", context);
  ARB_REQUIRE(length > context, ARB_ERR_DATA,
              "the text has %" PRId64 " bytes; one window of context %" PRId64 " needs at least %" PRId64, length, context,
              context + 1);
  int64_t windows = length / context - 1;
  if (windows < 1) windows = 1;
  /* The last target of the last window, byte phase + windows * context, must exist. */
  const int64_t room = length - windows * context;
  *o = (arb_order){
      .seed = seed, .length = length, .context = context, .windows = windows, .phases = room < context ? room : context};
  return ARB_OK;
}

int64_t arb_order_phase(const arb_order *o, int64_t epoch) {
  return (int64_t)(epoch_key(o, epoch, DRAW_PHASE) % (uint64_t)o->phases);
}

int64_t arb_order_window(const arb_order *o, int64_t epoch, int64_t k) {
  assert(epoch >= 0 && k >= 0 && k < o->windows);
  unsigned half = 1; /* bits a half of the smallest network, of 4^half values, that covers the windows: under 4 times them */
  while (half < 32 && (UINT64_C(1) << (2 * half)) < (uint64_t)o->windows) half++;
  const uint64_t mask = (UINT64_C(1) << half) - 1;
  const uint64_t key = epoch_key(o, epoch, DRAW_PERMUTATION);
  uint64_t x = (uint64_t)k;
  /* Cycle walking: a bijection of the larger domain, repeated until it lands inside, is a bijection of the inside. */
  do {
    uint64_t left = x >> half, right = x & mask;
    for (uint64_t round = 0; round < ROUNDS; round++) {
      const uint64_t next = left ^ (mix64(key ^ spread(round << 32 | right)) & mask);
      left = right;
      right = next;
    }
    x = left << half | right;
  } while (x >= (uint64_t)o->windows);
  return (int64_t)x;
}

int64_t arb_order_offset(const arb_order *o, int64_t i) {
  const int64_t epoch = arb_order_epoch(o, i);
  return arb_order_phase(o, epoch) + arb_order_window(o, epoch, arb_order_in_epoch(o, i)) * o->context;
}
