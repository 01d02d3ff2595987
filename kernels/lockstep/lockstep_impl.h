/* Private to kernels/lockstep: how a call of a slot is described, copied and compared. */
#ifndef ARB_KERNELS_LOCKSTEP_LOCKSTEP_IMPL_H
#define ARB_KERNELS_LOCKSTEP_LOCKSTEP_IMPL_H

#include "kernels/lockstep/lockstep.h"
#include "src/base/dtype.h"

/* Arrays of an arb_stack or arb_update_work that a slot touches. */
enum { CODE = 1, E = 2, P = 4, R = 8, C = 16, M = 32, VOTES = 64, S = 128, TOP = 256, LOW = 512, CSUM = 1024, MSUM = 2048 };

typedef enum { ARB_SLOT_ARRAY, ARB_SLOT_STACK, ARB_SLOT_WORK, ARB_SLOT_ROWS } arb_slot_kind;

/* An argument of a slot: where the wrapper keeps it, and what it points to. */
typedef struct {
  arb_slot_kind kind;
  const char *name;
  void *at; /* address of the argument: a pointer */
  arb_dtype type;
  int64_t rows, columns, ld; /* elements */
  int written;
  unsigned reads, writes; /* of a stack or work: members touched */
  const arb_stack *shape; /* of work */
} arb_slot_arg;

/* One array of a call. */
typedef struct {
  char name[24];
  const void *real;
  size_t shadow; /* offset in the host copies */
  void **target; /* the pointer to redirect to the copy: an argument, or a member of a copied stack or work */
  arb_dtype type;
  int64_t rows, columns, ld;
  int64_t wrap; /* columns of a row in reports: a row here may be several of them */
  int written;
} arb_slot_array;

#define ARB_SLOT_ARRAYS 32
typedef struct {
  const char *slot;
  const arb_slot_arg *args;
  int arg_count, count;
  const arb_stack *stack; /* the first, or NULL */
  const arb_rows *rows;
  arb_slot_array array[ARB_SLOT_ARRAYS];
  arb_stack shadow_stack[2];
  arb_update_work shadow_work;
} arb_slot_call;

/* Expands the arguments, and with lockstep copies every array as it is before the call. */
ARB_NODISCARD arb_status arb_slot_before(arb_backend *be, const char *slot, const arb_slot_arg *args, int count,
                                         arb_slot_call *c);
const arb_ops *arb_slot_real(const arb_backend *be);
/* After the real slot: waits, and looks for values that are not finite. */
ARB_NODISCARD arb_status arb_slot_after(arb_backend *be, arb_slot_call *c);
/* Points the wrapper's arguments at the copies; the reference to call with them, or NULL without lockstep. */
arb_backend *arb_slot_swap(arb_backend *be, arb_slot_call *c);
/* Compares what was written with the reference's. */
ARB_NODISCARD arb_status arb_slot_compare(arb_backend *be, const arb_slot_call *c);
/* Rows that an index on the device reaches: its largest entry and one. */
int64_t arb_slot_index_rows(arb_backend *be, const int32_t *index, int64_t count);

/* slots.c: replaces the slots of slots.inc. */
void arb_slot_wrap(arb_ops *o);

#endif
