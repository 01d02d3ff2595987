/* Which checkpoint a DIR on the command line means. */
#ifndef ARB_TOOLS_CHECKPOINT_PLACE_H
#define ARB_TOOLS_CHECKPOINT_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "src/checkpoint/inspect.h"
#include "tools/checkpoint/guard.h"

enum { ARB_PLACE_PATH = 4096 };

typedef struct {
  char dir[ARB_PLACE_PATH]; /* the checkpoints folder */
  int64_t step;             /* -1: not chosen yet */
  bool unverified;          /* open it although digests do not match */
} arb_place;

/* path: a run's folder, a checkpoints folder, or a step folder; step: -1 or what --step said. */
ARB_NODISCARD arb_status arb_place_find(const char *path, int64_t step, arb_place *out);
/* Takes the newest that verifies where none is chosen; names the others on stderr. */
ARB_NODISCARD arb_status arb_place_choose(arb_place *p);

typedef struct {
  char path[ARB_PLACE_PATH + 64]; /* the step's folder */
  uint64_t bytes;                 /* of the files in it; 0 when it is not there */
  int64_t time;                   /* of the last change in it, seconds */
} arb_place_file;
void arb_place_look(const arb_place *p, arb_place_file *out);

/* Opens the place's checkpoint in a child process and works on it there; the guard's rules hold for out and result. */
typedef struct {
  arb_status (*work)(FILE *out, const arb_ckpt *c, const void *arg, void *result);
  const void *arg;
  void *result;
  size_t result_bytes;
  bool direct;
  long pid; /* out */
} arb_place_work;
ARB_NODISCARD arb_status arb_place_run(const arb_place *p, arb_place_work *w);

/* In the child: the place's checkpoint, verified or not. */
ARB_NODISCARD arb_status arb_place_open(const arb_place *p, arb_ckpt **out);
/* For a work on a checkpoint opened unverified: says on stderr what was read without having its digest. */
void arb_place_warn(const arb_ckpt *c);

#endif
