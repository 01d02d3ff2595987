#include "src/base/arena.h"

#include <string.h>

void arb_arena_measure(arb_arena *a, const char *name) { arb_arena_assign(a, name, NULL, SIZE_MAX); }

void arb_arena_assign(arb_arena *a, const char *name, void *base, size_t capacity) {
  memset(a, 0, sizeof *a);
  a->name = name;
  a->base = base;
  a->capacity = capacity;
}

void *arb_arena_take(arb_arena *a, arb_dtype type, int64_t count) {
  const size_t bytes = (size_t)count * arb_dtype_size(type);
  const size_t padded = (bytes + ARB_ARENA_ALIGN - 1) / ARB_ARENA_ALIGN * ARB_ARENA_ALIGN;
  const size_t at = a->used;
  a->used += padded;
  a->payload[type] += bytes;
  if (a->used > a->peak) a->peak = a->used;
  if (a->base == NULL || a->used > a->capacity) return NULL;
  return a->base + at;
}

size_t arb_arena_mark(const arb_arena *a) { return a->used; }
void arb_arena_rewind(arb_arena *a, size_t mark) { a->used = mark; }

arb_status arb_arena_check(const arb_arena *a) {
  ARB_REQUIRE(a->base == NULL || a->peak <= a->capacity, ARB_ERR_ARG, "arena %s: %zu bytes taken of %zu planned", a->name,
              a->peak, a->capacity);
  return ARB_OK;
}

size_t arb_arena_payload(const arb_arena *a) {
  size_t sum = 0;
  for (int t = 0; t < ARB_DTYPE__COUNT; t++) sum += a->payload[t];
  return sum;
}

size_t arb_arena_float_payload(const arb_arena *a) {
  size_t sum = 0;
  for (int t = 0; t < ARB_DTYPE__COUNT; t++)
    if (arb_dtype_is_float((arb_dtype)t)) sum += a->payload[t];
  return sum;
}
