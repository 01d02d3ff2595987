/* A checkpoint's HDF5 file, beside the manifest of the sound one: loaded as a run loads it, and opened and read as arbckpt
 * --unverified does it, past the digests. */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/checkpoint/inspect.h"

/* HDF5 1.10 itself forgets a few bytes when a checksum is wrong, and looking for whose they are takes longer than all the rest;
 * tests/checkpoint looks for ours. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void) { return 1; }

static unsigned char code[24], e[4], norm[8];
static int r[4];
static const arb_ckpt_array arrays[] = {
    ARB_CKPT_WHOLE("a.uv", "code", ARB_U8, 4, 6, code), ARB_CKPT_WHOLE("a.uv", "e", ARB_I8, 4, 1, e),
    ARB_CKPT_WHOLE("a.uv", "r", ARB_I32, 4, 1, r), ARB_CKPT_WHOLE("norm", "e", ARB_I8, 8, 1, norm)};
enum { ARRAYS = sizeof arrays / sizeof *arrays };
static char folder[40], file[80];

static void remove_folder(void) {
  static const char *const names[] = {"step-00000001/rank-00000.h5", "step-00000001/manifest.json", "step-00000001", ""};
  char path[120];
  for (int i = 0; i < 4; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    remove(path);
  }
}

static void begin(void) {
  const arb_ckpt_meta meta = {
      .step = 1, .digest = "00000000000000000000000000000000", .identity = "run.seed=1\n", .config = "[run]\nseed = 1\n"};
  strcpy(folder, "/dev/shm/arbdist-fuzz.XXXXXX");
  if (mkdtemp(folder) == NULL && mkdtemp(strcpy(folder, "/tmp/arbdist-fuzz.XXXXXX")) == NULL) abort();
  atexit(remove_folder);
  for (int i = 0; i < 24; i++) code[i] = (unsigned char)(i * 11);
  if (arb_ckpt_save(folder, &meta, arrays, ARRAYS) != ARB_OK) abort();
  snprintf(file, sizeof file, "%s/step-00000001/rank-00000.h5", folder);
}

static void walk(const arb_ckpt *c) {
  volatile unsigned sum = 0;
  (void)sum;
  arb_ckpt_walk w;
  for (int i = 0; i < arb_ckpt_array_count(c); i++) {
    if (arb_ckpt_walk_begin(&w, c, i) != ARB_OK) abort();
    while (arb_ckpt_walk_next(&w) == ARB_OK && w.rows > 0)
      for (int64_t k = 0; w.data != NULL && k < w.rows; k++)
        sum += w.data[k * w.array.columns * (int64_t)arb_dtype_size(w.array.type)];
    arb_ckpt_walk_end(&w);
    arb_fail_clear();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  arb_ckpt *c;
  arb_ckpt_meta meta = {.step = -1, .identity = "run.seed=1\n"};
  if (file[0] == '\0') begin();
  FILE *out = fopen(file, "wb");
  if (out == NULL || fwrite(data, 1, size, out) != size || fclose(out) != 0) abort();
  const arb_status loaded = arb_ckpt_load(folder, 1, &meta, arrays, ARRAYS);
  if (loaded != ARB_OK && loaded != ARB_ERR_CHECKPOINT) abort();
  arb_fail_clear();
  const arb_status st = arb_ckpt_open_unverified(folder, 1, &c);
  if (st == ARB_OK) walk(c);
  if (st != ARB_OK && (st != ARB_ERR_CHECKPOINT || arb_fail_message()[0] == '\0')) abort();
  if (loaded == ARB_OK && st != ARB_OK) abort();
  arb_ckpt_close(&c);
  arb_fail_clear();
  return 0;
}
