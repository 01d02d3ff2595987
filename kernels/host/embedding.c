/* Byte n-gram embedding: a linear on a one-hot input, done as a lookup. */
#include <string.h>

#include "kernels/common/scale.h"
#include "kernels/common/trit.h"
#include "kernels/host/host.h"

/* The id that `slot` of row `row` reads. */
static int32_t slot_id(const int32_t *ids, int64_t row, int64_t context, int slots, int slot, int32_t pad) {
  const int64_t back = slots - 1 - slot;
  return row % context < back ? pad : ids[row - back];
}

typedef struct {
  arb_host *host;
  const int32_t *ids;
  const arb_stack *w;
  const uint16_t *table; /* [k][n] bf16 columns */
  uint16_t *out;
  const int8_t *tq;
  int32_t *d; /* [grains][n][k] */
  int64_t context, rows_per_grain;
  int slots, slot;
  int32_t pad;
} embed_args;

static void lookup_task(void *arg, int64_t begin, int64_t end, int worker) {
  (void)worker;
  const embed_args *a = arg;
  const int64_t n = a->w->n;
  for (int64_t row = begin; row < end; row++)
    for (int slot = 0; slot < a->slots; slot++)
      memcpy(a->out + (row * a->slots + slot) * n, a->table + slot_id(a->ids, row, a->context, a->slots, slot, a->pad) * n,
             (size_t)n * sizeof *a->table);
}

static arb_status embed_forward(arb_backend *be, const arb_rows *r, int64_t context, const int32_t *ids, int slots, int32_t pad,
                                const arb_stack *w, uint16_t *out) {
  arb_host *host = arb_host_of(be);
  void *work;
  ARB_TRY(arb_host_work(host, (size_t)(w->n * w->k) * sizeof(uint16_t), &work));
  uint16_t *table = work;
  for (int64_t c = 0; c < w->n; c++) {
    const float gain = arb_pow2_eighths(w->e[c]);
    for (int64_t id = 0; id < w->k; id++)
      table[id * w->n + c] = arb_bf16_of_f32((float)arb_code_trit(w->code[c * w->k + id]) * gain);
  }
  embed_args a = {.host = host, .ids = ids, .w = w, .table = table, .out = out, .context = context, .slots = slots, .pad = pad};
  arb_host_run(host, ARB_HOST_EMBED_FORWARD, arb_rows_count(r), 256, lookup_task, &a);
  return ARB_OK;
}

/* Channels [begin, end) of every grain: a private sum by id, then transposed out. */
static void embed_dw_task(void *arg, int64_t begin, int64_t end, int worker) {
  (void)worker;
  const embed_args *a = arg;
  const int64_t n = a->w->n, k = a->w->k;
  const int64_t grain = begin / n, c0 = begin % n, c1 = c0 + (end - begin);
  int32_t *d = a->d + grain * n * k;
  for (int64_t c = c0; c < c1; c++) memset(d + c * k, 0, (size_t)k * sizeof *d);
  for (int64_t i = 0; i < a->rows_per_grain; i++) {
    const int64_t row = grain * a->rows_per_grain + i;
    const int32_t id = slot_id(a->ids, row, a->context, a->slots, a->slot, a->pad);
    for (int64_t c = c0; c < c1; c++) d[c * k + id] += a->tq[row * n + c];
  }
}

static arb_status embed_dw(arb_backend *be, const arb_rows *r, int64_t context, const int32_t *ids, int slots, int slot,
                           int32_t pad, const int8_t *hq, const float *sh, const arb_stack *w, int32_t *cexp, int32_t *d) {
  arb_host *host = arb_host_of(be);
  int8_t *tq;
  /* a chunk must not cross grains: n is a multiple of 8 */
  ARB_REQUIRE(w->n % 8 == 0, ARB_ERR_ARG, "embed_dw: %lld channels, a multiple of 8 expected", (long long)w->n);
  ARB_TRY(arb_host_rescale(be, r, w, slot, hq, sh, NULL, cexp, &tq));
  embed_args a = {.host = host,
                  .ids = ids,
                  .w = w,
                  .tq = tq,
                  .d = d,
                  .context = context,
                  .slots = slots,
                  .slot = slot,
                  .pad = pad,
                  .rows_per_grain = r->rows_per_grain};
  arb_host_run(host, ARB_HOST_EMBED_DW, w->n * r->grains, 8, embed_dw_task, &a);
  return ARB_OK;
}

typedef struct {
  arb_host *host;
  const arb_stack *w;
  const int32_t *d, *cexp;
  int32_t grains;
  int vmax;
  arb_row_env env;
} join_args;

/* Rows of the stack; every grain of the batch votes in turn. */
static void join_task(void *arg, int64_t begin, int64_t end, int worker) {
  const join_args *a = arg;
  const arb_stack *w = a->w;
  arb_row_scratch *tmp = &a->host->scratch[worker];
  const arb_philox_key key = arb_philox_key_of(a->env.seed, ARB_DRAW_VOTE);
  for (int64_t row = begin; row < end; row++) {
    for (int32_t g = 0; g < a->grains; g++) {
      int cmax = ARB_NO_SCALE;
      for (int u = 0; u < w->uses; u++) {
        const int c = a->cexp[u * a->grains + g];
        if (c != ARB_NO_SCALE && (cmax == ARB_NO_SCALE || c > cmax)) cmax = c;
      }
      if (cmax == ARB_NO_SCALE) continue;
      const float scale = arb_vote_scale(cmax - 24 - w->p[row]);
      float *x = tmp->a;
      for (int64_t k = 0; k < w->k; k++) {
        int64_t sum = 0;
        for (int u = 0; u < w->uses; u++) {
          const int c = a->cexp[u * a->grains + g];
          if (c == ARB_NO_SCALE || cmax - c > 55) continue;
          const int64_t d = a->d[(((int64_t)u * a->grains + g) * w->n + row) * w->k + k];
          sum += (d * ((int64_t)1 << 24)) >> (cmax - c);
        }
        x[k] = (float)sum * scale;
      }
      const uint32_t grain = (uint32_t)(a->env.rows.first + g * a->env.rows.stride);
      a->env.draws(key, w->id, a->env.step, grain, row * arb_pad8(w->k), w->k, tmp->draws);
      a->host->rows->vote_row(x, w->k, a->vmax, tmp->draws, w->votes + arb_votes_at(w->groups, row, w->k));
    }
  }
}

static arb_status vote_join(arb_backend *be, const arb_rows *r, const int32_t *d, const int32_t *cexp, int vmax,
                            const arb_stack *w) {
  arb_host *host = arb_host_of(be);
  ARB_TRY(arb_host_reserve(host, w->k));
  join_args a = {.host = host, .w = w, .d = d, .cexp = cexp, .grains = r->grains, .vmax = vmax, .env = arb_host_env(be, r)};
  arb_host_run(host, ARB_HOST_VOTE_JOIN, w->n, 16, join_task, &a);
  return ARB_OK;
}

void arb_host_fill_embedding(arb_ops *ops) {
  ops->embed_forward = embed_forward;
  ops->embed_dw = embed_dw;
  ops->vote_join = vote_join;
}
