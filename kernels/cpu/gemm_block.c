#include "kernels/cpu/gemm_block.h"

#include <stdbool.h>
#include <string.h>

#include "kernels/common/scale.h"

#define LINE 64
/* Packed B that a thread walks through again and again: half of a 1 MiB second-level cache, the rest is A and results. */
#define B_BYTES (512 * 1024)
#define ROWS_PER_TASK 48              /* forward and dx */
#define DW_ROWS 1024                  /* rows of one dw round: an A panel stays in the first-level cache */
#define DW_COLUMNS 256                /* B columns of one dw task */
#define DW_D_BYTES (32 * 1024 * 1024) /* partial sums that longer products keep between rounds */

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Carves scratch in the order that the size functions below count. */
static void *take(uint8_t **p, size_t bytes) {
  void *out = *p;
  *p += (bytes + LINE - 1) & ~(size_t)(LINE - 1);
  return out;
}
static uint8_t *line_up(void *scratch) { return (uint8_t *)scratch + (-(uintptr_t)scratch & (LINE - 1)); }

/* ---- forward and dx: [m][columns] = a [m][reduction] times packed trits ---- */

typedef struct {
  const arb_gemm_level *level;
  int64_t m, reduction, columns, code_ld;
  const int8_t *a, *e; /* e: forward, else NULL */
  const float *row_scale;
  const uint8_t *code;
  uint16_t *y;
  uint8_t *panels;
  size_t panel_bytes;
  int64_t panel_count, chunk; /* panels in all, and in one walk */
  int64_t task_rows, row_tasks;
  float *column_scale; /* dx: all 1, which changes no bit */
  bool copy;           /* bring rows of A to a private place of another stride first */
  int8_t *copies;      /* [worker][mr][copy_ld] */
  int64_t copy_ld;
} product;

static int64_t copy_stride(int64_t reduction) { return round_up(reduction, LINE) + LINE; }

static void pack_forward(void *arg, int task, int worker) {
  (void)worker;
  const product *p = arg;
  const int nr = p->level->nr;
  const int64_t n0 = (int64_t)task * nr;
  const int rows = (int)least(nr, p->columns - n0);
  p->level->pack_rows(p->code + n0 * p->code_ld, p->code_ld, rows, p->reduction, p->panels + (size_t)task * p->panel_bytes);
  for (int i = 0; i < nr; i++) p->column_scale[n0 + i] = i < rows ? arb_pow2_eighths(p->e[n0 + i]) : 0.0f;
}

static void pack_dx(void *arg, int task, int worker) {
  (void)worker;
  const product *p = arg;
  const int64_t k0 = (int64_t)task * ARB_GEMM_B_COLUMNS;
  const int columns = (int)least(ARB_GEMM_B_COLUMNS, p->columns - k0);
  p->level->pack_columns(p->code + k0, p->code_ld, p->reduction, columns,
                         p->panels + (size_t)(k0 / p->level->nr) * p->panel_bytes, p->panel_bytes);
  for (int i = 0; i < ARB_GEMM_B_COLUMNS; i++) p->column_scale[k0 + i] = 1.0f;
}

static void multiply_task(void *arg, int task, int worker) {
  const product *p = arg;
  const arb_gemm_level *lv = p->level;
  const int64_t first = task / p->row_tasks * p->chunk, last = least(first + p->chunk, p->panel_count);
  const int64_t begin = task % p->row_tasks * p->task_rows, end = least(begin + p->task_rows, p->m);
  const int64_t groups = ceil_div(p->reduction, lv->step);
  for (int64_t m0 = begin; m0 < end; m0 += lv->mr) {
    const int rows = (int)least(lv->mr, end - m0);
    const int8_t *a = p->a + m0 * p->reduction;
    int64_t lda = p->reduction;
    if (p->copy || rows < lv->mr) {
      int8_t *own = p->copies + worker * lv->mr * p->copy_ld;
      for (int r = 0; r < lv->mr; r++) {
        int8_t *to = own + r * p->copy_ld;
        const int64_t used = r < rows ? lda : 0;
        memcpy(to, a + (r < rows ? r * lda : 0), (size_t)used);
        memset(to + used, 0, (size_t)(groups * lv->step - used));
      }
      a = own;
      lda = p->copy_ld;
    }
    int32_t start[ARB_GEMM_MAX_MR];
    lv->row_start(a, lda, p->reduction, start);
    for (int64_t i = first; i < last; i++) {
      const uint8_t *b = p->panels + (size_t)i * p->panel_bytes;
      const int64_t c0 = i * lv->nr;
      const int columns = (int)least(lv->nr, p->columns - c0);
      lv->forward(a, lda, b, groups, start, rows, columns, p->row_scale + m0, p->column_scale + c0, p->y + m0 * p->columns + c0,
                  p->columns);
    }
  }
}

static void run_product(product *p, arb_pool *pool, void *scratch) {
  const arb_gemm_level *lv = p->level;
  const int threads = arb_pool_threads(pool);
  p->panel_bytes = (size_t)round_up(round_up(p->reduction, lv->step) * lv->nr, LINE);
  p->panel_count = ceil_div(p->columns, lv->nr);
  p->copy_ld = copy_stride(p->reduction);
  /* Broadcasts read whole groups, and rows a multiple of half a page apart crowd into few sets of the first-level cache. */
  p->copy = p->reduction % lv->step != 0 || p->reduction % 2048 == 0;
  uint8_t *at = line_up(scratch);
  p->panels = take(&at, p->panel_bytes * (size_t)round_up(p->panel_count, ARB_GEMM_B_COLUMNS / lv->nr));
  p->column_scale = take(&at, (size_t)round_up(p->columns, ARB_GEMM_B_COLUMNS) * sizeof(float));
  p->copies = take(&at, (size_t)(threads * lv->mr * p->copy_ld));

  if (p->e != NULL)
    arb_pool_run(pool, pack_forward, p, (int)p->panel_count);
  else
    arb_pool_run(pool, pack_dx, p, (int)ceil_div(p->columns, ARB_GEMM_B_COLUMNS));

  /* Equal walks over B, and enough tasks for the threads when there are few rows. */
  const int64_t wanted = 4 * threads;
  p->task_rows = round_up(ROWS_PER_TASK, lv->mr);
  while (p->task_rows > lv->mr && ceil_div(p->m, p->task_rows) < wanted) p->task_rows -= lv->mr;
  p->row_tasks = ceil_div(p->m, p->task_rows);
  int64_t walks = ceil_div((int64_t)p->panel_bytes * p->panel_count, B_BYTES);
  if (threads > 1 && walks * p->row_tasks < wanted) walks = ceil_div(wanted, p->row_tasks);
  p->chunk = ceil_div(p->panel_count, least(walks, p->panel_count));
  walks = ceil_div(p->panel_count, p->chunk);
  arb_pool_run(pool, multiply_task, p, (int)(walks * p->row_tasks));
}

void arb_gemm_block_forward(const arb_gemm_level *level, arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *q,
                            const float *s, const uint8_t *code, const int8_t *e, uint16_t *y, void *scratch) {
  product p = {
      .level = level, .m = m, .reduction = k, .columns = n, .code_ld = k, .a = q, .e = e, .row_scale = s, .code = code, .y = y};
  run_product(&p, pool, scratch);
}

void arb_gemm_block_dx(const arb_gemm_level *level, arb_pool *pool, int64_t m, int64_t k, int64_t n, const int8_t *hq,
                       const float *sh, const uint8_t *code, uint16_t *dx, void *scratch) {
  product p = {
      .level = level, .m = m, .reduction = n, .columns = k, .code_ld = k, .a = hq, .row_scale = sh, .code = code, .y = dx};
  run_product(&p, pool, scratch);
}

/* ---- dW: [n][k] = tq' q, in rounds of DW_ROWS rows: pack both operands, then multiply ---- */

typedef struct {
  const arb_gemm_level *level;
  int64_t k, n; /* n of this call's part of the outputs, which begins at n0 */
  int64_t n0, full_n;
  const int8_t *tq, *q; /* of this round */
  int64_t rows;
  bool first, last;
  int32_t *d; /* of this part, or NULL */
  const arb_gemm_votes *v;
  uint8_t *a, *b;
  size_t a_bytes, b_bytes; /* of a panel */
  int32_t *start;          /* [n] */
  int64_t a_tasks, strips, strips_per_task, walks;
  int32_t *sums; /* [strip][walk][mr][DW_COLUMNS] between rounds, or [worker][mr][DW_COLUMNS] when one round is enough */
  bool keep;
} gradient;

static void pack_dw(void *arg, int task, int worker) {
  (void)worker;
  const gradient *g = arg;
  const arb_gemm_level *lv = g->level;
  if (task < g->a_tasks) {
    const int64_t c0 = (int64_t)task * ARB_GEMM_A_COLUMNS;
    lv->pack_dw_a(g->tq + g->n0 + c0, g->full_n, g->rows, (int)least(ARB_GEMM_A_COLUMNS, g->n - c0),
                  g->a + (size_t)(c0 / lv->mr) * g->a_bytes, g->a_bytes, g->start + c0);
  } else {
    const int64_t c0 = (task - g->a_tasks) * ARB_GEMM_B_COLUMNS;
    lv->pack_dw_b(g->q + c0, g->k, g->rows, (int)least(ARB_GEMM_B_COLUMNS, g->k - c0),
                  g->b + (size_t)(c0 / lv->nr) * g->b_bytes, g->b_bytes);
  }
}

/* One row of finished sums, columns k0 .. k0 + count - 1, goes out. */
static void finish_row(const gradient *g, int64_t row, int64_t k0, int64_t count, const int32_t *sums) {
  if (g->d != NULL) memcpy(g->d + row * g->k + k0, sums, (size_t)count * sizeof *sums);
  const arb_gemm_votes *v = g->v;
  if (v == NULL) return;
  const int64_t n = g->n0 + row;
  uint16_t draws[DW_COLUMNS];
  g->level->draws(v->key, v->tensor, v->step, v->grain, n * arb_pad8(g->k) + k0, count, draws);
  g->level->votes(sums, count, arb_vote_scale(v->cexp - v->p[n]), (float)v->vmax, draws,
                  v->votes + arb_votes_at(v->groups, n, g->k) + k0);
}

static void dw_task(void *arg, int task, int worker) {
  const gradient *g = arg;
  const arb_gemm_level *lv = g->level;
  const int64_t tasks_per_walk = ceil_div(g->strips, g->strips_per_task);
  const int64_t walk = task / tasks_per_walk, k0 = walk * DW_COLUMNS, count = least(DW_COLUMNS, g->k - k0);
  const int64_t begin = task % tasks_per_walk * g->strips_per_task, end = least(begin + g->strips_per_task, g->strips);
  const int64_t groups = ceil_div(g->rows, lv->dw_step);
  for (int64_t strip = begin; strip < end; strip++) {
    int32_t *sums = g->sums + (g->keep ? strip * g->walks + walk : worker) * lv->mr * DW_COLUMNS;
    const int64_t n0 = strip * lv->mr;
    for (int64_t c = 0; c < count; c += lv->nr)
      lv->dw(g->a + (size_t)strip * g->a_bytes, g->b + (size_t)((k0 + c) / lv->nr) * g->b_bytes, groups, g->start + n0,
             sums + c, DW_COLUMNS, !g->first);
    if (!g->last) continue;
    const int64_t rows = least(lv->mr, g->n - n0);
    for (int64_t r = 0; r < rows; r++) finish_row(g, n0 + r, k0, count, sums + r * DW_COLUMNS);
  }
}

static int64_t dw_part(int64_t k, int64_t n) {
  const int64_t row = round_up(k, DW_COLUMNS) * (int64_t)sizeof(int32_t);
  const int64_t part = DW_D_BYTES / row / ARB_GEMM_A_COLUMNS * ARB_GEMM_A_COLUMNS;
  return least(round_up(n, ARB_GEMM_A_COLUMNS), part < ARB_GEMM_A_COLUMNS ? ARB_GEMM_A_COLUMNS : part);
}

void arb_gemm_block_dw(const arb_gemm_level *level, arb_pool *pool, int64_t rows, int64_t k, int64_t n, const int8_t *tq,
                       const int8_t *q, int32_t *d, const arb_gemm_votes *v, void *scratch) {
  const int threads = arb_pool_threads(pool);
  const int64_t part = dw_part(k, n), round = round_up(least(rows, DW_ROWS), level->dw_step);
  gradient g = {.level = level, .k = k, .full_n = n, .v = v, .keep = rows > DW_ROWS, .walks = ceil_div(k, DW_COLUMNS)};
  g.a_bytes = (size_t)round_up(round * level->mr * level->dw_size, LINE);
  g.b_bytes = (size_t)round_up(round * level->nr * level->dw_size, LINE);
  uint8_t *at = line_up(scratch);
  g.a = take(&at, g.a_bytes * (size_t)(part / level->mr));
  g.b = take(&at, g.b_bytes * (size_t)(round_up(k, ARB_GEMM_B_COLUMNS) / level->nr));
  g.start = take(&at, (size_t)part * sizeof(int32_t));
  g.sums = take(&at, (size_t)(g.keep ? part * g.walks : level->mr * threads) * DW_COLUMNS * sizeof(int32_t));
  for (g.n0 = 0; g.n0 < n; g.n0 += part) {
    g.n = least(part, n - g.n0);
    g.d = d == NULL ? NULL : d + g.n0 * k;
    g.a_tasks = ceil_div(g.n, ARB_GEMM_A_COLUMNS);
    g.strips = ceil_div(g.n, level->mr);
    g.strips_per_task = ARB_GEMM_A_COLUMNS / level->mr;
    if (ceil_div(g.strips, g.strips_per_task) * g.walks < 8 * threads) g.strips_per_task = 1;
    for (int64_t r = 0; r < rows; r += DW_ROWS) {
      g.rows = least(DW_ROWS, rows - r);
      g.tq = tq + r * n;
      g.q = q + r * k;
      g.first = r == 0;
      g.last = r + DW_ROWS >= rows;
      arb_pool_run(pool, pack_dw, &g, (int)(g.a_tasks + ceil_div(k, ARB_GEMM_B_COLUMNS)));
      arb_pool_run(pool, dw_task, &g, (int)(ceil_div(g.strips, g.strips_per_task) * g.walks));
    }
  }
}

/* ---- scratch: an upper bound over levels, from the largest step (4), mr and nr ---- */

static size_t product_bytes(int64_t reduction, int64_t columns, int threads) {
  const int64_t panels = round_up(columns, ARB_GEMM_B_COLUMNS) * (round_up(reduction, LINE));
  const int64_t copies = threads * ARB_GEMM_MAX_MR * copy_stride(reduction);
  return (size_t)(panels + round_up(columns, ARB_GEMM_B_COLUMNS) * (int64_t)sizeof(float) + copies) + 4 * LINE;
}

size_t arb_gemm_scratch_bytes(int64_t m, int64_t k, int64_t n, int threads) {
  const int64_t part = dw_part(k, n), round = round_up(least(m, DW_ROWS), LINE);
  const int64_t sums = ((m > DW_ROWS ? part * ceil_div(k, DW_COLUMNS) : 0) + ARB_GEMM_MAX_MR * threads) * DW_COLUMNS;
  const size_t dw = (size_t)(2 * round * (part + round_up(k, ARB_GEMM_B_COLUMNS)) + (part + sums) * (int64_t)sizeof(int32_t));
  const size_t forward = product_bytes(k, n, threads), dx = product_bytes(n, k, threads);
  const size_t most = forward > dx ? forward : dx;
  return (most > dw ? most : dw) + 8 * LINE;
}
