/* The backend table: every operation of a training step, on the memory of one device.
 *
 * kernels/ref is the definition (plain C, one thread); kernels/cpu overrides its slots with SIMD and threads; kernels/cuda
 * fills all of them. All backends give the same bits for the same arguments (docs/arithmetic.md). Slots may be asynchronous:
 * results are visible to the host after `sync` or `download`. No slot allocates.
 *
 * Shapes are written [rows][columns], row-major, columns contiguous. m = rows of activations, n = outputs, k = inputs.
 * "ld" is a row stride in elements. Pointers are in the backend's memory unless "host" is said.
 * Kinds of stored activations: (q, s) = int8 row with an fp32 row scale, x ~ q * s; bf16 = uint16_t; fp32. */
#ifndef ARB_KERNELS_BACKEND_H
#define ARB_KERNELS_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/common/mix128.h"
#include "kernels/common/philox.h"
#include "kernels/common/votes.h"
#include "kernels/dense/device.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct arb_backend arb_backend;

#define ARB_MAX_MEMBERS 4  /* matrices in one stack */
#define ARB_MAX_GRAINS 256 /* in one batch */
#define ARB_POST_WORDS 4

/* The rows of a batch of grains: local grain i holds rows [i * rows_per_grain, ...) and is grain first + i * stride of the
 * step. m = grains * rows_per_grain. The random numbers of a row depend on its grain and its position in it, never on where
 * it lies in memory. */
typedef struct {
  int64_t rows_per_grain;
  int32_t grains; /* local grains in this batch */
  int32_t first, stride;
} arb_rows;
static inline int64_t arb_rows_count(const arb_rows *r) { return r->rows_per_grain * r->grains; }

/* A stack: matrices that share one input, rows of member i at [begin[i], begin[i + 1]). W[n][k] = 2^(e[n]/8) * T[n][k].
 * A plain matrix is a stack of one member. Pointers borrowed.
 * It may be a slice, some rows of a larger stack: init_stack, vote_rows, vote_columns and update take slices, of no row too,
 * and give each row the numbers that it has in the whole. c and m belong to whole members and are the same in every slice. */
typedef struct {
  uint32_t id;  /* tensor id: the random numbers' and the digest's name for it */
  int32_t uses; /* how often a grain multiplies by it */
  int32_t members;
  int64_t begin[ARB_MAX_MEMBERS + 1];
  int64_t n, k;                   /* n = begin[members] */
  uint8_t *code;                  /* [n][k] state bytes (kernels/common/trit.h) */
  int8_t *e;                      /* [n] row exponents, eighths of an octave */
  int8_t *p;                      /* [n] exponents of the vote unit */
  int32_t *r;                     /* [n] log2 mean square of rows, Q15.16 */
  int32_t *c;                     /* [members][k] the same of columns */
  int32_t *m;                     /* [members] the same of whole matrices */
  int8_t *votes;                  /* [n][k] this step's summed votes, perhaps with gaps: */
  arb_vote_groups groups;         /* linear_dw_vote and vote_join heed them; other slots want rows that are together */
  int64_t first;                  /* a slice: its row 0 is this row of the whole stack */
  int64_t whole[ARB_MAX_MEMBERS]; /* a slice: rows of the whole members; 0: the rows here are all */
} arb_stack;
static inline int64_t arb_stack_member_rows(const arb_stack *w, int member) {
  return w->whole[member] ? w->whole[member] : w->begin[member + 1] - w->begin[member];
}
/* Rows [first, first + count) of a whole stack. Pointers stay those of the whole: the caller sets them. */
static inline arb_stack arb_stack_slice(const arb_stack *w, int64_t first, int64_t count) {
  arb_stack s = *w;
  s.n = count;
  s.first = first;
  for (int m = 0; m < w->members; m++) s.whole[m] = w->begin[m + 1] - w->begin[m];
  for (int m = 0; m <= w->members; m++) {
    const int64_t at = w->begin[m] - first;
    s.begin[m] = at < 0 ? 0 : at > count ? count : at;
  }
  return s;
}

/* Work memory of one stack's update. Sums over rows are integers: with sharded state they are reduced over ranks between
 * the slots. */
typedef struct {
  uint64_t *s;    /* [n] sum of squared votes of a row */
  int32_t *top;   /* [members] largest p over rows with s > 0, or INT32_MIN */
  int32_t *low;   /* [members] smallest, or INT32_MAX */
  uint64_t *csum; /* [members][k] */
  uint64_t *msum; /* [members] */
  float *factors; /* [arb_update_factors(w)] for update_many; NULL elsewhere */
} arb_update_work;
/* Factors of columns and rows, and the new M of each member. */
static inline int64_t arb_update_factors(const arb_stack *w) { return (w->members * w->k + 63) / 64 * 64 + w->n + w->members; }

typedef struct {
  const char *name; /* "ref", "cpu", ... */

  /* ---- memory and control (host side) ---- */
  arb_status (*alloc)(arb_backend *be, size_t bytes, void **out); /* aligned to ARB_ARENA_ALIGN, content unspecified */
  void (*free)(arb_backend *be, void *ptr);
  arb_status (*upload)(arb_backend *be, void *dst, const void *host, size_t bytes);   /* host may change once it returns */
  arb_status (*download)(arb_backend *be, void *host, const void *src, size_t bytes); /* waits for earlier slots */
  arb_status (*fill)(arb_backend *be, void *dst, int byte, size_t bytes);
  arb_status (*sync)(arb_backend *be);
  /* Sets what the random numbers and the update of a step depend on: eta_units = learning rate in accumulator units. */
  arb_status (*begin_step)(arb_backend *be, uint64_t seed, uint32_t step, float eta_units);
  /* Reads and clears the non-finite flag (host int, 0 or 1). Waits. */
  arb_status (*take_nonfinite)(arb_backend *be, int *host_flag);
  /* Words (at most ARB_POST_WORDS, at src) and the flag are read, and the flag is cleared, in turn with the slots: post queues
   * that, collect waits for it, not for what was queued later. One post at a time. */
  arb_status (*post)(arb_backend *be, const int64_t *src, int words);
  arb_status (*collect)(arb_backend *be, int64_t *host, int *host_flag);
  void (*destroy)(arb_backend *be);
  /* Takes the work memory that slot calls need inside themselves, before the first of them: work_bytes and row_width as
   * arb_backend_work_bytes and the widest row say. A later call that needs more still grows it. */
  arb_status (*reserve)(arb_backend *be, size_t work_bytes, int64_t row_width);
  /* Bytes of work memory held now, beside what alloc gave out. */
  size_t (*held)(const arb_backend *be);
  /* Bytes of the memory that alloc takes from: not in use by anyone, and all of it. */
  arb_status (*memory)(arb_backend *be, size_t *available, size_t *total);

  /* ---- random numbers and start ---- */
  /* out[count] = 16-bit draws of elements first .. first + count - 1; first % 8 == 0; out padded to a multiple of 8. */
  arb_status (*draws)(arb_backend *be, arb_draw_purpose purpose, uint32_t tensor, uint32_t grain, int64_t first, int64_t count,
                      uint16_t *out);
  /* Fresh state of a stack: codes from N(0, 0.8) latents, E from the row's non-zero count, p = 0, statistics NONE. */
  arb_status (*init_stack)(arb_backend *be, const arb_stack *w);

  /* ---- forward ---- */
  /* Byte n-grams: out[row][slot * n + c] = W[c][id at position (row - (slots - 1) + slot)] as bf16; positions before the
   * start of the sequence (context rows each) read id `pad`. ids int32 [m]. */
  arb_status (*embed_forward)(arb_backend *be, const arb_rows *r, int64_t context, const int32_t *ids, int slots, int32_t pad,
                              const arb_stack *w, uint16_t *out);
  /* x = x_in + y (fp32 + bf16; either may be NULL); x_out = x unless NULL; (q, s) = quantised RMSNorm(x) with gains 2^(e/8);
   * inv[m] = 1 / rms for the backward pass. x_in, y, x_out, q: [m][width]. */
  arb_status (*add_norm_quant)(arb_backend *be, const arb_rows *r, int64_t width, const float *x_in, const uint16_t *y,
                               float *x_out, const int8_t *e, int8_t *q, float *s, float *inv);
  /* Sliding windows over frozen features: the features of a sequence are windows + span - 1 rows (q_in, s_in) of `width`, and
   * row i of its `windows` rows is features i .. i + span - 1 side by side, x = (float)q_in * s_in; (q, s) = quantised
   * RMSNorm(x) with gains 2^(e/8). r counts windows; q: [m][span * width], e: [span * width]. Features have no gradient. */
  arb_status (*window_norm_quant)(arb_backend *be, const arb_rows *r, int64_t windows, int64_t span, int64_t width,
                                  const int8_t *q_in, const float *s_in, const int8_t *e, int8_t *q, float *s);
  /* out[i] = in[index[i]], or zeros where index[i] < 0, i < count; rows of row_bytes, an even number. */
  arb_status (*gather_rows)(arb_backend *be, int64_t count, int64_t row_bytes, const void *in, const int32_t *index, void *out);
  /* y[m][n] = bf16(((float)(q . T) * s) * 2^(e/8)). */
  arb_status (*linear_forward)(arb_backend *be, const arb_rows *r, const int8_t *q, const float *s, const arb_stack *w,
                               uint16_t *y);
  /* h[t] = f h[t-1] + (1-f) c, f = sigmoid(zf + bias), c = silu(zc), sequences of `context` rows, h[-1] = 0. */
  arb_status (*mlgru_forward)(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                              const uint16_t *zc, int64_t ldz, const float *bias, float *h);
  /* (q, s) = quantised norm(h) * sigmoid(zg). */
  arb_status (*gate_norm_quant)(arb_backend *be, const arb_rows *r, int64_t width, const float *h, const uint16_t *zg,
                                int64_t ldz, const int8_t *e, int8_t *q, float *s, float *inv);
  /* (q, s) = quantised norm(silu(u) * v). */
  arb_status (*glu_norm_quant)(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *u, const uint16_t *v,
                               int64_t ldz, const int8_t *e, int8_t *q, float *s, float *inv);
  /* Softmax cross-entropy of bf16 logits [m][n] against targets[m] (negative: no target), n = w->n. Adds rint(loss * 2^20) and
   * 1 per target to loss[0] and count[0]. Unless hq is NULL, the gradient (p - onehot) * weight (0 without a target) leaves as
   * grad_quant's rows (hq, sh) of w, the stack that made the logits. */
  arb_status (*xent)(arb_backend *be, const arb_rows *r, const uint16_t *logits, const int32_t *targets, float weight,
                     const arb_stack *w, int8_t *hq, float *sh, int64_t *loss, int64_t *count);

  /* ---- backward ---- */
  /* A linear's output gradient g as int8 rows: h = g * 2^(e/8) over the whole stack, hq[m][n] = SR(h * 127 / max |h|),
   * sh[m] = max |h| / 127. The slots below that give (hq, sh) do the same with g in fp32, before any rounding. g is fp32 or
   * bf16 (the other NULL), with row stride ldg. */
  arb_status (*grad_quant)(arb_backend *be, const arb_rows *r, const float *g, const uint16_t *g_bf16, int64_t ldg,
                           const arb_stack *w, int use, int8_t *hq, float *sh);
  /* dx[m][k] = bf16((float)(hq . T') * sh). */
  arb_status (*linear_dx)(arb_backend *be, const arb_rows *r, const int8_t *hq, const float *sh, const arb_stack *w,
                          uint16_t *dx);
  /* D = tq' . q per grain, tq = rows of hq brought to one scale 2^c a grain (kernels/common/scale.h), and w->votes += the
   * grain's votes in [-vmax, vmax]. (q, s): the stored input. w->uses = 1. */
  arb_status (*linear_dw_vote)(arb_backend *be, const arb_rows *r, const int8_t *hq, const float *sh, const int8_t *q,
                               const float *s, int vmax, const arb_stack *w);
  /* d[grains][n][k] = sum of tq rows by the id that `slot` of embed_forward read, cexp[grains] = their c; use = slot, s = 1. */
  arb_status (*embed_dw)(arb_backend *be, const arb_rows *r, int64_t context, const int32_t *ids, int slots, int slot,
                         int32_t pad, const int8_t *hq, const float *sh, const arb_stack *w, int32_t *cexp, int32_t *d);
  /* Joins the products of several uses, d[uses][grains][n][k] at cexp[uses][grains], into one vote a grain. */
  arb_status (*vote_join)(arb_backend *be, const arb_rows *r, const int32_t *d, const int32_t *cexp, int vmax,
                          const arb_stack *w);
  /* Backward of RMSNorm at x [m][width]: g = (accumulate ? g : 0) + d norm(x)' dy, all of it fp32 but dy; then, unless `below`
   * is NULL, (hq, sh) = the new g as grad_quant's rows of below, a stack with n = width, use 0. */
  arb_status (*norm_backward)(arb_backend *be, const arb_rows *r, int64_t width, const float *x, const float *inv,
                              const int8_t *e, const uint16_t *dy, int accumulate, float *g, const arb_stack *below, int8_t *hq,
                              float *sh);
  /* The same at the model's input: x bf16, g = bf16(d norm(x)' dy). */
  arb_status (*input_norm_backward)(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *x, const float *inv,
                                    const int8_t *e, const uint16_t *dy, uint16_t *g);
  /* Backward of gate_norm_quant: dh [m][width] and dzg (row stride lddz), rounded to bf16. */
  arb_status (*gate_norm_backward)(arb_backend *be, const arb_rows *r, int64_t width, const float *h, const uint16_t *zg,
                                   int64_t ldz, const float *inv, const int8_t *e, const uint16_t *dy, uint16_t *dh,
                                   uint16_t *dzg, int64_t lddz);
  /* Backward of mlgru_forward from dh: dzf, dzc with row stride lddz, rounded to bf16. */
  arb_status (*mlgru_backward)(arb_backend *be, const arb_rows *r, int64_t context, int64_t width, const uint16_t *zf,
                               const uint16_t *zc, int64_t ldz, const float *bias, const float *h, const uint16_t *dh,
                               uint16_t *dzf, uint16_t *dzc, int64_t lddz);
  /* Backward of glu_norm_quant: (hq, sh) of the stack w that made [u, v], n = 2 width. */
  arb_status (*glu_norm_backward)(arb_backend *be, const arb_rows *r, int64_t width, const uint16_t *u, const uint16_t *v,
                                  int64_t ldz, const float *inv, const int8_t *e, const uint16_t *dy, const arb_stack *w,
                                  int8_t *hq, float *sh);

  /* ---- update (after the votes are summed over ranks) ---- */
  /* work->s, top, low. */
  arb_status (*vote_rows)(arb_backend *be, const arb_stack *w, const arb_update_work *work);
  /* work->csum, msum, given s and top. */
  arb_status (*vote_columns)(arb_backend *be, const arb_stack *w, const arb_update_work *work);
  /* New R, C, M, then every code, then p. grains = number of grains that used the tensor (0: left untouched); flips[0] gets
   * the number of changed trits added, flips[1] the number of saturated accumulators seen. Nothing is changed while the
   * non-finite flag is up. */
  arb_status (*update)(arb_backend *be, const arb_stack *w, const arb_update_work *work, int64_t grains, int vmax,
                       int64_t *flips);

  /* ---- sharded state: what ranks send each other of their rows ----
   * Rows in blocks: row r lies at (r / per_block) * stride + (r % per_block) * (bytes a row), as an all-gather leaves them. */
  /* packed[rows][ceil(k / 5)] = trits of code[rows][k], 5 a byte (kernels/common/trit.h). */
  arb_status (*pack_trits)(arb_backend *be, const uint8_t *code, int64_t rows, int64_t k, uint8_t *packed);
  /* code[n][k] = state bytes with these trits and A = 0, from packed rows in blocks. */
  arb_status (*unpack_trits)(arb_backend *be, const uint8_t *packed, int64_t stride, int64_t per_block, int64_t n, int64_t k,
                             uint8_t *code);
  /* out[n][row_bytes] = rows in blocks. */
  arb_status (*join_rows)(arb_backend *be, const void *in, int64_t stride, int64_t per_block, int64_t n, int64_t row_bytes,
                          void *out);

  /* ---- recorded sequences (optional: NULL where calls are cheap anyway) ---- */
  /* Between record_begin and record_end slots are noted, not run; replay runs them again with the same arguments, and with what
   * begin_step and upload have since written. Run the same calls once before recording: nothing may allocate while recording.
   * upload, download, sync, take_nonfinite, post, collect and digest cannot be recorded. record_end after an error discards:
   * *sequence NULL.
   */
  arb_status (*record_begin)(arb_backend *be);
  arb_status (*record_end)(arb_backend *be, void **sequence);
  arb_status (*replay)(arb_backend *be, void *sequence);
  void (*sequence_free)(arb_backend *be, void *sequence);

  /* ---- many updates (optional: NULL where a call costs nothing) ---- */
  /* vote_rows, vote_columns and update for `count` stacks, each with its own work and grains. */
  arb_status (*update_many)(arb_backend *be, const arb_stack *const *w, const arb_update_work *work, const int64_t *grains,
                            int count, int vmax, int64_t *flips);

  /* ---- measurement (optional: NULL where a backend does not measure) ---- */
  /* Time and calls of operation `index` since the last reset; ARB_ERR_ARG past the last one. reset: start over, index ignored.
   */
  arb_status (*profile)(arb_backend *be, int index, int reset, const char **name, double *seconds, int64_t *calls);

  /* ---- identity ---- */
  /* host sum of mix128 over rows of row_bytes each (words of 8 bytes, a row zero-padded), rows numbered from first_row. */
  arb_status (*digest)(arb_backend *be, uint64_t array, const void *data, int64_t rows, int64_t row_bytes, int64_t first_row,
                       arb_u128 *host_sum);
} arb_ops;

typedef enum { ARB_BACKEND_REF, ARB_BACKEND_CPU, ARB_BACKEND_CUDA } arb_backend_kind;

struct arb_backend {
  arb_ops ops;
  arb_backend_kind kind;
  int threads;              /* host threads that share an operation */
  int on_device;            /* memory is a GPU's: batches should be large, and the host cannot touch it */
  void *stream;             /* on_device: the native stream on which slots run, for transports of device memory */
  arb_dense_place encoders; /* where frozen encoders of a run on this backend compute */
  uint64_t seed;
  uint32_t step;
  float eta_units;
  int nonfinite;              /* host backends only */
  int *flag;                  /* the non-finite flag, 0 or 1, in the backend's memory: ranks that count one step share it */
  size_t allocated;           /* bytes that alloc has given out since the start */
  const char *where;          /* for messages: the module whose slots run; borrowed, may be NULL */
  struct arb_lockstep *watch; /* kernels/lockstep, or NULL */
  void *ctx;
};

/* ref: one thread, the definition. */
ARB_NODISCARD arb_status arb_backend_ref_create(arb_backend **out);
/* cpu: ref's table with every slot overridden that the chip and the build allow. threads >= 1. isa: "auto", "scalar", "avx2",
 * "avx512": the highest level to use; a level that the chip lacks is ARB_ERR_UNSUPPORTED. */
ARB_NODISCARD arb_status arb_backend_cpu_create(int threads, const char *isa, arb_backend **out);
static inline int arb_backend_threads(const arb_backend *be) { return be->threads ? be->threads : 1; }
/* Work memory of the slots, known without a device (kernels/plan.c): bytes inside a call on this stack with batches of `rows`
 * rows in grains of rows_per_grain, and bytes of row scratch for rows of `width` elements. Only kind and threads of be are
 * read, so a stand-in will do. */
size_t arb_backend_work_bytes(const arb_backend *be, int64_t rows, int64_t rows_per_grain, const arb_stack *w);
size_t arb_backend_scratch_bytes(const arb_backend *be, int64_t width);
/* Bytes that linear_dw_vote holds beside the work memory of other calls, which may run at the same time. reserve wants the
 * largest of both, added. */
size_t arb_backend_side_bytes(const arb_backend *be, int64_t rows, int64_t rows_per_grain, const arb_stack *w);
/* A stand-in for planning: kind, threads and on_device are set, `free` does nothing, every other slot is NULL. */
void arb_backend_stand_in(arb_backend *out, arb_backend_kind kind, int threads);
/* Every slot is filled; names the first hole. */
ARB_NODISCARD arb_status arb_backend_validate(const arb_backend *be);
/* NULL-safe; nulls the handle. */
void arb_backend_destroy(arb_backend **be);

#ifdef __cplusplus
}
#endif
#endif
