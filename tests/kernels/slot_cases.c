#include "tests/kernels/slot_cases.h"

#include "kernels/common/bits.h"
#include "kernels/common/fixed.h"
#include "kernels/common/scale.h"
#include "tests/kernels/samples.h"

/* ---- random problems ---- */

static void *input(problem *p, int64_t count, size_t size) {
  assert_true(p->inputs < MAX_INPUTS);
  p->input[p->inputs].bytes = (size_t)count * size;
  return p->input[p->inputs++].data = sample_alloc((size_t)count * size);
}

typedef enum { PLAIN, ZERO, TINY, SUBNORMAL, HUGE_ROW, SPIKE, EQUAL, ROW_KINDS } row_kind;

static float value_of(row_kind kind) {
  switch (kind) {
    case ZERO:
      return sample_below(2) ? 0.0f : -0.0f;
    case TINY:
      return sample_normal(0x1p-112);
    case SUBNORMAL:
      return (float)sample_between(-9, 9) * 0x1p-149f;
    case HUGE_ROW:
      return sample_normal(0x1p55);
    case SPIKE:
      return sample_below(9) ? sample_normal(0x1p-20) : sample_normal(3.0);
    case EQUAL:
      return sample_below(2) ? 1.5f : -1.5f;
    default:
      return sample_normal(1.0);
  }
}
static row_kind any_kind(void) { return sample_below(2) ? PLAIN : (row_kind)sample_below(ROW_KINDS); }

/* Rows of one kind each, scaled by any power from 2^-8 to 2^8. */
static void fill_rows(float *x, int64_t rows, int64_t width, int64_t ld) {
  for (int64_t i = 0; i < rows; i++) {
    const row_kind kind = any_kind();
    const float scale = ldexpf(1.0f, (int)sample_between(-8, 8));
    for (int64_t j = 0; j < width; j++) x[i * ld + j] = value_of(kind) * scale;
  }
}
static void fill_bf16(uint16_t *y, int64_t rows, int64_t width, int64_t ld, double deviation) {
  for (int64_t i = 0; i < rows; i++) {
    const int extreme = sample_below(6) == 0;
    for (int64_t j = 0; j < width; j++)
      y[i * ld + j] = arb_bf16_of_f32(sample_below(20) ? sample_normal(extreme ? 30.0 * deviation : deviation) : 0.0f);
  }
}
static void fill_int8(int8_t *q, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i++) {
    const int kind = (int)sample_below(6);
    for (int64_t j = 0; j < width; j++)
      q[i * width + j] = (int8_t)(kind == 0 ? 0 : kind == 1 ? 127 : kind == 2 ? -127 : sample_between(-127, 127));
  }
}

static int32_t any_scale(void) { return sample_below(5) ? (int32_t)sample_between(-30, 10) : ARB_NO_SCALE; }

static void make_stack(problem *p, int64_t n, int64_t k) {
  arb_stack *w = &p->w;
  w->id = sample_u32();
  w->members = (int32_t)sample_between(1, n < 4 ? n : 4);
  w->uses = (int32_t)sample_between(1, 3);
  w->n = n;
  w->k = k;
  w->begin[w->members] = n;
  for (int i = 1; i < w->members; i++) w->begin[i] = sample_between(w->begin[i - 1] + 1, n - (w->members - i));
  w->code = input(p, n * k, 1);
  w->e = input(p, n, 1);
  w->p = input(p, n, 1);
  w->r = input(p, n, sizeof *w->r);
  w->c = input(p, w->members * k, sizeof *w->c);
  w->m = input(p, w->members, sizeof *w->m);
  w->votes = input(p, n * k, 1);
  for (int64_t i = 0; i < n * k; i++) w->code[i] = (uint8_t)sample_below(255);
  for (int64_t i = 0; i < n; i++) {
    w->e[i] = (int8_t)(sample_below(30) ? sample_between(-40, 20) : sample_between(-128, 127));
    w->p[i] = (int8_t)(sample_below(20) ? sample_between(-14, 14) : sample_below(2) ? 120 : -120);
    w->r[i] = sample_below(9) ? (int32_t)sample_between(-2500000, 2500000) : ARB_Q16_NONE;
    const int kind = (int)sample_below(5);
    for (int64_t j = 0; j < k; j++)
      w->votes[i * k + j] = (int8_t)(kind == 0   ? 0
                                     : kind == 1 ? (sample_below(20) ? 0 : 1)
                                     : kind == 2 ? 127
                                                 : sample_between(-127, 127));
  }
  for (int64_t i = 0; i < w->members * k; i++)
    w->c[i] = sample_below(9) ? (int32_t)sample_between(-2000000, 2000000) : ARB_Q16_NONE;
  for (int i = 0; i < w->members; i++) w->m[i] = sample_below(5) ? (int32_t)sample_between(-2000000, 2000000) : ARB_Q16_NONE;
}

/* As much of a stack as rounding its gradient takes. */
static arb_stack gradient_stack(problem *p, int64_t n) {
  arb_stack w = {.id = sample_u32(), .uses = 1, .members = 1, .n = n, .k = 1};
  w.begin[1] = n;
  w.e = input(p, n, 1);
  for (int64_t i = 0; i < n; i++) w.e[i] = (int8_t)(sample_below(30) ? sample_between(-40, 20) : sample_between(-128, 127));
  return w;
}

void slot_problem_make(problem *p, int32_t grains, int64_t sequences, int64_t context, int64_t width, int64_t n, int64_t k) {
  memset(p, 0, sizeof *p);
  p->seed = sample_u64();
  p->step = sample_u32();
  p->context = context;
  p->rows = (arb_rows){sequences * context, grains, (int32_t)sample_below(9), (int32_t)sample_between(1, 4)};
  const int64_t m = p->m = arb_rows_count(&p->rows);
  p->width = width;
  p->ldz = 2 * width + sample_below(5);
  p->lddz = 2 * width + sample_below(5);
  p->ldg = n + sample_below(5);
  p->slots = (int)sample_between(1, 4);
  p->slot = (int)sample_below(p->slots);
  p->vmax = (int)sample_between(1, 127 / (2 * grains));
  p->accumulate = (int)sample_below(2);
  p->used = sample_between(1, 31);
  p->eta_units = (float)sample_unit() * 10.4f;
  p->weight = 0x1p-9f;
  make_stack(p, n, k);
  p->use = (int)sample_below(p->w.uses);
  p->of_width = gradient_stack(p, width);
  p->of_pair = gradient_stack(p, 2 * width);
  const int64_t scales = (int64_t)p->w.uses * grains;
  p->x = input(p, m * width, sizeof *p->x);
  p->dy = input(p, m * width, sizeof *p->dy);
  p->before = input(p, m * width, sizeof *p->before);
  p->bias = input(p, width, sizeof *p->bias);
  p->inv = input(p, m, sizeof *p->inv);
  p->s = input(p, m, sizeof *p->s);
  p->sh = input(p, m, sizeof *p->sh);
  p->g = input(p, (m - 1) * p->ldg + n, sizeof *p->g);
  p->gb = input(p, (m - 1) * p->ldg + n, sizeof *p->gb);
  p->y = input(p, m * width, sizeof *p->y);
  p->z = input(p, (m - 1) * p->ldz + 2 * width, sizeof *p->z);
  p->logits = input(p, m * width, sizeof *p->logits);
  p->e = input(p, width, 1);
  p->q = input(p, m * k, 1);
  p->hq = input(p, m * n, 1);
  p->cast = input(p, n * k, 1);
  p->ids = input(p, m, sizeof *p->ids);
  p->targets = input(p, m, sizeof *p->targets);
  p->cexp = input(p, scales, sizeof *p->cexp);
  p->windows = context;
  p->span = sample_between(1, 4);
  const int64_t features = m / context * (context + p->span - 1);
  p->fq = input(p, features * width, 1);
  p->fs = input(p, features, sizeof *p->fs);
  p->fe = input(p, p->span * width, 1);
  p->index = input(p, m + 3, sizeof *p->index);
  fill_int8(p->fq, features, width);
  for (int64_t i = 0; i < features; i++)
    p->fs[i] = sample_below(7) ? ldexpf(1.0f + (float)sample_unit(), (int)sample_between(-20, 4)) : 0.0f;
  for (int64_t i = 0; i < p->span * width; i++)
    p->fe[i] = (int8_t)(sample_below(30) ? sample_between(-8, 8) : sample_between(-128, 60));
  for (int64_t i = 0; i < m + 3; i++) p->index[i] = (int32_t)(sample_below(4) ? sample_below(m) : -sample_between(1, 9));
  p->d = input(p, (int64_t)p->w.uses * grains * n * k, sizeof *p->d);
  fill_rows(p->x, m, width, width);
  fill_bf16(p->dy, m, width, width, 1.0);
  fill_rows(p->before, m, width, width);
  fill_rows(p->g, m, n, p->ldg);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) p->gb[i * p->ldg + j] = arb_bf16_of_f32(p->g[i * p->ldg + j]);
  fill_rows(p->g, m, n, p->ldg);
  fill_bf16(p->y, m, width, width, 1.0);
  fill_bf16(p->z, m, 2 * width, p->ldz, 1.0);
  fill_bf16(p->logits, m, width, width, 2.0);
  fill_int8(p->q, m, k);
  fill_int8(p->hq, m, n);
  for (int64_t i = 0; i < width; i++) {
    p->bias[i] = sample_normal(2.0);
    p->e[i] = (int8_t)(sample_below(30) ? sample_between(-8, 8) : sample_between(-128, 60));
  }
  for (int64_t i = 0; i < m; i++) {
    double square = 0; /* an inverse rms that a forward pass could have left: no gradient overflows */
    for (int64_t j = 0; j < width; j++) square += (double)p->x[i * width + j] * (double)p->x[i * width + j];
    p->inv[i] = (float)((1.0 + sample_unit()) / sqrt(square / (double)width + 1e-6));
    p->s[i] = sample_below(7) ? ldexpf(1.0f + (float)sample_unit(), (int)sample_between(-20, 4)) : 0.0f;
    p->sh[i] = sample_below(7) ? ldexpf(1.0f + (float)sample_unit(), (int)sample_between(-30, 4)) : 0.0f;
    p->ids[i] = (int32_t)sample_below(k);
    p->targets[i] = (int32_t)sample_between(-1, width - 1);
  }
  p->pad = (int32_t)sample_below(k);
  const int room = 127 - grains * p->vmax;
  for (int64_t i = 0; i < n * k; i++) p->cast[i] = (int8_t)sample_between(-room, room);
  for (int64_t i = 0; i < scales; i++) {
    p->cexp[i] = any_scale();
  }
  for (int64_t i = 0; i < (int64_t)p->w.uses * grains * n * k; i++)
    p->d[i] = (int32_t)(sample_below(50) ? sample_between(-70000, 70000) : sample_below(2) ? 2114060288 : -2114060288);
  for (int i = 0; i < p->inputs; i++) {
    p->input[i].copy = sample_alloc(p->input[i].bytes);
    memcpy(p->input[i].copy, p->input[i].data, p->input[i].bytes);
  }
}

void slot_problem_drop(problem *p) {
  for (int i = 0; i < p->inputs; i++) {
    free(p->input[i].data);
    free(p->input[i].copy);
  }
}

/* ---- slots: what they write and how they are called ---- */

#define F32 sizeof(float)
static output per_row(const problem *p, int64_t width, size_t size) {
  return (output){(size_t)(p->m * width) * size, (size_t)width * size, NULL};
}
static output strided(const problem *p, int64_t ld, int64_t used) {
  return (output){(size_t)((p->m - 1) * ld + used) * sizeof(uint16_t), (size_t)ld * sizeof(uint16_t), NULL};
}
static output state_of(const void *start, int64_t count, size_t size) { return (output){(size_t)count * size, 0, start}; }

static int plan_draws(const problem *p, output *o) {
  o[0] = (output){(size_t)sample_pad8(p->w.k) * 2, 0, NULL};
  return 1;
}
static arb_status run_draws(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.draws(be, (arb_draw_purpose)(1 + p->step % 9), p->w.id, (uint32_t)p->slot, 8 * (int64_t)(p->seed >> 32),
                       p->w.k, o[0]);
}

static int plan_init(const problem *p, output *o) {
  const arb_stack *w = &p->w;
  o[0] = state_of(NULL, w->n * w->k, 1);
  o[1] = o[2] = state_of(NULL, w->n, 1);
  o[3] = state_of(NULL, w->n, 4);
  o[4] = state_of(NULL, w->members * w->k, 4);
  o[5] = state_of(NULL, w->members, 4);
  return 6;
}
static arb_status run_init(arb_backend *be, const problem *p, void *const *o) {
  arb_stack w = p->w;
  w.code = o[0];
  w.e = o[1];
  w.p = o[2];
  w.r = o[3];
  w.c = o[4];
  w.m = o[5];
  return be->ops.init_stack(be, &w);
}

static int plan_embed(const problem *p, output *o) {
  o[0] = per_row(p, p->slots * p->w.n, 2);
  return 1;
}
static arb_status run_embed(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.embed_forward(be, &p->rows, p->context, p->ids, p->slots, p->pad, &p->w, o[0]);
}

static int plan_norm(const problem *p, output *o) {
  o[0] = per_row(p, p->width, 1);
  o[1] = o[2] = per_row(p, 1, F32);
  o[3] = per_row(p, p->width, F32);
  return 4;
}
static arb_status run_norm_both(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.add_norm_quant(be, &p->rows, p->width, p->x, p->y, o[3], p->e, o[0], o[1], o[2]);
}
static arb_status run_norm_x(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.add_norm_quant(be, &p->rows, p->width, p->x, NULL, o[3], p->e, o[0], o[1], o[2]);
}
static arb_status run_norm_y(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.add_norm_quant(be, &p->rows, p->width, NULL, p->y, NULL, p->e, o[0], o[1], o[2]);
}
static int plan_norm_3(const problem *p, output *o) { return plan_norm(p, o) - 1; }
static arb_status run_gate(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.gate_norm_quant(be, &p->rows, p->width, p->x, p->z + p->width, p->ldz, p->e, o[0], o[1], o[2]);
}
static arb_status run_glu(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.glu_norm_quant(be, &p->rows, p->width, p->z, p->z + p->width, p->ldz, p->e, o[0], o[1], o[2]);
}

static int plan_window(const problem *p, output *o) {
  o[0] = per_row(p, p->span * p->width, 1);
  o[1] = per_row(p, 1, F32);
  return 2;
}
static arb_status run_window(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.window_norm_quant(be, &p->rows, p->windows, p->span, p->width, p->fq, p->fs, p->fe, o[0], o[1]);
}

static int plan_gather(const problem *p, output *o) {
  o[0] = state_of(NULL, (p->m + 3) * p->width, F32);
  o[1] = state_of(NULL, (p->m + 3) * p->width, 2);
  return 2;
}
static arb_status run_gather(arb_backend *be, const problem *p, void *const *o) {
  ARB_TRY(be->ops.gather_rows(be, p->m + 3, p->width * 4, p->x, p->index, o[0]));
  return be->ops.gather_rows(be, p->m + 3, p->width * 2, p->y, p->index, o[1]);
}

static int plan_forward(const problem *p, output *o) {
  o[0] = per_row(p, p->w.n, 2);
  return 1;
}
static arb_status run_forward(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.linear_forward(be, &p->rows, p->q, p->s, &p->w, o[0]);
}

static int plan_scan(const problem *p, output *o) {
  o[0] = per_row(p, p->width, F32);
  return 1;
}
static arb_status run_scan(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.mlgru_forward(be, &p->rows, p->context, p->width, p->z, p->z + p->width, p->ldz, p->bias, o[0]);
}

static const int64_t some_sums[2] = {123456789, 77};
static int plan_xent(const problem *p, output *o) {
  o[0] = state_of(&some_sums[0], 1, 8); /* the slot adds */
  o[1] = state_of(&some_sums[1], 1, 8);
  o[2] = per_row(p, p->width, 1);
  o[3] = per_row(p, 1, F32);
  return 4;
}
static arb_status run_xent(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.xent(be, &p->rows, p->logits, p->targets, p->weight, &p->of_width, o[2], o[3], o[0], o[1]);
}
static int plan_xent_2(const problem *p, output *o) { return plan_xent(p, o) - 2; }
static arb_status run_xent_loss(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.xent(be, &p->rows, p->logits, p->targets, p->weight, &p->of_width, NULL, NULL, o[0], o[1]);
}

static int plan_grad(const problem *p, output *o) {
  o[0] = per_row(p, p->w.n, 1);
  o[1] = per_row(p, 1, F32);
  return 2;
}
static arb_status run_grad(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.grad_quant(be, &p->rows, p->g, NULL, p->ldg, &p->w, p->use, o[0], o[1]);
}
static arb_status run_grad_bf16(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.grad_quant(be, &p->rows, NULL, p->gb, p->ldg, &p->w, p->use, o[0], o[1]);
}

static int plan_dx(const problem *p, output *o) {
  o[0] = per_row(p, p->w.k, 2);
  return 1;
}
static arb_status run_dx(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.linear_dx(be, &p->rows, p->hq, p->sh, &p->w, o[0]);
}

static int plan_votes(const problem *p, output *o) {
  o[0] = state_of(p->cast, p->w.n * p->w.k, 1);
  return 1;
}
static arb_status dw_to(arb_backend *be, const problem *p, int8_t *votes, arb_vote_groups groups) {
  arb_stack w = p->w;
  w.votes = votes;
  w.groups = groups;
  w.uses = 1;
  return be->ops.linear_dw_vote(be, &p->rows, p->hq, p->sh, p->q, p->s, p->vmax, &w);
}
static arb_status join_to(arb_backend *be, const problem *p, int8_t *votes, arb_vote_groups groups) {
  arb_stack w = p->w;
  w.votes = votes;
  w.groups = groups;
  return be->ops.vote_join(be, &p->rows, p->d, p->cexp, p->vmax, &w);
}
static arb_status run_dw(arb_backend *be, const problem *p, void *const *o) { return dw_to(be, p, o[0], p->w.groups); }
static arb_status run_join(arb_backend *be, const problem *p, void *const *o) { return join_to(be, p, o[0], p->w.groups); }

/* The same with groups of rows, and a gap behind each. */
static arb_vote_groups some_groups(const problem *p) {
  const int64_t rows = 1 + (int64_t)(p->seed % (uint64_t)p->w.n);
  return (arb_vote_groups){rows, rows * p->w.k + (int64_t)(p->seed >> 32) % 40};
}
static int plan_votes_apart(const problem *p, output *o) {
  const arb_vote_groups g = some_groups(p);
  o[0] = state_of(NULL, (p->w.n + g.rows - 1) / g.rows * g.stride, 1);
  return 1;
}
static arb_status run_dw_apart(arb_backend *be, const problem *p, void *const *o) { return dw_to(be, p, o[0], some_groups(p)); }
static arb_status run_join_apart(arb_backend *be, const problem *p, void *const *o) {
  return join_to(be, p, o[0], some_groups(p));
}

static int plan_embed_dw(const problem *p, output *o) {
  o[0] = state_of(NULL, p->rows.grains * p->w.n * p->w.k, 4);
  o[1] = state_of(NULL, p->rows.grains, 4);
  return p->w.n % 8 == 0 ? 2 : 0;
}
static arb_status run_embed_dw(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.embed_dw(be, &p->rows, p->context, p->ids, p->slots, p->slot, p->pad, p->hq, p->sh, &p->w, o[1], o[0]);
}

static int plan_norm_back(const problem *p, output *o) {
  o[0] = per_row(p, p->width, F32);
  o[0].start = p->before;
  o[1] = per_row(p, p->width, 1);
  o[2] = per_row(p, 1, F32);
  return 3;
}
static arb_status run_norm_back(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.norm_backward(be, &p->rows, p->width, p->x, p->inv, p->e, p->dy, p->accumulate, o[0], &p->of_width, o[1],
                               o[2]);
}
static int plan_norm_back_1(const problem *p, output *o) { return plan_norm_back(p, o) - 2; }
static arb_status run_norm_back_1(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.norm_backward(be, &p->rows, p->width, p->x, p->inv, p->e, p->dy, p->accumulate, o[0], NULL, NULL, NULL);
}
static int plan_input_norm_back(const problem *p, output *o) {
  o[0] = per_row(p, p->width, 2);
  return 1;
}
static arb_status run_input_norm_back(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.input_norm_backward(be, &p->rows, p->width, p->y, p->inv, p->e, p->dy, o[0]);
}

static int plan_gate_back(const problem *p, output *o) {
  o[0] = per_row(p, p->width, 2);
  o[1] = strided(p, p->lddz, p->width);
  return 2;
}
static arb_status run_gate_back(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.gate_norm_backward(be, &p->rows, p->width, p->x, p->z, p->ldz, p->inv, p->e, p->dy, o[0], o[1], p->lddz);
}

static int plan_glu_back(const problem *p, output *o) {
  o[0] = per_row(p, 2 * p->width, 1);
  o[1] = per_row(p, 1, F32);
  return 2;
}
static arb_status run_glu_back(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.glu_norm_backward(be, &p->rows, p->width, p->z, p->z + p->width, p->ldz, p->inv, p->e, p->dy, &p->of_pair,
                                   o[0], o[1]);
}

/* Both gradients in one buffer, side by side, as the module lays them out. */
static int plan_pair_back(const problem *p, output *o) {
  o[0] = strided(p, p->lddz, 2 * p->width);
  return 1;
}
static arb_status run_scan_back(arb_backend *be, const problem *p, void *const *o) {
  uint16_t *dz = o[0];
  return be->ops.mlgru_backward(be, &p->rows, p->context, p->width, p->z, p->z + p->width, p->ldz, p->bias, p->x, p->dy, dz,
                                dz + p->width, p->lddz);
}

static const int64_t some_flips[2] = {5, 6};
static int plan_update(const problem *p, output *o) {
  const arb_stack *w = &p->w;
  o[0] = state_of(NULL, w->n, 8);
  o[1] = o[2] = state_of(NULL, w->members, 4);
  o[3] = state_of(NULL, w->members * w->k, 8);
  o[4] = state_of(NULL, w->members, 8);
  o[5] = state_of(w->code, w->n * w->k, 1);
  o[6] = state_of(w->p, w->n, 1);
  o[7] = state_of(w->r, w->n, 4);
  o[8] = state_of(w->c, w->members * w->k, 4);
  o[9] = state_of(w->m, w->members, 4);
  o[10] = state_of(some_flips, 2, 8);
  return 11;
}
static arb_status run_update(arb_backend *be, const problem *p, void *const *o) {
  const arb_update_work work = {o[0], o[1], o[2], o[3], o[4], NULL};
  arb_stack w = p->w;
  w.code = o[5];
  w.p = o[6];
  w.r = o[7];
  w.c = o[8];
  w.m = o[9];
  ARB_TRY(be->ops.vote_rows(be, &w, &work));
  ARB_TRY(be->ops.vote_columns(be, &w, &work));
  return be->ops.update(be, &w, &work, p->used, p->vmax, o[10]);
}

/* The same on a few rows, perhaps none, as a slice of the stack: what other ranks would add is there already. */
static arb_stack some_rows(const problem *p) {
  const int64_t count = (int64_t)(p->seed % (uint64_t)(p->w.n + 1)),
                first = (int64_t)((p->seed >> 32) % (uint64_t)(p->w.n - count + 1));
  return arb_stack_slice(&p->w, first, count);
}
static int plan_update_slice(const problem *p, output *o) {
  const arb_stack w = some_rows(p);
  plan_update(p, o);
  o[0] = state_of(NULL, w.n, 8);
  o[5] = state_of(w.code + w.first * w.k, w.n * w.k, 1);
  o[6] = state_of(w.p + w.first, w.n, 1);
  o[7] = state_of(w.r + w.first, w.n, 4);
  return 11;
}
static arb_status run_update_slice(arb_backend *be, const problem *p, void *const *o) {
  const arb_update_work work = {o[0], o[1], o[2], o[3], o[4], NULL};
  arb_stack w = some_rows(p);
  w.votes += w.first * w.k;
  w.code = o[5];
  w.p = o[6];
  w.r = o[7];
  w.c = o[8];
  w.m = o[9];
  ARB_TRY(be->ops.vote_rows(be, &w, &work));
  for (int m = 0; m < w.members; m++) work.top[m] = work.top[m] < 5 ? 5 : work.top[m];
  ARB_TRY(be->ops.vote_columns(be, &w, &work));
  for (int m = 0; m < w.members; m++) work.msum[m] += 1000000;
  for (int64_t i = 0; i < w.members * w.k; i++) work.csum[i] += (uint64_t)i << 20;
  return be->ops.update(be, &w, &work, p->used, p->vmax, o[10]);
}

static int plan_init_slice(const problem *p, output *o) {
  const arb_stack w = some_rows(p);
  plan_init(p, o);
  o[0] = state_of(NULL, w.n * w.k, 1);
  o[1] = o[2] = state_of(NULL, w.n, 1);
  o[3] = state_of(NULL, w.n, 4);
  return 6;
}
static arb_status run_init_slice(arb_backend *be, const problem *p, void *const *o) {
  arb_stack w = some_rows(p);
  w.code = o[0];
  w.e = o[1];
  w.p = o[2];
  w.r = o[3];
  w.c = o[4];
  w.m = o[5];
  return be->ops.init_stack(be, &w);
}

static int plan_pack(const problem *p, output *o) {
  o[0] = state_of(NULL, p->w.n * ((p->w.k + 4) / 5), 1);
  return 1;
}
static arb_status run_pack(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.pack_trits(be, p->w.code, p->w.n, p->w.k, o[0]);
}

/* Blocks of a third of the rows with a gap behind each, in whatever bytes the votes are. */
static int plan_unpack(const problem *p, output *o) {
  o[0] = state_of(NULL, p->w.n * p->w.k, 1);
  return p->w.k > 9;
}
static arb_status run_unpack(arb_backend *be, const problem *p, void *const *o) {
  const int64_t width = (p->w.k + 4) / 5, per_block = p->w.n / 3 + 1;
  return be->ops.unpack_trits(be, (const uint8_t *)p->w.votes, per_block * width + p->w.k / 5, per_block, p->w.n, p->w.k, o[0]);
}
static int plan_join(const problem *p, output *o) {
  o[0] = state_of(NULL, p->w.n * (p->w.k / 2), 1);
  return p->w.k > 9;
}
static arb_status run_join_blocks(arb_backend *be, const problem *p, void *const *o) {
  const int64_t width = p->w.k / 2, per_block = p->w.n / 3 + 1;
  return be->ops.join_rows(be, p->w.votes, per_block * width + p->w.k / 9, per_block, p->w.n, width, o[0]);
}

static int plan_digest(const problem *p, output *o) {
  (void)p;
  o[0] = state_of(NULL, 1, sizeof(arb_u128));
  return 1;
}
static arb_status run_digest(arb_backend *be, const problem *p, void *const *o) {
  return be->ops.digest(be, p->seed, p->w.code, p->w.n, p->w.k, p->step, o[0]);
}

const slot slots[] = {
    {"add_norm_quant", plan_norm, run_norm_both},
    {"add_norm_quant of x", plan_norm, run_norm_x},
    {"add_norm_quant of y", plan_norm_3, run_norm_y},
    {"gate_norm_quant", plan_norm_3, run_gate},
    {"glu_norm_quant", plan_norm_3, run_glu},
    {"xent", plan_xent, run_xent},
    {"grad_quant", plan_grad, run_grad},
    {"grad_quant of bf16", plan_grad, run_grad_bf16},
    {"xent, loss alone", plan_xent_2, run_xent_loss},
    {"draws", plan_draws, run_draws},
    {"init_stack", plan_init, run_init},
    {"embed_forward", plan_embed, run_embed},
    {"window_norm_quant", plan_window, run_window},
    {"gather_rows", plan_gather, run_gather},
    {"linear_forward", plan_forward, run_forward},
    {"mlgru_forward", plan_scan, run_scan},
    {"linear_dx", plan_dx, run_dx},
    {"linear_dw_vote", plan_votes, run_dw},
    {"linear_dw_vote to groups of rows", plan_votes_apart, run_dw_apart},
    {"vote_join", plan_votes, run_join},
    {"vote_join to groups of rows", plan_votes_apart, run_join_apart},
    {"embed_dw", plan_embed_dw, run_embed_dw},
    {"norm_backward", plan_norm_back, run_norm_back},
    {"norm_backward, stream alone", plan_norm_back_1, run_norm_back_1},
    {"input_norm_backward", plan_input_norm_back, run_input_norm_back},
    {"gate_norm_backward", plan_gate_back, run_gate_back},
    {"glu_norm_backward", plan_glu_back, run_glu_back},
    {"mlgru_backward", plan_pair_back, run_scan_back},
    {"vote_rows, vote_columns, update", plan_update, run_update},
    {"vote_rows, vote_columns, update of a slice", plan_update_slice, run_update_slice},
    {"init_stack of a slice", plan_init_slice, run_init_slice},
    {"pack_trits", plan_pack, run_pack},
    {"unpack_trits", plan_unpack, run_unpack},
    {"join_rows", plan_join, run_join_blocks},
    {"digest", plan_digest, run_digest},
};
const size_t slot_count = sizeof slots / sizeof *slots;
