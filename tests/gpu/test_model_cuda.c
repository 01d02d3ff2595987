/* Whole training steps: the state digest on the GPU against the CPU backend's (and the reference's, for a tiny model), and what
 * a step of the books shape takes.
 * "--small": the tiny model alone; "--plain": plain products on the GPU; "--time": only the timing. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <time.h>

#include "src/model/model.h"
#include "tests/gpu/gpu_test.h"

typedef struct {
  const char *name;
  arb_model_spec spec;
  int32_t grains;
  int steps;
} run;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Bytes with some structure, from (step, row) alone. */
static void fill_text(int32_t *ids, int32_t *targets, int64_t rows, int64_t context, uint64_t step, int64_t first_row) {
  for (int64_t i = 0; i < rows; i++) {
    const uint64_t at = (uint64_t)(first_row + i) + step * 1000003u;
    ids[i] = (int32_t)(97 + arb_mix64(at / 3) % 26);
    targets[i] = (i + 1) % context == 0 ? -1 : (int32_t)(97 + arb_mix64((at + 1) / 3) % 26);
  }
}

static void one_step(arb_model *m, const run *r, int step, int32_t *ids, int32_t *targets) {
  arb_backend *be = m->be;
  const int vmax = 127 / r->grains;
  const int32_t batch = m->spec.grains_per_batch;
  int64_t used[64];
  MUST(be->ops.begin_step(be, 7, (uint32_t)step, 0.12f * 42.0f * (float)step / 20.0f * (step > 20 ? 0.0f : 1.0f)));
  MUST(arb_model_begin(m));
  for (int32_t g = 0; g < r->grains; g += batch) {
    const arb_rows rows = {m->spec.rows_per_grain, r->grains - g < batch ? r->grains - g : batch, g, 1};
    arb_pass p;
    fill_text(ids, targets, arb_rows_count(&rows), m->spec.context, (uint64_t)step, g * m->spec.rows_per_grain);
    MUST(arb_model_pass(m, &rows, ids, targets, 1, vmax, &p));
    MUST(arb_model_forward(m, &p));
    MUST(arb_model_backward(m, &p));
  }
  int bad = 0;
  MUST(be->ops.take_nonfinite(be, &bad));
  gpu_check(!bad, "no value of a step is non-finite");
  for (int i = 0; i < m->state.tensor_count; i++) used[i] = r->grains;
  MUST(arb_model_update(m, used, vmax));
}

typedef struct {
  arb_u128 digest;
  int64_t loss, flips[2];
  double seconds; /* of a step, after the first */
} outcome;

static outcome train(arb_backend *be, const run *r, int32_t batch) {
  outcome o = {.seconds = 0.0};
  arb_model *m;
  arb_model_spec spec = r->spec;
  spec.grains_per_batch = batch;
  MUST(arb_model_create(&spec, be, &m));
  MUST(arb_model_allocate(m));
  MUST(arb_state_fresh(&m->state, 7));
  int32_t *ids = calloc((size_t)(spec.rows_per_grain * batch), sizeof *ids),
          *targets = calloc((size_t)(spec.rows_per_grain * batch), sizeof *targets);
  if (!ids || !targets) exit(1);
  for (int step = 1; step <= r->steps; step++) {
    const double start = now();
    MUST(arb_model_poison(m));
    one_step(m, r, step, ids, targets);
    MUST(be->ops.sync(be));
    if (step > 1) o.seconds += (now() - start) / (r->steps - 1);
  }
  MUST(arb_state_digest(&m->state, &o.digest));
  MUST(be->ops.download(be, &o.loss, m->loss, sizeof o.loss));
  MUST(be->ops.download(be, o.flips, m->flips, sizeof o.flips));
  free(ids);
  free(targets);
  arb_model_destroy(&m);
  return o;
}

static void show(const char *name, const char *backend, int32_t batch, const outcome *o) {
  printf("%-8s %-14s batch %d: digest %016llx%016llx loss %.4f flips %lld step %.2f ms\n", name, backend, (int)batch,
         (unsigned long long)o->digest.hi, (unsigned long long)o->digest.lo, (double)o->loss * 0x1p-20, (long long)o->flips[0],
         o->seconds * 1e3);
  fflush(stdout);
}

static void check_same(const char *name, const outcome *a, const outcome *b) {
  char text[128];
  snprintf(text, sizeof text, "%s: the same digest, loss and flips", name);
  gpu_check(a->digest.lo == b->digest.lo && a->digest.hi == b->digest.hi && a->loss == b->loss && a->flips[0] == b->flips[0] &&
                a->flips[1] == b->flips[1],
            text);
}

static void equal_runs(arb_backend *host, arb_backend *gpu, const run *r, const int32_t *batches, int count) {
  outcome want = {.seconds = 0.0};
  for (int i = 0; i < count; i++) {
    const outcome got = train(gpu, r, batches[i]);
    show(r->name, gpu->ops.name, batches[i], &got);
    if (i == 0) {
      want = train(host, r, batches[0]);
      show(r->name, host->ops.name, batches[0], &want);
    }
    check_same(r->name, &want, &got);
  }
}

static void time_books(arb_backend *gpu, const run *books, int32_t batch, int steps) {
  arb_model *m;
  arb_model_spec spec = books->spec;
  spec.grains_per_batch = batch;
  const int64_t rows = spec.rows_per_grain * batch;
  int32_t *ids = calloc((size_t)rows, sizeof *ids), *targets = calloc((size_t)rows, sizeof *targets);
  if (!ids || !targets) exit(1);
  MUST(arb_model_create(&spec, gpu, &m));
  MUST(arb_model_allocate(m));
  MUST(arb_state_fresh(&m->state, 7));
  for (int i = 1; i <= 3; i++) one_step(m, books, i, ids, targets);
  MUST(gpu->ops.sync(gpu));
  const double start = now();
  for (int i = 0; i < steps; i++) one_step(m, books, 4 + i, ids, targets);
  MUST(gpu->ops.sync(gpu));
  const double ms = (now() - start) / steps * 1e3;
  const double positions = (double)spec.rows_per_grain * books->grains;
  printf("books step, batch %d: %.3f ms, %.2f million bytes/s\n", (int)batch, ms, positions / ms * 1e-3);
  MUST(arb_cuda_profile_start(gpu));
  one_step(m, books, 4 + steps, ids, targets);
  printf("by kernel, one step (with a wait after every launch):\n");
  arb_cuda_profile_print(gpu, stdout);
  fflush(stdout);
  free(ids);
  free(targets);
  arb_model_destroy(&m);
}

int main(int argc, char **argv) {
  int small = 0, plain = 0, only_time = 0;
  for (int i = 1; i < argc; i++) {
    small |= strcmp(argv[i], "--small") == 0;
    plain |= strcmp(argv[i], "--plain") == 0;
    only_time |= strcmp(argv[i], "--time") == 0;
  }
  arb_backend *gpu = gpu_backend(), *ref = NULL, *cpu = NULL;
  arb_cuda_products_plain(gpu, plain);
  MUST(arb_backend_ref_create(&ref));
  MUST(arb_backend_cpu_create(16, "auto", &cpu));
  const run tiny = {"tiny",
                    {.dim = 40, .embed_channels = 8, .layers = 2, .glu_hidden = 56, .context = 24, .rows_per_grain = 48},
                    4,
                    small ? 2 : 20};
  const run smoke = {"smoke",
                     {.dim = 160, .embed_channels = 64, .layers = 2, .glu_hidden = 384, .context = 128, .rows_per_grain = 512},
                     8,
                     20};
  const run books = {
      "books",
      {.dim = 512, .embed_channels = 256, .layers = 6, .glu_hidden = 1408, .context = 512, .rows_per_grain = 4096},
      8,
      8};
  const int32_t two[] = {1, 3}, both[] = {1, 8}, whole[] = {8, 3, 8};
  if (!only_time) {
    equal_runs(ref, gpu, &tiny, two, 2);
    if (!small) equal_runs(cpu, gpu, &smoke, both, 2);
    if (!small) equal_runs(cpu, gpu, &books, whole, 3);
  }
  if (!small && !plain) {
    time_books(gpu, &books, 8, 20);
    time_books(gpu, &books, 1, 10);
  }
  arb_backend_destroy(&gpu);
  arb_backend_destroy(&ref);
  arb_backend_destroy(&cpu);
  return gpu_totals();
}
