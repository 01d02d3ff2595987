/* The gated recurrence over time, forward and backward (MLGRU: Zhu et al. 2024, arXiv:2406.02528): dispatch of scan.cuh's
 * kernels. Two channels a lane where pairs are aligned. */
#include "kernels/cuda/scan.cuh"

static arb_status check_range(int64_t context, int64_t width, int64_t ldz, int64_t lddz, int64_t blocks) {
  const int64_t most = ldz > lddz ? (ldz > width ? ldz : width) : (lddz > width ? lddz : width);
  ARB_REQUIRE(context * most < INT32_MAX && blocks < INT32_MAX, ARB_ERR_UNSUPPORTED,
              "a sequence of %lld rows of %lld elements is more than this backend takes", (long long)context, (long long)most);
  return ARB_OK;
}

static arb_status mlgru_forward(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                                const uint16_t *zc, int64_t ldz, const float *bias, float *h) {
  arb_cuda *c = arb_cuda_of(be);
  const bool pairs =
      width % 2 == 0 && ldz % 2 == 0 && arb_cuda_aligned(zf, 4) && arb_cuda_aligned(zc, 4) && arb_cuda_aligned(h, 8);
  const int64_t groups = arb_cuda_ceil(width, pairs ? 64 : 32), blocks = arb_rows_count(r) / context * groups;
  ARB_TRY(check_range(context, width, ldz, 0, blocks));
  auto kernel = pairs ? scan_forward_kernel<2, 4, 4, 4> : scan_forward_kernel<1, 8, 8, 3>;
  ARB_CUDA_LAUNCH(c, "mlgru_forward", kernel, (unsigned)blocks, pairs ? 160 : 288, 0, (int)context, (int)width, (int)groups, zf,
                  zc, (int)ldz, bias, h);
  return ARB_OK;
}

static arb_status mlgru_backward(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                                 const uint16_t *zc, int64_t ldz, const float *bias, const float *h, const uint16_t *dh,
                                 uint16_t *dzf, uint16_t *dzc, int64_t lddz) {
  arb_cuda *c = arb_cuda_of(be);
  const bool pairs = width % 2 == 0 && ldz % 2 == 0 && lddz % 2 == 0 && arb_cuda_aligned(zf, 4) && arb_cuda_aligned(zc, 4) &&
                     arb_cuda_aligned(h, 8) && arb_cuda_aligned(dh, 4) && arb_cuda_aligned(dzf, 4) && arb_cuda_aligned(dzc, 4);
  const int64_t groups = arb_cuda_ceil(width, pairs ? 64 : 32), blocks = arb_rows_count(r) / context * groups;
  ARB_TRY(check_range(context, width, ldz, lddz, blocks));
  auto kernel = pairs ? scan_backward_kernel<2, 4, 2, 5> : scan_backward_kernel<1, 8, 4, 2>;
  ARB_CUDA_LAUNCH(c, "mlgru_backward", kernel, (unsigned)blocks, pairs ? 160 : 288, 0, (int)context, (int)width, (int)groups,
                  zf, zc, (int)ldz, bias, h, dh, dzf, dzc, (int)lddz);
  return ARB_OK;
}

void arb_cuda_fill_recurrence(arb_ops *ops) {
  ops->mlgru_forward = mlgru_forward;
  ops->mlgru_backward = mlgru_backward;
}
