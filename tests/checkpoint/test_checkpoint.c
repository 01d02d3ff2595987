/* Saving, loading, discovery and retention on files that nobody has tampered with. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/checkpoint/resign.h"
#include "tests/checkpoint/state.h"
#include "tests/test.h"

static void round_trip(void **test) {
  const char *dir = *test;
  state_save(dir, 12);
  state_check(dir, 12);
  assert_int_equal(entries_with(dir, ""), 1);
  assert_true(exists(step_path(dir, 12, RANK0)));
}

static void no_arrays_and_empty_texts(void **test) {
  arb_ckpt_meta meta = {.step = 0, .digest = "00000000000000000000000000000000", .identity = "", .config = ""};
  arb_assert_ok(arb_ckpt_save(*test, &meta, NULL, 0));
  assert_int_equal(state_latest(*test), 0);
  arb_assert_ok(arb_ckpt_load(*test, 0, &meta, NULL, 0));
}

/* Rows of array a that rank r of n owns: contiguous, in rank order, some ranks without any. */
static void own(arb_ckpt_array *a, int rank, int ranks) {
  const int64_t low = a->rows * rank / ranks, high = a->rows * (rank + 1) / ranks;
  a->first = low;
  a->count = high - low;
  a->host = (unsigned char *)a->host + (size_t)(low * a->columns) * arb_dtype_size(a->type);
}

/* Every rank's part of a save of `ranks` ranks; `lose` (or -1): a rank whose rows of the first array nobody writes, `twice` one
 * whose rows are written by the next rank, too. */
static arb_status save_sharded(const char *dir, const state *s, int ranks, int lose, int twice) {
  arb_ckpt_part *parts[8] = {NULL};
  char folder[ARB_CKPT_FOLDER];
  arb_assert_ok(arb_ckpt_prepare(dir, s->meta.step, folder));
  for (int r = 0; r < ranks; r++) {
    const arb_ckpt_world world = {.rank = r, .ranks = ranks, .sharded = true};
    state mine = *s;
    for (int i = 0; i < STATE_ARRAYS; i++) {
      mine.arrays[i].host = mine.bytes[i];
      own(&mine.arrays[i], i == 0 && r == twice + 1 && twice >= 0 ? twice : r, ranks);
    }
    if (r == lose) mine.arrays[0].count = 0;
    arb_assert_ok(arb_ckpt_write(dir, folder, &world, &mine.meta, mine.arrays, STATE_ARRAYS, &parts[r]));
  }
  const arb_ckpt_world world = {.rank = 0, .ranks = ranks, .sharded = true};
  const arb_status st = arb_ckpt_commit(dir, folder, &world, &s->meta, (const arb_ckpt_part *const *)parts, ranks);
  for (int r = 0; r < ranks; r++) free(parts[r]);
  return st;
}

/* Any number of ranks writes, any number reads. */
static void slices(void **test) {
  state s, got;
  for (int ranks = 1; ranks <= 8; ranks++) {
    state_fill(&s, ranks);
    arb_assert_ok(save_sharded(*test, &s, ranks, -1, -1));
    assert_int_equal(entries_with(step_path(*test, ranks, NULL), "rank-"), ranks);
    state_check(*test, ranks);
    for (int readers = 1; readers <= 5; readers++) {
      state_blank(&got);
      for (int r = 0; r < readers; r++) {
        arb_ckpt_array mine[STATE_ARRAYS];
        for (int i = 0; i < STATE_ARRAYS; i++) {
          mine[i] = got.arrays[i];
          own(&mine[i], r, readers);
        }
        arb_assert_ok(arb_ckpt_load(*test, ranks, &got.meta, mine, STATE_ARRAYS));
      }
      assert_true(state_equal(&got, &s));
    }
  }
  assert_int_equal(state_latest(*test), 8);
}

static void slices_that_do_not_fit(void **test) {
  state s;
  state_fill(&s, 3);
  arb_assert_fails(save_sharded(*test, &s, 4, 0, -1), ARB_ERR_ARG, "row 0 of embed.code is in no slice");
  arb_assert_fails(save_sharded(*test, &s, 4, 2, -1), ARB_ERR_ARG, "row 8 of embed.code is in no slice");
  arb_assert_fails(save_sharded(*test, &s, 4, 3, -1), ARB_ERR_ARG, "row 12 of embed.code is in no slice");
  arb_assert_fails(save_sharded(*test, &s, 4, -1, 1), ARB_ERR_ARG, "row 4 of embed.code is in two slices");
  assert_int_equal(entries_with(*test, ""), 0);
}

static void large_numbers(void **test) {
  state s;
  state_fill(&s, INT64_MAX);
  s.meta.samples = INT64_MAX;
  arb_assert_ok(arb_ckpt_save(*test, &s.meta, s.arrays, STATE_ARRAYS));
  assert_true(state_latest(*test) == INT64_MAX);
  state got;
  arb_assert_ok(state_load(*test, INT64_MAX, &got));
  assert_true(state_equal(&got, &s));
}

static void many_tensors_and_blocks(void **test) {
  enum { MANY = 700, ROWS = 1300, COLUMNS = 1000 }; /* more groups than fit one header; more bytes than one read */
  static unsigned char big[ROWS * COLUMNS * 4], back[sizeof big];
  static unsigned char small[MANY], small_back[MANY];
  static char names[MANY][24];
  arb_ckpt_array arrays[MANY + 1];
  for (size_t i = 0; i < sizeof big; i++) big[i] = (unsigned char)(i * 2654435761u >> 13);
  for (int i = 0; i < MANY; i++) {
    snprintf(names[i], sizeof names[i], "layer%d.w", i);
    small[i] = (unsigned char)(i * 37);
    arrays[i] = (arb_ckpt_array)ARB_CKPT_WHOLE(names[i], "code", ARB_U8, 1, 1, &small[i]);
  }
  arrays[MANY] = (arb_ckpt_array)ARB_CKPT_WHOLE("big", "c", ARB_I32, ROWS, COLUMNS, big);
  arb_ckpt_meta meta = {.step = 1, .digest = "0123456789abcdef0123456789abcdef", .identity = "a=1\n", .config = "x"};
  arb_assert_ok(arb_ckpt_save(*test, &meta, arrays, MANY + 1));
  for (int i = 0; i < MANY; i++) arrays[i].host = &small_back[i];
  arrays[MANY].host = back;
  /* Another order than the saved one is fine. */
  for (int i = 0; i < MANY / 2; i++) {
    const arb_ckpt_array swap = arrays[i];
    arrays[i] = arrays[MANY - i];
    arrays[MANY - i] = swap;
  }
  arb_assert_ok(arb_ckpt_load(*test, 1, &meta, arrays, MANY + 1));
  assert_memory_equal(back, big, sizeof big);
  assert_memory_equal(small_back, small, sizeof small);
}

static void equal_states_give_equal_files(void **test) {
  long first_size, second_size;
  state_save(*test, 3);
  unsigned char *first = slurp(step_path(*test, 3, RANK0), &first_size);
  sleep(1); /* times are kept in seconds */
  state_save(*test, 3);
  unsigned char *second = slurp(step_path(*test, 3, RANK0), &second_size);
  assert_int_equal(first_size, second_size);
  assert_memory_equal(first, second, (size_t)first_size);
  free(first);
  free(second);
}

static void latest_of_several(void **test) {
  const char *dir = *test;
  assert_int_equal(state_latest(dir), -1);
  state_save(dir, 9);
  state_save(dir, 10);
  state_save(dir, 2);
  assert_int_equal(state_latest(dir), 10);
  state_check(dir, 9);
  state_check(dir, 10);
  state_check(dir, 2);
}

static void absent_folder(void **test) {
  char dir[1100];
  snprintf(dir, sizeof dir, "%s/a/b//c/", (const char *)*test);
  assert_int_equal(state_latest(dir), -1);
  arb_assert_ok(arb_ckpt_retain(dir, 1));
  assert_false(exists(dir));
  state_save(dir, 1); /* creates all of it */
  state_check(dir, 1);
}

static void folder_is_a_file(void **test) {
  char dir[1100], below[1200];
  int64_t step;
  state s;
  snprintf(dir, sizeof dir, "%s/file", (const char *)*test);
  snprintf(below, sizeof below, "%s/sub", dir);
  spill(dir, (const unsigned char *)"x", 1);
  state_fill(&s, 1);
  arb_assert_fails(arb_ckpt_save(dir, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_CHECKPOINT, dir);
  arb_assert_fails(arb_ckpt_save(below, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_CHECKPOINT, "Not a directory");
  arb_assert_fails(arb_ckpt_latest(dir, &step, NULL, NULL), ARB_ERR_CHECKPOINT, "Not a directory");
}

static void same_step_again(void **test) {
  const char *dir = *test;
  state s, got;
  state_save(dir, 5);
  state_fill(&s, 5);
  s.bytes[0][3] ^= 1;
  s.meta.samples++;
  arb_assert_ok(arb_ckpt_save(dir, &s.meta, s.arrays, STATE_ARRAYS));
  arb_assert_ok(state_load(dir, 5, &got));
  assert_true(state_equal(&got, &s));
  assert_int_equal(entries_with(dir, ""), 1);
  assert_int_equal(entries_with(step_path(dir, 5, NULL), ""), 2);
}

static void stale_folder_with_our_number(void **test) {
  char name[1200], file[1300];
  snprintf(name, sizeof name, "%s.tmp-%ld", step_path(*test, 4, NULL), (long)getpid());
  snprintf(file, sizeof file, "%s/rank-00000.h5", name);
  assert_int_equal(mkdir(name, 0777), 0);
  spill(file, (const unsigned char *)"half", 4);
  state_save(*test, 4);
  state_check(*test, 4);
  assert_int_equal(entries_with(*test, ".tmp-"), 0);
}

static void bad_arguments(void **test) {
  state s;
  static const char *const names[] = {"", "a/b", ".", "..", ".hidden", "meta", "a b", "t\xc3\xa4"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    state_fill(&s, 1);
    s.arrays[2].tensor = names[i];
    arb_assert_fails(arb_ckpt_save(*test, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_ARG, "no name");
  }
  state_fill(&s, 1);
  s.arrays[0].type = ARB_F32;
  arb_assert_fails(arb_ckpt_save(*test, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_ARG, "embed.code");
  state_fill(&s, 1);
  s.arrays[0].rows = INT64_MAX / 32;
  arb_assert_fails(arb_ckpt_save(*test, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_ARG, "embed.code: shape");
  state_fill(&s, 1);
  s.arrays[1].field = "code";
  arb_assert_fails(arb_ckpt_save(*test, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_ARG, "embed.code: twice");
  state_fill(&s, 1);
  s.meta.digest[31] = 'X';
  arb_assert_fails(arb_ckpt_save(*test, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_ARG, "hex");
  state_fill(&s, -1);
  arb_assert_fails(arb_ckpt_save(*test, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_ARG, "step -1");
  arb_assert_fails(arb_ckpt_retain(*test, 0), ARB_ERR_ARG, "keep");
  assert_int_equal(entries_with(*test, ""), 0);
}

static void absent_step(void **test) {
  state s;
  arb_assert_fails(state_load(*test, 8, &s), ARB_ERR_CHECKPOINT, "step-00000008/manifest.json: cannot be opened: No such file");
}

/* What the file holds and what the run wants differ: every message names the file and the array. */
static void other_model(void **test) {
  const char *dir = *test;
  state s;
  state_save(dir, 1);
  state_blank(&s);
  s.arrays[3].field = "x";
  arb_assert_fails(arb_ckpt_load(dir, 1, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_CHECKPOINT,
                   "step-00000001: layer0.memory.fcg.x is missing, expected i32 7 x 13");
  state_blank(&s);
  arb_assert_fails(arb_ckpt_load(dir, 1, &s.meta, s.arrays, STATE_ARRAYS - 1), ARB_ERR_CHECKPOINT,
                   "step-00000001: holds layer10.glu.c, which this run does not have");
  state_blank(&s);
  s.arrays[0].rows = 64, s.arrays[0].columns = 16;
  arb_assert_fails(arb_ckpt_load(dir, 1, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_CHECKPOINT,
                   "step-00000001: embed.code is u8 16 x 64, expected u8 64 x 16");
  state_blank(&s);
  s.arrays[0].type = ARB_I8;
  arb_assert_fails(arb_ckpt_load(dir, 1, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_CHECKPOINT,
                   "embed.code is u8 16 x 64, expected i8 16 x 64");
  state_blank(&s);
  s.arrays[0].tensor = "meta", s.arrays[0].field = "config";
  arb_assert_fails(arb_ckpt_load(dir, 1, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_CHECKPOINT, "meta.config is missing");
  state_check(dir, 1);
}

static void identity_text(void **test) {
  state s;
  state_save(*test, 1);
  static const struct {
    const char *mine, *message;
  } cases[] = {
      {"model.dim=64\ntrain.peak=0.12\nrun.seed=7\n", "settings: train.peak: checkpoint 0.1, this run 0.12"},
      {"model.dim=64\nrun.seed=7\n", "settings: train.peak: checkpoint 0.1, this run has none"},
      {"model.dim=64\ntrain.peak=0.1\nrun.seed=7\nnew.key=3\n", "settings: new.key: checkpoint has none, this run 3"},
      {"model.dim=65\ntrain.peak=0.1\nrun.seed=8",
       "settings: model.dim: checkpoint 64, this run 65; run.seed: checkpoint 7, this run 8"},
      {"train.peak=0.1\nmodel.dim=64\nrun.seed=7\n", "another order"},
      /* A float in hexadecimal, as identities hold them, is shown as people write it. */
      {"model.dim=64\ntrain.peak=0x1.99999ap-4\nrun.seed=7\n", "train.peak: checkpoint 0.1, this run 0.100000001"},
      {"", "run.seed: checkpoint 7, this run has none"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    state_blank(&s);
    s.meta.identity = cases[i].mine;
    arb_assert_fails(arb_ckpt_load(*test, 1, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_CHECKPOINT, cases[i].message);
  }
}

static void long_identity(void **test) {
  char saved[8000] = "", mine[8000] = "";
  state s;
  for (int i = 0; i < 40; i++) {
    sprintf(saved + strlen(saved), "section.some_long_key_%d=%090d\n", i, i);
    sprintf(mine + strlen(mine), "section.some_long_key_%d=%090d\n", i, i + 1);
  }
  state_fill(&s, 1);
  s.meta.identity = saved;
  arb_assert_ok(arb_ckpt_save(*test, &s.meta, s.arrays, STATE_ARRAYS));
  s.meta.identity = mine;
  arb_assert_fails(arb_ckpt_load(*test, 1, &s.meta, s.arrays, STATE_ARRAYS), ARB_ERR_CHECKPOINT, "and 32 more");
}

static void report_of_skipped(void **test) {
  const char *dir = *test;
  report_log log = {0};
  char name[1200];
  int64_t step;
  state_save(dir, 1);
  state_save(dir, 2);
  state_save(dir, 3);
  unlink(step_path(dir, 3, RANK0));
  assert_int_equal(truncate(step_path(dir, 2, RANK0), 1000), 0);
  snprintf(name, sizeof name, "%s.tmp-77", step_path(dir, 9, NULL));
  assert_int_equal(mkdir(name, 0777), 0);
  snprintf(name, sizeof name, "%s/step-0000000004", dir); /* not our spelling: not ours */
  assert_int_equal(mkdir(name, 0777), 0);
  arb_assert_ok(arb_ckpt_latest(dir, &step, keep_report, &log));
  assert_int_equal(step, 1);
  assert_int_equal(log.lines, 3);
  assert_non_null(strstr(log.text, "step-00000003/rank-00000.h5: cannot be opened: No such file"));
  assert_non_null(strstr(log.text, "step-00000002/rank-00000.h5: has 1000 bytes, but its manifest says"));
  assert_non_null(strstr(log.text, "step-00000009.tmp-77: a save that did not finish"));
  assert_string_equal(arb_fail_message(), "");
}

static void retention(void **test) {
  const char *dir = *test;
  for (int64_t step = 1; step <= 6; step++) state_save(dir, step);
  arb_assert_ok(arb_ckpt_retain(dir, 10));
  assert_int_equal(entries_with(dir, "step-"), 6);
  arb_assert_ok(arb_ckpt_retain(dir, 3));
  assert_int_equal(entries_with(dir, ""), 3);
  for (int64_t step = 4; step <= 6; step++) state_check(dir, step);
  arb_assert_ok(arb_ckpt_retain(dir, 1));
  assert_int_equal(entries_with(dir, ""), 1);
  state_check(dir, 6);
}

static void retention_counts_only_good_ones(void **test) {
  const char *dir = *test;
  for (int64_t step = 1; step <= 5; step++) state_save(dir, step);
  long size;
  for (int64_t step = 3; step <= 5; step++) { /* one cut short, one flipped in its data, one without its file */
    unsigned char *bytes = slurp(step_path(dir, step, RANK0), &size);
    state s;
    state_fill(&s, step);
    for (long i = 0; step == 4 && i < size - 64; i++)
      if (memcmp(bytes + i, s.bytes[2], 64) == 0) {
        bytes[i] ^= 0x10;
        spill(step_path(dir, step, RANK0), bytes, size);
        break;
      }
    free(bytes);
  }
  assert_int_equal(truncate(step_path(dir, 3, RANK0), 5000), 0);
  assert_int_equal(unlink(step_path(dir, 5, RANK0)), 0);
  arb_assert_ok(arb_ckpt_retain(dir, 1));
  assert_false(exists(step_path(dir, 1, NULL)));
  assert_int_equal(state_latest(dir), 2);
  state_check(dir, 2);
  /* Once enough good ones are newer, the bad ones go too. */
  state_save(dir, 6);
  arb_assert_ok(arb_ckpt_retain(dir, 1));
  assert_int_equal(entries_with(dir, ""), 1);
  state_check(dir, 6);
}

static void retention_sweeps_dead_writers(void **test) {
  const char *dir = *test;
  char dead[1200], ours[1200], live[1200], file[1300];
  const pid_t child = fork();
  if (child == 0) _exit(0);
  assert_int_equal(waitpid(child, NULL, 0), child);
  snprintf(dead, sizeof dead, "%s.tmp-%ld", step_path(dir, 3, NULL), (long)child);
  snprintf(ours, sizeof ours, "%s.tmp-%ld", step_path(dir, 4, NULL), (long)getpid());
  snprintf(live, sizeof live, "%s.tmp-%ld", step_path(dir, 5, NULL), (long)getppid());
  assert_int_equal(mkdir(dead, 0777) | mkdir(ours, 0777) | mkdir(live, 0777), 0);
  snprintf(file, sizeof file, "%s/rank-00000.h5", dead);
  spill(file, (const unsigned char *)"half", 4);
  state_save(dir, 1);
  arb_assert_ok(arb_ckpt_retain(dir, 1));
  assert_false(exists(dead));
  assert_false(exists(ours));
  assert_true(exists(live));
  state_check(dir, 1);
}

static void *load_thread(void *dir) {
  for (int64_t step = 1; step <= 20; step++) {
    state got, want;
    state_fill(&want, step);
    if (state_load(dir, step, &got) != ARB_OK || !state_equal(&got, &want)) return "a load failed";
    if (arb_ckpt_load(dir, 100 + step, &got.meta, got.arrays, STATE_ARRAYS) != ARB_ERR_CHECKPOINT) return "no failure";
    if (strstr(arb_fail_message(), "cannot be opened") == NULL) return "a message of another thread";
    arb_fail_clear();
    if (state_load(dir, 99, &got) != ARB_ERR_CHECKPOINT) return "no failure of the damaged one";
    if (strstr(arb_fail_message(), "is damaged: HDF5") == NULL) return "HDF5's reason is missing";
    arb_fail_clear();
  }
  return NULL;
}

static void threads_load_while_one_saves(void **test) {
  pthread_t threads[4];
  void *failed;
  long size;
  for (int64_t step = 1; step <= 20; step++) state_save(*test, step);
  state_save(*test, 99);
  unsigned char *bytes = slurp(step_path(*test, 99, RANK0), &size);
  bytes[44] ^= 1; /* the superblock's checksum: only HDF5 sees it, once the manifest has the right digest */
  spill(step_path(*test, 99, RANK0), bytes, size);
  manifest_resign(*test, 99);
  free(bytes);
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, load_thread, *test), 0);
  for (int64_t step = 21; step <= 40; step++) state_save(*test, step);
  for (int i = 0; i < 4; i++) {
    pthread_join(threads[i], &failed);
    if (failed != NULL) fail_msg("%s", (const char *)failed);
  }
}

#define SCRATCH(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      SCRATCH(round_trip),
      SCRATCH(no_arrays_and_empty_texts),
      SCRATCH(slices),
      SCRATCH(slices_that_do_not_fit),
      SCRATCH(large_numbers),
      SCRATCH(many_tensors_and_blocks),
      SCRATCH(equal_states_give_equal_files),
      SCRATCH(latest_of_several),
      SCRATCH(absent_folder),
      SCRATCH(folder_is_a_file),
      SCRATCH(same_step_again),
      SCRATCH(stale_folder_with_our_number),
      SCRATCH(bad_arguments),
      SCRATCH(absent_step),
      SCRATCH(other_model),
      SCRATCH(identity_text),
      SCRATCH(long_identity),
      SCRATCH(report_of_skipped),
      SCRATCH(retention),
      SCRATCH(retention_counts_only_good_ones),
      SCRATCH(retention_sweeps_dead_writers),
      SCRATCH(threads_load_while_one_saves),
  };
  return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
