#include "tests/dist/exact.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t counts[] = {0, 1, 2, 3, 7, 33, 64, 1000, 4097};
enum { COUNTS = sizeof counts / sizeof counts[0], GUARD = 16, POISON = 0xa5 };

static bool tried(int64_t count, const void *arg) { return arg == NULL || count <= *(const int64_t *)arg; }

/* A buffer of exactly `bytes`, poisoned, with a guard on each side: writing past an end is seen without a sanitizer. */
typedef struct {
  unsigned char *block, *data;
  size_t bytes;
} buffer;

static arb_status buffer_open(buffer *b, int64_t count, arb_dtype type) {
  b->bytes = (size_t)count * arb_dtype_size(type);
  b->block = malloc(b->bytes + 2 * GUARD);
  ARB_REQUIRE(b->block != NULL, ARB_ERR_NOMEM, "test buffer");
  memset(b->block, POISON, b->bytes + 2 * GUARD);
  b->data = b->block + GUARD;
  return ARB_OK;
}

static arb_status buffer_close(buffer *b) {
  arb_status st = ARB_OK;
  for (size_t i = 0; i < GUARD && b->block != NULL; i++)
    if (b->block[i] != POISON || b->data[b->bytes + i] != POISON) st = ARB_FAIL(ARB_ERR_DATA, "written past a buffer's end");
  free(b->block);
  *b = (buffer){0};
  return st;
}

static void put(buffer *b, int64_t i, arb_dtype type, uint64_t v) {
  memcpy(b->data + (size_t)i * arb_dtype_size(type), &v, arb_dtype_size(type)); /* little-endian: the low bytes */
}

static arb_status expect(const buffer *b, int64_t i, arb_dtype type, uint64_t want, const char *what) {
  uint64_t got = 0;
  memcpy(&got, b->data + (size_t)i * arb_dtype_size(type), arb_dtype_size(type));
  if (arb_dtype_size(type) < 8) want &= (UINT64_C(1) << (8 * arb_dtype_size(type))) - 1;
  ARB_REQUIRE(got == want, ARB_ERR_DATA, "%s %s: element %" PRId64 " is %" PRIx64 ", expected %" PRIx64, what,
              arb_dtype_name(type), i, got, want);
  return ARB_OK;
}

static bool is_unsigned(arb_dtype t) { return t == ARB_U8 || t == ARB_U16 || t == ARB_U32 || t == ARB_U64; }

static int64_t hash(int64_t i, int64_t modulus) {
  return (int64_t)((((uint64_t)i + 1) * UINT64_C(0x9e3779b97f4a7c15)) >> 33) % modulus;
}

/* Rank r brings (a + r b) * 2^top + e in element i, so the reduction has a closed form and reaches the highest byte. Sums
 * over 8 ranks fit every type; extremes cross the sign, or for unsigned types the middle, of the range. */
static uint64_t make(int64_t a, int64_t b, int64_t rank, int64_t i, arb_dtype type) {
  const int top = 8 * ((int)arb_dtype_size(type) - 1);
  const uint64_t e = top > 0 ? (uint64_t)hash(i + 5, 16) : 0;
  return ((uint64_t)(a + rank * b) << top) + e;
}

static void coefficients(int64_t i, arb_dtype type, arb_redop op, int64_t *a, int64_t *b) {
  if (op == ARB_SUM) {
    *a = is_unsigned(type) ? hash(i, 9) : hash(i, 9) - 4;
    *b = is_unsigned(type) ? hash(i + 1000, 5) : hash(i + 1000, 5) - 2;
  } else {
    *a = is_unsigned(type) ? 70 + hash(i, 121) : hash(i, 101) - 50;
    *b = hash(i + 1000, 19) - 9;
  }
}

static uint64_t brought(int64_t rank, int64_t i, arb_dtype type, arb_redop op) {
  int64_t a, b;
  coefficients(i, type, op, &a, &b);
  return make(a, b, rank, i, type);
}

static uint64_t reduced(int64_t size, int64_t i, arb_dtype type, arb_redop op) {
  int64_t a, b;
  coefficients(i, type, op, &a, &b);
  if (op == ARB_MAX) return make(a, b, b > 0 ? size - 1 : 0, i, type);
  if (op == ARB_MIN) return make(a, b, b < 0 ? size - 1 : 0, i, type);
  const uint64_t e = make(0, 0, 0, i, type);
  return make(size * a, size * (size - 1) / 2 * b, 1, i, type) + (uint64_t)(size - 1) * e;
}

static arb_status one_all_reduce(arb_comm *c, int64_t n, arb_dtype type, arb_redop op) {
  buffer b = {0};
  arb_status st;
  ARB_TRY_OUT(st, buffer_open(&b, n, type));
  for (int64_t i = 0; i < n; i++) put(&b, i, type, brought(c->rank, i, type, op));
  ARB_TRY_OUT(st, arb_comm_all_reduce(c, b.data, n, type, op, ARB_TRAFFIC_STATS));
  for (int64_t i = 0; i < n; i++) ARB_TRY_OUT(st, expect(&b, i, type, reduced(c->size, i, type, op), "all_reduce"));
out:;
  const arb_status closed = buffer_close(&b);
  return st != ARB_OK ? st : closed;
}

static arb_status one_reduce_scatter(arb_comm *c, int64_t n, arb_dtype type, arb_redop op) {
  buffer in = {0}, out = {0};
  arb_status st;
  ARB_TRY_OUT(st, buffer_open(&in, n * c->size, type));
  ARB_TRY_OUT(st, buffer_open(&out, n, type));
  for (int64_t i = 0; i < n * c->size; i++) put(&in, i, type, brought(c->rank, i, type, op));
  ARB_TRY_OUT(st, arb_comm_reduce_scatter(c, in.data, out.data, n, type, op, ARB_TRAFFIC_VOTES));
  for (int64_t i = 0; i < n; i++)
    ARB_TRY_OUT(st, expect(&out, i, type, reduced(c->size, n * c->rank + i, type, op), "reduce_scatter"));
  for (int64_t i = 0; i < n * c->size; i++)
    ARB_TRY_OUT(st, expect(&in, i, type, brought(c->rank, i, type, op), "reduce_scatter's input"));
out:;
  const arb_status a = buffer_close(&in), b = buffer_close(&out);
  return st != ARB_OK ? st : a != ARB_OK ? a : b;
}

/* out is this rank's slice of in; the others' are nobody's afterwards. */
static arb_status one_reduce_scatter_in_place(arb_comm *c, int64_t n, arb_dtype type, arb_redop op) {
  buffer b = {0};
  arb_status st;
  ARB_TRY_OUT(st, buffer_open(&b, n * c->size, type));
  for (int64_t i = 0; i < n * c->size; i++) put(&b, i, type, brought(c->rank, i, type, op));
  ARB_TRY_OUT(st, arb_comm_reduce_scatter(c, b.data, b.data + (size_t)(n * c->rank) * arb_dtype_size(type), n, type, op,
                                          ARB_TRAFFIC_VOTES));
  for (int64_t i = n * c->rank; i < n * (c->rank + 1); i++)
    ARB_TRY_OUT(st, expect(&b, i, type, reduced(c->size, i, type, op), "reduce_scatter in place"));
out:;
  const arb_status closed = buffer_close(&b);
  return st != ARB_OK ? st : closed;
}

static arb_status one_all_gather(arb_comm *c, int64_t n, arb_dtype type) {
  buffer in = {0}, out = {0};
  arb_status st;
  ARB_TRY_OUT(st, buffer_open(&in, n, type));
  ARB_TRY_OUT(st, buffer_open(&out, n * c->size, type));
  for (int64_t i = 0; i < n; i++) put(&in, i, type, brought(c->rank, i, type, ARB_MAX));
  ARB_TRY_OUT(st, arb_comm_all_gather(c, in.data, out.data, n, type, ARB_TRAFFIC_TRITS));
  for (int64_t r = 0; r < c->size; r++)
    for (int64_t i = 0; i < n; i++) ARB_TRY_OUT(st, expect(&out, r * n + i, type, brought(r, i, type, ARB_MAX), "all_gather"));
  for (int64_t i = 0; i < n; i++)
    ARB_TRY_OUT(st, expect(&in, i, type, brought(c->rank, i, type, ARB_MAX), "all_gather's input"));
out:;
  const arb_status a = buffer_close(&in), b = buffer_close(&out);
  return st != ARB_OK ? st : a != ARB_OK ? a : b;
}

static arb_status one_broadcast(arb_comm *c, int64_t n, arb_dtype type, int root) {
  buffer b = {0};
  arb_status st;
  ARB_TRY_OUT(st, buffer_open(&b, n, type));
  for (int64_t i = 0; i < n; i++) put(&b, i, type, brought(c->rank, i, type, ARB_MAX));
  ARB_TRY_OUT(st, arb_comm_broadcast(c, b.data, n, type, root, ARB_TRAFFIC_CONTROL));
  for (int64_t i = 0; i < n; i++) ARB_TRY_OUT(st, expect(&b, i, type, brought(root, i, type, ARB_MAX), "broadcast"));
out:;
  const arb_status closed = buffer_close(&b);
  return st != ARB_OK ? st : closed;
}

static arb_status run_all_reduce(arb_comm *c, void *arg) {
  for (int n = 0; n < COUNTS; n++)
    for (arb_dtype t = 0; t < ARB_DTYPE__COUNT && tried(counts[n], arg); t++)
      for (arb_redop op = ARB_SUM; op <= ARB_MIN && !arb_dtype_is_float(t); op++) ARB_TRY(one_all_reduce(c, counts[n], t, op));
  return ARB_OK;
}

static arb_status run_reduce_scatter(arb_comm *c, void *arg) {
  for (int n = 0; n < COUNTS; n++)
    for (arb_dtype t = 0; t < ARB_DTYPE__COUNT && tried(counts[n], arg); t++)
      for (arb_redop op = ARB_SUM; op <= ARB_MIN && !arb_dtype_is_float(t); op++)
        ARB_TRY(one_reduce_scatter(c, counts[n], t, op));
  return ARB_OK;
}

static arb_status run_in_place(arb_comm *c, void *arg) {
  for (int n = 0; n < COUNTS; n++)
    for (arb_dtype t = 0; t < ARB_DTYPE__COUNT && tried(counts[n], arg); t++)
      for (arb_redop op = ARB_SUM; op <= ARB_MIN && !arb_dtype_is_float(t); op++)
        ARB_TRY(one_reduce_scatter_in_place(c, counts[n], t, op));
  return ARB_OK;
}

/* Several collectives that go out as one, beside other work where the transport can do that, until a barrier. */
static arb_status batched(arb_comm *c, int8_t x[3][24], int32_t *y) {
  ARB_TRY(arb_comm_reduce_scatter(c, x[0], x[0] + 3 * c->rank, 3, ARB_I8, ARB_SUM, ARB_TRAFFIC_VOTES));
  ARB_TRY(arb_comm_all_reduce(c, x[1], 24, ARB_I8, ARB_SUM, ARB_TRAFFIC_VOTES));
  ARB_TRY(arb_comm_reduce_scatter(c, x[2], x[2] + c->rank, 1, ARB_I8, ARB_SUM, ARB_TRAFFIC_VOTES));
  return arb_comm_all_reduce(c, y, 1, ARB_I32, ARB_MAX, ARB_TRAFFIC_STATS);
}

static arb_status run_batch(arb_comm *c, void *arg) {
  (void)arg;
  int8_t x[3][24];
  const int64_t sum = c->size * (c->size + 1) / 2;
  ARB_REQUIRE(c->size <= 8, ARB_ERR_DATA, "this case is for 8 ranks at most");
  for (int round = 0; round < 3; round++) {
    int32_t y = c->rank;
    memset(x, c->rank + 1, sizeof x);
    ARB_TRY(arb_comm_aside(c));
    ARB_TRY(arb_comm_batch_begin(c));
    const arb_status st = batched(c, x, &y), end = arb_comm_batch_end(c);
    ARB_TRY(st);
    ARB_TRY(end);
    if (round > 0) ARB_TRY(arb_comm_join(c));
    if (round > 1) ARB_TRY(arb_comm_mark(c));
    ARB_TRY(arb_comm_barrier(c));
    ARB_REQUIRE(y == c->size - 1 && x[2][c->rank] == sum, ARB_ERR_DATA, "a batch: %d, %d", (int)y, x[2][c->rank]);
    for (int i = 0; i < 24; i++) ARB_REQUIRE(x[1][i] == sum, ARB_ERR_DATA, "a batch: element %d is %d", i, x[1][i]);
    for (int i = 3 * c->rank; i < 3 * c->rank + 3; i++) ARB_REQUIRE(x[0][i] == sum, ARB_ERR_DATA, "a batch: slice");
  }
  return ARB_OK;
}

/* Floats may be moved: only their bits travel. */
static arb_status run_all_gather(arb_comm *c, void *arg) {
  for (int n = 0; n < COUNTS; n++)
    for (arb_dtype t = 0; t < ARB_DTYPE__COUNT && tried(counts[n], arg); t++) ARB_TRY(one_all_gather(c, counts[n], t));
  return ARB_OK;
}

static arb_status run_broadcast(arb_comm *c, void *arg) {
  for (int n = 0; n < COUNTS; n++)
    for (arb_dtype t = 0; t < ARB_DTYPE__COUNT && tried(counts[n], arg); t++)
      for (int root = 0; root < c->size; root++) ARB_TRY(one_broadcast(c, counts[n], t, root));
  return ARB_OK;
}

static arb_status must_fail(arb_status got, arb_status want, const char *text) {
  const bool right = got == want && strstr(arb_fail_message(), text) != NULL;
  char message[256];
  snprintf(message, sizeof message, "%s", arb_fail_message());
  arb_fail_clear();
  ARB_REQUIRE(right, ARB_ERR_DATA, "got %s '%s', expected %s '%s'", arb_status_name(got), message, arb_status_name(want), text);
  return ARB_OK;
}

/* The peer of measurements gives the same sums; a transport without a library says so on every rank. */
static arb_status run_bare_sum(arb_comm *c, void *arg) {
  (void)arg;
  int8_t x[64];
  const int64_t sum = c->size * (c->size + 1) / 2;
  for (int scatter = 0; scatter < 2; scatter++) {
    memset(x, c->rank + 1, sizeof x);
    const arb_status st = arb_comm_bare_sum(c, x, 2 * c->size, scatter);
    if (c->ops->bare_sum == NULL) {
      ARB_TRY(must_fail(st, ARB_ERR_UNSUPPORTED, "no library below"));
      continue;
    }
    ARB_TRY(st);
    for (int i = 0; i < 2 * (scatter ? 1 : c->size); i++) ARB_REQUIRE(x[i] == sum, ARB_ERR_DATA, "the bare sum is %d", x[i]);
  }
  if (c->size > 1) ARB_TRY(must_fail(arb_comm_bare_sum(c, x, c->size + 1, 1), ARB_ERR_ARG, "bytes on"));
  return ARB_OK;
}

/* Refused on every rank alike, before the transport: no rank waits, and nothing is counted. */
static arb_status run_refused(arb_comm *c, void *arg) {
  (void)arg;
  int64_t x[64] = {0}, y[64] = {0};
  const arb_traffic k = ARB_TRAFFIC_STATS;
  const int64_t sequence = c->sequence;
  arb_comm_reset_payload(c);
  for (arb_redop op = ARB_SUM; op <= ARB_MIN; op++) {
    ARB_TRY(must_fail(arb_comm_all_reduce(c, x, 1, ARB_F32, op, k), ARB_ERR_ARG, "f32 is refused"));
    ARB_TRY(must_fail(arb_comm_all_reduce(c, x, 0, ARB_BF16, op, k), ARB_ERR_ARG, "bf16 is refused"));
    ARB_TRY(must_fail(arb_comm_reduce_scatter(c, x, y, 1, ARB_F32, op, k), ARB_ERR_ARG, "f32 is refused"));
    ARB_TRY(must_fail(arb_comm_reduce_scatter(c, x, y, 1, ARB_BF16, op, k), ARB_ERR_ARG, "bf16 is refused"));
  }
  ARB_TRY(must_fail(arb_comm_all_reduce(NULL, x, 1, ARB_I32, ARB_SUM, k), ARB_ERR_ARG, "no communicator"));
  ARB_TRY(must_fail(arb_comm_all_reduce(c, NULL, 1, ARB_I32, ARB_SUM, k), ARB_ERR_ARG, "no buffer"));
  ARB_TRY(must_fail(arb_comm_all_reduce(c, x, -1, ARB_I32, ARB_SUM, k), ARB_ERR_ARG, "-1 elements"));
  ARB_TRY(must_fail(arb_comm_all_reduce(c, x, INT64_MAX / 4, ARB_I64, ARB_SUM, k), ARB_ERR_ARG, "elements"));
  ARB_TRY(must_fail(arb_comm_all_reduce(c, x, 1, ARB_DTYPE__COUNT, ARB_SUM, k), ARB_ERR_ARG, "element type"));
  ARB_TRY(must_fail(arb_comm_all_reduce(c, x, 1, ARB_I32, (arb_redop)3, k), ARB_ERR_ARG, "reduction 3"));
  ARB_TRY(must_fail(arb_comm_all_reduce(c, x, 1, ARB_I32, ARB_SUM, ARB_TRAFFIC__COUNT), ARB_ERR_ARG, "traffic kind"));
  ARB_TRY(must_fail(arb_comm_reduce_scatter(c, x, (char *)x + 1, 1, ARB_I32, ARB_SUM, k), ARB_ERR_ARG, "overlap"));
  ARB_TRY(must_fail(arb_comm_reduce_scatter(c, x, NULL, 1, ARB_I32, ARB_SUM, k), ARB_ERR_ARG, "no buffer"));
  ARB_TRY(must_fail(arb_comm_all_gather(c, x, x, 1, ARB_I64, k), ARB_ERR_ARG, "overlap"));
  ARB_TRY(must_fail(arb_comm_all_gather(c, NULL, x, 1, ARB_I64, k), ARB_ERR_ARG, "no buffer"));
  ARB_TRY(must_fail(arb_comm_broadcast(c, x, 1, ARB_I64, c->size, k), ARB_ERR_ARG, "root"));
  ARB_TRY(must_fail(arb_comm_broadcast(c, x, 1, ARB_I64, -1, k), ARB_ERR_ARG, "root -1"));
  ARB_REQUIRE(c->payload[k] == 0 && c->sequence == sequence, ARB_ERR_DATA, "a refused call was counted");
  return ARB_OK;
}

/* Every rank but those named was fine; `first` fails with a, `second` with b (or -1: nobody). */
static arb_status agree_once(arb_comm *c, int first, arb_status a, int second, arb_status b, arb_status want, int named) {
  const arb_status mine = c->rank == first ? a : c->rank == second ? b : ARB_OK;
  char text[64];
  const char *own = "page 7 is missing", *verb = want == ARB_REQUEUE ? "asks to stop" : "failed";
  snprintf(text, sizeof text, "rank %d %s: %s", named, verb, arb_status_name(want));
  if (mine != ARB_OK)
    (void)ARB_FAIL(mine, "%s", own);
  else
    (void)ARB_FAIL(ARB_ERR_IO, "a failure that was dealt with");
  return must_fail(arb_comm_agree(c, mine), want, mine != ARB_OK ? own : text);
}

static arb_status run_agree(arb_comm *c, void *arg) {
  (void)arg;
  ARB_TRY(arb_comm_agree(c, ARB_OK));
  for (int r = 0; r < c->size; r++)
    for (arb_status st = ARB_OK + 1; st < ARB_STATUS__COUNT; st++)
      if (st != ARB_ERR_COMM) ARB_TRY(agree_once(c, r, st, -1, ARB_OK, st, r));
  for (int r = 0; r + 1 < c->size; r++) {
    ARB_TRY(agree_once(c, r, ARB_REQUEUE, r + 1, ARB_ERR_CONFIG, ARB_ERR_CONFIG, r + 1));
    ARB_TRY(agree_once(c, r, ARB_ERR_PEER, r + 1, ARB_ERR_DATA, ARB_ERR_DATA, r + 1));
    ARB_TRY(agree_once(c, r, ARB_ERR_IO, r + 1, ARB_ERR_DATA, ARB_ERR_IO, r));
    ARB_TRY(agree_once(c, r, ARB_ERR_IO, r + 1, ARB_ERR_IO, ARB_ERR_IO, r));
    ARB_TRY(agree_once(c, r, ARB_REQUEUE, r + 1, ARB_REQUEUE, ARB_REQUEUE, r));
  }
  /* A broken transport is not asked to carry its own bad news. */
  const int64_t sequence = c->sequence;
  ARB_REQUIRE(arb_comm_agree(c, ARB_ERR_COMM) == ARB_ERR_COMM && c->sequence == sequence, ARB_ERR_DATA, "agree on comm");
  return arb_comm_agree(c, ARB_OK);
}

static arb_status run_payload(arb_comm *c, void *arg) {
  (void)arg;
  static int64_t zero[64]; /* shared by loopback's threads: only read */
  int64_t out[64] = {0}, x[8] = {0};
  arb_comm_reset_payload(c);
  for (int k = 0; k < ARB_TRAFFIC__COUNT; k++) ARB_REQUIRE(c->payload[k] == 0, ARB_ERR_DATA, "payload is not reset");
  ARB_TRY(arb_comm_all_reduce(c, x, 7, ARB_I16, ARB_SUM, ARB_TRAFFIC_STATS));
  ARB_TRY(arb_comm_all_reduce(c, x, 3, ARB_U64, ARB_MAX, ARB_TRAFFIC_STATS));
  ARB_TRY(arb_comm_reduce_scatter(c, zero, out, 5, ARB_I8, ARB_SUM, ARB_TRAFFIC_VOTES));
  ARB_TRY(arb_comm_all_gather(c, zero, out, 3, ARB_U8, ARB_TRAFFIC_TRITS));
  ARB_TRY(arb_comm_all_gather(c, zero, out, 6, ARB_F32, ARB_TRAFFIC_TOKENS));
  ARB_TRY(arb_comm_broadcast(c, x, 4, ARB_BF16, c->size - 1, ARB_TRAFFIC_CONTROL));
  ARB_TRY(arb_comm_barrier(c));
  ARB_TRY(arb_comm_agree(c, ARB_OK));
  const int64_t want[ARB_TRAFFIC__COUNT] = {
      [ARB_TRAFFIC_VOTES] = 5 * c->size, [ARB_TRAFFIC_TRITS] = 3,   [ARB_TRAFFIC_STATS] = 14 + 24,
      [ARB_TRAFFIC_AGREE] = 8,           [ARB_TRAFFIC_TOKENS] = 24, [ARB_TRAFFIC_CONTROL] = c->rank == c->size - 1 ? 8 : 0};
  for (int k = 0; k < ARB_TRAFFIC__COUNT; k++)
    ARB_REQUIRE(c->payload[k] == want[k], ARB_ERR_DATA, "payload of %s is %" PRId64 ", expected %" PRId64,
                arb_traffic_name((arb_traffic)k), c->payload[k], want[k]);
  return ARB_OK;
}

static arb_status run_ring(arb_comm *c, void *arg) {
  (void)arg;
  int16_t x[3] = {0};
  const int64_t before = c->sequence;
  for (int i = 0; i < ARB_COMM_RING + 3; i++) ARB_TRY(arb_comm_barrier(c));
  ARB_TRY(arb_comm_all_reduce(c, x, 3, ARB_I16, ARB_MIN, ARB_TRAFFIC_ROWS));
  ARB_TRY(arb_comm_agree(c, ARB_OK));
  const int64_t after = before + ARB_COMM_RING + 5;
  ARB_REQUIRE(c->sequence == after, ARB_ERR_DATA, "sequence %" PRId64 ", expected %" PRId64, c->sequence, after);
  for (int64_t s = after - ARB_COMM_RING + 1; s <= after; s++) {
    const arb_comm_record *r = &c->ring[(s - 1) % ARB_COMM_RING];
    const char *op = s == after ? "agree" : s == after - 1 ? "all_reduce" : "barrier";
    ARB_REQUIRE(r->sequence == s && strcmp(r->op, op) == 0, ARB_ERR_DATA, "#%" PRId64 " is recorded as %s #%" PRId64, s, r->op,
                r->sequence);
    if (s != after - 1) continue;
    ARB_REQUIRE(r->count == 3 && r->type == ARB_I16 && r->kind == ARB_TRAFFIC_ROWS, ARB_ERR_DATA, "record of an all_reduce");
  }
  ARB_REQUIRE(c->local_rank >= 0 && c->local_rank < c->local_size && c->local_size <= c->size, ARB_ERR_DATA, "place on node");
  return ARB_OK;
}

/* The node's first rank writes, all read the same bytes; then each writes its own part and all see all of them. */
static arb_status run_share(arb_comm *c, void *arg) {
  (void)arg;
  void *block[2];
  const size_t bytes[2] = {1, 100003};
  for (int i = 0; i < 2; i++) {
    ARB_TRY(arb_comm_share(c, bytes[i], &block[i]));
    ARB_REQUIRE((uintptr_t)block[i] % 64 == 0, ARB_ERR_DATA, "a shared block is not aligned");
    for (size_t b = 0; b < bytes[i]; b++)
      ARB_REQUIRE(((unsigned char *)block[i])[b] == 0, ARB_ERR_DATA, "shared byte %zu is not zero", b);
    ARB_TRY(arb_comm_barrier(c));
  }
  unsigned char *p = block[1];
  if (c->local_rank == 0)
    for (size_t b = 0; b < bytes[1]; b++) p[b] = (unsigned char)(b * 7);
  ARB_TRY(arb_comm_barrier(c));
  for (size_t b = 0; b < bytes[1]; b++)
    ARB_REQUIRE(p[b] == (unsigned char)(b * 7), ARB_ERR_DATA, "rank %d does not see shared byte %zu", c->rank, b);
  ARB_TRY(arb_comm_barrier(c));
  p[1000 * c->local_rank] = (unsigned char)(200 + c->local_rank);
  ARB_TRY(arb_comm_barrier(c));
  for (int r = 0; r < c->local_size; r++)
    ARB_REQUIRE(p[1000 * r] == 200 + r, ARB_ERR_DATA, "rank %d does not see what rank %d wrote", c->rank, r);
  ARB_TRY(arb_comm_unshare(c, block[0]));
  ARB_TRY(arb_comm_unshare(c, block[1]));
  void *none;
  ARB_REQUIRE(arb_comm_share(c, 0, &none) == ARB_ERR_ARG && none == NULL, ARB_ERR_DATA, "a block of no bytes");
  arb_fail_clear();
  return arb_comm_agree(c, ARB_OK);
}

const exact_case exact_cases[EXACT_CASES] = {
    {"all_reduce", run_all_reduce}, {"reduce_scatter", run_reduce_scatter},
    {"all_gather", run_all_gather}, {"broadcast", run_broadcast},
    {"refused", run_refused},       {"agree", run_agree},
    {"payload", run_payload},       {"ring", run_ring},
    {"share", run_share},           {"reduce_scatter in place", run_in_place},
    {"batch", run_batch},           {"bare sum", run_bare_sum},
};
