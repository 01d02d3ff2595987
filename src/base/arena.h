/* One block of memory, carved in a fixed order. The same walk measures (base == NULL) and then assigns, so a plan made
 * before anything is allocated cannot differ from the allocation. Works for host and device memory alike: it only does
 * pointer arithmetic. Arenas own nothing; whoever allocated the base frees it. */
#ifndef ARB_SRC_BASE_ARENA_H
#define ARB_SRC_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/status.h"

#define ARB_ARENA_ALIGN 256 /* bytes: a cache line on every backend, a coalesced row on GPUs */
#define ARB_ARENA_OWNER 64
#define ARB_GUARD_PATTERN 0xa5

/* A stretch of memory that belongs to no array: behind every one, up to the next, and before the first. Whoever can reach the
 * memory fills it with `pattern` and looks later whether it still holds it. */
typedef struct {
  const char *arena, *file; /* where the array before it is taken; file NULL: the zone before the first array */
  char owner[ARB_ARENA_OWNER];
  int line;
  arb_dtype type;
  int64_t count;
  unsigned char *at;
  size_t bytes;
  unsigned char pattern;
} arb_guard_zone;

typedef struct {
  arb_guard_zone *zone; /* freed by arb_guards_deinit */
  int count, capacity;
  int lost; /* zones there was no memory to note */
} arb_guards;

typedef struct {
  const char *name;
  unsigned char *base;              /* NULL while measuring */
  size_t capacity, used, peak;      /* bytes, padding included */
  size_t payload[ARB_DTYPE__COUNT]; /* bytes asked for, by element type, without padding */
  arb_guards *guards;               /* NULL: no guard zones */
  unsigned char pattern;
  char owner[ARB_ARENA_OWNER];
} arb_arena;

/* Starts a measuring walk. name is borrowed. */
void arb_arena_measure(arb_arena *a, const char *name);
/* Starts an assigning walk over `capacity` bytes at base (aligned to ARB_ARENA_ALIGN). */
void arb_arena_assign(arb_arena *a, const char *name, void *base, size_t capacity);
/* Takes `count` elements; NULL while measuring. Running past the capacity is our bug: it returns NULL and
 * arb_arena_check, called once after every assigning walk, reports it. */
#define arb_arena_take(a, type, count) arb_arena_take_at((a), (type), (count), __FILE__, __LINE__)
void *arb_arena_take_at(arb_arena *a, arb_dtype type, int64_t count, const char *file, int line);
/* Right after measure or assign: the walk leaves guard zones, of at least ARB_ARENA_ALIGN bytes, and an assigning walk notes
 * them in g (borrowed). */
void arb_arena_guard(arb_arena *a, arb_guards *g, unsigned char pattern);
/* Whose arrays are taken from now on, for a report. */
void arb_arena_owner(arb_arena *a, const char *owner);
void arb_guards_deinit(arb_guards *g);
/* Stack discipline for work buffers: rewind to an earlier mark. The peak is kept. */
size_t arb_arena_mark(const arb_arena *a);
void arb_arena_rewind(arb_arena *a, size_t mark);
ARB_NODISCARD arb_status arb_arena_check(const arb_arena *a);
/* Bytes asked for, over all types. */
size_t arb_arena_payload(const arb_arena *a);
/* The same for float types alone. */
size_t arb_arena_float_payload(const arb_arena *a);

#endif
