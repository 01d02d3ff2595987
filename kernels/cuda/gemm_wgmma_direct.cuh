/* op      dW votes on Hopper straight from gradient rows and inputs as they lie: D[n][k] = sum over a grain's rows of
 *         tq[row][n] q[row][k], cast as votes in the epilogue; tq, the rows at one scale (kernels/common/scale.h), is made here
 * shapes  clusters of 2 x 2 blocks, each with a tile of 128 (n) x 256 (k); a unit of work = a cluster's tiles of one grain; any
 *         rows, n and k multiples of 16
 * layout  the products want the depth, a grain's rows, innermost. Inputs come in rows and are turned between shared memory and
 *         registers: they are the first operand, 64 columns k a product. Gradients are rescaled and turned by two warpgroups,
 *         half a tile of 128 rows x 128 n a block; that half is copied to the block that has the same n. Rows are permuted
 *         within 64 (row_at), so that neither side's reading of shared memory meets a bank twice
 * work    2 rows n k operations; n rows / 8 Philox outputs for each 512 columns k, and one for 8 votes of a grain. Products
 *         alone take 1400 cycles a chunk of 128 rows, rescaling alone 1450, both together 2500 (H200)
 * bytes   inputs from L2 once per 256 n, gradients once per 512 k: half of what a block needs comes from its neighbours
 * determinism  int32 sums, votes are integers: added in work memory over a cluster's grains, then over clusters (join)
 * source  own; PTX ISA, "Asynchronous warpgroup level matrix instructions" */
#ifndef ARB_KERNELS_CUDA_GEMM_WGMMA_DIRECT_CUH
#define ARB_KERNELS_CUDA_GEMM_WGMMA_DIRECT_CUH

#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/gemm_ptx.cuh"
#include "kernels/cuda/gemm_turn.cuh"

namespace arb_wgmma_direct {

constexpr int BN = 128, BK = 256, DEPTH = 128, CLUSTER = 4, STAGES = 4, RAWS = 4, THREADS = 512;
constexpr int HALF = BN / 2, BOX = 128; /* columns n that a block rescales; columns k of one load */
constexpr int Q_BYTES = DEPTH * BK, T_BYTES = BN * DEPTH, STAGE = Q_BYTES + T_BYTES, RAW_BYTES = DEPTH * HALF;
constexpr int RATIOS = 2 * DEPTH * 4, SCALES = 2 * 2 * BN * 2, BARRIERS = 8 * (2 * STAGES + RAWS);
constexpr int SHARED = STAGES * STAGE + RAWS * RAW_BYTES + RATIOS + SCALES + BARRIERS;
static_assert(SHARED <= 227 * 1024, "no room to round the base up: it is declared at a multiple of 1024");
constexpr int WORDS = BN * BK / 4 / 256; /* of votes, a thread */

struct args {
  int32_t col_tiles; /* of k, counted in clusters */
  int32_t units;     /* tiles * grains */
  int32_t clusters;
  uint32_t *parts; /* [blocks][2][WORDS][256] votes of a tile so far, as numbers; one where a share begins, one where it ends */
  const float *sh, *s;
  const uint32_t *most; /* [grains][arb_turn::PARTS] */
  int *nonfinite;
  arb_vote_args v;
};

#if ARB_HAVE_WGMMA
using namespace arb_ptx;

/* Row of a chunk that stands at place p of the depth. */
__device__ __forceinline__ int row_at(int p) { return p ^ (p >> 3 & 7); }

/* Exponent of a grain's rows; a warp calls it. */
__device__ __forceinline__ int grain_exponent(const args &g, int32_t grain, uint32_t *bits) {
  *bits = __reduce_max_sync(0xffffffffu, g.most[grain * arb_turn::PARTS + (int)threadIdx.x % 32]);
  return *bits < ARB_F32_INF_BITS ? arb_rows_exponent(arb_f32_of_bits(*bits)) : ARB_NO_SCALE;
}

/* Four votes in a word as one number, v0 + 2^8 v1 + 2^16 v2 + 2^24 v3, so that sums within int8 are one addition; and back. */
__device__ __forceinline__ uint32_t number_of(uint32_t votes) { return (votes ^ 0x80808080u) - 0x80808080u; }
__device__ __forceinline__ uint32_t votes_of(uint32_t number) { return (number + 0x80808080u) ^ 0x80808080u; }

/* A thread's votes: word 2 j + e are those of row n = 8 j + 2 t + e and four columns k. */
struct place {
  int32_t n, k;
};
__device__ __forceinline__ place first_place(int id) {
  const int lane = id % 32, warp = id / 32, g = lane / 4;
  place p;
  p.n = 2 * (lane % 4);
  p.k = 128 * (warp / 4) + 64 * (g & 1) + 16 * (warp % 4) + 2 * (g & 6);
  return p;
}

/* g.votes += a thread's words as numbers, words(w, i) gives eight from word i on; reads first, since one after the other
 * would wait for memory each time. */
template <typename F>
__device__ __forceinline__ void add_votes(const arb_vote_args &v, int32_t n, int32_t k, int begin, int end, F words) {
  if (k >= v.k) return;
#pragma unroll 1
  for (int i0 = begin; i0 < end; i0 += 8) {
    uint32_t *to[8], votes[8];
    words(votes, i0);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int32_t row = n + 8 * ((i0 + i) / 2) + i % 2;
      to[i] = row < v.n ? reinterpret_cast<uint32_t *>(v.votes + arb_votes_at(v.groups, row, v.k) + k) : nullptr;
      if (to[i]) votes[i] = __vadd4(votes_of(votes[i]), *to[i]);
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
      if (to[i]) *to[i] = votes[i];
  }
}

/* Four lanes that differ in bits 2 and 3 of their number a: word i of the result is word a of lane i's r. */
__device__ __forceinline__ void exchange(uint32_t (&out)[4], const arb_philox_block &r, int low, int high) {
  const uint32_t k0 = high ? r.v[2] : r.v[0], k1 = high ? r.v[3] : r.v[1];
  const uint32_t x0 = __shfl_xor_sync(0xffffffffu, high ? r.v[0] : r.v[2], 8);
  const uint32_t x1 = __shfl_xor_sync(0xffffffffu, high ? r.v[1] : r.v[3], 8);
  const uint32_t a = low ? k1 : k0, b = low ? x1 : x0; /* of this lane, and of the one with the other high bit */
  const uint32_t c = __shfl_xor_sync(0xffffffffu, low ? k0 : k1, 4), d = __shfl_xor_sync(0xffffffffu, low ? x0 : x1, 4);
  const uint32_t a0 = low ? c : a, a1 = low ? a : c, b0 = low ? d : b, b1 = low ? b : d;
  out[0] = high ? b0 : a0;
  out[1] = high ? b1 : a1;
  out[2] = high ? a0 : b0;
  out[3] = high ? a1 : b1;
}
#endif

__global__ void
#if ARB_HAVE_WGMMA || !defined(__CUDA_ARCH__)
__launch_bounds__(THREADS, 1)
#else
__launch_bounds__(32)
#endif
    kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_h, const args g) {
#if ARB_HAVE_WGMMA
  extern __shared__ __align__(1024) uint8_t swizzled[];
  const uint32_t base = shared_address(swizzled);
  const uint32_t rows_at = base + STAGES * STAGE, ratios_at = rows_at + RAWS * RAW_BYTES, scales_at = ratios_at + RATIOS;
  const uint32_t full = scales_at + SCALES, empty = full + 8 * STAGES, rows_full = empty + 8 * STAGES;
  const int lane = threadIdx.x % 32, warp = __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0), role = warp / 4;
  const uint32_t rank = cluster_rank();
  const int ki = (int)(rank & 1), nj = (int)(rank >> 1);
  if (threadIdx.x == 0) {
    prefetch(&map_q);
    prefetch(&map_h);
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + 8 * i, 5);      /* the producer of q, four warps that made tq; bytes of q and of the neighbour's tq */
      barrier_init(empty + 8 * i, 8 * 3); /* consumers here, and where this block's loads and copies go as well */
    }
    for (int i = 0; i < RAWS; i++) barrier_init(rows_full + 8 * i, 1);
    barriers_visible();
  }
  cluster_sync();
  const int32_t own = (int32_t)blockIdx.x, cluster = own / CLUSTER;
  const int32_t first = arb_share(g.units, cluster, g.clusters), last = arb_share(g.units, cluster + 1, g.clusters);
  const int32_t chunks = (int32_t)((g.v.rows_per_grain + DEPTH - 1) / DEPTH);
  arb_previous_done();
  if (role >= 2) {
    /* Gradient rows -> tq, turned: a thread 8 rows x 8 columns n of a chunk, four rows at a time. The two warpgroups take the
     * chunks by turns; each loads what its chunks need, the inputs' half for the block with the same columns too. Places are
     * computed where a unit begins, and halves are a loop: with divisions in every chunk and halves unrolled a unit of 32
     * chunks took 58 us instead of 46. */
    registers_shrink<80>();
    const int mine = role - 2, id = (int)threadIdx.x % 128, piece = 2 * (warp % 4) + lane / 16, eight = lane % 16;
    const uint32_t step = g.v.step->step;
    const arb_philox_key key = arb_philox_key_of(g.v.step->seed, ARB_DRAW_DW);
    const uint32_t per_row = (uint32_t)g.v.n / 8;
    const int32_t rows = (int32_t)g.v.rows_per_grain, all = (last - first) * chunks;
    const uint32_t my_ratios = ratios_at + (uint32_t)mine * DEPTH * 4;
    const uint16_t both = (uint16_t)(5u << ki);
    struct {
      int32_t u, c, grain, n, k; /* unit, chunk of it; its grain, this block's first columns */
    } now, next;
    auto enter = [&](auto &x) {
      const int32_t tile = x.u / g.v.grains;
      x.grain = x.u % g.v.grains;
      x.n = (tile / g.col_tiles * 2 + nj) * BN + ki * HALF;
      x.k = (tile % g.col_tiles * 2 + ki) * BK + nj * BOX;
    };
    auto fetch = [&](const auto &x, uint32_t turn) {
      const uint32_t bar = rows_full + 8 * (2 * mine + turn);
      barrier_expect(bar, RAW_BYTES);
      load_3d(rows_at + (2 * mine + turn) * RAW_BYTES, &map_h, bar, x.n, x.c * DEPTH, x.grain);
    };
    float sh = 0.0f, s = 0.0f; /* of the row whose weight this thread makes, loaded a chunk ahead */
    auto weigh = [&](const auto &x) {
      const int32_t row = x.c * DEPTH + id;
      const int64_t at = (int64_t)x.grain * rows + (row < rows ? row : rows - 1);
      sh = g.sh[at], s = g.s[at];
    };
    next.u = first, next.c = mine;
    while (next.c >= chunks) next.c -= chunks, next.u++;
    enter(next);
    if (mine < all) {
      if (id == 0) fetch(next, 0);
      weigh(next);
    }
    int32_t grain = -1;
    int exponent = 0;
    uint32_t turn = 0, turn_phase = 0, stage = (uint32_t)mine, phase = 1;
#pragma unroll 1
    for (int32_t i = mine; i < all; i += 2) {
      now = next;
      if (now.grain != grain) {
        uint32_t bits;
        grain = now.grain;
        exponent = grain_exponent(g, grain, &bits);
        if (bits >= ARB_F32_INF_BITS && id == 0) *g.nonfinite = 1;
      }
      const int32_t ratio_of_id = now.c * DEPTH + id < rows ? arb_row_ratio(sh * s, exponent) : 0;
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(my_ratios + 4 * id), "r"(ratio_of_id) : "memory");
      asm volatile("bar.sync %0, 128;" ::"r"(4 + mine) : "memory"); /* ratios are there, and rows of two chunks ago were read */
      next.c += 2;
      if (next.c >= chunks) {
        do next.c -= chunks, next.u++;
        while (next.c >= chunks);
        enter(next);
      }
      if (i + 2 < all) {
        if (id == 0) fetch(next, turn ^ 1);
        weigh(next);
      }
      const uint32_t counter = (uint32_t)(now.c * DEPTH) * per_row + (uint32_t)now.n / 8 + (uint32_t)piece,
                     number = (uint32_t)(g.v.first + grain * g.v.stride);
      const uint32_t chunk = rows_at + (2 * mine + turn) * RAW_BYTES;
      const uint32_t bar = full + 8 * stage, at = base + stage * STAGE, to = at + Q_BYTES + ki * (T_BYTES / 2);
      barrier_wait(rows_full + 8 * (2 * mine + turn), turn_phase);
#pragma unroll 1
      for (int h = 0; h < 2; h++) {
        const int half = h ^ lane >> 4; /* half of the lanes the other way round, for stores of all banks at once */
        const uint32_t row0 = (uint32_t)row_at(8 * eight + 4 * half);
        const uint32_t from = chunk + HALF * row0 + 16 * (((uint32_t)piece >> 1) ^ (row0 >> 1 & 3)) + 8 * (piece & 1);
        uint32_t x[4][2];
        int32_t ratio[4];
        arb_philox_block r[4];
        /* Loads first: shared memory is busy, and draws need nothing of it. */
#pragma unroll
        for (uint32_t l = 0; l < 4; l++) {
          asm volatile("ld.shared.v2.b32 {%0,%1}, [%2];"
                       : "=r"(x[l][0]), "=r"(x[l][1])
                       : "r"(from ^ (HALF * l + 16 * (l >> 1))));
          asm volatile("ld.shared.b32 %0, [%1];" : "=r"(ratio[l]) : "r"(my_ratios + 4 * (row0 ^ l)));
        }
#pragma unroll
        for (uint32_t l = 0; l < 4; l++) r[l] = arb_philox(key, counter + (row0 ^ l) * per_row, g.v.tensor, step, number);
        uint32_t out[8];
#pragma unroll
        for (int j = 0; j < 8; j++) {
          uint32_t b[4];
#pragma unroll
          for (int l = 0; l < 4; l++) b[l] = arb_rescale_word(x[l][j / 4], j & 3, ratio[l], r[l].v[j / 2]);
          out[j] = arb_pack4_high(b);
        }
        if (h == 0) {
          barrier_wait(empty + 8 * stage, phase);
          if (id == 0) {
            barrier_expect(bar, Q_BYTES + T_BYTES / 2);
            load_3d_multicast(at + nj * (Q_BYTES / 2), &map_q, bar, now.k, now.c * DEPTH, grain, both);
          }
        }
        const uint32_t store = to + DEPTH * 8 * piece + 16 * (eight >> 1) + 8 * (eight & 1) + 4 * half;
#pragma unroll
        for (uint32_t j = 0; j < 8; j++)
          asm volatile("st.shared.b32 [%0], %1;" ::"r"((store ^ 16 * j) + DEPTH * j), "r"(out[j]) : "memory");
      }
      fence_async();
      __syncwarp();
      if (lane == 0) barrier_arrive(bar);
      asm volatile("bar.sync %0, 128;" ::"r"(4 + mine) : "memory");
      if (id == 0) copy_to_rank(to, T_BYTES / 2, bar, rank ^ 1);
      turn_phase ^= turn;
      turn ^= 1;
      stage += 2;
      if (stage >= STAGES) {
        stage -= STAGES;
        phase ^= 1;
      }
    }
  } else {
    registers_grow<176>();
    const int id = (int)threadIdx.x, t4 = lane % 4, g8 = lane / 4, low = g8 & 1, high = g8 >> 1 & 1;
    /* this lane's row of the matrices that it loads, at places 16 h .. of 32, for even steps of 32; odd ones: row_at's bit 2
       the other way */
    const int pair = lane % 8 / 2, swapped = pair >> 1, h = lane / 16;
    const int in_row = 4 * (pair & 1) + (lane & 1) + ((lane / 8 & 1) ^ swapped) * 2, eight = 2 * h + swapped;
    const int low3 = in_row ^ eight;
    const uint32_t even = (uint32_t)((8 * eight + low3) * BOX + 16 * ((warp % 4) ^ low3));
    const uint32_t first_column = t4 < 2 ? 0x6420u : 0x2064u, second_column = first_column + 0x1111u;
    uint16_t *const scales = reinterpret_cast<uint16_t *>(swizzled + (scales_at - base)) + role * 2 * BN; /* upper halves */
    const arb_philox_key key = arb_philox_key_of(g.v.step->seed, ARB_DRAW_VOTE);
    const uint32_t step = g.v.step->step, to_blocks = lane == 0 ? rank : lane == 1 ? rank ^ 1 : rank ^ 2;
    const uint32_t blocks_per_row = (uint32_t)g.v.k / 8;
    auto release = [&](uint32_t stage) {
      if (lane < 3) barrier_arrive_at(empty + 8 * stage, to_blocks);
    };
    uint32_t stage = 0, phase = 0, turn = 0;
    int32_t acc[2][64]; /* 64 columns k each */
    uint32_t a[2][2][4];
    int32_t begun = first; /* first unit of the tile at work */
    for (int32_t u = first; u < last; u++, turn ^= 1) {
      const int32_t grain = u % g.v.grains, tile = u / g.v.grains;
      const int32_t n0 = (tile / g.col_tiles * 2 + nj) * BN, k0 = (tile % g.col_tiles * 2 + ki) * BK;
      {
        uint32_t bits;
        const int exponent = grain_exponent(g, grain, &bits);
        const int32_t n = n0 + id % 128;
        const float scale = n < g.v.n && exponent != ARB_NO_SCALE ? arb_vote_scale(exponent - g.v.p[n]) : 0.0f;
        scales[BN * turn + id % 128] = (uint16_t)(arb_bits_of_f32(scale) >> 16); /* a power of two */
        asm volatile("bar.sync %0, 128;" ::"r"(1 + role) : "memory");
      }
      uint32_t previous = 0, w[2][4]; /* what the next products need, loaded while those before run */
      auto load = [&](int i) {
        const uint32_t box = base + stage * STAGE + role * (Q_BYTES / 2) + 4096 * i;
#pragma unroll
        for (int half = 0; half < 2; half++)
          load_matrices_transposed(w[half], box + (even ^ ((i & 1) ? 512u + 64u : 0u) ^ (half ? 64u : 0u)));
      };
      barrier_wait(full + 8 * stage, phase);
      load(0);
      for (int32_t c = 0; c < chunks; c++) {
        const uint64_t b = descriptor(base + stage * STAGE + Q_BYTES);
#pragma unroll
        for (int i = 0; i < DEPTH / 32; i++) {
          uint32_t(&x)[2][4] = a[i & 1];
          mma_wait<1>(); /* the products that read these registers */
          if (i == 1 && c > 0) release(previous);
#pragma unroll
          for (int half = 0; half < 2; half++) {
            x[half][0] = __byte_perm(w[half][0], w[half][1], first_column);
            x[half][1] = __byte_perm(w[half][0], w[half][1], second_column);
            x[half][2] = __byte_perm(w[half][2], w[half][3], first_column);
            x[half][3] = __byte_perm(w[half][2], w[half][3], second_column);
            registers_held(x[half]);
          }
          mma_fence();
          mma_rs(acc[0], x[0], b + 2 * i, c > 0 || i > 0);
          mma_rs(acc[1], x[1], b + 2 * i, c > 0 || i > 0);
          mma_commit();
          if (i + 1 < DEPTH / 32) load(i + 1);
        }
        previous = stage;
        if (++stage == STAGES) {
          stage = 0;
          phase ^= 1;
        }
        if (c + 1 < chunks) {
          barrier_wait(full + 8 * stage, phase);
          load(0);
        }
      }
      mma_wait<0>();
      registers_held(acc[0]);
      registers_held(acc[1]);
      release(previous);
      const bool fresh = u == begun;
      const uint32_t number = (uint32_t)(g.v.first + grain * g.v.stride);
      uint32_t *const part = g.parts + (int64_t)(2 * own + (begun != first)) * (WORDS * 256) + id;
      const place p = first_place(id);
      /* the lane's own draws: of row e = low, the first or second 64 columns by high */
      const uint32_t draw0 = (uint32_t)(n0 + 2 * t4 + low) * blocks_per_row +
                             (uint32_t)(k0 + 128 * role + 64 * high + 16 * (warp % 4)) / 8 + g8 / 4;
#pragma unroll
      for (int j = 0; j < 16; j++) {
        uint32_t old[2] = {0, 0};
        if (!fresh) old[0] = part[2 * j * 256], old[1] = part[(2 * j + 1) * 256];
        const arb_philox_block r = arb_philox(key, draw0 + 8 * j * blocks_per_row, g.v.tensor, step, number);
        uint32_t draws[4];
        exchange(draws, r, low, high);
        const uint32_t pair = *reinterpret_cast<const uint32_t *>(scales + BN * turn + 8 * j + 2 * t4);
        const float s[2] = {arb_f32_of_bits(pair << 16), arb_f32_of_bits(pair & 0xffff0000u)};
        uint32_t two[2][2]; /* [64 columns][row]: votes of two columns */
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
          for (int e = 0; e < 2; e++) {
            const uint32_t draw = draws[2 * half + e];
            two[half][e] = __byte_perm(arb_vote_bits(acc[half][4 * j + e], s[e], g.v.vmax, draw, 0),
                                       arb_vote_bits(acc[half][4 * j + 2 + e], s[e], g.v.vmax, draw, 1), 0x0062);
          }
        const uint32_t one = __byte_perm(two[0][0], two[0][1], 0x5410), other = __byte_perm(two[1][0], two[1][1], 0x5410);
        const uint32_t mine = low ? other : one, theirs = __shfl_xor_sync(0xffffffffu, low ? one : other, 4);
#pragma unroll
        for (int e = 0; e < 2; e++)
          part[(2 * j + e) * 256] =
              old[e] + number_of(__byte_perm(mine, theirs, (low ? 0x1054u : 0x5410u) + (e ? 0x2222u : 0u)));
      }
      if (u + 1 == last || grain + 1 == g.v.grains) {
        if (u + 1 - begun == g.v.grains)
          add_votes(g.v, n0 + p.n, k0 + p.k, 0, WORDS, [&](uint32_t(&w)[8], int i0) {
#pragma unroll
            for (int i = 0; i < 8; i++) w[i] = part[(i0 + i) * 256];
          });
        begun = u + 1;
      }
    }
  }
  __syncwarp();
  cluster_sync(); /* no block leaves while another may still signal it or write to it */
#else
  (void)map_q, (void)map_h, (void)g;
#endif
}

/* Adds up the parts of the tiles that several clusters shared; four blocks a tile, eight words each, a thread
 * where the consumer's was. */
static __global__ void __launch_bounds__(256) join(const args g) {
#if ARB_HAVE_WGMMA
  arb_previous_done();
  const int32_t tile = (int32_t)blockIdx.x / CLUSTER, rank = (int32_t)blockIdx.x % CLUSTER, id = (int32_t)threadIdx.x;
  const int32_t begin = tile * g.v.grains, end = begin + g.v.grains;
  const int32_t cluster = arb_share_of(g.units, begin, g.clusters);
  if (arb_share(g.units, cluster + 1, g.clusters) >= end) return; /* that cluster had the whole tile */
  const place p = first_place(id);
  const int32_t n = (tile / g.col_tiles * 2 + rank / 2) * BN + p.n, k = (tile % g.col_tiles * 2 + rank % 2) * BK + p.k;
  add_votes(g.v, n, k, 8 * (int)blockIdx.y, 8 * (int)blockIdx.y + 8, [&](uint32_t(&w)[8], int i0) {
#pragma unroll
    for (int i = 0; i < 8; i++) w[i] = 0;
#pragma unroll 4
    for (int32_t c = cluster; c < g.clusters && arb_share(g.units, c, g.clusters) < end; c++) {
      const int which = arb_share(g.units, c, g.clusters) / g.v.grains != tile;
      const uint32_t *part = g.parts + ((int64_t)(2 * (c * CLUSTER + rank) + which) * WORDS + i0) * 256 + id;
#pragma unroll
      for (int i = 0; i < 8; i++) w[i] += part[i * 256];
    }
  });
#else
  (void)g;
#endif
}

}  // namespace arb_wgmma_direct

#endif
