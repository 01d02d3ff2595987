/* Random arguments for every slot of a backend, and the table of slots: what each writes and how it is called. */
#ifndef ARB_TESTS_KERNELS_SLOT_CASES_H
#define ARB_TESTS_KERNELS_SLOT_CASES_H

#include "kernels/backend.h"

#define MAX_INPUTS 48
#define MAX_OUTPUTS 12

/* One set of arguments; each slot takes what it needs. */
typedef struct {
  uint64_t seed;
  uint32_t step;
  arb_rows rows;
  int64_t m, context, width, ldz, lddz, ldg;
  int slots, slot, use, vmax, accumulate;
  int64_t used; /* grains that used the stack */
  float eta_units, weight;
  int64_t windows, span; /* a sequence of windows + span - 1 features */
  int8_t *fq;            /* [sequences of the batch * (windows + span - 1)][width] */
  float *fs;
  int8_t *fe;                                  /* [span * width] */
  int32_t *index;                              /* [m + 3] rows of x, or negative */
  float *x, *bias, *inv, *s, *sh, *g, *before; /* g [m][ldg] */
  uint16_t *y, *z, *logits, *dy, *gb;          /* gb [m][ldg]; logits [m][n] */
  int8_t *e, *q, *hq, *cast;                   /* cast [n][k]: votes of earlier batches */
  int32_t *ids, *targets, *cexp, *d;
  int32_t pad;
  arb_stack w, of_width, of_pair; /* stacks with width and 2 width rows, for slots whose gradient rows go to them */
  struct {
    void *data, *copy;
    size_t bytes;
  } input[MAX_INPUTS];
  int inputs;
} problem;

void slot_problem_make(problem *p, int32_t grains, int64_t sequences, int64_t context, int64_t width, int64_t n, int64_t k);
void slot_problem_drop(problem *p);

typedef struct {
  size_t bytes, row; /* row: bytes a row of activations, 0 where the output is none */
  const void *start; /* NULL: a pattern */
} output;

typedef struct {
  const char *name;
  int (*plan)(const problem *p, output *o); /* returns the number of outputs, 0: not for this problem */
  arb_status (*run)(arb_backend *be, const problem *p, void *const *o);
} slot;

/* The first of the table; these raise the non-finite flag and work on each row alone. */
enum { SLOT_NORM_BOTH, SLOT_NORM_X, SLOT_NORM_Y, SLOT_GATE, SLOT_GLU, SLOT_XENT, SLOT_GRAD, SLOT_GRAD_BF16 };
extern const slot slots[];
extern const size_t slot_count;

#endif
