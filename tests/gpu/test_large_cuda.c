/* Stacks beyond 2^31 elements and states beyond 2^32 bytes: rows far from the start, against the definitions worked out on the
 * host; and an update while the non-finite flag is up. "--cpu": the same checks on the CPU backend with a small stack. */
#include "kernels/common/bits.h"
#include "kernels/common/fixed.h"
#include "kernels/common/init.h"
#include "kernels/common/mix128.h"
#include "kernels/common/scale.h"
#include "src/base/arena.h"
#include "tests/gpu/gpu_test.h"

enum { ROWS = 8, SEED = 5, STEP = 3, ID = 77, SAMPLES = 6, VMAX = 127 };
static const float eta_units = 5.0f;

typedef struct {
  arb_backend *be;
  arb_stack w;
  arb_update_work work;
  int64_t *flips;
  int64_t at[SAMPLES]; /* rows looked at, ascending */
} rig;

static void *take(rig *r, size_t bytes) {
  void *p;
  MUST(r->be->ops.alloc(r->be, bytes, &p));
  MUST(r->be->ops.fill(r->be, p, 0, bytes));
  return p;
}

static void *host(size_t bytes) {
  void *p = malloc(bytes);
  if (!p) exit(1);
  return p;
}

/* Any byte of a row's votes, the same on every call. */
static int8_t vote_of(int64_t row, int64_t k) { return (int8_t)((int)(arb_mix64((uint64_t)(row * 65537 + k)) % 255) - 127); }

static void open_rig(rig *r, arb_backend *be, int64_t n, int64_t k) {
  *r = (rig){.be = be};
  r->w = (arb_stack){.id = ID, .uses = 1, .members = 1, .begin = {0, n}, .n = n, .k = k};
  r->w.code = take(r, (size_t)(n * k));
  r->w.e = take(r, (size_t)n);
  r->w.p = take(r, (size_t)n);
  r->w.r = take(r, (size_t)n * 4);
  r->w.c = take(r, (size_t)k * 4);
  r->w.m = take(r, 4);
  r->w.votes = take(r, (size_t)(n * k));
  r->work.s = take(r, (size_t)n * 8);
  r->work.top = take(r, 4);
  r->work.low = take(r, 4);
  r->work.csum = take(r, (size_t)k * 8);
  r->work.msum = take(r, 8);
  r->flips = take(r, 16);
  const int64_t past31 = ((int64_t)1 << 31) / k, past32 = ((int64_t)1 << 32) / k; /* rows that hold those elements */
  const int64_t wanted[SAMPLES] = {0, n / 3, n / 2, past31 < n - 2 ? past31 : n - 4, past32 < n - 2 ? past32 : n - 3, n - 1};
  memcpy(r->at, wanted, sizeof wanted);
  MUST(be->ops.begin_step(be, SEED, STEP, eta_units));
}

static void close_rig(rig *r) {
  void *const all[] = {r->w.code, r->w.e,      r->w.p,      r->w.r,       r->w.c,       r->w.m,  r->w.votes,
                       r->work.s, r->work.top, r->work.low, r->work.csum, r->work.msum, r->flips};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) r->be->ops.free(r->be, all[i]);
}

static void row_of(rig *r, const void *array, int64_t row, int64_t bytes, void *out) {
  MUST(r->be->ops.download(r->be, out, (const char *)array + row * bytes, (size_t)bytes));
}

static void check_start(rig *r) {
  const int64_t k = r->w.k;
  uint8_t *code = host((size_t)k);
  MUST(r->be->ops.init_stack(r->be, &r->w));
  for (int i = 0; i < SAMPLES; i++) {
    int64_t nnz = 0, wrong = 0;
    int8_t e;
    row_of(r, r->w.code, r->at[i], k, code);
    row_of(r, r->w.e, r->at[i], 1, &e);
    for (int64_t j = 0; j < k; j++) {
      wrong += code[j] != arb_init_code(arb_init_normal(SEED, ID, r->at[i] * arb_pad8(k) + j));
      nnz += arb_code_trit(code[j]) != 0;
    }
    gpu_check(wrong == 0, "fresh codes of a far row");
    gpu_check(e == arb_init_exponent(nnz), "fresh exponent of a far row");
  }
  free(code);
}

static void check_forward(rig *r) {
  const arb_rows rows = {ROWS, 1, 0, 1};
  const int64_t k = r->w.k, n = r->w.n;
  int8_t *q = host((size_t)(ROWS * k)), *dev_q = take(r, (size_t)(ROWS * k));
  float s[ROWS], *dev_s = take(r, sizeof s);
  uint16_t *y = host((size_t)(ROWS * n) * 2), *dev_y = take(r, (size_t)(ROWS * n) * 2);
  uint8_t *code = host((size_t)k);
  for (int64_t i = 0; i < ROWS * k; i++) q[i] = (int8_t)(gpu_below(255) - 127);
  for (int i = 0; i < ROWS; i++) s[i] = 0.01f * (float)(i + 1);
  MUST(r->be->ops.upload(r->be, dev_q, q, (size_t)(ROWS * k)));
  MUST(r->be->ops.upload(r->be, dev_s, s, sizeof s));
  MUST(r->be->ops.linear_forward(r->be, &rows, dev_q, dev_s, &r->w, dev_y));
  MUST(r->be->ops.download(r->be, y, dev_y, (size_t)(ROWS * n) * 2));
  for (int i = 0; i < SAMPLES; i++) {
    int8_t e;
    row_of(r, r->w.code, r->at[i], k, code);
    row_of(r, r->w.e, r->at[i], 1, &e);
    for (int m = 0; m < ROWS; m++) {
      int32_t acc = 0;
      for (int64_t j = 0; j < k; j++) acc += q[m * k + j] * arb_code_trit(code[j]);
      gpu_check(y[m * n + r->at[i]] == arb_bf16_of_f32(((float)acc * s[m]) * arb_pow2_eighths(e)), "forward of a far row");
    }
  }
  r->be->ops.free(r->be, dev_q);
  r->be->ops.free(r->be, dev_s);
  r->be->ops.free(r->be, dev_y);
  free(q);
  free(y);
  free(code);
}

/* Votes of 1 everywhere but in the sampled rows. */
static void cast_votes(rig *r) {
  const int64_t k = r->w.k;
  int8_t *v = host((size_t)k);
  MUST(r->be->ops.fill(r->be, r->w.votes, 1, (size_t)(r->w.n * k)));
  for (int i = 0; i < SAMPLES; i++) {
    for (int64_t j = 0; j < k; j++) v[j] = vote_of(r->at[i], j);
    MUST(r->be->ops.upload(r->be, r->w.votes + r->at[i] * k, v, (size_t)k));
  }
  free(v);
}

static void check_update(rig *r) {
  const int64_t k = r->w.k, n = r->w.n;
  uint64_t *csum = host((size_t)k * 8), s, msum = 0, want_msum = (uint64_t)(n - SAMPLES) * (uint64_t)k;
  int32_t *c = host((size_t)k * 4), m, log_mean;
  uint8_t *before[SAMPLES], *after = host((size_t)k);
  arb_philox_key key = arb_philox_key_of(SEED, ARB_DRAW_UPDATE);
  cast_votes(r);
  MUST(r->be->ops.vote_rows(r->be, &r->w, &r->work));
  MUST(r->be->ops.vote_columns(r->be, &r->w, &r->work));
  row_of(r, r->work.csum, 0, k * 8, csum);
  row_of(r, r->work.msum, 0, 8, &msum);
  int64_t wrong = 0;
  for (int64_t j = 0; j < k; j++) {
    uint64_t want = (uint64_t)(n - SAMPLES);
    for (int i = 0; i < SAMPLES; i++) want += (uint64_t)(vote_of(r->at[i], j) * vote_of(r->at[i], j));
    wrong += csum[j] != want << 16;
  }
  gpu_check(wrong == 0, "column sums over all rows");
  for (int i = 0; i < SAMPLES; i++) {
    uint64_t want = 0;
    for (int64_t j = 0; j < k; j++) want += (uint64_t)(vote_of(r->at[i], j) * vote_of(r->at[i], j));
    row_of(r, r->work.s, r->at[i], 8, &s);
    gpu_check(s == want, "row sum of a far row");
    want_msum += want;
    before[i] = host((size_t)k);
    row_of(r, r->w.code, r->at[i], k, before[i]);
  }
  gpu_check(msum == want_msum << 8, "sum over the matrix");

  MUST(r->be->ops.update(r->be, &r->w, &r->work, 1, VMAX, r->flips));
  row_of(r, r->w.c, 0, k * 4, c);
  row_of(r, r->w.m, 0, 4, &m);
  for (int i = 0; i < SAMPLES; i++) {
    int32_t log_row;
    row_of(r, r->w.r, r->at[i], 4, &log_row);
    row_of(r, r->work.s, r->at[i], 8, &s);
    log_mean = arb_ilog2(s) - arb_ilog2((uint64_t)k);
    gpu_check(log_row == log_mean, "R of a far row");
    row_of(r, r->w.code, r->at[i], k, after);
    const float row = arb_exp2_half(-(int64_t)log_row);
    wrong = 0;
    for (int64_t j = 0; j < k; j++) {
      const arb_philox_block b = arb_philox(key, (uint32_t)((r->at[i] * arb_pad8(k) + j) / 8), ID, STEP, 0);
      const float u = arb_clamp(((float)vote_of(r->at[i], j) * row) * arb_exp2_half((int64_t)m - c[j]), 4.0f);
      const int da = (int)arb_stochastic_round(-eta_units * u, arb_philox_half(&b, (int)(j & 7)));
      wrong += after[j] != arb_code_move(before[i][j], da);
    }
    gpu_check(wrong == 0, "codes of a far row after an update");
    free(before[i]);
  }
  free(csum);
  free(c);
  free(after);
}

static void check_digest(rig *r) {
  const int64_t k = r->w.k, n = r->w.n, cut = n / 2 + 1;
  arb_u128 whole, low, high;
  MUST(r->be->ops.digest(r->be, 9, r->w.code, n, k, 0, &whole));
  MUST(r->be->ops.digest(r->be, 9, r->w.code, cut, k, 0, &low));
  MUST(r->be->ops.digest(r->be, 9, r->w.code + cut * k, n - cut, k, cut, &high));
  const arb_u128 sum = arb_u128_add(low, high);
  gpu_check(sum.lo == whole.lo && sum.hi == whole.hi, "digest of two parts");
}

static void check_flag(arb_backend *be) {
  rig r;
  const arb_rows one = {1, 1, 0, 1};
  arb_u128 before, after;
  int flag;
  open_rig(&r, be, 64, 96);
  MUST(be->ops.init_stack(be, &r.w));
  cast_votes(&r);
  const uint32_t infinity = 0x7f800000u;
  float *x = take(&r, 96 * 4), *s = take(&r, 4), *inv = take(&r, 4);
  int8_t *q = take(&r, 96), *e = take(&r, 96);
  MUST(be->ops.upload(be, x, &infinity, 4));
  for (int up = 1; up >= 0; up--) {
    if (up) MUST(be->ops.add_norm_quant(be, &one, 96, x, NULL, NULL, e, q, s, inv));
    MUST(be->ops.vote_rows(be, &r.w, &r.work));
    MUST(be->ops.vote_columns(be, &r.w, &r.work));
    MUST(be->ops.digest(be, 9, r.w.code, 64, 96, 0, &before));
    MUST(be->ops.update(be, &r.w, &r.work, 1, VMAX, r.flips));
    MUST(be->ops.digest(be, 9, r.w.code, 64, 96, 0, &after));
    const int same = before.lo == after.lo && before.hi == after.hi;
    gpu_check(same == up, up ? "nothing is updated while the flag is up" : "an update when it is down");
    int8_t p[64];
    row_of(&r, r.w.p, 0, 64, p);
    int moved = 0;
    for (int i = 0; i < 64; i++) moved += p[i] != 0;
    gpu_check((moved == 0) == up, "p stays while the flag is up");
    MUST(be->ops.take_nonfinite(be, &flag));
    gpu_check(flag == up, "the flag");
  }
  void *const more[] = {x, s, inv, q, e};
  for (int i = 0; i < 5; i++) be->ops.free(be, more[i]);
  close_rig(&r);
}

int main(int argc, char **argv) {
  const int cpu = argc > 1 && strcmp(argv[1], "--cpu") == 0;
  arb_backend *be;
  if (cpu)
    MUST(arb_backend_cpu_create(2, "auto", &be));
  else
    be = gpu_backend();
  rig r;
  open_rig(&r, be, cpu ? 1003 : 131077, cpu ? 264 : 32896); /* 4.3e9 elements */
  check_start(&r);
  check_forward(&r);
  check_update(&r);
  check_digest(&r);
  close_rig(&r);
  check_flag(be);
  arb_backend_destroy(&be);
  return gpu_totals();
}
