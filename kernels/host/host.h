/* What the host backends share: memory, the slots that walk rows, and the glue to a level's row operations. A host backend is
 * this context with a row table, a generator of draws, three products and an executor filled in (kernels/ref/ref.c,
 * kernels/cpu/cpu.c). Private to kernels/. */
#ifndef ARB_KERNELS_HOST_HOST_H
#define ARB_KERNELS_HOST_HOST_H

#include "kernels/rows/rows.h"

typedef struct arb_host arb_host;

/* What a host backend times: one entry an operation of the table. */
typedef enum {
  ARB_HOST_FORWARD,
  ARB_HOST_DX,
  ARB_HOST_DW_VOTE, /* the products */
  ARB_HOST_EMBED_FORWARD,
  ARB_HOST_ADD_NORM_QUANT,
  ARB_HOST_WINDOW_NORM_QUANT,
  ARB_HOST_GATHER_ROWS,
  ARB_HOST_MLGRU_FORWARD,
  ARB_HOST_GATE_NORM_QUANT,
  ARB_HOST_GLU_NORM_QUANT,
  ARB_HOST_XENT,
  ARB_HOST_GRAD_QUANT,
  ARB_HOST_RESCALE,
  ARB_HOST_EMBED_DW,
  ARB_HOST_VOTE_JOIN,
  ARB_HOST_NORM_BACKWARD,
  ARB_HOST_INPUT_NORM_BACKWARD,
  ARB_HOST_GATE_NORM_BACKWARD,
  ARB_HOST_MLGRU_BACKWARD,
  ARB_HOST_GLU_NORM_BACKWARD,
  ARB_HOST_VOTE_ROWS,
  ARB_HOST_VOTE_COLUMNS,
  ARB_HOST_UPDATE,
  ARB_HOST_INIT,
  ARB_HOST_PACK_TRITS,
  ARB_HOST_UNPACK_TRITS,
  ARB_HOST__COUNT
} arb_host_op;

/* Work on items [begin, end) as `worker` (< host->workers). */
typedef void (*arb_host_task)(void *arg, int64_t begin, int64_t end, int worker);

/* One grain's dW product: rows of tq [rows][n] and q [rows][k]; votes of w at 2^cexp. */
typedef struct {
  const arb_stack *w;
  const int8_t *tq, *q;
  int64_t rows;
  int32_t cexp; /* not ARB_NO_SCALE */
  int vmax;
  uint32_t grain;
} arb_host_dw;

struct arb_host {
  const arb_row_table *rows;
  arb_draws_fn draws;
  int workers;
  /* Calls task over [0, total) in chunks of at most `chunk`, on any of the workers; returns when all are done. */
  void (*run)(arb_host *host, int64_t total, int64_t chunk, arb_host_task task, void *arg);
  arb_status (*product_forward)(arb_backend *be, int64_t m, const int8_t *q, const float *s, const arb_stack *w, uint16_t *y);
  arb_status (*product_dx)(arb_backend *be, int64_t m, const int8_t *hq, const float *sh, const arb_stack *w, uint16_t *dx);
  arb_status (*product_dw)(arb_backend *be, const arb_host_dw *d);
  void (*close)(arb_host *host); /* of the backend's own parts; may be NULL */
  void *own;                     /* the backend's own context */
  /* kept by host.c */
  arb_row_scratch *scratch;
  int64_t scratch_width;
  void *work;
  size_t work_bytes;
  int64_t posted[ARB_POST_WORDS + 1]; /* the last is the non-finite flag */
  int posted_words;
  double seconds[ARB_HOST__COUNT]; /* wall time in each operation */
  int64_t calls[ARB_HOST__COUNT];
};

/* Fills every slot of be->ops for this context; be->ctx = host. */
void arb_host_fill(arb_backend *be, arb_host *host);
/* Grows the shared work buffer (not zeroed); for tables and packed panels that live inside one slot call. */
ARB_NODISCARD arb_status arb_host_work(arb_host *host, size_t bytes, void **out);
/* Bytes of one worker's scratch rows of `width` elements. */
size_t arb_host_scratch_bytes(int64_t width);
/* What one slot call takes of the shared work buffer (kernels/plan.c); behind it lie rescaled rows. */
size_t arb_host_slot_bytes(const arb_backend *be, int64_t rows, int64_t rows_per_grain, const arb_stack *w);
/* Ratios and int8 rows of a rescaled gradient. */
static inline size_t arb_host_rescale_bytes(int64_t rows, int64_t n) { return (size_t)rows * (sizeof(int32_t) + (size_t)n); }
/* A gradient's rows brought to one scale a grain (kernels/common/scale.h): weight = sh * s (s NULL: 1). cexp[grains] is
 * written, *tq [m][n] lives until the next call. */
ARB_NODISCARD arb_status arb_host_rescale(arb_backend *be, const arb_rows *r, const arb_stack *w, int use, const int8_t *hq,
                                          const float *sh, const float *s, int32_t *cexp, int8_t **tq);
/* Grows every worker's scratch rows to `width` elements. */
ARB_NODISCARD arb_status arb_host_reserve(arb_host *host, int64_t width);
/* host->run, timed as `op`. */
void arb_host_run(arb_host *host, arb_host_op op, int64_t total, int64_t chunk, arb_host_task task, void *arg);
/* Monotonic seconds; arb_host_count adds the time since `start` to an operation. */
double arb_host_clock(void);
void arb_host_count(arb_host *host, arb_host_op op, double start);
void *arb_host_aligned_alloc(size_t bytes);
/* Slots that need more than a walk over rows: embedding.c, update.c, shard.c of this folder. */
void arb_host_fill_embedding(arb_ops *ops);
void arb_host_fill_update(arb_ops *ops);
void arb_host_fill_shard(arb_ops *ops);
arb_row_env arb_host_env(arb_backend *be, const arb_rows *r);
static inline arb_host *arb_host_of(arb_backend *be) { return (arb_host *)be->ctx; }

#endif
