#include "dist/single/single.h"

#include <stdlib.h>
#include <string.h>

static arb_status copy(const void *in, void *out, int64_t count, arb_dtype type) {
  if (count > 0 && out != in) memcpy(out, in, (size_t)count * arb_dtype_size(type));
  return ARB_OK;
}

static arb_status all_reduce(arb_comm *c, void *buf, int64_t count, arb_dtype type, arb_redop op) {
  (void)c, (void)buf, (void)count, (void)type, (void)op; /* in place: one rank's reduction is its own value */
  return ARB_OK;
}

static arb_status reduce_scatter(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type, arb_redop op) {
  (void)c, (void)op;
  return copy(in, out, per_rank, type);
}

static arb_status all_gather(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type) {
  (void)c;
  return copy(in, out, per_rank, type);
}

static arb_status broadcast(arb_comm *c, void *buf, int64_t count, arb_dtype type, int root) {
  (void)c, (void)buf, (void)count, (void)type, (void)root; /* the only rank is the root */
  return ARB_OK;
}

static arb_status barrier(arb_comm *c) {
  (void)c;
  return ARB_OK;
}

static arb_status share(arb_comm *c, size_t bytes, void **base) {
  (void)c;
  const size_t padded = (bytes + 63) / 64 * 64;
  *base = aligned_alloc(64, padded);
  ARB_REQUIRE(*base != NULL, ARB_ERR_NOMEM, "%zu bytes of shared memory", bytes);
  memset(*base, 0, padded);
  return ARB_OK;
}

static arb_status unshare(arb_comm *c, void *base) {
  (void)c;
  free(base);
  return ARB_OK;
}

static void destroy(arb_comm *c) { free(c); }

arb_status arb_comm_single_create(arb_comm **out) {
  static const arb_comm_ops ops = {.name = "single",
                                   .all_reduce = all_reduce,
                                   .reduce_scatter = reduce_scatter,
                                   .all_gather = all_gather,
                                   .broadcast = broadcast,
                                   .barrier = barrier,
                                   .destroy = destroy,
                                   .share = share,
                                   .unshare = unshare};
  *out = NULL;
  arb_comm *c = calloc(1, sizeof *c);
  ARB_REQUIRE(c != NULL, ARB_ERR_NOMEM, "communicator: out of memory");
  c->ops = &ops;
  c->size = c->local_size = 1;
  *out = c;
  return ARB_OK;
}
