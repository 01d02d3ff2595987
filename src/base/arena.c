#include "src/base/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void arb_arena_measure(arb_arena *a, const char *name) { arb_arena_assign(a, name, NULL, SIZE_MAX); }

void arb_arena_assign(arb_arena *a, const char *name, void *base, size_t capacity) {
  memset(a, 0, sizeof *a);
  a->name = name;
  a->base = base;
  a->capacity = capacity;
}

static void note(arb_arena *a, size_t at, size_t bytes, arb_guard_zone zone) {
  arb_guards *g = a->guards;
  if (a->base == NULL || at + bytes > a->capacity) return;
  if (g->count == g->capacity) {
    const int capacity = g->capacity ? 2 * g->capacity : 256;
    arb_guard_zone *grown = realloc(g->zone, (size_t)capacity * sizeof *grown);
    if (grown == NULL) {
      g->lost++;
      return;
    }
    g->zone = grown;
    g->capacity = capacity;
  }
  zone.arena = a->name;
  zone.at = a->base + at;
  zone.bytes = bytes;
  zone.pattern = a->pattern;
  memcpy(zone.owner, a->owner, sizeof zone.owner);
  g->zone[g->count++] = zone;
}

void arb_arena_guard(arb_arena *a, arb_guards *g, unsigned char pattern) {
  a->guards = g;
  a->pattern = pattern;
  note(a, a->used, ARB_ARENA_ALIGN, (arb_guard_zone){.file = NULL});
  a->used += ARB_ARENA_ALIGN;
  if (a->used > a->peak) a->peak = a->used;
}

void arb_arena_owner(arb_arena *a, const char *owner) { snprintf(a->owner, sizeof a->owner, "%s", owner); }

void arb_guards_deinit(arb_guards *g) {
  free(g->zone);
  memset(g, 0, sizeof *g);
}

void *arb_arena_take_at(arb_arena *a, arb_dtype type, int64_t count, const char *file, int line) {
  const size_t bytes = (size_t)count * arb_dtype_size(type);
  size_t padded = (bytes + ARB_ARENA_ALIGN - 1) / ARB_ARENA_ALIGN * ARB_ARENA_ALIGN;
  const size_t at = a->used;
  if (a->guards) {
    padded += ARB_ARENA_ALIGN;
    note(a, at + bytes, padded - bytes, (arb_guard_zone){.file = file, .line = line, .type = type, .count = count});
  }
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
