/* op      operands of dW turned: [rows][width] int8 -> [grain][chunk of 128 rows][width'][128], rows innermost; hq rows come to
 *         one scale on the way (kernels/common/scale.h)
 * shapes  tiles of 128 rows x 128 columns; any rows, width
 * layout  a tile of dW reads whole chunks: one run of memory each, where a grain's rows in one line would lie a power of two
 *         apart. Rows past the grain's last are zero. Positions of width' are permuted within 16 (position_of): gradients so
 *         that accumulator rows q and q + 8 are neighbours 2 q, 2 q + 1; inputs so that a thread's accumulator columns are 4
 *         neighbours
 * work    gradients: one Philox output and 8 multiply-adds a chunk of 8 bytes
 * bytes   each read once and written once; row scales once more, for the grain's largest weight (weigh)
 * determinism  integers; a maximum
 * source  own */
#ifndef ARB_KERNELS_CUDA_GEMM_TURN_CUH
#define ARB_KERNELS_CUDA_GEMM_TURN_CUH

#include "kernels/cuda/gemm_prep.cuh"
#include "kernels/cuda/rescale.cuh"

namespace arb_turn {

constexpr int THREADS = 256, SIDE = 128, PARTS = 32;

struct operand {
  const int8_t *from; /* [grains * rows][width] */
  int8_t *to;         /* [grains][chunks][up(width, 16)][128] */
  int32_t width, tiles;
};

struct args {
  operand gradient, input; /* blocks x < gradient.tiles turn the first, the others the second */
  int32_t rows;            /* of a grain */
  int32_t permute;         /* 0: columns stay in order, for the portable kernel */
  const float *sh, *s;     /* [grains * rows]: scales of the rows, weight = sh * s */
  const uint32_t *most;    /* [grains][PARTS]: bits of the largest weights */
  int32_t *cexp;           /* [grains], written */
  int *nonfinite;
  arb_gradient draws;
};

/* most[grain][part] = bits of the largest weight in a PARTS-th of a grain's rows. Grid (PARTS, grains). A NaN is larger than
 * anything as bits. */
static __global__ void __launch_bounds__(THREADS)
    weigh(int32_t rows, const float *__restrict__ sh, const float *__restrict__ s, uint32_t *__restrict__ most) {
  __shared__ uint32_t part[THREADS / 32];
  arb_next_may_start();
  arb_previous_done();
  const int64_t row0 = (int64_t)blockIdx.y * rows;
  uint32_t bits = 0;
  for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < rows; i += PARTS * THREADS)
    bits = max(bits, arb_bits_of_f32(sh[row0 + i] * s[row0 + i]));
  bits = __reduce_max_sync(ARB_CUDA_FULL, bits);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = bits;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  bits = __reduce_max_sync(ARB_CUDA_FULL, threadIdx.x < THREADS / 32 ? part[threadIdx.x] : 0u);
  if (threadIdx.x == 0) most[(int)blockIdx.y * PARTS + (int)blockIdx.x] = bits;
}

__device__ __forceinline__ int32_t position_of(int32_t column, bool gradient) {
  return gradient ? ((column & ~15) | ((column & 15) >> 1) | ((column & 1) << 3)) : arb_prep::permuted_row16(column);
}

/* Sixteen bytes of a row; 0 past its end. */
__device__ __forceinline__ uint4 load16(const int8_t *row, int32_t at, int32_t width, bool wide) {
  if (wide) return *reinterpret_cast<const uint4 *>(row + at);
  uint32_t w[4] = {0, 0, 0, 0};
  for (int j = 0; j < 16 && at + j < width; j++) w[j / 4] |= (uint32_t)(uint8_t)row[at + j] << (8 * (j & 3));
  return make_uint4(w[0], w[1], w[2], w[3]);
}

/* Grid (tiles of both operands, tiles of rows, grains). */
static __global__ void __launch_bounds__(THREADS) turn(const __grid_constant__ args g) {
  __shared__ uint4 tile[SIDE][SIDE / 16]; /* piece c of row r at [r][c ^ (r / 16)]: neither side meets a bank twice */
  const bool gradient = (int32_t)blockIdx.x < g.gradient.tiles;
  const operand &o = gradient ? g.gradient : g.input;
  const int32_t column0 = ((int32_t)blockIdx.x - (gradient ? 0 : g.gradient.tiles)) * SIDE, row0 = (int32_t)blockIdx.y * SIDE;
  const int64_t first = (int64_t)blockIdx.z * g.rows;
  const bool wide = (o.width & 15) == 0 && ((uintptr_t)o.from & 15) == 0;
  const int piece = (int)threadIdx.x % 8, at = column0 + 16 * piece;
  const uint32_t step = g.draws.step->step, grain = (uint32_t)(g.draws.first + (int32_t)blockIdx.z * g.draws.stride);
  const arb_philox_key key = arb_philox_key_of(g.draws.step->seed, ARB_DRAW_DW);
  arb_previous_done(); /* the products start when this has ended: their blocks would take the room of its own */
  int c = ARB_NO_SCALE;
  if (gradient) {
    const uint32_t most = __reduce_max_sync(ARB_CUDA_FULL, g.most[(int)blockIdx.z * PARTS + (int)threadIdx.x % 32]);
    if (most < ARB_F32_INF_BITS) c = arb_rows_exponent(arb_f32_of_bits(most));
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
      g.cexp[blockIdx.z] = c;
      if (most >= ARB_F32_INF_BITS) *g.nonfinite = 1;
    }
  }
#pragma unroll
  for (int i = 0; i < SIDE / 32; i++) {
    const int r = (int)threadIdx.x / 8 + 32 * i;
    uint4 x = make_uint4(0, 0, 0, 0);
    if (row0 + r < g.rows && at < o.width) {
      x = load16(o.from + (first + row0 + r) * o.width, at, o.width, wide);
      if (gradient) {
        const int64_t row = first + row0 + r;
        const int32_t ratio = arb_row_ratio(g.sh[row] * g.s[row], c);
        const arb_philox_block a = arb_gradient_draws(g.draws, key, step, grain, (uint32_t)(row0 + r), at);
        x.x = arb_rescale4(x.x, ratio, a.v[0], a.v[1]);
        x.y = arb_rescale4(x.y, ratio, a.v[2], a.v[3]);
        const arb_philox_block b = arb_gradient_draws(g.draws, key, step, grain, (uint32_t)(row0 + r), at + 8);
        x.z = arb_rescale4(x.z, ratio, b.v[0], b.v[1]);
        x.w = arb_rescale4(x.w, ratio, b.v[2], b.v[3]);
      }
    }
    tile[r][piece ^ (r >> 4)] = x;
  }
  __syncthreads();
  /* a thread 16 rows of 4 columns: lanes 8 groups of rows by 4 column quads, so that a warp writes 128 bytes of a column */
  const int group = (int)threadIdx.x % 8, quad = (int)threadIdx.x / 8, chunk = (int)(blockIdx.z * gridDim.y + blockIdx.y);
  uint32_t out[4][4]; /* [column][4 rows] */
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint32_t w[4];
#pragma unroll
    for (int j = 0; j < 4; j++) w[j] = reinterpret_cast<const uint32_t *>(tile[16 * group + 4 * i + j])[quad ^ (4 * group)];
    arb_transpose4(w);
#pragma unroll
    for (int j = 0; j < 4; j++) out[j][i] = w[j];
  }
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const int32_t column = column0 + 4 * quad + j;
    if (column >= o.width) continue;
    int8_t *to = o.to +
                 ((int64_t)chunk * ((o.width + 15) & ~15) + (g.permute ? position_of(column, gradient) : column)) * SIDE +
                 16 * group;
    *reinterpret_cast<uint4 *>(to) = make_uint4(out[j][0], out[j][1], out[j][2], out[j][3]);
  }
}

}  // namespace arb_turn

#endif
