#include "dist/mpi/mpi.h"

#include <mpi.h>

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dist/board_impl.h"

typedef struct {
  MPI_Comm world, node; /* ours: errors on them are returned, and nobody else's messages travel on them */
  MPI_Win board;        /* the node's slots, owned by its rank 0 */
  int64_t chunk;
  bool finalise;
  struct {
    MPI_Win window;
    void *base;
  } shared[ARB_COMM_SHARED]; /* base NULL: free */
} mpi_state;

/* MPI's codes become statuses here and nowhere else. */
static arb_status check(int code, const char *call) {
  if (code == MPI_SUCCESS) return ARB_OK;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) text[0] = '\0';
  return ARB_FAIL(ARB_ERR_COMM, "%s: %s (code %d)", call, text, code);
}

static MPI_Datatype type_of(arb_dtype t) {
  switch (t) {
    case ARB_U8:
      return MPI_UINT8_T;
    case ARB_I8:
      return MPI_INT8_T;
    case ARB_I16:
      return MPI_INT16_T;
    case ARB_I32:
      return MPI_INT32_T;
    case ARB_I64:
      return MPI_INT64_T;
    case ARB_U64:
      return MPI_UINT64_T;
    case ARB_U16:
    case ARB_BF16:
      return MPI_UINT16_T; /* floats are only ever moved: their bits travel */
    default:
      return MPI_UINT32_T;
  }
}

static MPI_Op op_of(arb_redop op) {
  switch (op) {
    case ARB_MAX:
      return MPI_MAX;
    case ARB_MIN:
      return MPI_MIN;
    default:
      return MPI_SUM;
  }
}

/* Elements of the next call: what is left, or a chunk; fits an int. */
static int next_count(const mpi_state *s, int64_t left) { return (int)(left < s->chunk ? left : s->chunk); }

static bool in_one_call(const arb_comm *c, int64_t per_rank) {
  return per_rank <= ((const mpi_state *)c->ctx)->chunk / c->size;
}

static arb_status all_reduce(arb_comm *c, void *buf, int64_t count, arb_dtype type, arb_redop op) {
  const mpi_state *s = c->ctx;
  unsigned char *p = buf;
  for (int64_t i = 0; i < count; i += s->chunk) {
    void *at = p + (size_t)i * arb_dtype_size(type);
    ARB_TRY(
        check(MPI_Allreduce(MPI_IN_PLACE, at, next_count(s, count - i), type_of(type), op_of(op), s->world), "MPI_Allreduce"));
  }
  return ARB_OK;
}

/* MPI leaves the result of an in-place call at the start of the whole buffer. */
static arb_status scatter_in_place(arb_comm *c, unsigned char *own, size_t slice, int per_rank, MPI_Datatype type, MPI_Op op) {
  unsigned char *all = own - (size_t)c->rank * slice;
  ARB_TRY(check(MPI_Reduce_scatter_block(MPI_IN_PLACE, all, per_rank, type, op, ((const mpi_state *)c->ctx)->world),
                "MPI_Reduce_scatter_block"));
  memmove(own, all, slice);
  return ARB_OK;
}

/* A chunk of every rank's slice does not lie in one piece, so past one call each slice is reduced to its owner alone: no
 * copy, no derived types. */
static arb_status reduce_scatter(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type, arb_redop op) {
  const mpi_state *s = c->ctx;
  if (per_rank == 0) return ARB_OK;
  const unsigned char *from = in;
  unsigned char *to = out;
  const size_t width = arb_dtype_size(type), slice = (size_t)per_rank * width;
  const bool in_place = to == from + (size_t)c->rank * slice;
  if (in_one_call(c, per_rank) && in_place) return scatter_in_place(c, to, slice, (int)per_rank, type_of(type), op_of(op));
  if (in_one_call(c, per_rank))
    return check(MPI_Reduce_scatter_block(in, out, (int)per_rank, type_of(type), op_of(op), s->world),
                 "MPI_Reduce_scatter_block");
  for (int owner = 0; owner < c->size; owner++) {
    for (int64_t i = 0; i < per_rank; i += s->chunk) {
      const bool here = in_place && c->rank == owner;
      const void *piece = here ? MPI_IN_PLACE : from + (size_t)(owner * per_rank + i) * width;
      ARB_TRY(check(MPI_Reduce(piece, c->rank == owner ? to + (size_t)i * width : NULL, next_count(s, per_rank - i),
                               type_of(type), op_of(op), owner, s->world),
                    "MPI_Reduce"));
    }
  }
  return ARB_OK;
}

static arb_status broadcast(arb_comm *c, void *buf, int64_t count, arb_dtype type, int root) {
  const mpi_state *s = c->ctx;
  unsigned char *p = buf;
  for (int64_t i = 0; i < count; i += s->chunk)
    ARB_TRY(check(MPI_Bcast(p + (size_t)i * arb_dtype_size(type), next_count(s, count - i), type_of(type), root, s->world),
                  "MPI_Bcast"));
  return ARB_OK;
}

/* Past one call every slice is broadcast by its owner: see reduce_scatter. */
static arb_status all_gather(arb_comm *c, const void *in, void *out, int64_t per_rank, arb_dtype type) {
  const mpi_state *s = c->ctx;
  if (per_rank == 0) return ARB_OK;
  if (in_one_call(c, per_rank))
    return check(MPI_Allgather(in, (int)per_rank, type_of(type), out, (int)per_rank, type_of(type), s->world), "MPI_Allgather");
  const size_t slice = (size_t)per_rank * arb_dtype_size(type);
  unsigned char *to = out;
  memcpy(to + (size_t)c->rank * slice, in, slice);
  for (int owner = 0; owner < c->size; owner++) ARB_TRY(broadcast(c, to + (size_t)owner * slice, per_rank, type, owner));
  return ARB_OK;
}

static arb_status barrier(arb_comm *c) {
  const mpi_state *s = c->ctx;
  return check(MPI_Barrier(s->world), "MPI_Barrier");
}

static arb_status bare_sum(arb_comm *c, void *buf, int64_t bytes, int scatter) {
  const mpi_state *s = c->ctx;
  ARB_REQUIRE(bytes <= INT_MAX, ARB_ERR_UNSUPPORTED, "one call of MPI takes %d bytes at most, not %lld", INT_MAX,
              (long long)bytes);
  if (!scatter) return check(MPI_Allreduce(MPI_IN_PLACE, buf, (int)bytes, MPI_INT8_T, MPI_SUM, s->world), "MPI_Allreduce");
  return check(MPI_Reduce_scatter_block(MPI_IN_PLACE, buf, (int)(bytes / c->size), MPI_INT8_T, MPI_SUM, s->world),
               "MPI_Reduce_scatter_block");
}

/* The block is a window whose memory the node's rank 0 owns. Mappings start on pages, so every process rounds its address up by
 * the same number of bytes. */
static arb_status share(arb_comm *c, size_t bytes, void **base) {
  mpi_state *s = c->ctx;
  int slot = 0;
  while (slot < ARB_COMM_SHARED && s->shared[slot].base != NULL) slot++;
  ARB_REQUIRE(slot < ARB_COMM_SHARED, ARB_ERR_ARG, "more than %d shared blocks", ARB_COMM_SHARED);
  void *mine = NULL, *first = NULL;
  MPI_Aint length = 0;
  int unit = 0;
  const MPI_Aint wanted = c->local_rank == 0 ? (MPI_Aint)bytes + 64 : 0;
  MPI_Win *window = &s->shared[slot].window;
  ARB_TRY(check(MPI_Win_allocate_shared(wanted, 1, MPI_INFO_NULL, s->node, &mine, window), "MPI_Win_allocate_shared"));
  ARB_TRY(check(MPI_Win_shared_query(*window, 0, &length, &unit, &first), "MPI_Win_shared_query"));
  *base = s->shared[slot].base = (void *)(((uintptr_t)first + 63) / 64 * 64);
  if (c->local_rank == 0) memset(*base, 0, bytes);
  return check(MPI_Barrier(s->node), "MPI_Barrier");
}

static arb_status unshare(arb_comm *c, void *base) {
  mpi_state *s = c->ctx;
  for (int i = 0; i < ARB_COMM_SHARED; i++) {
    if (s->shared[i].base != base) continue;
    s->shared[i].base = NULL;
    return check(MPI_Win_free(&s->shared[i].window), "MPI_Win_free"); /* a barrier of the node is in it */
  }
  return ARB_FAIL(ARB_ERR_ARG, "unshare: not a shared block");
}

static void destroy(arb_comm *c) {
  mpi_state *s = c->ctx;
  for (int i = 0; i < ARB_COMM_SHARED; i++)
    if (s->shared[i].base != NULL)
      MPI_Win_free(&s->shared[i].window); /* blocks nobody gave back, in the same order everywhere */
  if (s->board != MPI_WIN_NULL) MPI_Win_free(&s->board);
  if (s->node != MPI_COMM_NULL) MPI_Comm_free(&s->node);
  if (s->world != MPI_COMM_NULL) MPI_Comm_free(&s->world);
  if (s->finalise) MPI_Finalize();
  free(s);
  free(c);
}

bool arb_mpi_launched(void) {
  /* Open MPI's mpirun; a PMIx server (srun --mpi=pmix, prun); PMI 1 and 2 (MPICH, Intel, Cray); MVAPICH; MPICH's hydra */
  static const char *const names[] = {
      "OMPI_COMM_WORLD_SIZE", "PMIX_RANK",      "PMIX_NAMESPACE", "PMI_RANK", "PMI_SIZE", "PMI_FD",
      "MV2_COMM_WORLD_SIZE",  "MPI_LOCALNRANKS"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (getenv(names[i]) != NULL) return true;
  return false;
}

/* The watchdog's thread may call arb_comm_mpi_abort while another is in a collective, hence MPI_THREAD_MULTIPLE. Less is
 * accepted: abort then leaves MPI out. */
static arb_status initialise(int *argc, char ***argv, bool *ours) {
  int up = 0, down = 0, level = 0;
  ARB_TRY(check(MPI_Initialized(&up), "MPI_Initialized"));
  ARB_TRY(check(MPI_Finalized(&down), "MPI_Finalized"));
  ARB_REQUIRE(!down, ARB_ERR_COMM, "MPI was finalised: a process can join a job only once");
  *ours = up == 0;
  if (up) return ARB_OK;
  return check(MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread");
}

static arb_status open_board(arb_comm *c, mpi_state *s) {
  const size_t align = _Alignof(arb_board_slot);
  const MPI_Aint bytes = c->local_rank == 0 ? (MPI_Aint)(sizeof(arb_board_slot) * (size_t)c->local_size + align) : 0;
  void *mine = NULL, *board = NULL;
  MPI_Aint board_bytes = 0;
  int unit = 0;
  ARB_TRY(check(MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, s->node, &mine, &s->board), "MPI_Win_allocate_shared"));
  ARB_TRY(check(MPI_Win_shared_query(s->board, 0, &board_bytes, &unit, &board), "MPI_Win_shared_query"));
  /* Mappings start on pages, so every process rounds up by the same number of bytes. */
  c->board = (arb_board_slot *)(((uintptr_t)board + align - 1) / align * align);
  arb_board_init(&c->board[c->local_rank], c->rank);
  return check(MPI_Barrier(s->node), "MPI_Barrier");
}

static arb_status join(arb_comm *c, mpi_state *s) {
  /* Errors of calls that have no communicator go to the world's handler. */
  ARB_TRY(check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
  ARB_TRY(check(MPI_Comm_dup(MPI_COMM_WORLD, &s->world), "MPI_Comm_dup"));
  ARB_TRY(check(MPI_Comm_rank(s->world, &c->rank), "MPI_Comm_rank"));
  ARB_TRY(check(MPI_Comm_size(s->world, &c->size), "MPI_Comm_size"));
  ARB_TRY(check(MPI_Comm_split_type(s->world, MPI_COMM_TYPE_SHARED, c->rank, MPI_INFO_NULL, &s->node), "MPI_Comm_split_type"));
  ARB_TRY(check(MPI_Comm_rank(s->node, &c->local_rank), "MPI_Comm_rank"));
  ARB_TRY(check(MPI_Comm_size(s->node, &c->local_size), "MPI_Comm_size"));
  return open_board(c, s);
}

arb_status arb_comm_mpi_create(int *argc, char ***argv, arb_comm **out) {
  static const arb_comm_ops ops = {.name = "mpi",
                                   .all_reduce = all_reduce,
                                   .reduce_scatter = reduce_scatter,
                                   .all_gather = all_gather,
                                   .broadcast = broadcast,
                                   .barrier = barrier,
                                   .destroy = destroy,
                                   .share = share,
                                   .unshare = unshare,
                                   .bare_sum = bare_sum};
  *out = NULL;
  ARB_REQUIRE(arb_mpi_launched(), ARB_ERR_UNSUPPORTED,
              "mpi: no launcher's environment; start with mpirun or srun --mpi=pmix, or run one rank without MPI");
  arb_comm *c = calloc(1, sizeof *c);
  mpi_state *s = calloc(1, sizeof *s);
  arb_status st = c != NULL && s != NULL ? ARB_OK : ARB_FAIL(ARB_ERR_NOMEM, "communicator: out of memory");
  if (st == ARB_OK) {
    s->world = s->node = MPI_COMM_NULL;
    s->board = MPI_WIN_NULL;
    s->chunk = INT_MAX;
    c->ops = &ops;
    c->ctx = s;
    st = initialise(argc, argv, &s->finalise);
  }
  if (st == ARB_OK) st = join(c, s);
  if (st != ARB_OK) { /* handles of MPI stay: freeing them is collective, and the peers may not come */
    free(s);
    free(c);
    return st;
  }
  *out = c;
  return ARB_OK;
}

void arb_comm_mpi_set_chunk(arb_comm *c, int64_t elements) {
  mpi_state *s = c->ctx;
  s->chunk = elements < 1 ? 1 : elements > INT_MAX ? INT_MAX : elements;
}

void arb_comm_mpi_abort(int code) {
  int up = 0, down = 0, level = MPI_THREAD_SINGLE, main_thread = 0;
  if (MPI_Initialized(&up) == MPI_SUCCESS && MPI_Finalized(&down) == MPI_SUCCESS && up && !down) {
    MPI_Query_thread(&level);
    MPI_Is_thread_main(&main_thread);
    if (level == MPI_THREAD_MULTIPLE || main_thread) MPI_Abort(MPI_COMM_WORLD, code);
  }
  _exit(code); /* the launcher ends a job in which a rank leaves without finalising */
}
