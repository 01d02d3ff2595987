/* op      launchers of the three products (gemm.h): which kernel, which tile, operand preparation, tensor maps
 * shapes  any m, n, k >= 1
 * layout  workspace: gains, trits, then padded copies of operands whose rows are not multiples of 16 bytes
 * work, bytes  the kernels' own; preparation, which the portable kernels and B at rest do without, reads n k state bytes once
 *         a call
 * determinism  the choice of kernel and tile never changes a result
 * source  gemm_mma.cuh, gemm_wgmma.cuh, gemm_wgmma_wide.cuh, gemm_wgmma_still.cuh, gemm_wgmma_direct.cuh,
 *         gemm_wgmma_dw.cuh, gemm_prep.cuh */
#include "kernels/cuda/gemm.h"

#include <cuda.h>

#include "kernels/cuda/gemm_mma.cuh"
#include "kernels/cuda/gemm_prep.cuh"
#include "kernels/cuda/gemm_turn.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"
#include "kernels/cuda/gemm_wgmma_direct.cuh"
#include "kernels/cuda/gemm_wgmma_dw.cuh"
#include "kernels/cuda/gemm_wgmma_still.cuh"
#include "kernels/cuda/gemm_wgmma_wide.cuh"
#include "kernels/cuda/work_bytes.h"

namespace {

constexpr int MAX_DEVICES = 64;

/* Tiles of forward and dx; those of dW (direct, pick_votes). The order is that of arb_cuda_gemm_path(2 + variant). */
enum tile_kind { WIDE_PAIR, WIDE, NARROW_PAIR, NARROW, STILL, TILE_KINDS };
enum vote_kind { VOTE_WIDE, VOTE_QUAD, VOTE_NARROW, VOTE_DIRECT };

int g_path = -1, g_variant = -1;

int64_t up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

struct device_facts {
  int sms, hopper;
};

cudaError_t facts(device_facts *out, int *id) {
  static device_facts known[MAX_DEVICES];
  cudaError_t err = cudaGetDevice(id);
  if (err != cudaSuccess) return err;
  if (*id < 0 || *id >= MAX_DEVICES) return cudaErrorInvalidDevice;
  if (!known[*id].sms) {
    device_facts f = {0, 0};
    int major = 0, minor = 0;
    if ((err = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, *id)) != cudaSuccess) return err;
    if ((err = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, *id)) != cudaSuccess) return err;
    if (major == 9 && minor == 0) { /* and the build holds sm_90a code: other builds have an empty body bound to 32 threads */
      cudaFuncAttributes a;
      if ((err = cudaFuncGetAttributes(&a, arb_wgmma::kernel<256, 4, 2, 1>)) != cudaSuccess) return err;
      f.hopper = a.maxThreadsPerBlock >= arb_wgmma::threads(1);
    }
    if ((err = cudaDeviceGetAttribute(&f.sms, cudaDevAttrMultiProcessorCount, *id)) != cudaSuccess) return err;
    known[*id] = f;
  }
  *out = known[*id];
  return cudaSuccess;
}

/* A byte tensor of up to three dimensions, innermost first; strides of the outer ones in bytes. */
cudaError_t encode(CUtensorMap *map, const void *base, int rank, const uint64_t *dim, const uint64_t *stride,
                   const uint32_t *box) { /* swizzled by the box's width, 64 or 128 bytes */
  typedef CUresult (*encoder)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                              const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static void *entry = nullptr;
  if (!entry) {
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t err =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    if (err != cudaSuccess) return err;
    if (result != cudaDriverEntryPointSuccess || !found) return cudaErrorNotSupported;
    entry = found;
  }
  const cuuint32_t ones[3] = {1, 1, 1};
  const CUresult r = reinterpret_cast<encoder>(entry)(
      map, CU_TENSOR_MAP_DATA_TYPE_UINT8, (cuuint32_t)rank, const_cast<void *>(base), dim, stride, box, ones,
      CU_TENSOR_MAP_INTERLEAVE_NONE, box[0] == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

bool aligned(const void *p, int64_t ld) { return ((uintptr_t)p & 15) == 0 && (ld & 15) == 0; }

/* bf16 out [m][cols] for arb_lines::store. */
cudaError_t encode_out(CUtensorMap *map, const uint16_t *out, int64_t m, int64_t cols) {
  const uint64_t dim[2] = {2 * (uint64_t)cols, (uint64_t)m}, stride[1] = {2 * (uint64_t)cols};
  const uint32_t box[2] = {2 * arb_lines::COLS, arb_lines::ROWS};
  return encode(map, out, 2, dim, stride, box);
}

/* A kernel's shared memory limit and how many clusters of it the device holds at once; asked once per kernel and device. */
template <typename K>
cudaError_t resident(K kernel, int threads, int shared, int cluster, int *clusters) {
  cudaError_t err = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  if (err != cudaSuccess) return err;
  cudaLaunchAttribute a[1];
  a[0].id = cudaLaunchAttributeClusterDimension;
  a[0].val.clusterDim.x = (unsigned)cluster, a[0].val.clusterDim.y = 1, a[0].val.clusterDim.z = 1;
  cudaLaunchConfig_t c = {};
  c.gridDim = dim3((unsigned)cluster), c.blockDim = dim3((unsigned)threads), c.dynamicSmemBytes = (size_t)shared;
  c.attrs = a, c.numAttrs = 1;
  if ((err = cudaOccupancyMaxActiveClusters(clusters, kernel, &c)) != cudaSuccess) return err;
  return *clusters > 0 ? cudaSuccess : cudaErrorLaunchOutOfResources;
}

/* The operands' maps for tiles of BN columns, and the tiles' order. */
template <int BN, int CLUSTER>
cudaError_t lay_out(CUtensorMap *map_a, CUtensorMap *map_b, const int8_t *a, int64_t lda, const uint8_t *b, int64_t ldb,
                    arb_wgmma::args *g) {
  const uint64_t dim_a[2] = {(uint64_t)g->depth, (uint64_t)g->m}, dim_b[2] = {(uint64_t)g->depth, (uint64_t)up(g->cols, 32)};
  const uint64_t stride_a[1] = {(uint64_t)lda}, stride_b[1] = {(uint64_t)ldb};
  const uint32_t box_a[2] = {arb_wgmma::BK, arb_wgmma::BM}, box_b[2] = {arb_wgmma::BK, BN / CLUSTER};
  const cudaError_t err = encode(map_a, a, 2, dim_a, stride_a, box_a);
  if (err != cudaSuccess) return err;
  g->m_tiles = (int32_t)(up(g->m, arb_wgmma::BM * CLUSTER) / (arb_wgmma::BM * CLUSTER));
  g->col_tiles = (int32_t)(up(g->cols, BN) / BN);
  const int32_t limit = 3072 / BN, groups = (g->col_tiles + limit - 1) / limit;
  g->group = (g->col_tiles + groups - 1) / groups;
  return encode(map_b, b, 2, dim_b, stride_b, box_b);
}

template <int BN, int STAGES, int CLUSTER, int BLOCKS>
cudaError_t product(cudaStream_t stream, int device, const int8_t *a, int64_t lda, const uint8_t *b, int64_t ldb,
                    arb_wgmma::args g) {
  static int held[MAX_DEVICES];
  constexpr int shared = arb_wgmma::shared_bytes<BN, STAGES>();
  auto *kernel = arb_wgmma::kernel<BN, STAGES, CLUSTER, BLOCKS>;
  cudaError_t err;
  if (!held[device] && (err = resident(kernel, arb_wgmma::threads(BLOCKS), shared, CLUSTER, &held[device])) != cudaSuccess)
    return err;
  CUtensorMap map_a, map_b;
  if ((err = lay_out<BN, CLUSTER>(&map_a, &map_b, a, lda, b, ldb, &g)) != cudaSuccess) return err;
  const int64_t tiles = (int64_t)g.m_tiles * g.col_tiles;
  const int clusters = (int)(tiles < held[device] ? tiles : held[device]);
  return arb_cuda_chain(kernel, stream, dim3((unsigned)(clusters * CLUSTER)), dim3(arb_wgmma::threads(BLOCKS)), shared, CLUSTER,
                        true, map_a, map_b, g);
}

/* Output in whole lines; rows of B are not permuted. */
template <bool FORWARD, int CLUSTER>
cudaError_t wide(cudaStream_t stream, int device, const int8_t *a, int64_t lda, const uint8_t *b, int64_t ldb,
                 arb_wgmma::args g) {
  using namespace arb_wgmma_wide;
  static int held[MAX_DEVICES];
  auto *kernel = arb_wgmma_wide::kernel<FORWARD, CLUSTER>;
  cudaError_t err;
  if (!held[device] && (err = resident(kernel, THREADS, SHARED, CLUSTER, &held[device])) != cudaSuccess) return err;
  CUtensorMap map_a, map_b, map_out;
  if ((err = lay_out<BN, CLUSTER>(&map_a, &map_b, a, lda, b, ldb, &g)) != cudaSuccess) return err;
  if ((err = encode_out(&map_out, g.out, g.m, g.cols)) != cudaSuccess) return err;
  const int64_t tiles = (int64_t)g.m_tiles * g.col_tiles;
  const int clusters = (int)(tiles < held[device] ? tiles : held[device]);
  return arb_cuda_chain(kernel, stream, dim3((unsigned)(clusters * CLUSTER)), dim3(THREADS), SHARED, CLUSTER, true, map_a,
                        map_b, map_out, g);
}

/* B are the state bytes themselves, code [n][k]. */
template <bool FORWARD>
cudaError_t still(cudaStream_t stream, int device, const int8_t *a, int64_t lda, const uint8_t *code, int64_t n, int64_t k,
                  arb_wgmma_still::args g, uint16_t *out, bool early) {
  using namespace arb_wgmma_still;
  static int held[MAX_DEVICES];
  auto *kernel = arb_wgmma_still::kernel<FORWARD>;
  cudaError_t err;
  if (!held[device] && (err = resident(kernel, THREADS, SHARED, 1, &held[device])) != cudaSuccess) return err;
  CUtensorMap map_a, map_b, map_out;
  const uint64_t dim_a[2] = {(uint64_t)g.depth, (uint64_t)g.m}, dim_b[2] = {(uint64_t)k, (uint64_t)n};
  const uint64_t stride_a[1] = {(uint64_t)lda}, stride_b[1] = {(uint64_t)k};
  const uint32_t box_a[2] = {BK, ROWS}, box_b[2] = {BK, (uint32_t)(FORWARD ? BN : BK)};
  if ((err = encode(&map_a, a, 2, dim_a, stride_a, box_a)) != cudaSuccess) return err;
  if ((err = encode(&map_b, code, 2, dim_b, stride_b, box_b)) != cudaSuccess) return err;
  if ((err = encode_out(&map_out, out, g.m, g.cols)) != cudaSuccess) return err;
  g.m_tiles = (int32_t)(up(g.m, ROWS) / ROWS);
  g.col_tiles = (int32_t)(up(g.cols, BN) / BN);
  const int64_t units = (int64_t)g.m_tiles * g.col_tiles;
  const unsigned blocks = (unsigned)(units < held[device] ? units : held[device]);
  return arb_cuda_chain(kernel, stream, dim3(blocks), dim3(THREADS), SHARED, 1, early, map_a, map_b, map_out, g);
}

/* Which tile for out [m][cols] over depth; may_rest: whether the state bytes may lie in shared memory as they are. */
int pick_tile(int sms, int64_t m, int64_t cols, int64_t depth, bool may_rest) {
  const bool shallow = depth <= arb_wgmma_still::CHUNKS * arb_wgmma_still::BK, rest = shallow && may_rest;
  if (g_variant >= 0) return g_variant == STILL && !rest ? NARROW : g_variant;
  /* as measured on an H100: B at rest for shallow products; narrow tiles where wide ones would leave much of the last column
     tile, or of the device, empty; pairs where the traffic from L2 counts */
  const int64_t wide = up(cols, 256) * up(m, 256), narrow = up(cols, 128) * up(m, 128), one_wave = (int64_t)sms * 128 * 256;
  if (wide < one_wave) return NARROW;
  if (rest) return STILL;
  if (shallow && wide > narrow + narrow / 16) return NARROW_PAIR;
  return depth >= 4096 ? WIDE_PAIR : WIDE;
}

/* Whether rows of B keep their order: for wide tiles, where the output can leave in lines, its rows being whole 16 bytes. */
bool straight(int kind, bool lines) { return lines && (kind == WIDE || kind == WIDE_PAIR); }

template <bool FORWARD>
cudaError_t pick_product(cudaStream_t stream, int device, int kind, bool lines, const int8_t *a, int64_t lda, const uint8_t *b,
                         int64_t ldb, const arb_wgmma::args &g) {
  if (straight(kind, lines))
    return kind == WIDE ? wide<FORWARD, 1>(stream, device, a, lda, b, ldb, g)
                        : wide<FORWARD, 2>(stream, device, a, lda, b, ldb, g);
  switch (kind) {
    case WIDE_PAIR:
      return product<256, 4, 2, 1>(stream, device, a, lda, b, ldb, g);
    case WIDE:
      return product<256, 4, 1, 1>(stream, device, a, lda, b, ldb, g);
    case NARROW_PAIR:
      return product<128, 3, 2, 2>(stream, device, a, lda, b, ldb, g);
    default:
      return product<128, 3, 1, 2>(stream, device, a, lda, b, ldb, g);
  }
}

/* Does one of the shares end inside a tile? */
bool ends_inside(int32_t units, int32_t shares, int32_t grains) {
  for (int32_t i = 1; i < shares; i++)
    if (arb_share(units, i, shares) % grains != 0) return true;
  return false;
}

/* From turned operands. */
template <int BN, int STAGES, int BLOCKS, int CM, int CN>
cudaError_t votes(cudaStream_t stream, int device, const int8_t *tq, const int8_t *q, const arb_vote_args &v, uint32_t *parts,
                  bool early) {
  static int held[MAX_DEVICES];
  constexpr int shared = arb_wgmma_dw::shared_bytes<BN, STAGES>(), cluster = CM * CN;
  auto *kernel = arb_wgmma_dw::kernel<BN, STAGES, BLOCKS, CM, CN>;
  cudaError_t err;
  if (!held[device] && (err = resident(kernel, arb_wgmma_dw::threads(BLOCKS), shared, cluster, &held[device])) != cudaSuccess)
    return err;
  CUtensorMap map_a, map_b;
  const uint64_t chunks = (uint64_t)(up(v.rows_per_grain, arb_turn::SIDE) / arb_turn::SIDE) * (uint64_t)v.grains,
                 n = (uint64_t)up(v.n, 16), k = (uint64_t)up(v.k, 16);
  const uint64_t dim_a[3] = {arb_turn::SIDE, n, chunks}, dim_b[3] = {arb_turn::SIDE, k, chunks};
  const uint64_t stride_a[2] = {arb_turn::SIDE, arb_turn::SIDE * n}, stride_b[2] = {arb_turn::SIDE, arb_turn::SIDE * k};
  const uint32_t box_a[3] = {arb_wgmma_dw::BK, arb_wgmma_dw::BM / CN, 1}, box_b[3] = {arb_wgmma_dw::BK, BN / CM, 1};
  if ((err = encode(&map_a, tq, 3, dim_a, stride_a, box_a)) != cudaSuccess) return err;
  if ((err = encode(&map_b, q, 3, dim_b, stride_b, box_b)) != cudaSuccess) return err;
  arb_wgmma_dw::args g;
  g.v = v;
  g.row_tiles = (int32_t)(up(v.n, CM * arb_wgmma_dw::BM) / (CM * arb_wgmma_dw::BM));
  g.col_tiles = (int32_t)(up(v.k, CN * BN) / (CN * BN));
  g.units = g.row_tiles * g.col_tiles * v.grains;
  const int most = (int)(ARB_CUDA_DW_PART_BYTES / (2 * 128 * BN)) / cluster, limit = held[device] < most ? held[device] : most;
  g.clusters = g.units < limit ? g.units : limit;
  g.parts = parts;
  if ((err = arb_cuda_chain(kernel, stream, dim3((unsigned)(g.clusters * cluster)), dim3(arb_wgmma_dw::threads(BLOCKS)), shared,
                            cluster, early, map_a, map_b, g)) != cudaSuccess)
    return err;
  if (!ends_inside(g.units, g.clusters, v.grains)) return cudaSuccess;
  return arb_cuda_chain(arb_wgmma_dw::join<BN, CM, CN>, stream, dim3((unsigned)(g.row_tiles * g.col_tiles * cluster)),
                        dim3(256), 0, 1, true, g);
}

cudaError_t pick_votes(cudaStream_t stream, int device, int sms, const int8_t *tq, const int8_t *q, const arb_vote_args &v,
                       uint32_t *parts, bool early) {
  int kind = g_variant;
  if (kind < 0) {
    /* as measured on an H100: microseconds for every time that all multiprocessors are busy. A block alone is fastest with wide
       tiles; four that share their operands leave less of the device empty */
    const int64_t rows = up(v.n, 128) / 128 * v.grains, wide = rows * (up(v.k, 256) / 256),
                  quad = up(v.n, 256) / 256 * (up(v.k, 256) / 256) * 4 * v.grains;
    kind = v.n <= 128 || v.k <= 128                                   ? VOTE_NARROW
           : 35 * (up(wide, sms) / sms) <= 20 * (up(quad, sms) / sms) ? VOTE_WIDE
                                                                      : VOTE_QUAD;
  }
  switch (kind) {
    case VOTE_WIDE:
      return votes<256, 4, 1, 1, 1>(stream, device, tq, q, v, parts, early);
    case VOTE_QUAD:
      return votes<128, 6, 1, 2, 2>(stream, device, tq, q, v, parts, early);
    default:
      return votes<128, 3, 2, 1, 1>(stream, device, tq, q, v, parts, early);
  }
}

/* Can the cast read gradient rows and inputs as they lie? */
bool direct(const arb_cuda_dw *d, const device_facts &f) {
  using namespace arb_wgmma_direct;
  if (!f.hopper || g_path == 0 || !aligned(d->hq, d->n) || !aligned(d->q, d->k) || ((uintptr_t)d->votes & 3) != 0) return false;
  if (d->groups.rows != 0) return false; /* votes by owner: as it reads it takes them too, but no GPU has run that */
  if (g_variant >= 0) return g_variant == VOTE_DIRECT;
  /* And is it worth it: tiles not mostly outside, more rows than casting their votes costs (with 512 a step of large.ini took a
     third longer), clusters for half the device (with 8 grains, 512 x 512 has enough; one grain of books.ini has not) */
  const int64_t units = up(d->n, 2 * BN) / (2 * BN) * (up(d->k, 2 * BK) / (2 * BK)) * d->grains;
  return d->n > BN && d->k > BK && d->rows_per_grain >= 16 * DEPTH && 2 * CLUSTER * units >= f.sms - f.sms / 16;
}

cudaError_t direct_votes(cudaStream_t stream, int device, const arb_cuda_dw *d, const arb_vote_args &v, uint32_t *most,
                         uint32_t *parts, bool early) {
  using namespace arb_wgmma_direct;
  static int held[MAX_DEVICES];
  cudaError_t err;
  if (!held[device] && (err = resident(kernel, THREADS, SHARED, CLUSTER, &held[device])) != cudaSuccess) return err;
  const dim3 weighs((unsigned)arb_turn::PARTS, (unsigned)d->grains);
  err = arb_cuda_chain(arb_turn::weigh, stream, weighs, dim3(arb_turn::THREADS), 0, 1, early, (int32_t)d->rows_per_grain, d->sh,
                       d->s, most);
  if (err != cudaSuccess) return err;
  CUtensorMap map_q, map_h;
  const uint64_t rows = (uint64_t)d->rows_per_grain, n = (uint64_t)d->n, k = (uint64_t)d->k;
  const uint64_t dim_q[3] = {k, rows, (uint64_t)d->grains}, dim_h[3] = {n, rows, (uint64_t)d->grains};
  const uint64_t stride_q[2] = {k, rows * k}, stride_h[2] = {n, rows * n};
  const uint32_t box_q[3] = {BOX, DEPTH, 1}, box_h[3] = {HALF, DEPTH, 1};
  if ((err = encode(&map_q, d->q, 3, dim_q, stride_q, box_q)) != cudaSuccess) return err;
  if ((err = encode(&map_h, d->hq, 3, dim_h, stride_h, box_h)) != cudaSuccess) return err;
  arb_wgmma_direct::args g;
  g.col_tiles = (int32_t)(up(d->k, 2 * BK) / (2 * BK));
  const int32_t tiles = (int32_t)(up(d->n, 2 * BN) / (2 * BN)) * g.col_tiles;
  g.units = tiles * d->grains;
  const int room = ARB_CUDA_DW_PART_BYTES / (2 * BN * BK) / CLUSTER, limit = held[device] < room ? held[device] : room;
  g.clusters = g.units < limit ? g.units : limit;
  g.parts = parts, g.sh = d->sh, g.s = d->s, g.most = most, g.nonfinite = d->nonfinite, g.v = v;
  err = arb_cuda_chain(kernel, stream, dim3((unsigned)(g.clusters * CLUSTER)), dim3(THREADS), SHARED, CLUSTER, true, map_q,
                       map_h, g);
  if (err != cudaSuccess) return err;
  if (!ends_inside(g.units, g.clusters, d->grains)) return cudaSuccess;
  return arb_cuda_chain(join, stream, dim3((unsigned)(tiles * CLUSTER), WORDS / 8), dim3(256), 0, 1, true, g);
}

/* The operand as bulk copies want it: itself, or a padded copy at *work, which moves on. */
const int8_t *padded(cudaStream_t stream, const int8_t *x, int64_t rows, int64_t width, int64_t *ld, uint8_t **work) {
  *ld = width;
  if (aligned(x, width)) return x;
  *ld = up(width, 16);
  int8_t *to = reinterpret_cast<int8_t *>(*work);
  const int64_t pieces = rows * (*ld / 16), blocks = (pieces + arb_prep::THREADS - 1) / arb_prep::THREADS;
  arb_prep::pad_rows<<<(unsigned)(blocks < 65536 ? blocks : 65536), arb_prep::THREADS, 0, stream>>>(rows, (int32_t)width,
                                                                                                    (int32_t)*ld, x, to);
  *work += up(rows * *ld, 256);
  return to;
}

template <int FORM>
cudaError_t portable(cudaStream_t stream, const arb_mma::args &g) {
  const dim3 grid((unsigned)(up(g.b.rows, arb_mma::TILE) / arb_mma::TILE),
                  (unsigned)(up(g.a.rows, arb_mma::TILE) / arb_mma::TILE));
  arb_mma::kernel<FORM><<<grid, arb_mma::THREADS, 0, stream>>>(g);
  return cudaGetLastError();
}

bool shape_ok(int64_t m, int64_t k, int64_t n) {
  const int64_t limit = (int64_t)1 << 24;
  return m >= 1 && n >= 1 && k >= 1 && m < limit && n < limit && k < limit;
}

}  // namespace

extern "C" int arb_cuda_gemm_path(int wanted) {
  g_path = wanted < 0 ? -1 : wanted == 0 ? 0 : 1;
  g_variant = wanted > 1 && wanted < 2 + TILE_KINDS ? wanted - 2 : -1;
  device_facts f;
  int id;
  if (facts(&f, &id) != cudaSuccess) return 0;
  return g_path != 0 && f.hopper;
}

extern "C" size_t arb_cuda_gemm_work_bytes(int64_t rows_per_grain, int64_t grains, int64_t k, int64_t n) {
  const size_t product = arb_cuda_product_work_bytes(rows_per_grain * grains, k, n),
               dw = arb_cuda_dw_work_bytes(rows_per_grain, grains, k, n);
  return product > dw ? product : dw;
}

extern "C" cudaError_t arb_cuda_gemm_forward(cudaStream_t stream, int64_t m, int64_t k, int64_t n, const int8_t *q,
                                             const float *s, const uint8_t *code, const int8_t *e, uint16_t *y, void *work,
                                             int early) {
  device_facts f;
  int id;
  cudaError_t err = facts(&f, &id);
  if (err != cudaSuccess) return err;
  if (!shape_ok(m, k, n)) return cudaErrorInvalidValue;
  if (!f.hopper || g_path == 0) {
    arb_mma::args g = {};
    g.a = {reinterpret_cast<const uint8_t *>(q), k, (int32_t)m, (int32_t)k, 0};
    g.b = {code, k, (int32_t)n, (int32_t)k, 0};
    g.scale = s, g.e = e, g.out = y;
    return portable<arb_mma::FORWARD>(stream, g);
  }
  uint8_t *at = static_cast<uint8_t *>(work);
  float *gain = reinterpret_cast<float *>(at);
  at += up(4 * up(n, 32), 256);
  uint8_t *trits = at;
  const int64_t ldb = up(k, 16);
  at += up(up(n, 32) * ldb, 256);
  int64_t lda;
  const int8_t *a = padded(stream, q, m, k, &lda, &at);
  const bool lines = aligned(y, 2 * n);
  const int kind = pick_tile(f.sms, m, n, k, aligned(code, k) && lines);
  if (kind == STILL) {
    arb_wgmma_still::args g = {};
    g.m = (int32_t)m, g.cols = (int32_t)n, g.depth = (int32_t)k, g.scale = s, g.e = e;
    return still<true>(stream, id, a, lda, code, n, k, g, y, early && a == q);
  }
  const int64_t blocks = (n * (ldb / 16) + arb_prep::THREADS - 1) / arb_prep::THREADS;
  err = arb_cuda_chain(arb_prep::expand, stream, dim3((unsigned)(blocks < 2048 ? blocks : 2048)), dim3(arb_prep::THREADS), 0, 1,
                       early && a == q, (int32_t)n, (int32_t)k, (int32_t)ldb, code, e, trits, gain, !straight(kind, lines));
  if (err != cudaSuccess) return err;
  arb_wgmma::args g = {};
  g.m = (int32_t)m, g.cols = (int32_t)n, g.depth = (int32_t)k, g.scale = s, g.gain = gain, g.out = y;
  return pick_product<true>(stream, id, kind, lines, a, lda, trits, ldb, g);
}

extern "C" cudaError_t arb_cuda_gemm_dx(cudaStream_t stream, int64_t m, int64_t k, int64_t n, const int8_t *hq, const float *sh,
                                        const uint8_t *code, uint16_t *dx, void *work, int early) {
  device_facts f;
  int id;
  cudaError_t err = facts(&f, &id);
  if (err != cudaSuccess) return err;
  if (!shape_ok(m, k, n)) return cudaErrorInvalidValue;
  if (!f.hopper || g_path == 0) {
    arb_mma::args g = {};
    g.a = {reinterpret_cast<const uint8_t *>(hq), n, (int32_t)m, (int32_t)n, 0};
    g.b = {code, k, (int32_t)k, (int32_t)n, 0};
    g.scale = sh, g.out = dx;
    return portable<arb_mma::DX>(stream, g);
  }
  uint8_t *at = static_cast<uint8_t *>(work);
  float *gain = reinterpret_cast<float *>(at);
  at += up(4 * up(k, 32), 256);
  uint8_t *trits = at;
  const int64_t ldb = up(n, 16);
  at += up(up(k, 32) * ldb, 256);
  int64_t lda;
  const int8_t *a = padded(stream, hq, m, n, &lda, &at);
  const bool lines = aligned(dx, 2 * k);
  const int kind = pick_tile(f.sms, m, k, n, aligned(code, k) && lines);
  if (kind == STILL) {
    arb_wgmma_still::args g = {};
    g.m = (int32_t)m, g.cols = (int32_t)k, g.depth = (int32_t)n, g.scale = sh;
    return still<false>(stream, id, a, lda, code, n, k, g, dx, early && a == hq);
  }
  const dim3 grid((unsigned)(up(k, 32) / 32), (unsigned)(up(n, 128) / 128));
  err = arb_cuda_chain(arb_prep::expand_transposed, stream, grid, dim3(arb_prep::THREADS), 0, 1, early && a == hq, (int32_t)n,
                       (int32_t)k, (int32_t)ldb, code, trits, gain, !straight(kind, lines));
  if (err != cudaSuccess) return err;
  arb_wgmma::args g = {};
  g.m = (int32_t)m, g.cols = (int32_t)k, g.depth = (int32_t)n, g.scale = sh, g.gain = gain, g.out = dx;
  return pick_product<false>(stream, id, kind, lines, a, lda, trits, ldb, g);
}

namespace {

/* dW's work memory. */
struct dw_parts {
  int32_t *cexp;
  uint32_t *most, *parts;
  int8_t *tq, *q;
  int64_t turned; /* rows of a grain, rounded up to whole chunks */
};

cudaError_t dw_place(const arb_cuda_dw *d, void *work, dw_parts *out) {
  if (!shape_ok(d->rows_per_grain * d->grains, d->k, d->n) || d->rows_per_grain < 1 || d->rows_per_grain > ARB_CUDA_GEMM_ROWS ||
      d->grains > 65535 || d->vmax < 1 || d->vmax > 127)
    return cudaErrorInvalidValue;
  uint8_t *at = static_cast<uint8_t *>(work);
  out->turned = up(d->rows_per_grain, arb_turn::SIDE);
  out->cexp = reinterpret_cast<int32_t *>(at);
  at += up(4 * (int64_t)d->grains, 256);
  out->most = reinterpret_cast<uint32_t *>(at);
  at += up(4 * arb_turn::PARTS * (int64_t)d->grains, 256);
  out->tq = reinterpret_cast<int8_t *>(at);
  at += up(out->turned * d->grains * up(d->n, 16), 256);
  out->q = reinterpret_cast<int8_t *>(at);
  at += up(out->turned * d->grains * up(d->k, 16), 256);
  out->parts = reinterpret_cast<uint32_t *>(at);
  return cudaSuccess;
}

}  // namespace

extern "C" cudaError_t arb_cuda_gemm_dw_turn(cudaStream_t stream, const arb_cuda_dw *d, void *work, int early) {
  device_facts f;
  dw_parts w;
  int id;
  cudaError_t err = facts(&f, &id);
  if (err == cudaSuccess) err = dw_place(d, work, &w);
  if (err != cudaSuccess) return err;
  if (direct(d, f)) return cudaSuccess;
  const bool hopper = f.hopper && g_path != 0;
  arb_turn::args t = {};
  t.gradient = {d->hq, w.tq, (int32_t)d->n, (int32_t)(up(d->n, arb_turn::SIDE) / arb_turn::SIDE)};
  t.input = {d->q, w.q, (int32_t)d->k, (int32_t)(up(d->k, arb_turn::SIDE) / arb_turn::SIDE)};
  t.rows = (int32_t)d->rows_per_grain, t.permute = hopper;
  t.sh = d->sh, t.s = d->s, t.most = w.most, t.cexp = w.cexp, t.nonfinite = d->nonfinite;
  t.draws.n = (int32_t)d->n, t.draws.uses = 1, t.draws.tensor = d->tensor, t.draws.step = d->step;
  t.draws.first = d->first, t.draws.stride = d->stride;
  const dim3 grid((unsigned)(t.gradient.tiles + t.input.tiles), (unsigned)(w.turned / arb_turn::SIDE), (unsigned)d->grains);
  const dim3 parts((unsigned)arb_turn::PARTS, (unsigned)d->grains);
  err = arb_cuda_chain(arb_turn::weigh, stream, parts, dim3(arb_turn::THREADS), 0, 1, hopper && early, t.rows, d->sh, d->s,
                       w.most);
  if (err != cudaSuccess) return err;
  return arb_cuda_chain(arb_turn::turn, stream, grid, dim3(arb_turn::THREADS), 0, 1, hopper, t);
}

extern "C" cudaError_t arb_cuda_gemm_dw_cast(cudaStream_t stream, const arb_cuda_dw *d, void *work, int early) {
  device_facts f;
  dw_parts w;
  int id;
  cudaError_t err = facts(&f, &id);
  if (err == cudaSuccess) err = dw_place(d, work, &w);
  if (err != cudaSuccess) return err;
  arb_vote_args v = {};
  v.n = d->n, v.k = d->k, v.rows_per_grain = d->rows_per_grain;
  v.grains = d->grains, v.first = d->first, v.stride = d->stride;
  v.cexp = w.cexp, v.p = d->p, v.step = d->step, v.votes = d->votes, v.groups = d->groups, v.vmax = (float)d->vmax,
  v.tensor = d->tensor;
  if (direct(d, f)) return direct_votes(stream, id, d, v, w.most, w.parts, early != 0);
  if (f.hopper && g_path != 0) return pick_votes(stream, id, f.sms, w.tq, w.q, v, w.parts, early != 0);
  arb_mma::args g = {};
  g.a = {reinterpret_cast<const uint8_t *>(w.tq), arb_turn::SIDE, (int32_t)d->n, (int32_t)w.turned, w.turned * up(d->n, 16)};
  g.b = {reinterpret_cast<const uint8_t *>(w.q), arb_turn::SIDE, (int32_t)d->k, (int32_t)w.turned, w.turned * up(d->k, 16)};
  g.v = v;
  return portable<arb_mma::DW>(stream, g);
}

extern "C" int arb_cuda_gemm_dw_direct(const arb_cuda_dw *d) {
  device_facts f;
  int id;
  return facts(&f, &id) == cudaSuccess && direct(d, f);
}

extern "C" cudaError_t arb_cuda_gemm_dw_votes(cudaStream_t stream, const arb_cuda_dw *d, void *work) {
  const cudaError_t err = arb_cuda_gemm_dw_turn(stream, d, work, 0);
  return err == cudaSuccess ? arb_cuda_gemm_dw_cast(stream, d, work, !arb_cuda_gemm_dw_direct(d)) : err;
}
