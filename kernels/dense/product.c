/* The product of kernels/dense, compiled once per level. Contract: dense.h.
 *
 * A panel of 32 outputs is expanded to floats once for up to ARB_DENSE_ROWS rows; tiles of TILE rows keep their sums in
 * registers over all taps. Where the taps are many, they go in groups whose expanded weights stay in the second-level cache,
 * and the sums wait in scratch between groups: storing a float does not change it. */
#include <string.h>

#include "kernels/common/bits.h"
#include "kernels/dense/dense_impl.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define TILE 12
#define LANES 16
typedef __m512 vec;
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define SPREAD(x) _mm512_set1_ps(x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define ZERO() _mm512_setzero_ps()
#define WIDEN(p) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(p))))
#define PARTS 1 /* passes over a panel, so that its sums fit the registers */
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define TILE 6
#define LANES 8
typedef __m256 vec;
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define SPREAD(x) _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ZERO() _mm256_setzero_ps()
#define WIDEN(p) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p))))
#define PARTS 2
#else
#define TILE 4
#define LANES 1
typedef float vec;
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define SPREAD(x) (x)
#define FMA(a, b, c) arb_fmaf(a, b, c)
#define ZERO() 0.0f
#define WIDEN(p) ((float)*(p))
#define PARTS 32
#endif

#define VECS (ARB_DENSE_PANEL / LANES / PARTS)
#define INLINE static inline __attribute__((always_inline))

/* sum[r][32] = (first ? 0 : sum) + products of `taps` taps with the weights at f (or q), [taps * depth][32]. */
INLINE void tile(int mr, int from_int8, const float *const *at, int64_t stride, int64_t taps, int64_t depth, const float *f,
                 const int8_t *q, int first, float *sum) {
  for (int part = 0; part < PARTS; part++) {
    const int64_t column = (int64_t)part * VECS * LANES;
    vec acc[TILE][VECS];
    for (int r = 0; r < mr; r++)
      for (int v = 0; v < VECS; v++) acc[r][v] = first ? ZERO() : LOAD(sum + r * ARB_DENSE_PANEL + column + v * LANES);
    const float *wf = from_int8 ? NULL : f + column;
    const int8_t *wq = from_int8 ? q + column : NULL;
    for (int64_t tap = 0; tap < taps; tap++) {
      const float *x[TILE];
      for (int r = 0; r < mr; r++) x[r] = at[tap * stride + r];
      for (int64_t i = 0; i < depth; i++) {
        vec w[VECS];
        for (int v = 0; v < VECS; v++) w[v] = from_int8 ? WIDEN(wq + v * LANES) : LOAD(wf + v * LANES);
        for (int r = 0; r < mr; r++) {
          const vec a = SPREAD(x[r][i]);
          for (int v = 0; v < VECS; v++) acc[r][v] = FMA(a, w[v], acc[r][v]);
        }
        if (from_int8)
          wq += ARB_DENSE_PANEL;
        else
          wf += ARB_DENSE_PANEL;
      }
    }
    for (int r = 0; r < mr; r++)
      for (int v = 0; v < VECS; v++) STORE(sum + r * ARB_DENSE_PANEL + column + v * LANES, acc[r][v]);
  }
}

/* The number of rows is a constant where registers are assigned. */
static void run_tile(int mr, const float *const *at, int64_t stride, int64_t taps, int64_t depth, const float *f,
                     const int8_t *q, int first, float *sum) {
#define ROWS(n)                                               \
  if (mr == (n) && q != NULL)                                 \
    tile(n, 1, at, stride, taps, depth, NULL, q, first, sum); \
  else if (mr == (n))                                         \
  tile(n, 0, at, stride, taps, depth, f, NULL, first, sum)
  ROWS(1);
  ROWS(2);
  ROWS(3);
  ROWS(4);
#if TILE > 4
  ROWS(5);
  ROWS(6);
#endif
#if TILE > 6
  ROWS(7);
  ROWS(8);
  ROWS(9);
  ROWS(10);
  ROWS(11);
  ROWS(12);
#endif
#undef ROWS
}

static void expand(const int8_t *restrict q, int64_t count, float *restrict f) {
  for (int64_t i = 0; i < count; i += LANES) STORE(f + i, WIDEN(q + i));
}

static void finish(const arb_dense_matrix *w, int64_t panel, int64_t width, const arb_dense_epilogue *e, int64_t row,
                   float *restrict sum, float *y) {
  const int64_t n = panel * ARB_DENSE_PANEL;
  if (w->scale)
    for (int64_t j = 0; j < ARB_DENSE_PANEL; j++) sum[j] *= w->scale[n + j];
  if (e->bias)
    for (int64_t j = 0; j < width; j++) sum[j] += e->bias[n + j];
  if (e->act != ARB_DENSE_NONE) ARB_DENSE_AT_LEVEL(arb_dense_activate)(e->act, sum, width);
  if (e->residual) {
    const float *old = e->residual + row * e->ldr + n;
    if (e->gain)
      for (int64_t j = 0; j < width; j++) sum[j] = old[j] + e->gain[n + j] * sum[j];
    else
      for (int64_t j = 0; j < width; j++) sum[j] = old[j] + sum[j];
  }
  memcpy(y + n, sum, (size_t)width * sizeof *y);
}

void ARB_DENSE_AT_LEVEL(arb_dense_product)(const arb_dense_input *x, int64_t begin, int64_t end, const arb_dense_matrix *w,
                                           int64_t panel, const arb_dense_epilogue *e, float *y, int64_t ldy, float *scratch) {
  const int64_t rows = end - begin, left = w->n - panel * ARB_DENSE_PANEL, at_panel = panel * w->k * ARB_DENSE_PANEL;
  const int64_t width = left < ARB_DENSE_PANEL ? left : ARB_DENSE_PANEL;
  const int64_t group = x->depth >= ARB_DENSE_DEPTH ? 1 : ARB_DENSE_DEPTH / x->depth;
  const int64_t tiles = (rows + TILE - 1) / TILE;
  float *sum = scratch, *weights = scratch + ARB_DENSE_ROWS * ARB_DENSE_PANEL;
  for (int64_t tap = 0; tap < x->taps; tap += group) {
    const int64_t taps = tap + group < x->taps ? group : x->taps - tap;
    const int64_t first = at_panel + tap * x->depth * ARB_DENSE_PANEL;
    const float *f = w->f ? w->f + first : weights;
    const int8_t *q = w->q && rows <= 4 ? w->q + first : NULL; /* few rows: expanding in registers costs less */
    if (w->q && !q) expand(w->q + first, taps * x->depth * ARB_DENSE_PANEL, weights);
    for (int64_t t = 0; t < tiles; t++) { /* rows are spread evenly over the tiles */
      const int64_t r = rows * t / tiles, mr = rows * (t + 1) / tiles - r;
      const float *rows_at[TILE];
      for (int64_t i = 0; i < mr && !x->at; i++) rows_at[i] = x->x + (begin + r + i) * x->ld;
      const float *const *at = x->at ? x->at + tap * x->stride + begin + r : rows_at;
      run_tile((int)mr, at, x->stride, taps, x->depth, f, q, tap == 0, sum + r * ARB_DENSE_PANEL);
      if (tap + taps < x->taps) continue;
      for (int64_t i = r; i < r + mr; i++)
        finish(w, panel, width, e, begin + i, sum + i * ARB_DENSE_PANEL, y + (begin + i) * ldy);
    }
  }
}
