#include "src/train/save.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/background.h"
#include "src/checkpoint/checkpoint.h"
#include "src/train/metrics.h"
#include "src/train/trainer_impl.h"

enum { PATH = 2048 };

struct arb_save {
  arb_background *thread;
  enum { IDLE, PREPARING, WRITING, COMMITTING } phase;
  /* A copy of what this rank writes; kept from save to save. */
  int count;
  arb_state_array *state;
  arb_ckpt_array *file;
  unsigned char *memory;
  char *config;
  /* The save on its way. */
  char dir[PATH], folder[ARB_CKPT_FOLDER];
  int keep;
  arb_ckpt_world world;
  arb_ckpt_meta meta;
  bool writes;         /* this rank has a file in it */
  arb_ckpt_part *part; /* of this rank */
  unsigned char *gathered;
  const arb_ckpt_part **parts; /* rank 0: of all writers */
  int part_count;
  double stall, written; /* seconds: of the run for it; of its threads, the slowest writer and the commit */
};

static size_t own_bytes(const arb_ckpt_array *a) { return (size_t)(a->count * a->columns) * arb_dtype_size(a->type); }
static size_t padded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* ---- the copy --------------------------------------------------------------------------------------------------------- */

static arb_status make_copy(arb_save *s, const arb_trainer *t) {
  const arb_state *state = &t->model->state;
  s->count = arb_state_array_count(state);
  s->state = calloc((size_t)s->count, sizeof *s->state);
  s->file = calloc((size_t)s->count, sizeof *s->file);
  s->config = malloc(ARB_CONFIG_RESOLVED_BYTES);
  ARB_REQUIRE(s->state && s->file && s->config, ARB_ERR_NOMEM, "out of host memory");
  arb_state_arrays(state, s->state);
  size_t bytes = 0;
  for (int i = 0; i < s->count; i++) {
    const arb_state_array *a = &s->state[i];
    /* What all ranks have alike is rank 0's to save. */
    const bool mine = a->sharded || t->comm->rank == 0;
    s->file[i] = (arb_ckpt_array){.tensor = a->tensor,
                                  .field = arb_field_name(a->field),
                                  .type = a->type,
                                  .rows = a->rows,
                                  .columns = a->columns,
                                  .first = mine ? a->first : 0,
                                  .count = mine ? a->count : 0};
    bytes += padded(own_bytes(&s->file[i]));
  }
  s->memory = malloc(bytes + 1);
  ARB_REQUIRE(s->memory, ARB_ERR_NOMEM, "%zu bytes of host memory for a checkpoint's copy", bytes);
  size_t at = 0;
  for (int i = 0; i < s->count; i++) {
    s->file[i].host = s->memory + at;
    at += padded(own_bytes(&s->file[i]));
  }
  return ARB_OK;
}

static arb_status create(arb_trainer *t) {
  arb_save *s = t->save = calloc(1, sizeof *s);
  ARB_REQUIRE(s != NULL, ARB_ERR_NOMEM, "out of host memory");
  s->world = (arb_ckpt_world){.rank = t->comm->rank, .ranks = t->comm->size, .sharded = t->model->spec.ranks != 0};
  s->writes = s->world.sharded || s->world.rank == 0;
  s->keep = (int)t->cfg->checkpoint.keep;
  arb_trainer_path(t->cfg, "checkpoints", s->dir, sizeof s->dir);
  ARB_TRY(make_copy(s, t));
  return arb_background_create(&s->thread);
}

static arb_status copy(arb_trainer *t) {
  if (t->save == NULL) ARB_TRY(create(t));
  arb_save *s = t->save;
  s->meta = (arb_ckpt_meta){.step = t->step,
                            .samples = t->step * t->cfg->train.sequences,
                            .seed = t->cfg->run.seed,
                            .identity = t->identity,
                            .config = s->config};
  ARB_TRY(arb_config_resolved_text(t->cfg, s->config, ARB_CONFIG_RESOLVED_BYTES));
  for (int i = 0; i < s->count; i++)
    if (s->file[i].count > 0) ARB_TRY(t->be->ops.download(t->be, s->file[i].host, s->state[i].data, own_bytes(&s->file[i])));
  return s->world.rank == 0 ? arb_ckpt_prepare(s->dir, s->meta.step, s->folder) : ARB_OK;
}

/* ---- the thread's jobs ------------------------------------------------------------------------------------------------ */

/* On the thread, too: where the disk is busy even mkdir waits. */
static arb_status prepare(void *arg) {
  arb_save *s = arg;
  return arb_ckpt_prepare(s->dir, s->meta.step, s->folder);
}

static arb_status write_part(void *arg) {
  arb_save *s = arg;
  const double begun = arb_clock_seconds();
  const arb_status st = arb_ckpt_write(s->dir, s->folder, &s->world, &s->meta, s->file, s->count, &s->part);
  s->written = arb_clock_seconds() - begun;
  return st;
}

static arb_status prepare_and_write(void *arg) {
  ARB_TRY(prepare(arg));
  return write_part(arg);
}

static arb_status commit(void *arg) {
  arb_save *s = arg;
  const double begun = arb_clock_seconds();
  ARB_TRY(arb_ckpt_commit(s->dir, s->folder, &s->world, &s->meta, s->parts, s->part_count));
  s->written += arb_clock_seconds() - begun;
  return arb_ckpt_retain(s->dir, s->keep); /* only after a save that succeeded */
}

/* ---- phases ----------------------------------------------------------------------------------------------------------- */

static void forget(arb_save *s) {
  free(s->part);
  free(s->gathered);
  free(s->parts);
  s->part = NULL;
  s->gathered = NULL;
  s->parts = NULL;
  s->phase = IDLE;
}

bool arb_save_active(const arb_trainer *t) { return t->save != NULL && t->save->phase != IDLE; }

bool arb_save_ready(arb_trainer *t, double wait_seconds) {
  return !arb_save_active(t) || arb_background_wait(t->save->thread, wait_seconds);
}

arb_status arb_save_begin(arb_trainer *t) {
  const double begun = arb_clock_seconds();
  char digest[33];
  ARB_TRY(arb_trainer_digest(t, digest));
  const arb_status copied = arb_comm_agree(t->comm, copy(t));
  arb_save *s = t->save;
  if (copied != ARB_OK) {
    arb_save_destroy(&t->save); /* its copy may be half made */
    return copied;
  }
  memcpy(s->meta.digest, digest, sizeof digest);
  s->written = 0;
  s->folder[0] = '\0';
  /* Several writers need the folder first, and its name. */
  s->phase = s->world.sharded ? PREPARING : WRITING;
  if (s->world.rank == 0) arb_background_start(s->thread, s->world.sharded ? prepare : prepare_and_write, s);
  s->stall = arb_clock_seconds() - begun;
  return ARB_OK;
}

static void read_parts(arb_save *s, int64_t most) {
  for (int i = 0; i < s->world.ranks; i++) s->parts[i] = (const arb_ckpt_part *)(const void *)(s->gathered + i * most);
}

/* Collective. What every writer's manifest entries are, on rank 0. */
static arb_status gather(arb_trainer *t) {
  arb_save *s = t->save;
  const int writers = s->world.sharded ? s->world.ranks : 1;
  int64_t both[2] = {s->part != NULL ? (int64_t)arb_ckpt_part_bytes(s->part) : 0, (int64_t)(1e6 * s->written)};
  s->part_count = writers;
  s->parts = calloc((size_t)writers, sizeof *s->parts);
  ARB_TRY(arb_comm_agree(t->comm, s->parts ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory")));
  s->parts[0] = s->part;
  if (writers == 1) return ARB_OK;
  ARB_TRY(arb_comm_all_reduce(t->comm, both, 2, ARB_I64, ARB_MAX, ARB_TRAFFIC_CONTROL));
  s->written = 1e-6 * (double)both[1];
  const int64_t most = (both[0] + 63) & ~(int64_t)63;
  s->gathered = calloc((size_t)writers, (size_t)most);
  unsigned char *mine = calloc(1, (size_t)most);
  arb_status st = s->gathered && mine ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "out of host memory");
  st = arb_comm_agree(t->comm, st);
  if (st == ARB_OK) {
    memcpy(mine, s->part, arb_ckpt_part_bytes(s->part));
    st = arb_comm_all_gather(t->comm, mine, s->gathered, most, ARB_U8, ARB_TRAFFIC_CONTROL);
  }
  free(mine);
  if (st == ARB_OK) read_parts(s, most);
  return st;
}

/* Not what a save can die of: without the transport nothing can be agreed on any more. */
static bool transport_failed(arb_status st) { return st == ARB_ERR_COMM || st == ARB_ERR_PEER; }

/* Collective: the folder is there, or could not be made. */
static arb_status prepared(arb_trainer *t) {
  arb_save *s = t->save;
  ARB_TRY(arb_comm_broadcast(t->comm, s->folder, sizeof s->folder, ARB_U8, 0, ARB_TRAFFIC_CONTROL));
  s->phase = WRITING;
  arb_background_start(s->thread, write_part, s);
  return ARB_OK;
}

/* Collective: everything is written, or somebody could not. */
static arb_status all_wrote(arb_trainer *t) {
  arb_save *s = t->save;
  ARB_TRY(gather(t));
  s->phase = COMMITTING;
  if (s->world.rank == 0) arb_background_start(s->thread, commit, s);
  return ARB_OK;
}

/* Does this rank's thread have a job in this phase? */
static bool works(const arb_save *s) { return s->world.rank == 0 || (s->phase == WRITING && s->writes); }

static int64_t bytes_of(const arb_save *s) {
  int64_t sum = 0;
  for (int i = 0; i < s->part_count && s->world.rank == 0; i++) sum += arb_ckpt_part_file_bytes(s->parts[i]);
  return sum;
}

static void end(arb_save *s, arb_status st, arb_save_outcome *out) {
  *out =
      (arb_save_outcome){.step = s->meta.step, .bytes = st == ARB_OK ? bytes_of(s) : 0, .written_s = s->written, .status = st};
  memcpy(out->digest, s->meta.digest, sizeof out->digest);
  forget(s);
}

arb_status arb_save_advance(arb_trainer *t, arb_save_outcome *out) {
  const double begun = arb_clock_seconds();
  arb_save *s = t->save;
  *out = (arb_save_outcome){.step = -1};
  const bool last = s->phase == COMMITTING; /* a commit that fails tidies up after itself */
  arb_status st = arb_comm_agree(t->comm, works(s) ? arb_background_take(s->thread) : ARB_OK);
  if (st == ARB_OK && !last) st = s->phase == PREPARING ? prepared(t) : all_wrote(t);
  if (st != ARB_OK && !last && s->world.rank == 0 && s->folder[0] != '\0') arb_ckpt_abandon(s->dir, s->folder);
  if (st != ARB_OK || last) end(s, st, out);
  s->stall += arb_clock_seconds() - begun;
  out->stall_s = s->stall;
  return transport_failed(st) ? st : ARB_OK;
}

arb_status arb_save_finish(arb_trainer *t, arb_save_outcome *out) {
  *out = (arb_save_outcome){.step = -1};
  while (arb_save_active(t)) {
    const double begun = arb_clock_seconds();
    /* Short waits with a collective each: a rank whose disk is slow is not a silent rank, and one that died is noticed. */
    int64_t ready = arb_save_ready(t, 0.1);
    ARB_TRY(arb_comm_all_reduce(t->comm, &ready, 1, ARB_I64, ARB_SUM, ARB_TRAFFIC_CONTROL));
    t->save->stall += arb_clock_seconds() - begun;
    if (ready == t->comm->size) ARB_TRY(arb_save_advance(t, out));
  }
  return ARB_OK;
}

void arb_save_destroy(arb_save **handle) {
  arb_save *s = *handle;
  if (s == NULL) return;
  const bool unfinished = s->phase == PREPARING || s->phase == WRITING;
  arb_background_destroy(&s->thread);
  if (unfinished && s->world.rank == 0 && s->folder[0] != '\0') arb_ckpt_abandon(s->dir, s->folder);
  forget(s);
  free(s->state);
  free(s->file);
  free(s->config);
  free(s->memory);
  free(s);
  *handle = NULL;
}
