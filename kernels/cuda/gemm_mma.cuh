/* op      the three products with mma.sync m16n8k32 s8, for any GPU from sm_80 on and any shape
 * shapes  acc[rows][cols] = sum over depth; forward m x k x n, dx m x n x k, dW n x (rows of a grain) x k, grain by grain
 * layout  operands as stored: contiguous along the depth (dW: turned before, gemm_turn.cuh), or along rows/columns and
 * transposed on the way into shared memory; state bytes become trits there too. Block tile 128 x 128 x 64, 8 warps of 64 x 32.
 * work    2 m n k operations; bytes: each operand once per tile row or column, each output once
 * determinism  int32 sums; one thread owns an output element over all grains
 * source  PTX ISA, "Matrix fragments for mma.m16n8k32" */
#ifndef ARB_KERNELS_CUDA_GEMM_MMA_CUH
#define ARB_KERNELS_CUDA_GEMM_MMA_CUH

#include "kernels/cuda/gemm_common.cuh"

namespace arb_mma {

constexpr int TILE = 128, DEPTH = 64, PITCH = DEPTH + 16, THREADS = 256;

enum form { FORWARD, DX, DW };

/* Rows x depth of one operand: element (r, d) at base[r * ld + d], or base[d * ld + r] when transposed. dW: in chunks of ld
 * depths, `grain` bytes a grain (gemm_turn.cuh). */
struct operand {
  const uint8_t *base;
  int64_t ld;
  int32_t rows, depth;
  int64_t grain;
};

struct args {
  operand a, b;
  const float *scale; /* s or sh, [rows of a] */
  const int8_t *e;
  void *out;
  arb_vote_args v;
};

__device__ __forceinline__ uint32_t load4(const uint8_t *p, int valid, bool wide) {
  if (wide && valid >= 4) return *reinterpret_cast<const uint32_t *>(p);
  uint32_t x = 0;
  for (int i = 0; i < 4 && i < valid; i++) x |= (uint32_t)p[i] << (8 * i);
  return x;
}

template <bool TRANSPOSED, bool CODES>
__device__ __forceinline__ void fill(uint8_t *tile, const operand &o, int64_t offset, int32_t row0, int32_t d0) {
  const uint8_t *base = o.base + offset;
  const bool wide = ((o.ld | (int64_t)(uintptr_t)base) & 3) == 0;
  for (int i = threadIdx.x; i < TILE * DEPTH / 16; i += THREADS) {
    uint32_t w[4];
    if (TRANSPOSED) { /* a 4 x 4 block: columns of memory are rows of the tile */
      const int r = 4 * (i % (TILE / 4)), d = 4 * (i / (TILE / 4));
      for (int j = 0; j < 4; j++) {
        const bool in = d0 + d + j < o.depth && row0 + r < o.rows;
        w[j] = in ? load4(base + (int64_t)(d0 + d + j) * o.ld + row0 + r, o.rows - row0 - r, wide) : 0;
        if (CODES && in) w[j] = arb_trits4(w[j]);
      }
      arb_transpose4(w);
      for (int j = 0; j < 4; j++) *reinterpret_cast<uint32_t *>(tile + (r + j) * PITCH + d) = w[j];
    } else {
      const int r = i / (DEPTH / 16), d = 16 * (i % (DEPTH / 16));
      for (int j = 0; j < 4; j++) {
        const int left = row0 + r < o.rows ? o.depth - (d0 + d + 4 * j) : 0;
        w[j] = left > 0 ? load4(base + (int64_t)(row0 + r) * o.ld + d0 + d + 4 * j, left, wide) : 0;
        if (CODES && left > 0) w[j] = arb_trits4(w[j]) & (left >= 4 ? 0xffffffffu : (1u << (8 * left)) - 1);
      }
      *reinterpret_cast<uint4 *>(tile + r * PITCH + d) = make_uint4(w[0], w[1], w[2], w[3]);
    }
  }
}

__device__ __forceinline__ void mma(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <int FORM>
__global__ void __launch_bounds__(THREADS) kernel(const args g) {
  __shared__ __align__(16) uint8_t ta[TILE * PITCH], tb[TILE * PITCH];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, quad = lane / 4, t = lane % 4;
  const int32_t row0 = (int32_t)blockIdx.y * TILE, col0 = (int32_t)blockIdx.x * TILE;
  const int wr = 64 * (warp / 4), wc = 32 * (warp % 4);
  const int grains = FORM == DW ? g.v.grains : 1;
  for (int grain = 0; grain < grains; grain++) {
    int32_t acc[4][4][4] = {};
    for (int32_t d0 = 0; d0 < g.a.depth; d0 += DEPTH) {
      __syncthreads();
      if (FORM == DW) { /* depth d0 lies in chunk d0 / ld */
        const int64_t chunks = g.a.depth / g.a.ld, chunk = d0 / g.a.ld, rest = d0 - chunk * g.a.ld;
        fill<false, false>(ta, g.a, grain * g.a.grain + chunk * (g.a.grain / chunks), row0, (int32_t)rest);
        fill<false, false>(tb, g.b, grain * g.b.grain + chunk * (g.b.grain / chunks), col0, (int32_t)rest);
      } else {
        fill<false, false>(ta, g.a, 0, row0, d0);
        fill<FORM == DX, FORM != DW>(tb, g.b, 0, col0, d0);
      }
      __syncthreads();
      for (int d = 0; d < DEPTH; d += 32) {
        uint32_t a[4][4], b[4][2];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const uint8_t *p = ta + (wr + 16 * i + quad) * PITCH + d + 4 * t;
          a[i][0] = *reinterpret_cast<const uint32_t *>(p);
          a[i][1] = *reinterpret_cast<const uint32_t *>(p + 8 * PITCH);
          a[i][2] = *reinterpret_cast<const uint32_t *>(p + 16);
          a[i][3] = *reinterpret_cast<const uint32_t *>(p + 8 * PITCH + 16);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const uint8_t *p = tb + (wc + 8 * j + quad) * PITCH + d + 4 * t;
          b[j][0] = *reinterpret_cast<const uint32_t *>(p);
          b[j][1] = *reinterpret_cast<const uint32_t *>(p + 16);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int j = 0; j < 4; j++) mma(acc[i][j], a[i], b[j]);
      }
    }
    arb_philox_key key = {};
    uint32_t step = 0;
    if (FORM == DW) {
      key = arb_philox_key_of(g.v.step->seed, ARB_DRAW_VOTE);
      step = g.v.step->step;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int32_t row = row0 + wr + 16 * i + 8 * h + quad;
        if (row >= g.a.rows) continue;
        const float scale = FORM == DW ? arb_row_vote_scale(g.v, grain, row) : g.scale[row];
        const int64_t from = FORM == DW ? arb_votes_at(g.v.groups, row, g.b.rows) : (int64_t)row * g.b.rows;
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int32_t col = col0 + wc + 8 * j + 2 * t;
          uint32_t word = 0;
          if (FORM == DW) {
            const uint64_t block = (uint64_t)(row * arb_pad8(g.b.rows) + col) >> 3;
            const arb_philox_block r =
                arb_philox(key, (uint32_t)block, g.v.tensor, step, (uint32_t)(g.v.first + grain * g.v.stride));
            word = t == 0 ? r.v[0] : t == 1 ? r.v[1] : t == 2 ? r.v[2] : r.v[3];
          }
#pragma unroll
          for (int c = 0; c < 2; c++) {
            if (col + c >= g.b.rows) continue;
            const int64_t at = from + col + c;
            const int32_t sum = acc[i][j][2 * h + c];
            if (FORM == FORWARD)
              static_cast<uint16_t *>(g.out)[at] = arb_bf16_of_f32(((float)sum * scale) * arb_pow2_eighths(g.e[col + c]));
            else if (FORM == DX)
              static_cast<uint16_t *>(g.out)[at] = arb_bf16_of_f32((float)sum * scale);
            else
              g.v.votes[at] = (int8_t)(g.v.votes[at] + arb_vote(sum, scale, g.v.vmax, (word >> (16 * c)) & 0xffffu));
          }
        }
      }
  }
}

}  // namespace arb_mma

#endif
