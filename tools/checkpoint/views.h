/* The arrays of a checkpoint as tensors of a training state: a stack of matrices has code, e, p, r, c and m, a norm has e. */
#ifndef ARB_TOOLS_CHECKPOINT_VIEWS_H
#define ARB_TOOLS_CHECKPOINT_VIEWS_H

#include <stdbool.h>
#include <stdint.h>

#include "src/checkpoint/inspect.h"

typedef enum { ARB_VIEW_CODE, ARB_VIEW_E, ARB_VIEW_P, ARB_VIEW_R, ARB_VIEW_C, ARB_VIEW_M, ARB_VIEW_FIELDS } arb_view_field;

typedef struct {
  const char *name;           /* the checkpoint's */
  int array[ARB_VIEW_FIELDS]; /* numbers of arrays; -1: a norm has none */
  int64_t n, k, members;      /* outputs over all members, inputs; a norm: its width, 0, 0 */
} arb_view;

typedef struct {
  arb_view *items; /* sorted by name */
  int count;
} arb_views;

static inline bool arb_view_is_norm(const arb_view *v) { return v->k == 0; }
static inline int64_t arb_view_weights(const arb_view *v) { return v->n * v->k; }
const char *arb_view_field_name(arb_view_field f);

/* ARB_ERR_CHECKPOINT when fields are missing, of another type, or do not fit together. */
ARB_NODISCARD arb_status arb_views_init(arb_views *v, const arb_ckpt *c);
void arb_views_deinit(arb_views *v);
/* NULL when there is none. */
const arb_view *arb_views_find(const arb_views *v, const char *name);

#endif
