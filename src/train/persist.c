/* Resuming a run: the state's arrays from src/checkpoint. */
#include <stdlib.h>
#include <string.h>

#include "dist/place.h"
#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"
#include "src/train/trainer_impl.h"

/* Host copies of all arrays. */
typedef struct {
  int count;
  arb_state_array *state;
  arb_ckpt_array *file;
  unsigned char *memory;
} snapshot;

static void snapshot_deinit(snapshot *s) {
  free(s->state);
  free(s->file);
  free(s->memory);
}

static arb_status snapshot_init(snapshot *s, const arb_trainer *t) {
  const arb_state *state = &t->model->state;
  s->count = arb_state_array_count(state);
  s->state = calloc((size_t)s->count, sizeof *s->state);
  s->file = calloc((size_t)s->count, sizeof *s->file);
  ARB_REQUIRE(s->state && s->file, ARB_ERR_NOMEM, "out of host memory");
  arb_state_arrays(state, s->state);
  size_t bytes = 0, at = 0;
  for (int i = 0; i < s->count; i++)
    bytes += ((size_t)(s->state[i].rows * s->state[i].columns) * arb_dtype_size(s->state[i].type) + 63) & ~(size_t)63;
  s->memory = malloc(bytes);
  ARB_REQUIRE(s->memory, ARB_ERR_NOMEM, "%zu bytes of host memory for a checkpoint", bytes);
  for (int i = 0; i < s->count; i++) {
    const arb_state_array *a = &s->state[i];
    s->file[i] =
        (arb_ckpt_array){a->tensor, arb_field_name(a->field), a->type, a->rows, a->columns, 0, a->rows, s->memory + at};
    at += ((size_t)(a->rows * a->columns) * arb_dtype_size(a->type) + 63) & ~(size_t)63;
  }
  return ARB_OK;
}

static void checkpoint_dir(const arb_config *cfg, char *path, size_t size) { arb_trainer_path(cfg, "checkpoints", path, size); }

static size_t row_bytes(const arb_state_array *a) { return (size_t)a->columns * arb_dtype_size(a->type); }

/* Rows [first, first + count) in the host copy of the whole array. */
static unsigned char *own_rows(const snapshot *s, int i) {
  return (unsigned char *)s->file[i].host + (size_t)s->state[i].first * row_bytes(&s->state[i]);
}

static void say_skipped(const char *line, void *arg) {
  if (!strstr(line, ".tmp-")) ++*(int *)arg; /* a save that did not finish was never a checkpoint */
  arb_log(ARB_LOG_WARN, "checkpoint", "%s", line);
}

static arb_status load_local(arb_trainer *t, snapshot *s, arb_ckpt_meta *meta) {
  char dir[2048];
  checkpoint_dir(t->cfg, dir, sizeof dir);
  int refused = 0;
  ARB_TRY(arb_ckpt_latest(dir, &meta->step, say_skipped, &refused));
  ARB_REQUIRE(
      meta->step >= 0 || refused == 0, ARB_ERR_CHECKPOINT,
      "%s: %d checkpoint%s, none of which verifies; move the folder away, or set checkpoint.resume = no, to start afresh", dir,
      refused, refused == 1 ? "" : "s");
  if (meta->step < 0) return ARB_OK;
  ARB_TRY(arb_ckpt_load(dir, meta->step, meta, s->file, s->count));
  ARB_REQUIRE(meta->step <= t->cfg->train.steps, ARB_ERR_CHECKPOINT, "%s: step %lld is past train.steps = %lld", dir,
              (long long)meta->step, (long long)t->cfg->train.steps);
  return ARB_OK;
}

arb_status arb_trainer_resume(arb_trainer *t, int64_t *resumed_step) {
  snapshot s = {0};
  arb_ckpt_meta meta = {.step = -1, .identity = t->identity};
  char digest[33];
  arb_status st = snapshot_init(&s, t);
  if (st == ARB_OK) st = arb_step_forget(t);
  if (st == ARB_OK && t->comm->rank == 0) st = load_local(t, &s, &meta);
  ARB_TRY_OUT(st, arb_comm_agree(t->comm, st));
  ARB_TRY_OUT(st, arb_comm_broadcast(t->comm, &meta.step, 1, ARB_I64, 0, ARB_TRAFFIC_CONTROL));
  *resumed_step = meta.step;
  if (meta.step < 0) goto out;
  ARB_TRY_OUT(st, arb_comm_broadcast(t->comm, meta.digest, sizeof meta.digest, ARB_U8, 0, ARB_TRAFFIC_CONTROL));
  for (int i = 0; i < s.count; i++) {
    const arb_state_array *a = &s.state[i];
    ARB_TRY_OUT(st, arb_comm_broadcast(t->comm, s.file[i].host, a->rows * a->columns, a->type, 0, ARB_TRAFFIC_CONTROL));
    ARB_TRY_OUT(st, t->be->ops.upload(t->be, a->data, own_rows(&s, i), (size_t)a->count * row_bytes(a)));
  }
  ARB_TRY_OUT(st, arb_trainer_gather_copies(t));
  t->step = meta.step;
  ARB_TRY_OUT(st, arb_trainer_digest(t, digest));
  if (strcmp(digest, meta.digest) != 0)
    st = ARB_FAIL(ARB_ERR_CHECKPOINT, "checkpoint of step %lld: its digest is %s, its content gives %s", (long long)meta.step,
                  meta.digest, digest);
  st = arb_comm_agree(t->comm, st);
out:
  snapshot_deinit(&s);
  return st;
}
