/* A small training state whose content follows from its step, and a scratch folder: shared by the checkpoint tests. */
#ifndef ARB_TESTS_CHECKPOINT_STATE_H
#define ARB_TESTS_CHECKPOINT_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "src/checkpoint/checkpoint.h"

enum { STATE_ARRAYS = 7, STATE_BYTES = 4096 };

/* The file that rank 0 writes. */
#define RANK0 "rank-00000.h5"

#define STATE_IDENTITY "model.dim=64\ntrain.peak=0.1\nrun.seed=7\n"
#define STATE_CONFIG "[model]\ndim = 64\n"

typedef struct {
  arb_ckpt_array arrays[STATE_ARRAYS];
  unsigned char bytes[STATE_ARRAYS][STATE_BYTES];
  arb_ckpt_meta meta;
} state;

void state_fill(state *s, int64_t step);
/* Same arrays, other bytes: what a load has to replace. */
void state_blank(state *s);
bool state_equal(const state *a, const state *b);

/* Saves the state of this step. */
void state_save(const char *dir, int64_t step);
/* Loads this step and compares everything. */
void state_check(const char *dir, int64_t step);
arb_status state_load(const char *dir, int64_t step, state *s);
int64_t state_latest(const char *dir);

/* cmocka fixtures: *test becomes the path of a fresh folder, removed at the end. */
int scratch_setup(void **test);
int scratch_teardown(void **test);
/* "DIR/step-.../FILE" or, with file NULL, the folder. Static buffers, used in turn. */
const char *step_path(const char *dir, int64_t step, const char *file);
bool exists(const char *path);
/* Names in dir that contain `part`. */
int entries_with(const char *dir, const char *part);
/* The whole file, malloc'd. */
unsigned char *slurp(const char *path, long *size);
void spill(const char *path, const unsigned char *bytes, long size);

/* A reporter for arb_ckpt_latest that keeps the lines. */
typedef struct {
  char text[8192];
  int lines;
} report_log;
void keep_report(const char *line, void *arg);

#endif
