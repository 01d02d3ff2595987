/* What the slot tests stand on: buffers that live on both backends, random contents, stacks, and the comparison of every byte.
 * For one test program, which defines the backends. */
#ifndef ARB_TESTS_GPU_SLOT_BUFFERS_H
#define ARB_TESTS_GPU_SLOT_BUFFERS_H

#include "kernels/common/scale.h"
#include "kernels/common/trit.h"
#include "tests/gpu/gpu_test.h"

#define GUARD 64

static arb_backend *ref, *gpu;
static const char *slot; /* what is being tested, for messages */
static long long detail[4];

/* ---- a buffer on both backends ---- */

typedef enum { BYTES, FLOATS, BF16S } kind;

typedef struct {
  unsigned char *ref, *gpu; /* both backends' memory; ref's is the host's */
  size_t bytes;
  kind as;
} both;

#define MOST 64
static both *all[MOST];
static int all_count;
static both pool[MOST];

static both *make(size_t bytes, kind as) {
  both *b = &pool[all_count];
  all[all_count++] = b;
  b->bytes = bytes;
  b->as = as;
  MUST(ref->ops.alloc(ref, bytes + GUARD, (void **)&b->ref));
  MUST(gpu->ops.alloc(gpu, bytes + GUARD, (void **)&b->gpu));
  memset(b->ref, 0xA5, bytes + GUARD);
  return b;
}

static void send(void) {
  for (int i = 0; i < all_count; i++) MUST(gpu->ops.upload(gpu, all[i]->gpu, all[i]->ref, all[i]->bytes + GUARD));
}

static int same_float(uint32_t a, uint32_t b) {
  return a == b || ((a & 0x7fffffffu) > 0x7f800000u && (b & 0x7fffffffu) > 0x7f800000u);
}

/* Compares everything, then frees it. */
static void compare(void) {
  int ok = 1;
  char where[256] = "";
  for (int i = 0; i < all_count; i++) {
    const size_t size = all[i]->bytes + GUARD;
    unsigned char *got = malloc(size);
    MUST(gpu->ops.download(gpu, got, all[i]->gpu, size));
    if (memcmp(got, all[i]->ref, size) != 0) {
      size_t bad = 0;
      const int floats = all[i]->as == FLOATS;
      for (; bad < size; bad++)
        if (got[bad] != all[i]->ref[bad]) {
          if (!floats || bad >= all[i]->bytes) break;
          uint32_t x, y;
          memcpy(&x, all[i]->ref + bad / 4 * 4, 4);
          memcpy(&y, got + bad / 4 * 4, 4);
          if (!same_float(x, y)) break; /* the payload of a NaN differs between processors */
        }
      if (bad < size && ok) {
        ok = 0;
        snprintf(where, sizeof where, "%s (%lld, %lld, %lld, %lld): buffer %d of %zu bytes, byte %zu%s", slot, detail[0],
                 detail[1], detail[2], detail[3], i, all[i]->bytes, bad, bad >= all[i]->bytes ? " (behind its end)" : "");
      }
    }
    free(got);
  }
  int a = 0, b = 0;
  MUST(ref->ops.take_nonfinite(ref, &a));
  MUST(gpu->ops.take_nonfinite(gpu, &b));
  if (ok && a != b) {
    ok = 0;
    snprintf(where, sizeof where, "%s (%lld, %lld, %lld, %lld): non-finite flag %d, expected %d", slot, detail[0], detail[1],
             detail[2], detail[3], b, a);
  }
  gpu_check(ok, where);
  for (int i = 0; i < all_count; i++) {
    ref->ops.free(ref, all[i]->ref);
    gpu->ops.free(gpu, all[i]->gpu);
  }
  all_count = 0;
}

/* ---- contents ---- */

enum { PLAIN, SCALED, SPARSE, WILD, BROKEN, STYLES };

static float a_float(int style) {
  const float unit = (float)((int64_t)(gpu_random() >> 40) - (1 << 23)) * 0x1p-22f; /* [-2, 2) */
  switch (style) {
    case SPARSE:
      return gpu_below(3) ? (gpu_below(2) ? 0.0f : -0.0f) : unit * 0x1p-104f * (float)(1 << gpu_below(12));
    case WILD:
      return arb_f32_of_bits((uint32_t)gpu_random() & 0xbf7fffffu); /* |x| < 2, down to the subnormals */
    case BROKEN:
      return gpu_below(200) ? unit : arb_f32_of_bits((uint32_t)gpu_random() | 0x7f800000u);
    default:
      return unit;
  }
}

static void floats(both *b, int64_t width, int style) {
  float *x = (float *)b->ref;
  float scale = 1.0f;
  for (int64_t i = 0; i < (int64_t)(b->bytes / 4); i++) {
    if (style == SCALED && i % width == 0) scale = arb_pow2i((int)gpu_below(120) - 110);
    x[i] = a_float(style) * scale;
  }
}

static void bf16s(both *b, int style) {
  uint16_t *x = (uint16_t *)b->ref;
  for (size_t i = 0; i < b->bytes / 2; i++) {
    const float v = a_float(style == SCALED ? PLAIN : style) * (gpu_below(50) ? 3.0f : 300.0f);
    x[i] = arb_bf16_of_f32(v);
  }
}

static void bytes(both *b, int low, int high) {
  for (size_t i = 0; i < b->bytes; i++) b->ref[i] = (unsigned char)(low + gpu_below(high - low + 1));
}

static void words(both *b, int low, int high) {
  int32_t *x = (int32_t *)b->ref;
  for (size_t i = 0; i < b->bytes / 4; i++) x[i] = (int32_t)(low + gpu_below(high - low + 1));
}

static void scales(both *b, int style) { /* positive row scales */
  float *x = (float *)b->ref;
  for (size_t i = 0; i < b->bytes / 4; i++)
    x[i] = style == SCALED ? arb_pow2i((int)gpu_below(60) - 50) : 0.01f + (float)gpu_below(1000) * 0.003f;
}

static void begin(const char *name, long long a, long long b, long long c, long long d) {
  slot = name;
  detail[0] = a, detail[1] = b, detail[2] = c, detail[3] = d;
  const uint64_t seed = gpu_random();
  const uint32_t step = (uint32_t)gpu_random();
  const float eta = (float)gpu_below(1000) * 0.0104f;
  MUST(ref->ops.begin_step(ref, seed, step, eta));
  MUST(gpu->ops.begin_step(gpu, seed, step, eta));
}

static size_t size_of(int64_t rows, int64_t width, size_t element) { return (size_t)(rows * width) * element; }

#define CALL(name, ...)                     \
  do {                                      \
    send();                                 \
    const int side_[2] = {0, 1};            \
    for (int s_ = 0; s_ < 2; s_++) {        \
      const int on_gpu = side_[s_];         \
      arb_backend *be = on_gpu ? gpu : ref; \
      (void)on_gpu;                         \
      MUST(be->ops.name(be, __VA_ARGS__));  \
    }                                       \
    compare();                              \
  } while (0)
#define AT(type, b) ((type *)(void *)((b) ? (on_gpu ? (b)->gpu : (b)->ref) : NULL))
#define ROWS(b, type, offset) (AT(type, b) + (offset))

/* ---- a stack on both ---- */

typedef struct {
  both *code, *e, *p, *r, *c, *m, *votes;
  arb_stack side[2];
} stacks;

static void make_stack(stacks *t, int members, const int64_t *rows, int64_t k, int uses, int vote_range) {
  arb_stack w = {.id = (uint32_t)gpu_random(), .uses = uses, .members = members, .k = k};
  for (int i = 0; i < members; i++) w.begin[i + 1] = w.begin[i] + rows[i];
  w.n = w.begin[members];
  t->code = make((size_t)(w.n * k), BYTES);
  bytes(t->code, 0, 254);
  t->e = make((size_t)w.n, BYTES);
  bytes(t->e, -60, 20);
  t->p = make((size_t)w.n, BYTES);
  bytes(t->p, gpu_below(4) ? -12 : -120, gpu_below(4) ? 3 : 120);
  t->r = make((size_t)w.n * 4, BYTES);
  t->c = make((size_t)(members * k) * 4, BYTES);
  t->m = make((size_t)members * 4, BYTES);
  both *stats[3] = {t->r, t->c, t->m};
  for (int i = 0; i < 3; i++) {
    words(stats[i], -30 * 65536, 20 * 65536);
    for (size_t j = 0; j < stats[i]->bytes / 4; j++)
      if (gpu_below(8) == 0) ((int32_t *)stats[i]->ref)[j] = INT32_MIN;
  }
  t->votes = make((size_t)(w.n * k), BYTES);
  bytes(t->votes, -vote_range, vote_range);
  for (int64_t n = 0; n < w.n; n++)
    if (gpu_below(5) == 0) memset(t->votes->ref + n * k, 0, (size_t)k);
  for (int s = 0; s < 2; s++) {
    t->side[s] = w;
    t->side[s].code = s ? t->code->gpu : t->code->ref;
    t->side[s].e = (int8_t *)(s ? t->e->gpu : t->e->ref);
    t->side[s].p = (int8_t *)(s ? t->p->gpu : t->p->ref);
    t->side[s].r = (int32_t *)(s ? t->r->gpu : t->r->ref);
    t->side[s].c = (int32_t *)(s ? t->c->gpu : t->c->ref);
    t->side[s].m = (int32_t *)(s ? t->m->gpu : t->m->ref);
    t->side[s].votes = (int8_t *)(s ? t->votes->gpu : t->votes->ref);
  }
}

static int64_t many = 1; /* sequences: enough of them that a block takes several rows */

static arb_rows some_rows(int64_t context) {
  const arb_rows r = {context * (many + gpu_below(3)), (int32_t)(1 + gpu_below(3)), (int32_t)gpu_below(5),
                      (int32_t)(1 + gpu_below(3))};
  return r;
}

#endif
