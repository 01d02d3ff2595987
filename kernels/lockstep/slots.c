/* The wrappers: slots.inc expanded. An argument's address is taken, so that the same call can be made on copies. */
#include "kernels/lockstep/lockstep_impl.h"

#define TYPE_OF(p) \
  _Generic((p), const uint8_t *: ARB_U8, uint8_t *: ARB_U8,            \
      const int8_t *: ARB_I8,      \
      int8_t *: ARB_I8,            \
      const uint16_t *: ARB_BF16,  \
      uint16_t *: ARB_BF16,        \
      const int32_t *: ARB_I32,    \
      int32_t *: ARB_I32,          \
      uint32_t *: ARB_U32,         \
      const uint32_t *: ARB_U32,   \
      const float *: ARB_F32,      \
      float *: ARB_F32,            \
      int64_t *: ARB_I64)
#define ARRAY(element, p, r_, c_, ld_, w_)                                                                               \
  {                                                                                                                      \
    .kind = ARB_SLOT_ARRAY, .name = #p, .at = (void *)&p, .type = (element), .rows = (r_), .columns = (c_), .ld = (ld_), \
    .written = (w_)                                                                                                      \
  }
#define IN(p, r_, c_) ARRAY(TYPE_OF(p), p, r_, c_, c_, 0)
#define IN_LD(p, r_, c_, ld_) ARRAY(TYPE_OF(p), p, r_, c_, ld_, 0)
#define IN_AS(type_, p, r_, c_) ARRAY(type_, p, r_, c_, c_, 0)
#define OUT(p, r_, c_) ARRAY(TYPE_OF(p), p, r_, c_, c_, 1)
#define OUT_LD(p, r_, c_, ld_) ARRAY(TYPE_OF(p), p, r_, c_, ld_, 1)
#define OUT_AS(type_, p, r_, c_) ARRAY(type_, p, r_, c_, c_, 1)
#define STACK(p, reads_, writes_) \
  { .kind = ARB_SLOT_STACK, .name = #p, .at = (void *)&p, .reads = (reads_), .writes = (writes_) }
#define WORK(p, w_, reads_, writes_) \
  { .kind = ARB_SLOT_WORK, .name = #p, .at = (void *)&p, .reads = (reads_), .writes = (writes_), .shape = (w_) }
#define ROWS(p) \
  { .kind = ARB_SLOT_ROWS, .name = #p, .at = (void *)&p }

static int64_t m_of(const arb_rows *r) { return arb_rows_count(r); }

#define SLOT(slot, parameters, arguments, ...)                                            \
  static arb_status watched_##slot parameters {                                           \
    const arb_slot_arg args[] = {__VA_ARGS__};                                            \
    arb_slot_call call;                                                                   \
    arb_backend *const own = be;                                                          \
    ARB_TRY(arb_slot_before(own, #slot, args, (int)(sizeof args / sizeof *args), &call)); \
    ARB_TRY(arb_slot_real(own)->slot arguments);                                          \
    ARB_TRY(arb_slot_after(own, &call));                                                  \
    be = arb_slot_swap(own, &call);                                                       \
    if (!be) return ARB_OK;                                                               \
    ARB_TRY(be->ops.slot arguments);                                                      \
    return arb_slot_compare(own, &call);                                                  \
  }
#include "kernels/lockstep/slots.inc"
#undef SLOT

#define SLOT(slot, parameters, arguments, ...) o->slot = watched_##slot;
void arb_slot_wrap(arb_ops *o) {
  o->update_many = NULL; /* its parts are watched one by one */
#include "kernels/lockstep/slots.inc"
}
