/* Arenas: the measuring walk and the assigning walk agree, pieces are aligned and apart, and running over is reported. */
#include "src/base/arena.h"

#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

typedef struct {
  arb_dtype type;
  int64_t count;
} piece;

static const piece pieces[] = {{ARB_U8, 1},   {ARB_I32, 65}, {ARB_BF16, 128}, {ARB_F32, 0},    {ARB_U64, 33},
                               {ARB_I8, 257}, {ARB_F32, 64}, {ARB_I16, 3},    {ARB_I64, 1000}, {ARB_U8, 256}};
#define PIECES ((int)(sizeof pieces / sizeof *pieces))

static void walk(arb_arena *a, void **out) {
  for (int i = 0; i < PIECES; i++) {
    void *p = arb_arena_take(a, pieces[i].type, pieces[i].count);
    if (out) out[i] = p;
  }
}

static size_t bytes_of(const piece *p) { return (size_t)p->count * arb_dtype_size(p->type); }

static void test_measure_equals_assign(void **state) {
  (void)state;
  arb_arena m, a;
  void *at[PIECES];
  arb_arena_measure(&m, "plan");
  walk(&m, at);
  size_t expected = 0, payload = 0, floats = 0;
  for (int i = 0; i < PIECES; i++) {
    assert_null(at[i]);
    expected += (bytes_of(&pieces[i]) + 255) / 256 * 256;
    payload += bytes_of(&pieces[i]);
    if (pieces[i].type == ARB_F32 || pieces[i].type == ARB_BF16) floats += bytes_of(&pieces[i]);
  }
  assert_int_equal(m.peak, expected);
  assert_int_equal(arb_arena_payload(&m), payload);
  assert_int_equal(arb_arena_float_payload(&m), floats);
  assert_int_equal(m.payload[ARB_BF16], 256);
  assert_int_equal(m.payload[ARB_U8], 257);
  arb_assert_ok(arb_arena_check(&m));

  unsigned char *base = aligned_alloc(ARB_ARENA_ALIGN, m.peak);
  assert_non_null(base);
  arb_arena_assign(&a, "plan", base, m.peak);
  walk(&a, at);
  arb_assert_ok(arb_arena_check(&a));
  assert_int_equal(a.used, m.used);
  assert_int_equal(a.peak, m.peak);
  assert_memory_equal(a.payload, m.payload, sizeof a.payload);
  /* Every byte of every piece is its own: fill each with its number, then look again. */
  for (int i = 0; i < PIECES; i++) {
    assert_non_null(at[i]);
    assert_int_equal((uintptr_t)at[i] % ARB_ARENA_ALIGN, 0);
    assert_true((unsigned char *)at[i] >= base && (unsigned char *)at[i] + bytes_of(&pieces[i]) <= base + m.peak);
    memset(at[i], i + 1, bytes_of(&pieces[i]));
  }
  for (int i = 0; i < PIECES; i++)
    for (size_t b = 0; b < bytes_of(&pieces[i]); b++) assert_int_equal(((unsigned char *)at[i])[b], i + 1);
  free(base);
}

static void test_overflow(void **state) {
  (void)state;
  unsigned char *base = aligned_alloc(ARB_ARENA_ALIGN, 1024);
  assert_non_null(base);
  arb_arena a;
  arb_arena_assign(&a, "small", base, 1024);
  assert_ptr_equal(arb_arena_take(&a, ARB_U8, 700), base);
  assert_ptr_equal(arb_arena_take(&a, ARB_U8, 256), base + 768);
  arb_assert_ok(arb_arena_check(&a));
  assert_null(arb_arena_take(&a, ARB_U8, 1)); /* the block is full to the last byte */
  arb_assert_fails(arb_arena_check(&a), ARB_ERR_ARG, "arena small: 1280 bytes taken of 1024 planned");
  /* The peak keeps the mistake in sight after a rewind. */
  arb_arena_rewind(&a, 0);
  assert_ptr_equal(arb_arena_take(&a, ARB_U8, 8), base);
  arb_assert_fails(arb_arena_check(&a), ARB_ERR_ARG, "arena small");
  free(base);
}

static void test_rewind(void **state) {
  (void)state;
  arb_arena m, a;
  arb_arena_measure(&m, "stack");
  const size_t start = arb_arena_mark(&m);
  assert_int_equal(start, 0);
  arb_arena_take(&m, ARB_F32, 100);
  const size_t mark = arb_arena_mark(&m);
  assert_int_equal(mark, 512);
  arb_arena_take(&m, ARB_F32, 1000);
  arb_arena_rewind(&m, mark);
  assert_int_equal(m.used, 512);
  arb_arena_take(&m, ARB_F32, 10);
  assert_int_equal(m.used, 768);
  assert_int_equal(m.peak, 512 + 4096);

  unsigned char *base = aligned_alloc(ARB_ARENA_ALIGN, m.peak);
  assert_non_null(base);
  arb_arena_assign(&a, "stack", base, m.peak);
  arb_arena_take(&a, ARB_F32, 100);
  void *first = arb_arena_take(&a, ARB_F32, 1000);
  arb_arena_rewind(&a, mark);
  assert_ptr_equal(arb_arena_take(&a, ARB_F32, 10), first);
  assert_int_equal(a.peak, m.peak);
  arb_assert_ok(arb_arena_check(&a));
  free(base);
}

/* Guard zones lie behind every piece, up to the next, and before the first; both walks agree with them too. */
static void test_guards(void **state) {
  (void)state;
  arb_arena m, a;
  arb_guards g = {0};
  void *at[PIECES];
  arb_arena_measure(&m, "plan");
  arb_arena_guard(&m, &g, 0x5a);
  walk(&m, NULL);
  assert_int_equal(g.count, 0);
  unsigned char *base = aligned_alloc(ARB_ARENA_ALIGN, m.peak);
  assert_non_null(base);
  arb_arena_assign(&a, "plan", base, m.peak);
  arb_arena_guard(&a, &g, 0x5a);
  arb_arena_owner(&a, "somebody");
  walk(&a, at);
  arb_assert_ok(arb_arena_check(&a));
  assert_int_equal(a.peak, m.peak);
  assert_int_equal(g.count, PIECES + 1);
  assert_int_equal(g.lost, 0);
  assert_ptr_equal(g.zone[0].at, base);
  assert_null(g.zone[0].file);
  for (int i = 0; i < PIECES; i++) {
    const arb_guard_zone *z = &g.zone[i + 1];
    const unsigned char *next = i + 1 < PIECES ? at[i + 1] : base + m.peak;
    assert_ptr_equal(z->at, (unsigned char *)at[i] + bytes_of(&pieces[i]));
    assert_ptr_equal(z->at + z->bytes, next);
    assert_true(z->bytes >= ARB_ARENA_ALIGN && z->bytes < 2 * ARB_ARENA_ALIGN);
    assert_int_equal(z->pattern, 0x5a);
    assert_int_equal(z->count, pieces[i].count);
    assert_string_equal(z->owner, "somebody");
  }
  arb_guards_deinit(&g);
  free(base);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_measure_equals_assign), cmocka_unit_test(test_overflow),
                                     cmocka_unit_test(test_guards), cmocka_unit_test(test_rewind)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
