/* Checkpoints of a run: the state's arrays to and from src/checkpoint. */
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

static arb_status download_own(arb_trainer *t, snapshot *s) {
  ARB_TRY(snapshot_init(s, t));
  for (int i = 0; i < s->count; i++)
    ARB_TRY(t->be->ops.download(t->be, own_rows(s, i), s->state[i].data, (size_t)s->state[i].count * row_bytes(&s->state[i])));
  return ARB_OK;
}

/* Collective. Owners send their rows of sharded arrays, so that rank 0 has the whole state. */
static arb_status collect(arb_trainer *t, snapshot *s) {
  for (int i = 0; i < s->count; i++) {
    const arb_state_array *a = &s->state[i];
    for (int owner = 0; a->sharded && owner < t->comm->size; owner++) {
      const arb_row_slice rows = arb_place_rows(a->rows, owner, t->comm->size);
      unsigned char *at = (unsigned char *)s->file[i].host + (size_t)rows.first * row_bytes(a);
      ARB_TRY(arb_comm_broadcast(t->comm, at, rows.count * a->columns, a->type, owner, ARB_TRAFFIC_CONTROL));
    }
  }
  return ARB_OK;
}

static arb_status save_local(arb_trainer *t, const snapshot *s, const char *digest) {
  char dir[2048];
  arb_ckpt_meta meta = {
      .step = t->step, .samples = t->step * t->cfg->train.sequences, .seed = t->cfg->run.seed, .identity = t->identity};
  snprintf(meta.digest, sizeof meta.digest, "%s", digest);
  char *resolved = malloc(ARB_CONFIG_RESOLVED_BYTES);
  arb_status st = resolved ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  if (st != ARB_OK) goto out;
  ARB_TRY_OUT(st, arb_config_resolved_text(t->cfg, resolved, ARB_CONFIG_RESOLVED_BYTES));
  meta.config = resolved;
  checkpoint_dir(t->cfg, dir, sizeof dir);
  ARB_TRY_OUT(st, arb_ckpt_save(dir, &meta, s->file, s->count));
  ARB_TRY_OUT(st, arb_ckpt_retain(dir, (int)t->cfg->checkpoint.keep));
out:
  free(resolved);
  return st;
}

arb_status arb_trainer_save(arb_trainer *t) {
  snapshot s = {0};
  char digest[33];
  arb_status st = arb_trainer_digest(t, digest);
  if (st == ARB_OK && (t->comm->rank == 0 || t->model->spec.ranks)) st = download_own(t, &s);
  if (t->model->spec.ranks) {
    ARB_TRY_OUT(st, arb_comm_agree(t->comm, st));
    ARB_TRY_OUT(st, collect(t, &s));
  }
  if (st == ARB_OK && t->comm->rank == 0) st = save_local(t, &s, digest);
  st = arb_comm_agree(t->comm, st);
out:
  snapshot_deinit(&s);
  return st;
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
