/* The gated recurrence over time, forward and backward (MLGRU: Zhu et al. 2024, arXiv:2406.02528): dispatch of scan.cuh's
 * kernels. Two channels a lane where pairs are aligned. */
#include "kernels/cuda/scan.cuh"

static arb_status check_range(int64_t context, int64_t width, int64_t ldz, int64_t lddz, int64_t blocks) {
  const int64_t most = ldz > lddz ? (ldz > width ? ldz : width) : (lddz > width ? lddz : width);
  ARB_REQUIRE(context * most < INT32_MAX && blocks < INT32_MAX, ARB_ERR_UNSUPPORTED,
              "a sequence of %lld rows of %lld elements is more than this backend takes", (long long)context, (long long)most);
  return ARB_OK;
}

/* Units that share a block and its table: four where there are enough of them, so that none waits for a second turn of the
 * device, and one where they would leave multiprocessors empty. */
static bool shared_blocks(const arb_cuda *c, int64_t units) { return units > 2 * (int64_t)c->multiprocessors; }

template <int C, int WORKERS, int STEPS, int GROUPS, int RESIDENT, bool WHOLE>
static arb_status scan_forward(arb_cuda *c, int64_t sequences, int64_t context, int64_t width, const uint16_t *zf,
                               const uint16_t *zc, int64_t ldz, const float *bias, float *h) {
  auto kernel = scan_forward_kernel<C, WORKERS, STEPS, GROUPS, RESIDENT, WHOLE>;
  const size_t shared = arb_scan_shared<C, WORKERS, STEPS, GROUPS>();
  const int64_t across = arb_cuda_ceil(width, 32 * C), units = sequences * across;
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shared, "mlgru_forward"));
  ARB_CUDA_LAUNCH(c, "mlgru_forward", kernel, (unsigned)arb_cuda_ceil(units, GROUPS), 32 * (WORKERS + 1) * GROUPS, shared,
                  (int)units, (int)context, (int)width, (int)across, zf, zc, (uint32_t)ldz, bias, h);
  return ARB_OK;
}

static arb_status mlgru_forward(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                                const uint16_t *zc, int64_t ldz, const float *bias, float *h) {
  arb_cuda *c = arb_cuda_of(be);
  const bool pairs =
      width % 2 == 0 && ldz % 2 == 0 && arb_cuda_aligned(zf, 4) && arb_cuda_aligned(zc, 4) && arb_cuda_aligned(h, 8);
  const int64_t sequences = arb_rows_count(r) / context, units = sequences * arb_cuda_ceil(width, pairs ? 64 : 32);
  ARB_TRY(check_range(context, width, ldz, 0, units));
  auto launch = !pairs                                 ? scan_forward<1, 8, 4, 1, 2, false>
                : width % 64 != 0 || context % 32 != 0 ? scan_forward<2, 4, 8, 1, 2, false>
                : shared_blocks(c, units)              ? scan_forward<2, 4, 8, 4, 1, true>
                                                       : scan_forward<2, 4, 8, 1, 2, true>;
  return launch(c, sequences, context, width, zf, zc, ldz, bias, h);
}

template <int C, int WORKERS, int STEPS, int GROUPS, int RESIDENT, bool WHOLE>
static arb_status scan_backward(arb_cuda *c, int64_t sequences, int64_t context, int64_t width, const uint16_t *zf,
                                const uint16_t *zc, int64_t ldz, const float *bias, const float *h, const uint16_t *dh,
                                uint16_t *dzf, uint16_t *dzc, int64_t lddz) {
  auto kernel = scan_backward_kernel<C, WORKERS, STEPS, GROUPS, RESIDENT, WHOLE>;
  const size_t shared = arb_scan_shared<C, WORKERS, STEPS, GROUPS>();
  const int64_t across = arb_cuda_ceil(width, 32 * C), units = sequences * across;
  ARB_TRY(arb_cuda_allow_shared(c, (const void *)kernel, shared, "mlgru_backward"));
  ARB_CUDA_LAUNCH(c, "mlgru_backward", kernel, (unsigned)arb_cuda_ceil(units, GROUPS), 32 * (WORKERS + 1) * GROUPS, shared,
                  (int)units, (int)context, (int)width, (int)across, zf, zc, (uint32_t)ldz, bias, h, dh, dzf, dzc,
                  (uint32_t)lddz);
  return ARB_OK;
}

static arb_status mlgru_backward(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                                 const uint16_t *zc, int64_t ldz, const float *bias, const float *h, const uint16_t *dh,
                                 uint16_t *dzf, uint16_t *dzc, int64_t lddz) {
  arb_cuda *c = arb_cuda_of(be);
  const bool pairs = width % 2 == 0 && ldz % 2 == 0 && lddz % 2 == 0 && arb_cuda_aligned(zf, 4) && arb_cuda_aligned(zc, 4) &&
                     arb_cuda_aligned(h, 8) && arb_cuda_aligned(dh, 4) && arb_cuda_aligned(dzf, 4) && arb_cuda_aligned(dzc, 4);
  const int64_t sequences = arb_rows_count(r) / context, units = sequences * arb_cuda_ceil(width, pairs ? 64 : 32);
  ARB_TRY(check_range(context, width, ldz, lddz, units));
  auto launch = !pairs                                 ? scan_backward<1, 8, 4, 1, 2, false>
                : width % 64 != 0 || context % 16 != 0 ? scan_backward<2, 4, 4, 1, 2, false>
                : shared_blocks(c, units)              ? scan_backward<2, 4, 4, 4, 1, true>
                                                       : scan_backward<2, 4, 4, 1, 2, true>;
  return launch(c, sequences, context, width, zf, zc, ldz, bias, h, dh, dzf, dzc, lddz);
}

void arb_cuda_fill_recurrence(arb_ops *ops) {
  ops->mlgru_forward = mlgru_forward;
  ops->mlgru_backward = mlgru_backward;
}
