#define _XOPEN_SOURCE 700 /* nftw */
#include "tests/checkpoint/state.h"

#include <dirent.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/test.h"

/* Long and dotted names, a row, a column, an empty array, every kind of width. */
static const arb_ckpt_array shapes[STATE_ARRAYS] = {
    ARB_CKPT_WHOLE("embed", "code", ARB_U8, 16, 64, NULL),
    ARB_CKPT_WHOLE("embed", "e", ARB_I8, 16, 1, NULL),
    ARB_CKPT_WHOLE("layer0.memory.fcg", "code", ARB_U8, 31, 33, NULL),
    ARB_CKPT_WHOLE("layer0.memory.fcg", "m", ARB_I32, 7, 13, NULL),
    ARB_CKPT_WHOLE("layer0.memory.fcg", "p", ARB_I8, 1, 1, NULL),
    ARB_CKPT_WHOLE("layer0.memory.fcg", "r", ARB_U16, 0, 5, NULL),
    ARB_CKPT_WHOLE("layer10.glu", "c", ARB_I32, 1, 1000, NULL),
};

void state_fill(state *s, int64_t step) {
  memset(s, 0, sizeof *s);
  uint64_t x = (uint64_t)step * 0x9E3779B97F4A7C15u + 1;
  for (int i = 0; i < STATE_ARRAYS; i++) {
    s->arrays[i] = shapes[i];
    s->arrays[i].host = s->bytes[i];
    const size_t bytes = (size_t)(shapes[i].rows * shapes[i].columns) * arb_dtype_size(shapes[i].type);
    assert_true(bytes <= STATE_BYTES);
    for (size_t j = 0; j < bytes; j++) {
      x = x * 6364136223846793005u + 1442695040888963407u;
      s->bytes[i][j] = (unsigned char)(x >> 56);
    }
  }
  s->meta = (arb_ckpt_meta){.step = step,
                            .samples = step / 2 + 9,
                            .seed = UINT64_MAX - (uint64_t)step,
                            .identity = STATE_IDENTITY,
                            .config = STATE_CONFIG};
  snprintf(s->meta.digest, sizeof s->meta.digest, "%032" PRIx64, (uint64_t)step);
}

void state_blank(state *s) {
  state_fill(s, 0);
  memset(s->bytes, 0xA5, sizeof s->bytes);
  s->meta = (arb_ckpt_meta){.step = -1, .identity = STATE_IDENTITY};
}

bool state_equal(const state *a, const state *b) {
  for (int i = 0; i < STATE_ARRAYS; i++) {
    const size_t bytes = (size_t)(shapes[i].rows * shapes[i].columns) * arb_dtype_size(shapes[i].type);
    if (memcmp(a->bytes[i], b->bytes[i], bytes) != 0) return false;
  }
  return a->meta.step == b->meta.step && a->meta.samples == b->meta.samples && a->meta.seed == b->meta.seed &&
         strcmp(a->meta.digest, b->meta.digest) == 0;
}

void state_save(const char *dir, int64_t step) {
  state s;
  state_fill(&s, step);
  arb_assert_ok(arb_ckpt_save(dir, &s.meta, s.arrays, STATE_ARRAYS));
}

arb_status state_load(const char *dir, int64_t step, state *s) {
  state_blank(s);
  return arb_ckpt_load(dir, step, &s->meta, s->arrays, STATE_ARRAYS);
}

void state_check(const char *dir, int64_t step) {
  state got, want;
  state_fill(&want, step);
  arb_assert_ok(state_load(dir, step, &got));
  assert_true(state_equal(&got, &want));
}

int64_t state_latest(const char *dir) {
  int64_t step = -2;
  arb_assert_ok(arb_ckpt_latest(dir, &step, NULL, NULL));
  return step;
}

int scratch_setup(void **test) {
  const char *base = getenv("TMPDIR");
  char path[1024];
  snprintf(path, sizeof path, "%s/arb-checkpoint-XXXXXX", base != NULL ? base : "/tmp");
  if (mkdtemp(path) == NULL) return -1;
  *test = strdup(path);
  return *test == NULL ? -1 : 0;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at) {
  (void)info, (void)kind, (void)at;
  return remove(path);
}

int scratch_teardown(void **test) {
  nftw(*test, remove_one, 16, FTW_DEPTH | FTW_PHYS);
  free(*test);
  arb_fail_clear();
  return 0;
}

const char *step_path(const char *dir, int64_t step, const char *file) {
  static char paths[4][1200];
  static int turn;
  char *path = paths[turn++ % 4];
  snprintf(path, sizeof paths[0], "%s/step-%08" PRId64 "%s%s", dir, step, file != NULL ? "/" : "", file != NULL ? file : "");
  return path;
}

bool exists(const char *path) { return access(path, F_OK) == 0; }

int entries_with(const char *dir, const char *part) {
  DIR *list = opendir(dir);
  assert_non_null(list);
  int n = 0;
  for (const struct dirent *e; (e = readdir(list)) != NULL;) n += e->d_name[0] != '.' && strstr(e->d_name, part) != NULL;
  closedir(list);
  return n;
}

unsigned char *slurp(const char *path, long *size) {
  FILE *in = fopen(path, "rb");
  assert_non_null(in);
  fseek(in, 0, SEEK_END);
  *size = ftell(in);
  rewind(in);
  unsigned char *bytes = malloc((size_t)*size + 1);
  assert_non_null(bytes);
  assert_int_equal(fread(bytes, 1, (size_t)*size, in), (size_t)*size);
  fclose(in);
  return bytes;
}

void spill(const char *path, const unsigned char *bytes, long size) {
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  assert_int_equal(fwrite(bytes, 1, (size_t)size, out), (size_t)size);
  assert_int_equal(fclose(out), 0);
}

void keep_report(const char *line, void *arg) {
  report_log *log = arg;
  log->lines++;
  const size_t used = strlen(log->text);
  snprintf(log->text + used, sizeof log->text - used, "%s\n", line);
}
