/* How much work memory a backend's slots need, from shapes alone: a plan must not need the device. Each backend takes what it
 * uses from the same formulas: kernels/ref/ref.c, kernels/cpu/gemm.h, kernels/cuda/work_bytes.h. */
#include <string.h>

#include "kernels/cpu/gemm.h"
#include "kernels/cuda/work_bytes.h"
#include "kernels/host/host.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Products of ref.c: a row of trits; trits of a stack and their transpose; transposes of both sides of dW. */
static size_t ref_product(int64_t rows_per_grain, const arb_stack *w) {
  return larger((size_t)(2 * w->n * w->k), (size_t)(rows_per_grain * (w->n + w->k)));
}

/* Of a host backend: products, an embedding's table, rows of gains or column factors. */
size_t arb_host_slot_bytes(const arb_backend *be, int64_t rows, int64_t rows_per_grain, const arb_stack *w) {
  const int64_t gains = w->n + (w->n > w->k ? w->n : w->k), columns = w->members * w->k;
  const size_t product = be->kind == ARB_BACKEND_REF ? ref_product(rows_per_grain, w)
                                                     : arb_gemm_scratch_bytes(rows, w->k, w->n, arb_backend_threads(be));
  const size_t table = w->uses > 1 ? (size_t)(w->n * w->k) * sizeof(uint16_t) : 0; /* of an embedding */
  const size_t most = larger(larger(product, table), (size_t)(gains > columns ? gains : columns) * sizeof(float));
  return (most + 63) & ~(size_t)63;
}

size_t arb_backend_work_bytes(const arb_backend *be, int64_t rows, int64_t rows_per_grain, const arb_stack *w) {
  if (be->kind == ARB_BACKEND_CUDA) return arb_cuda_work_bytes(rows, w->n, w->k, w->members, w->uses);
  return arb_host_slot_bytes(be, rows, rows_per_grain, w) + arb_host_rescale_bytes(rows, w->n);
}

size_t arb_backend_side_bytes(const arb_backend *be, int64_t rows, int64_t rows_per_grain, const arb_stack *w) {
  if (be->kind != ARB_BACKEND_CUDA || w->uses > 1) return 0;
  return arb_cuda_dw_work_bytes(rows_per_grain, (rows + rows_per_grain - 1) / rows_per_grain, w->k, w->n) + 256;
}

size_t arb_backend_scratch_bytes(const arb_backend *be, int64_t width) {
  return be->kind == ARB_BACKEND_CUDA ? 0 : (size_t)arb_backend_threads(be) * arb_host_scratch_bytes(width);
}

static void free_nothing(arb_backend *be, void *ptr) {
  (void)be;
  (void)ptr;
}

void arb_backend_stand_in(arb_backend *out, arb_backend_kind kind, int threads) {
  static const char *const names[] = {"ref", "cpu", "cuda"};
  memset(out, 0, sizeof *out);
  out->kind = kind;
  out->on_device = kind == ARB_BACKEND_CUDA;
  out->threads = kind == ARB_BACKEND_CPU ? threads : 1;
  out->ops.name = names[kind];
  out->ops.free = free_nothing;
}
