/* Exhaustive accuracy of kernels/common/math.h: walks all 2^32 bit patterns of every function.
 *
 *   ulp [-s stride] [-j processes] [-l] [function ...]        functions: exp log sigmoid tanh erf cos rsqrt (default all)
 *
 * Every result is compared with the double precision libm (good to about 2^-28 ulp of a float); a result whose error looks
 * at least as large as the worst so far is measured again with MPFR at 200 bits, and the figure printed is MPFR's. The error is
 * |result - exact| in units in the last place of the exact value's binade (2^-149 below 2^-126), with infinity standing
 * for 2^128. NaN must be 0x7fc00000 exactly where the function has no value. "drops" counts neighbouring inputs at which
 * a monotone function steps backwards, "back" the largest such step in ulp.
 * -l compares the loops of every instruction set instead, bit for bit.
 * Exit status 1 when an error exceeds 2 ulp, a NaN is wrong or a loop differs. Built with -DARB_BUILD_ULP=ON; a full run takes
 * some minutes a function and processor core: run it under nice. */
#include <math.h>
#include <mpfr.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/common/bits.h"
#include "tests/kernels/math/loops.h"

#define BLOCK 8192
#define BITS 200
#define MAX_JOBS 64

typedef struct {
  const char *name;
  double (*ref)(double);
  void (*exact)(mpfr_t y, mpfr_t x);
  int direction; /* +1 increasing, -1 decreasing, 0 neither; over each half line */
} func;

typedef struct {
  double worst, worst_sub, back; /* ulp; worst_sub: among subnormal results */
  uint32_t at, at_sub;
  uint64_t count, over1, over2, not_nearest, wrong_nan, drops, differ;
} report;

static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double cosine(double x) { return fabs(x) <= 32768 ? cos(x) : (double)NAN; }
static double rsqrt(double x) { return 1 / sqrt(x); }

static void m_exp(mpfr_t y, mpfr_t x) { mpfr_exp(y, x, MPFR_RNDN); }
static void m_log(mpfr_t y, mpfr_t x) { mpfr_log(y, x, MPFR_RNDN); }
static void m_sigmoid(mpfr_t y, mpfr_t x) {
  mpfr_neg(y, x, MPFR_RNDN);
  mpfr_exp(y, y, MPFR_RNDN);
  mpfr_add_ui(y, y, 1, MPFR_RNDN);
  mpfr_ui_div(y, 1, y, MPFR_RNDN);
}
static void m_tanh(mpfr_t y, mpfr_t x) { mpfr_tanh(y, x, MPFR_RNDN); }
static void m_erf(mpfr_t y, mpfr_t x) { mpfr_erf(y, x, MPFR_RNDN); }
static void m_cos(mpfr_t y, mpfr_t x) { mpfr_cos(y, x, MPFR_RNDN); }
static void m_rsqrt(mpfr_t y, mpfr_t x) { mpfr_rec_sqrt(y, x, MPFR_RNDN); }

static const func funcs[ARB_M__COUNT] = {
    [ARB_M_EXP] = {"exp", exp, m_exp, 1},
    [ARB_M_LOG] = {"log", log, m_log, 1},
    [ARB_M_SIGMOID] = {"sigmoid", sigmoid, m_sigmoid, 1},
    [ARB_M_TANH] = {"tanh", tanh, m_tanh, 1},
    [ARB_M_ERF] = {"erf", erf, m_erf, 1},
    [ARB_M_COS] = {"cos", cosine, m_cos, 0},
    [ARB_M_RSQRT] = {"rsqrt", rsqrt, m_rsqrt, -1},
};

/* 2^-k, the unit in the last place of |r| in the float format. */
static int ulp_shift(double r) {
  int e = r == 0 ? -126 : ilogb(r);
  if (e < -126) e = -126;
  if (e > 127) e = 127;
  return 23 - e;
}
static double widen(float y) { return isinf(y) ? copysign(0x1p128, (double)y) : (double)y; }

static double error_double(float y, double r) {
  if (isinf(r) || fabs(r) > 0x1p128) r = copysign(0x1p128, r);
  return ldexp(fabs(widen(y) - r), ulp_shift(r));
}

static double error_exact(const func *f, float x, float y, mpfr_t mx, mpfr_t my) {
  mpfr_set_flt(mx, x, MPFR_RNDN);
  f->exact(my, mx);
  if (mpfr_inf_p(my)) return error_double(y, mpfr_get_d(my, MPFR_RNDN));
  int shift = ulp_shift(mpfr_get_d(my, MPFR_RNDZ));
  mpfr_sub_d(my, my, widen(y), MPFR_RNDN);
  mpfr_mul_2si(my, my, shift, MPFR_RNDN);
  return fabs(mpfr_get_d(my, MPFR_RNDN));
}

static void check(const func *f, float x, float y, report *r, mpfr_t mx, mpfr_t my) {
  double d = f->ref((double)x);
  r->count++;
  if (isnan(d) || isnan(y)) {
    if (!isnan(d) || arb_bits_of_f32(y) != ARB_F32_NAN_BITS) r->wrong_nan++;
    return;
  }
  double e = error_double(y, d);
  r->over1 += e > 1;
  r->over2 += e > 2;
  r->not_nearest += y != (float)d;
  if (e > 0.5 && e > r->worst - 0x1p-20 && (e = error_exact(f, x, y, mx, my)) > r->worst) {
    r->worst = e;
    r->at = arb_bits_of_f32(x);
  }
  if (fabs(d) < 0x1p-126 && e > 0.25 && e > r->worst_sub - 0x1p-20 && (e = error_exact(f, x, y, mx, my)) > r->worst_sub) {
    r->worst_sub = e;
    r->at_sub = arb_bits_of_f32(x);
  }
}

/* Patterns first, first + stride, ... below limit. */
static report walk(int which, uint64_t first, uint64_t limit, uint64_t stride, int loops) {
  static float x[BLOCK], y[BLOCK], z[BLOCK];
  const func *f = &funcs[which];
  report r;
  memset(&r, 0, sizeof r);
  mpfr_t mx, my;
  mpfr_init2(mx, BITS);
  mpfr_init2(my, BITS);
  arb_math_loop *const *sets[] = {arb_math_plain, arb_math_avx2, arb_math_avx512};
  int usable[] = {1, __builtin_cpu_supports("avx2"), __builtin_cpu_supports("avx512f")};
  float before = NAN; /* what follows a NaN is not compared: the two half lines are apart */
  for (uint64_t u = first; u < limit;) {
    size_t n = 0;
    for (; n < BLOCK && u < limit; n++, u += stride) x[n] = arb_f32_of_bits((uint32_t)u);
    arb_math_scalar[which](y, x, n);
    if (loops) {
      r.count += n;
      for (int s = 0; s < 3; s++) {
        if (!usable[s]) continue;
        sets[s][which](z, x, n);
        if (memcmp(y, z, n * sizeof *y) != 0) r.differ++;
      }
      continue;
    }
    for (size_t i = 0; i < n; i++) {
      check(f, x[i], y[i], &r, mx, my);
      int half = signbit(x[i]) ? -1 : 1; /* patterns run away from zero */
      if (!isnan(y[i]) && !isnan(before) && (double)(y[i] - before) * f->direction * half < 0) {
        double step = ldexp(fabs(widen(y[i]) - widen(before)), ulp_shift((double)y[i]));
        r.drops++;
        if (step > r.back) r.back = step;
      }
      before = y[i];
    }
  }
  mpfr_clear(mx);
  mpfr_clear(my);
  mpfr_free_cache();
  return r;
}

static void merge(report *a, const report *b) {
  if (b->worst > a->worst) a->worst = b->worst, a->at = b->at;
  if (b->worst_sub > a->worst_sub) a->worst_sub = b->worst_sub, a->at_sub = b->at_sub;
  if (b->back > a->back) a->back = b->back;
  a->count += b->count, a->over1 += b->over1, a->over2 += b->over2, a->not_nearest += b->not_nearest;
  a->wrong_nan += b->wrong_nan, a->drops += b->drops, a->differ += b->differ;
}

/* Splits the patterns over `jobs` processes; each writes its report into a pipe (smaller than the pipe's buffer). */
static int measure(int which, uint64_t stride, int jobs, int loops, report *total) {
  int ends[MAX_JOBS];
  memset(total, 0, sizeof *total);
  for (int j = 0; j < jobs; j++) {
    int fd[2];
    if (pipe(fd) != 0) return perror("pipe"), 1;
    pid_t pid = fork();
    if (pid < 0) return perror("fork"), 1;
    if (pid == 0) {
      uint64_t share = ((UINT64_C(1) << 32) / stride + (uint64_t)jobs) / (uint64_t)jobs * stride;
      uint64_t first = share * (uint64_t)j, limit = first + share;
      if (limit > UINT64_C(1) << 32) limit = UINT64_C(1) << 32;
      report r = walk(which, first, limit, stride, loops);
      _exit(write(fd[1], &r, sizeof r) == (ssize_t)sizeof r ? 0 : 1);
    }
    close(fd[1]);
    ends[j] = fd[0];
  }
  int bad = 0;
  for (int j = 0; j < jobs; j++) {
    report r;
    if (read(ends[j], &r, sizeof r) == (ssize_t)sizeof r)
      merge(total, &r);
    else
      bad = 1;
    close(ends[j]);
  }
  for (int status; wait(&status) > 0;) bad |= status != 0;
  return bad;
}

int main(int argc, char **argv) {
  uint64_t stride = 1;
  int jobs = 1, loops = 0, bad = 0, opt;
  while ((opt = getopt(argc, argv, "s:j:l")) != -1) {
    if (opt == 's')
      stride = strtoull(optarg, NULL, 10);
    else if (opt == 'j')
      jobs = atoi(optarg);
    else if (opt == 'l')
      loops = 1;
    else
      return 2;
  }
  if (stride == 0 || jobs < 1 || jobs > MAX_JOBS) return fprintf(stderr, "ulp: -s from 1, -j from 1 to %d\n", MAX_JOBS), 2;
  for (int which = 0; which < ARB_M__COUNT; which++) {
    int wanted = optind == argc;
    for (int i = optind; i < argc; i++) wanted |= strcmp(argv[i], funcs[which].name) == 0;
    if (!wanted) continue;
    report r;
    if (measure(which, stride, jobs, loops, &r) != 0) return fprintf(stderr, "ulp: a process failed\n"), 1;
    if (loops) {
      printf("%-8s %llu inputs, blocks that differ between instruction sets: %llu\n", funcs[which].name,
             (unsigned long long)r.count, (unsigned long long)r.differ);
    } else {
      printf("%-8s %llu inputs, max %.4f ulp at %08x (%a)", funcs[which].name, (unsigned long long)r.count, r.worst, r.at,
             (double)arb_f32_of_bits(r.at));
      if (r.worst_sub > 0) printf(", subnormal results %.4f at %08x", r.worst_sub, r.at_sub);
      printf(", over 1: %llu, over 2: %llu, not nearest: %.3f%%, wrong NaN: %llu", (unsigned long long)r.over1,
             (unsigned long long)r.over2, 100.0 * (double)r.not_nearest / (double)r.count, (unsigned long long)r.wrong_nan);
      if (funcs[which].direction != 0) printf(", drops %llu, back %.2f", (unsigned long long)r.drops, r.back);
      printf("\n");
    }
    fflush(stdout);
    bad |= r.over2 != 0 || r.wrong_nan != 0 || r.differ != 0;
  }
  return bad;
}
