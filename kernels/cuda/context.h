/* What the files of the CUDA backend share on the host side: the context, launches, work memory. Private to kernels/cuda. */
#ifndef ARB_KERNELS_CUDA_CONTEXT_H
#define ARB_KERNELS_CUDA_CONTEXT_H

#include "kernels/backend.h"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/gemm.h"

#define ARB_CUDA_PROFILE_KERNELS 64
#define ARB_CUDA_PARTIALS 1024 /* blocks of a digest */
#define ARB_CUDA_STAGES 4      /* uploads on their way */
#define ARB_CUDA_STAGE_MOST ((size_t)4 << 20)

typedef struct {
  int device;
  cudaStream_t stream;
  arb_cuda_step *step;    /* device */
  int *nonfinite;         /* device */
  arb_u128 *partial;      /* device, [ARB_CUDA_PARTIALS] */
  arb_u128 *host_partial; /* pinned */
  int *host_flag;         /* pinned */
  int64_t *posted;        /* pinned, [ARB_POST_WORDS + 1]; the last is the non-finite flag */
  int posted_words;
  cudaEvent_t post;
  struct {
    void *host; /* pinned; grows to ARB_CUDA_STAGE_MOST at most */
    size_t bytes;
    cudaEvent_t sent;
  } stage[ARB_CUDA_STAGES]; /* what upload was given, until it is on the device */
  int next_stage;
  void *work; /* device work memory of slot calls; grows. Its end belongs to the products of dW (side) */
  size_t work_bytes, main_bytes, side_bytes;
  cudaStream_t side; /* in a recorded sequence: products of dW, beside what follows on `stream` */
  cudaEvent_t turned, voted;
  int recording, side_busy;
  const int8_t *side_rows; /* gradient rows that `side` may still read; NULL: it has a copy */
  int early, chained;      /* early launches (chain.cuh): the device has them; what was queued last on `stream` is a kernel */
  int multiprocessors;
  size_t shared_block, shared_multiprocessor; /* bytes of shared memory: most of a block, all of a multiprocessor */
  int sync_launches, products_plain;
  int profile;
  cudaEvent_t start, stop;
  int profile_count;
  struct {
    const char *name;
    int64_t calls;
    double ms;
  } profiled[ARB_CUDA_PROFILE_KERNELS];
  char name[64];
} arb_cuda;

static inline arb_cuda *arb_cuda_of(arb_backend *be) { return (arb_cuda *)be->ctx; }

/* Device work memory for the inside of one slot call, content unspecified. */
ARB_NODISCARD arb_status arb_cuda_work(arb_cuda *c, size_t bytes, void **out);
/* The same for linear_dw_vote, whose products may still run when the slots after it do. */
ARB_NODISCARD arb_status arb_cuda_side_work(arb_cuda *c, size_t bytes, void **out);
/* From here on `stream` waits for the votes that products on `side` cast. Slots that read votes or p, or change p, call it. */
ARB_NODISCARD arb_status arb_cuda_join_side(arb_cuda *c);
/* Slots that write gradient rows call it: `stream` waits if `side` still reads what these rows replace. */
static inline arb_status arb_cuda_before_rows(arb_cuda *c, const int8_t *hq) {
  return hq && hq == c->side_rows ? arb_cuda_join_side(c) : ARB_OK;
}
/* Before and after a launch; ARB_CUDA_LAUNCH calls them. */
void arb_cuda_launch_begin(arb_cuda *c);
ARB_NODISCARD arb_status arb_cuda_launch_end(arb_cuda *c, const char *kernel, const char *file, int line);
/* Lets a kernel take more dynamic shared memory than the default 48 KiB; fails when a block cannot have that much. */
ARB_NODISCARD arb_status arb_cuda_allow_shared(arb_cuda *c, const void *kernel, size_t bytes, const char *name);

static inline int arb_cuda_chained(const arb_cuda *c) { return c->early && c->chained; }

/* kernel: a __global__ function or a pointer to one. ARB_CUDA_CHAIN: one that calls arb_previous_done. */
#define ARB_CUDA_CHAIN(c, name, kernel, grid, block, shared, ...)                                                             \
  do {                                                                                                                        \
    arb_cuda_launch_begin(c);                                                                                                 \
    (void)arb_cuda_chain((kernel), (c)->stream, dim3(grid), dim3(block), (shared), 1, arb_cuda_chained(c) != 0, __VA_ARGS__); \
    ARB_TRY(arb_cuda_launch_end((c), (name), __FILE__, __LINE__));                                                            \
  } while (0)
#define ARB_CUDA_LAUNCH(c, name, kernel, grid, block, shared, ...)     \
  do {                                                                 \
    arb_cuda_launch_begin(c);                                          \
    (kernel)<<<(grid), (block), (shared), (c)->stream>>>(__VA_ARGS__); \
    ARB_TRY(arb_cuda_launch_end((c), (name), __FILE__, __LINE__));     \
  } while (0)

static inline int64_t arb_cuda_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* Blocks for `items`, `per_block` of them in each at a time, at most `resident` blocks a multiprocessor. */
static inline unsigned arb_cuda_grid(const arb_cuda *c, int64_t items, int64_t per_block, int64_t resident) {
  const int64_t want = arb_cuda_ceil(items, per_block), most = c->multiprocessors * resident;
  const int64_t grid = want < most ? want : most;
  return (unsigned)(grid > 0 ? grid : 1);
}
static inline int arb_cuda_aligned(const void *p, size_t bytes) { return (uintptr_t)p % bytes == 0; }

/* Each fills its file's slots. */
void arb_cuda_fill_random(arb_ops *ops);
void arb_cuda_fill_norms(arb_ops *ops);
void arb_cuda_fill_features(arb_ops *ops);
void arb_cuda_fill_gates(arb_ops *ops);
void arb_cuda_fill_recurrence(arb_ops *ops);
void arb_cuda_fill_loss(arb_ops *ops);
void arb_cuda_fill_grads(arb_ops *ops);
void arb_cuda_fill_embedding(arb_ops *ops);
void arb_cuda_fill_products(arb_ops *ops);
void arb_cuda_fill_update(arb_ops *ops);
void arb_cuda_fill_shard(arb_ops *ops);
void arb_cuda_fill_digest(arb_ops *ops);
void arb_cuda_fill_record(arb_ops *ops);

#endif
