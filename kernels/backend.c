#include "kernels/backend.h"

#include <stdlib.h>

arb_status arb_backend_validate(const arb_backend *be) {
  const arb_ops *o = &be->ops;
#define ARB_SLOT(slot) ARB_REQUIRE(o->slot, ARB_ERR_UNSUPPORTED, "backend %s has no %s", o->name, #slot)
  ARB_SLOT(alloc);
  ARB_SLOT(free);
  ARB_SLOT(upload);
  ARB_SLOT(download);
  ARB_SLOT(fill);
  ARB_SLOT(sync);
  ARB_SLOT(begin_step);
  ARB_SLOT(take_nonfinite);
  ARB_SLOT(post);
  ARB_SLOT(collect);
  ARB_SLOT(destroy);
  ARB_SLOT(reserve);
  ARB_SLOT(held);
  ARB_SLOT(memory);
  ARB_SLOT(draws);
  ARB_SLOT(init_stack);
  ARB_SLOT(embed_forward);
  ARB_SLOT(add_norm_quant);
  ARB_SLOT(window_norm_quant);
  ARB_SLOT(gather_rows);
  ARB_SLOT(linear_forward);
  ARB_SLOT(mlgru_forward);
  ARB_SLOT(gate_norm_quant);
  ARB_SLOT(glu_norm_quant);
  ARB_SLOT(xent);
  ARB_SLOT(grad_quant);
  ARB_SLOT(linear_dx);
  ARB_SLOT(linear_dw_vote);
  ARB_SLOT(embed_dw);
  ARB_SLOT(vote_join);
  ARB_SLOT(norm_backward);
  ARB_SLOT(input_norm_backward);
  ARB_SLOT(gate_norm_backward);
  ARB_SLOT(mlgru_backward);
  ARB_SLOT(glu_norm_backward);
  ARB_SLOT(vote_rows);
  ARB_SLOT(vote_columns);
  ARB_SLOT(update);
  ARB_SLOT(pack_trits);
  ARB_SLOT(unpack_trits);
  ARB_SLOT(join_rows);
  ARB_SLOT(digest);
#undef ARB_SLOT
  return ARB_OK;
}

void arb_backend_destroy(arb_backend **be) {
  if (!be || !*be) return;
  (*be)->ops.destroy(*be);
  free(*be);
  *be = NULL;
}
