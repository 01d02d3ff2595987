#include "src/data/ngram.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/data/batch.h"

enum { LENGTHS = ARB_NGRAM_MAX_ORDER + 2 }; /* strings of 0..order + 1 bytes: contexts, and contexts with the byte after */

/* One string of bytes, in both of its roles. */
typedef struct {
  uint64_t key;   /* 0 = free */
  uint32_t count; /* how often the string occurs: count(c b) */
  uint32_t total; /* how often a byte follows it: total(c). Differs from count where the text ends. */
  uint32_t types; /* how many different bytes follow it, at most 256 */
} entry;

struct arb_ngram {
  entry *slots;      /* [capacity], open addressing with linear probing */
  uint64_t capacity; /* a power of two */
  uint64_t used;
  int order;
};

/* The `length` bytes before `end` behind a leading 1: strings of different length differ too, and none has key 0. */
static uint64_t key_of(const unsigned char *end, int length) {
  uint64_t key = 1;
  for (int i = length; i > 0; i--) key = key << 8 | end[-i];
  return key;
}

/* The slot of the key, or the free slot where it belongs. The table is never full, so the walk ends. */
static entry *find(const arb_ngram *n, uint64_t key) {
  uint64_t at = key * UINT64_C(0x9E3779B97F4A7C15);
  at ^= at >> 32; /* the good bits of a product are the high ones */
  for (at &= n->capacity - 1; n->slots[at].key != 0 && n->slots[at].key != key; at = (at + 1) & (n->capacity - 1)) continue;
  return &n->slots[at];
}

static arb_status resize(arb_ngram *n, uint64_t capacity) {
  entry *const old = n->slots;
  const uint64_t old_capacity = n->capacity;
  entry *fresh = calloc(capacity, sizeof *fresh);
  ARB_REQUIRE(fresh != NULL, ARB_ERR_NOMEM, "no memory for an n-gram table of %" PRIu64 " entries", capacity);
  n->slots = fresh;
  n->capacity = capacity;
  for (uint64_t i = 0; i < old_capacity; i++)
    if (old[i].key != 0) *find(n, old[i].key) = old[i];
  free(old);
  return ARB_OK;
}

static entry *insert(arb_ngram *n, uint64_t key) {
  entry *e = find(n, key);
  if (e->key == 0) {
    e->key = key;
    n->used++;
  }
  return e;
}

static arb_status count_text(arb_ngram *n, const arb_text *text) {
  entry *before[LENGTHS], *now[LENGTHS]; /* [length]: the string of that length that ends before this byte; with it */
  int have = 0;                          /* longest string that ends before this byte, at most order */
  before[0] = insert(n, key_of(text->bytes, 0));
  for (int64_t at = 0; at < text->length; at++) {
    const unsigned char *const end = text->bytes + at;
    if (n->used + LENGTHS > n->capacity / 4 * 3) {
      ARB_TRY(resize(n, 2 * n->capacity));
      for (int i = 0; i <= have; i++) before[i] = find(n, key_of(end, i)); /* the old slots are gone */
    }
    /* Each context was found as a string at the byte before, so a byte costs one look-up an order, not two. */
    for (int i = 0; i <= have; i++) {
      now[i + 1] = insert(n, key_of(end + 1, i + 1));
      before[i]->total++;
      if (now[i + 1]->count++ == 0) before[i]->types++;
    }
    if (have < n->order) have++;
    for (int i = 1; i <= have; i++) before[i] = now[i];
  }
  return ARB_OK;
}

arb_status arb_ngram_create(const arb_text *text, int order, arb_ngram **out) {
  arb_status st;
  *out = NULL;
  ARB_REQUIRE(order >= 0 && order <= ARB_NGRAM_MAX_ORDER, ARB_ERR_ARG, "n-gram order %d is not in 0..%d", order,
              ARB_NGRAM_MAX_ORDER);
  ARB_REQUIRE(text->length <= UINT32_MAX, ARB_ERR_DATA, "a text of %" PRId64 " bytes is too long for 32-bit n-gram counts",
              text->length);
  arb_ngram *n = calloc(1, sizeof *n);
  ARB_REQUIRE(n != NULL, ARB_ERR_NOMEM, "no memory for an n-gram table");
  n->order = order;
  ARB_TRY_OUT(st, resize(n, 4096));
  ARB_TRY_OUT(st, count_text(n, text));
  *out = n;
  n = NULL;
out:
  arb_ngram_destroy(&n);
  return st;
}

void arb_ngram_destroy(arb_ngram **n) {
  if (n == NULL || *n == NULL) return;
  free((*n)->slots);
  free(*n);
  *n = NULL;
}

size_t arb_ngram_memory(const arb_ngram *n) { return (size_t)n->capacity * sizeof(entry) + sizeof *n; }

void arb_ngram_probabilities(const arb_ngram *n, const unsigned char *bytes, int64_t at, double *p) {
  const unsigned char *const end = bytes + at;
  double shorter = 1.0 / 256.0;
  int seen = 1; /* a context that was never followed has no longer one that was */
  for (int i = 0; i <= n->order; i++) {
    seen = seen && i <= at;
    if (seen) {
      const entry *c = find(n, key_of(end, i));
      seen = c->key != 0 && c->total > 0;
      if (seen) {
        const entry *cb = find(n, key_of(end + 1, i + 1));
        shorter = ((double)cb->count + (double)c->types * shorter) / ((double)c->total + (double)c->types);
      }
    }
    p[i] = shorter;
  }
}

arb_status arb_ngram_bits_per_byte(const arb_ngram *n, const arb_text *text, int64_t context, int64_t windows, double *bpb) {
  double p[ARB_NGRAM_MAX_ORDER + 1];
  ARB_REQUIRE(windows > 0, ARB_ERR_ARG, "%" PRId64 " validation windows is no valid request", windows);
  for (int i = 0; i <= n->order; i++) bpb[i] = 0.0;
  for (int64_t w = 0; w < windows; w++) {
    int64_t offset = 0;
    ARB_TRY(arb_batch_valid_offset(text->length, context, w, windows, &offset));
    for (int64_t t = 1; t <= context; t++) {
      arb_ngram_probabilities(n, text->bytes, offset + t, p);
      for (int i = 0; i <= n->order; i++) bpb[i] -= log2(p[i]);
    }
  }
  for (int i = 0; i <= n->order; i++) bpb[i] /= (double)windows * (double)context;
  return ARB_OK;
}
