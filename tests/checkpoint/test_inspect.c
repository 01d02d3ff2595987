/* Checkpoints opened without knowing the model: lists, walks, digests. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/common/mix128.h"
#include "src/checkpoint/inspect.h"
#include "tests/checkpoint/state.h"
#include "tests/test.h"

static void names(void **test) {
  (void)test;
  static const struct {
    const char *name;
    int64_t step;
    long pid;
    bool replaced;
  } good[] = {{"step-00000000", 0, 0, false},
              {"step-00001234", 1234, 0, false},
              {"step-123456789012", 123456789012, 0, false},
              {"step-00000007.tmp-42", 7, 42, false},
              {"step-00000007.old-42", 7, 42, true}};
  static const char *const bad[] = {"",
                                    "step-",
                                    "step-7",
                                    "step-0000007",
                                    "step-000000007",
                                    "step--0000007",
                                    "step-+0000007",
                                    "step- 0000007",
                                    "Step-00000007",
                                    "step-00000007 ",
                                    "step-00000007.tmp-",
                                    "step-00000007.tmp-0",
                                    "step-00000007.old-",
                                    "step-00000007.new-42",
                                    "step-00000007.tmp-042",
                                    "step-00000007.tmp--4",
                                    "step-00000007/",
                                    "step-99999999999999999999999999"};
  arb_ckpt_folder f;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_true(arb_ckpt_folder_name(good[i].name, &f));
    assert_true(f.step == good[i].step && f.pid == good[i].pid && f.replaced == good[i].replaced);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (arb_ckpt_folder_name(bad[i], &f)) fail_msg("'%s' was taken for a checkpoint", bad[i]);
}

static void lists(void **test) {
  arb_ckpt_folder *list;
  char name[1200];
  int count;
  arb_assert_ok(arb_ckpt_list(*test, &list, &count));
  assert_int_equal(count, 0);
  free(list);
  state_save(*test, 9);
  state_save(*test, 100);
  snprintf(name, sizeof name, "%s.tmp-77", step_path(*test, 500, NULL));
  assert_int_equal(mkdir(name, 0777), 0);
  arb_assert_ok(arb_ckpt_list(*test, &list, &count));
  assert_int_equal(count, 3);
  assert_true(list[0].step == 100 && list[0].pid == 0 && list[1].step == 9 && list[1].pid == 0);
  assert_true(list[2].step == 500 && list[2].pid == 77);
  free(list);
  snprintf(name, sizeof name, "%s/absent", (const char *)*test);
  arb_assert_ok(arb_ckpt_list(name, &list, &count));
  assert_int_equal(count, 0);
  free(list);
  snprintf(name, sizeof name, "%s", step_path(*test, 9, RANK0));
  arb_assert_fails(arb_ckpt_list(name, &list, &count), ARB_ERR_CHECKPOINT, "Not a directory");
  assert_null(list);
}

/* All arrays of the state are seen whole, in whatever blocks. */
static void walks(void **test) {
  state want;
  arb_ckpt *c;
  state_fill(&want, 3);
  state_save(*test, 3);
  arb_assert_ok(arb_ckpt_open(*test, 3, &c));
  assert_int_equal(arb_ckpt_array_count(c), STATE_ARRAYS);
  assert_string_equal(arb_ckpt_meta_of(c)->identity, STATE_IDENTITY);
  assert_string_equal(arb_ckpt_meta_of(c)->config, STATE_CONFIG);
  assert_true(arb_ckpt_meta_of(c)->seed == want.meta.seed && arb_ckpt_meta_of(c)->samples == want.meta.samples);
  assert_string_equal(arb_ckpt_path_of(c), step_path(*test, 3, NULL));
  for (int i = 0; i < STATE_ARRAYS; i++) {
    arb_ckpt_walk w;
    const arb_ckpt_array *a = &want.arrays[i], got = arb_ckpt_array_at(c, i); /* the fixture's are sorted */
    const size_t row = (size_t)a->columns * arb_dtype_size(a->type);
    int64_t rows = 0;
    assert_string_equal(got.tensor, a->tensor);
    assert_string_equal(got.field, a->field);
    assert_true(got.type == a->type && got.rows == a->rows && got.columns == a->columns && got.host == NULL);
    arb_assert_ok(arb_ckpt_walk_begin(&w, c, i));
    for (;;) {
      arb_assert_ok(arb_ckpt_walk_next(&w));
      if (w.rows == 0) break;
      assert_true(w.first == rows);
      assert_memory_equal(w.data, want.bytes[i] + (size_t)rows * row, (size_t)w.rows * row);
      rows += w.rows;
    }
    assert_true(rows == a->rows);
    arb_ckpt_walk_end(&w);
  }
  arb_ckpt_close(&c);
  assert_null(c);
  arb_ckpt_close(&c);
}

static void blocks(void **test) {
  enum { ROWS = 700, COLUMNS = 1700, LONG = 3 << 20 }; /* rows that do not fill a block, and one that is longer */
  static unsigned char many[ROWS * COLUMNS * 4], one[LONG];
  for (size_t i = 0; i < sizeof many; i++) many[i] = (unsigned char)(i * 2654435761u >> 11);
  for (size_t i = 0; i < sizeof one; i++) one[i] = (unsigned char)(i * 40503u >> 7);
  const arb_ckpt_array arrays[] = {ARB_CKPT_WHOLE("a", "c", ARB_I32, ROWS, COLUMNS, many),
                                   ARB_CKPT_WHOLE("b", "code", ARB_U8, 1, LONG, one),
                                   ARB_CKPT_WHOLE("c", "code", ARB_U8, (int64_t)1 << 40, 0, NULL)};
  const arb_ckpt_meta meta = {.step = 1, .digest = "00000000000000000000000000000000", .identity = "", .config = ""};
  arb_ckpt *c;
  arb_ckpt_walk w;
  arb_assert_ok(arb_ckpt_save(*test, &meta, arrays, 3));
  arb_assert_ok(arb_ckpt_open(*test, 1, &c));
  for (int i = 0; i < 3; i++) {
    int64_t rows = 0;
    int count = 0;
    const size_t row = (size_t)arrays[i].columns * arb_dtype_size(arrays[i].type);
    arb_assert_ok(arb_ckpt_walk_begin(&w, c, i));
    for (;; count++) {
      arb_assert_ok(arb_ckpt_walk_next(&w));
      if (w.rows == 0) break;
      if (i < 2) assert_memory_equal(w.data, (unsigned char *)arrays[i].host + (size_t)rows * row, (size_t)w.rows * row);
      rows += w.rows;
    }
    arb_ckpt_walk_end(&w);
    assert_true(rows == arrays[i].rows);
    assert_int_equal(count, i == 0 ? 5 : 1);
  }
  arb_ckpt_close(&c);
}

static void damage(void **test) {
  long size;
  arb_ckpt *c;
  arb_ckpt_walk w;
  state_save(*test, 3);
  state want;
  state_fill(&want, 3);
  unsigned char *bytes = slurp(step_path(*test, 3, RANK0), &size);
  long at = 0;
  while (memcmp(bytes + at, want.bytes[0], 1024) != 0) at++;
  bytes[at + 1023] ^= 4;
  spill(step_path(*test, 3, RANK0), bytes, size);
  free(bytes);
  arb_assert_fails(arb_ckpt_open(*test, 3, &c), ARB_ERR_CHECKPOINT, "rank-00000.h5: embed.code is damaged (digest");
  assert_null(c);
  /* To rescue what is left, it opens unverified, and says what is not as it was. */
  const char *first;
  arb_assert_ok(arb_ckpt_open_unverified(*test, 3, &c));
  arb_assert_ok(arb_ckpt_walk_begin(&w, c, 1));
  while (arb_ckpt_walk_next(&w) == ARB_OK && w.rows > 0) continue;
  arb_ckpt_walk_end(&w);
  assert_int_equal(arb_ckpt_damaged(c, NULL), 0);
  arb_assert_ok(arb_ckpt_walk_begin(&w, c, 0));
  arb_assert_ok(arb_ckpt_walk_next(&w));
  assert_int_equal(w.data[1023], want.bytes[0][1023] ^ 4);
  arb_ckpt_walk_end(&w);
  assert_int_equal(arb_ckpt_damaged(c, &first), 1);
  assert_string_equal(first, "embed.code");
  arb_ckpt_close(&c);
  assert_int_equal(truncate(step_path(*test, 3, RANK0), 3000), 0);
  arb_assert_fails(arb_ckpt_open(*test, 3, &c), ARB_ERR_CHECKPOINT, "has 3000 bytes, but its manifest says");
  assert_null(c);
  arb_assert_fails(arb_ckpt_open_unverified(*test, 3, &c), ARB_ERR_CHECKPOINT, "its superblock says");
  assert_null(c);
  arb_assert_fails(arb_ckpt_open(*test, 4, &c), ARB_ERR_CHECKPOINT, "No such file");
}

/* The definition of docs/arithmetic.md, "Identity", written down once more. */
static void digest_by_definition(void **test) {
  enum { ROWS = 1500, COLUMNS = 1001 };
  static unsigned char many[ROWS][COLUMNS];
  for (size_t i = 0; i < sizeof many; i++) many[i / COLUMNS][i % COLUMNS] = (unsigned char)(i * 2654435761u >> 9);
  static unsigned char code[3][13] = {
      {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, {200}, {0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 77}};
  static int32_t r[3] = {-5, 1 << 30, 0};
  static const char identity[] = "a=1\nbc=2\n";
  const arb_ckpt_array arrays[] = {ARB_CKPT_WHOLE("x.y", "code", ARB_U8, 3, 13, code),
                                   ARB_CKPT_WHOLE("x.y", "r", ARB_I32, 3, 1, r),
                                   ARB_CKPT_WHOLE("z", "code", ARB_U8, ROWS, COLUMNS, many)};
  const arb_ckpt_meta meta = {.step = 8,
                              .samples = 99,
                              .seed = UINT64_MAX,
                              .digest = "00000000000000000000000000000000",
                              .identity = identity,
                              .config = ""};
  arb_u128 sum = {0, 0};
  uint64_t tensor = 2166136261u;
  for (const char *s = "x.y"; *s != '\0'; s++) tensor = (uint32_t)((tensor ^ (unsigned char)*s) * 16777619u);
  for (uint64_t row = 0; row < 3; row++) { /* rows of 13 bytes take two words; statistics are field 3 */
    uint64_t words[2] = {0, 0}, word = 0;
    memcpy(words, code[row], 13);
    for (uint64_t i = 0; i < 2; i++) sum = arb_u128_add(sum, arb_mix128(tensor * 16, row * 2 + i, words[i]));
    memcpy(&word, &r[row], 4);
    sum = arb_u128_add(sum, arb_mix128(tensor * 16 + 3, row, word));
  }
  tensor = (2166136261u ^ 'z') * 16777619u;
  for (uint64_t row = 0; row < ROWS; row++) /* more than a block: rows count on */
    for (uint64_t i = 0; i < (COLUMNS + 7) / 8; i++) {
      uint64_t word = 0;
      memcpy(&word, &many[row][8 * i], 8 * i + 8 <= COLUMNS ? 8 : COLUMNS % 8);
      sum = arb_u128_add(sum, arb_mix128(tensor * 16, row * ((COLUMNS + 7) / 8) + i, word));
    }
  uint64_t texts[2] = {0, 0};
  memcpy(texts, identity, strlen(identity));
  const uint64_t head[5] = {UINT64_MAX, 8, 99, texts[0], texts[1]};
  for (uint64_t i = 0; i < 5; i++) sum = arb_u128_add(sum, arb_mix128(UINT64_MAX, i, head[i]));
  char want[33], got[33];
  snprintf(want, sizeof want, "%016" PRIx64 "%016" PRIx64, sum.hi, sum.lo);
  arb_ckpt *c;
  arb_assert_ok(arb_ckpt_save(*test, &meta, arrays, 3));
  arb_assert_ok(arb_ckpt_open(*test, 8, &c));
  arb_assert_ok(arb_ckpt_state_digest(c, NULL, NULL, got));
  assert_string_equal(got, want);
  arb_ckpt_close(&c);
}

static void unknown_field(void **test) {
  static unsigned char byte[1];
  const arb_ckpt_array array = ARB_CKPT_WHOLE("x", "codes", ARB_U8, 1, 1, byte);
  const arb_ckpt_meta meta = {.step = 1, .digest = "00000000000000000000000000000000", .identity = "", .config = ""};
  arb_ckpt *c;
  char hex[33];
  arb_assert_ok(arb_ckpt_save(*test, &meta, &array, 1));
  arb_assert_ok(arb_ckpt_open(*test, 1, &c));
  arb_assert_fails(arb_ckpt_state_digest(c, NULL, NULL, hex), ARB_ERR_CHECKPOINT, "x.codes is not part of a training state");
  arb_ckpt_close(&c);
}

#define SCRATCH(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names),       SCRATCH(lists),         SCRATCH(walks), SCRATCH(blocks), SCRATCH(damage),
      SCRATCH(digest_by_definition), SCRATCH(unknown_field),
  };
  return cmocka_run_group_tests_name("checkpoint_inspect", tests, NULL, NULL);
}
