#include "launch/commands.h"

#include <string.h>

#include "src/bench/gemm.h"
#include "src/bench/step.h"
#include "src/bench/votes.h"
#include "src/data/ngram.h"
#include "launch/device.h"
#include "launch/sidecar.h"
#include "src/train/plan.h"
#include "src/train/trainer.h"

static int bench_wants(const arb_args *args, const char *what) {
  return args->bench && (strcmp(args->bench, what) == 0 || strcmp(args->bench, "all") == 0);
}

unsigned arb_command_needs(const arb_args *args) {
  switch (args->command) {
    case ARB_COMMAND_TRAIN:
      return ARB_CONFIG_NEED_TRAIN;
    case ARB_COMMAND_EVAL:
      return ARB_CONFIG_NEED_TRAIN | ARB_CONFIG_NEED_VALID;
    case ARB_COMMAND_BENCH:
      return bench_wants(args, "step") ? ARB_CONFIG_NEED_TRAIN : 0;
    case ARB_COMMAND_GENERATE:
      return ARB_CONFIG_NEED_TRAIN; /* its fingerprint is part of the checkpoint's identity */
    default:
      return 0;
  }
}

/* Collective. A trained state, or an error that says where one was looked for. */
static arb_status load_trained(arb_trainer *t) {
  int64_t step;
  char path[2048];
  ARB_TRY(arb_trainer_resume(t, &step));
  arb_trainer_path(t->cfg, "checkpoints", path, sizeof path);
  ARB_REQUIRE(step >= 0, ARB_ERR_CHECKPOINT, "no checkpoint in %s: train first, with checkpoint.every above 0", path);
  return ARB_OK;
}

/* Tables of the two and three previous bytes, from the training text, on the same windows. */
static arb_status count_tables(const arb_trainer *t, FILE *out) {
  arb_ngram *table = NULL;
  double bpb[4];
  ARB_TRY(arb_ngram_create(&t->train, 3, &table));
  const arb_status st = arb_ngram_bits_per_byte(table, &t->valid, t->cfg->train.context, t->cfg->eval.sequences, bpb);
  arb_ngram_destroy(&table);
  if (st != ARB_OK) return st;
  fprintf(out, "Witten-Bell table of 2 previous bytes: %.4f bits per byte\n", bpb[2]);
  fprintf(out, "Witten-Bell table of 3 previous bytes: %.4f bits per byte\n", bpb[3]);
  return ARB_OK;
}

static arb_status evaluate(arb_trainer *t, FILE *out) {
  double bpb;
  ARB_TRY(load_trained(t));
  if (t->media) return arb_trainer_report(t, out);
  ARB_TRY(arb_trainer_evaluate(t, &bpb));
  arb_status st = ARB_OK;
  if (out) {
    fprintf(out, "step %lld: %.4f bits per byte on %lld validation windows of %lld bytes\n", (long long)t->step, bpb,
            (long long)t->cfg->eval.sequences, (long long)t->cfg->train.context);
    st = count_tables(t, out);
  }
  return arb_comm_agree(t->comm, st);
}

static arb_status generate(arb_trainer *t, FILE *out) {
  arb_status st = ARB_OK;
  ARB_TRY(load_trained(t));
  if (out) st = arb_trainer_sample(t, t->cfg->sample.prompt, out);
  return arb_comm_agree(t->comm, st);
}

/* The products beside their peer; rank 0 alone, the others wait. */
static arb_status bench_products(const arb_config *cfg, const arb_backend *be, arb_comm *comm, FILE *out) {
  static const char *const isa[] = {"auto", "scalar", "avx2", "avx512"};
  const arb_bench_options o = {.isa = isa[cfg->run.isa], .threads = arb_backend_threads(be)};
  return arb_comm_agree(comm, out ? arb_bench_gemm(out, &o) : ARB_OK);
}

static arb_status bench_steps(const arb_config *cfg, arb_backend *be, arb_comm *comm, arb_comm *device_comm, FILE *out) {
  arb_trainer *t = NULL;
  ARB_TRY(arb_trainer_create(cfg, be, comm, device_comm, ARB_TRAINER_TRAIN, &t));
  const arb_status st = arb_bench_step(t, 5, out);
  arb_trainer_destroy(&t);
  return st;
}

static arb_status bench_votes(const arb_config *cfg, arb_backend *be, arb_comm *comm, arb_comm *device_comm, FILE *out) {
  arb_trainer *t = NULL;
  ARB_TRY(arb_trainer_create(cfg, be, comm, device_comm, 0, &t));
  const arb_status st = arb_bench_votes(t, 15, out);
  arb_trainer_destroy(&t);
  return st;
}

arb_status arb_command_plan(const arb_args *args, const arb_config *cfg, FILE *out) {
  arb_plan plan;
  int threads;
  const int ranks = args->ranks ? args->ranks : 1;
  const arb_backend_kind device = arb_device_expected(cfg, ranks, &threads);
  ARB_TRY(arb_plan_make(cfg, device, threads, 0, ranks, &plan));
  arb_plan_print(&plan, out);
  if (cfg->run.device == ARB_CONFIG_DEVICE_AUTO)
    fprintf(out, "\nrun.device = auto: planned for %s, as this build would choose%s\n", plan.device,
            device == ARB_BACKEND_CUDA ? " where it finds a GPU" : "");
  return ARB_OK;
}

arb_status arb_command_run(const arb_args *args, const arb_config *cfg, arb_backend *be, arb_comm *comm, arb_comm *device_comm,
                           volatile sig_atomic_t *stop, FILE *out) {
  arb_trainer *t = NULL;
  int data = 0;
  if (args->command == ARB_COMMAND_BENCH) {
    if (bench_wants(args, "gemm")) ARB_TRY(bench_products(cfg, be, comm, out));
    if (bench_wants(args, "step")) ARB_TRY(bench_steps(cfg, be, comm, device_comm, out));
    const int alone = strcmp(args->bench, "all") == 0 && comm->size == 1; /* nothing to exchange */
    if (bench_wants(args, "votes") && !alone) ARB_TRY(bench_votes(cfg, be, comm, device_comm, out));
    return ARB_OK;
  }
  if (args->command != ARB_COMMAND_AUDIT) data |= ARB_TRAINER_TRAIN;
  if (args->command == ARB_COMMAND_TRAIN || args->command == ARB_COMMAND_EVAL) data |= ARB_TRAINER_VALID;
  ARB_TRY(arb_trainer_create(cfg, be, comm, device_comm, data, &t));
  t->stop = stop;
  arb_status st;
  switch (args->command) {
    case ARB_COMMAND_TRAIN:
      st = arb_trainer_run(t, out);
      break;
    case ARB_COMMAND_EVAL:
      st = evaluate(t, out);
      break;
    case ARB_COMMAND_GENERATE:
      st = generate(t, out);
      break;
    case ARB_COMMAND_AUDIT:
      st = out ? arb_trainer_audit(t, out) : ARB_OK;
      if (st == ARB_OK && out && args->sidecars) st = arb_command_audit_sidecars(cfg, out);
      st = arb_comm_agree(comm, st);
      break;
    default:
      st = ARB_FAIL(ARB_ERR_ARG, "command %d", (int)args->command);
  }
  if (st == ARB_ERR_COMM && be->on_device) return st; /* its memory cannot be freed while it waits for a lost peer */
  arb_trainer_destroy(&t);
  return st;
}
