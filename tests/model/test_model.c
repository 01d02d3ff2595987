/* The whole model: its size, its memory, the independence of its results from batching, work memory and backend, and what the
 * digest covers. */
#include "src/model/model.h"

#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

enum { CONTEXT = 16, SEQUENCES = 2, ROWS = CONTEXT * SEQUENCES, GRAINS = 4, SEED = 7 };

static const arb_model_spec small = {.dim = 24,
                                     .embed_channels = 16,
                                     .layers = 2,
                                     .glu_hidden = 41,
                                     .context = CONTEXT,
                                     .rows_per_grain = ROWS,
                                     .grains_per_batch = 1};

static arb_backend *ref, *cpu;

static arb_model *open_model(arb_backend *be, const arb_model_spec *spec) {
  arb_model *m;
  arb_assert_ok(arb_model_create(spec, be, &m));
  arb_assert_ok(arb_model_allocate(m));
  arb_assert_ok(arb_state_fresh(&m->state, SEED));
  return m;
}

static arb_u128 digest_of(const arb_model *m) {
  arb_u128 d;
  arb_assert_ok(arb_state_digest(&m->state, &d));
  return d;
}
static int same(arb_u128 a, arb_u128 b) { return a.lo == b.lo && a.hi == b.hi; }

/* Windows of a repetitive text, chosen by step and grain. */
static void fill(int64_t step, int64_t grain, int32_t *ids, int32_t *targets) {
  static const char text[] = "the quick brown fox jumps over the lazy dog; then the dog naps. ";
  const int64_t length = (int64_t)sizeof text - 1;
  for (int64_t s = 0; s < SEQUENCES; s++)
    for (int64_t t = 0; t < CONTEXT; t++) {
      const int64_t at = (step * 11 + grain * 17 + s * 29) % length + t;
      ids[s * CONTEXT + t] = (unsigned char)text[at % length];
      targets[s * CONTEXT + t] = (unsigned char)text[(at + 1) % length];
    }
}

typedef struct {
  int64_t loss, count, flips;
} outcome;

/* Votes of grains first, first + stride, ... (a batch of as many as the model was planned for at a time). */
static void cast(arb_model *m, int64_t step, int32_t first, int32_t stride, int32_t grains) {
  const int32_t batch = m->spec.grains_per_batch;
  int32_t *ids = calloc((size_t)(batch * ROWS), sizeof *ids), *targets = calloc((size_t)(batch * ROWS), sizeof *targets);
  assert_true(ids && targets);
  for (int32_t i = 0; i < grains; i += batch) {
    const arb_rows r = {ROWS, grains - i < batch ? grains - i : batch, first + i * stride, stride};
    for (int32_t g = 0; g < r.grains; g++) fill(step, r.first + g * stride, ids + g * ROWS, targets + g * ROWS);
    arb_pass p;
    arb_assert_ok(arb_model_pass(m, &r, ids, targets, 1, 127 / GRAINS, &p));
    arb_assert_ok(arb_model_forward(m, &p));
    arb_assert_ok(arb_model_backward(m, &p));
  }
  free(ids);
  free(targets);
}

static void begin(arb_model *m, int64_t step, float eta) {
  arb_assert_ok(m->be->ops.begin_step(m->be, SEED, (uint32_t)step, eta * 42.0f));
  arb_assert_ok(arb_model_begin(m));
}

static outcome finish(arb_model *m) {
  int64_t used[64];
  int flag;
  outcome o = {0, 0, 0};
  assert_true(m->state.tensor_count <= 64);
  for (int i = 0; i < m->state.tensor_count; i++) used[i] = GRAINS;
  arb_assert_ok(m->be->ops.take_nonfinite(m->be, &flag));
  assert_int_equal(flag, 0);
  arb_assert_ok(arb_model_update(m, used, 127 / GRAINS));
  arb_assert_ok(m->be->ops.download(m->be, &o.loss, m->loss, 8));
  arb_assert_ok(m->be->ops.download(m->be, &o.count, m->count, 8));
  arb_assert_ok(m->be->ops.download(m->be, &o.flips, m->flips, 8));
  return o;
}

static outcome train_step(arb_model *m, int64_t step, float eta) {
  begin(m, step, eta);
  cast(m, step, 0, 1, GRAINS);
  return finish(m);
}

/* ---- size and memory ---- */

static void test_books_shape(void **state) {
  (void)state;
  const arb_model_spec books = {.dim = 512,
                                .embed_channels = 256,
                                .layers = 6,
                                .glu_hidden = 1408,
                                .context = 512,
                                .rows_per_grain = 4096,
                                .grains_per_batch = 1};
  arb_model *m;
  arb_assert_ok(arb_model_create(&books, ref, &m));
  arb_model_measure(m);
  assert_int_equal(arb_state_weights(&m->state), 19888896);
  assert_int_equal(arb_state_norm_exponents(&m->state), 18944);
  const double weights = 19888896;
  assert_true((double)arb_arena_payload(&m->state.state) <= 1.05 * weights);
  assert_true((double)m->state.state.peak <= 1.05 * weights);
  assert_int_equal(m->state.state.payload[ARB_U8], 19888896);
  assert_int_equal(arb_arena_payload(&m->state.votes), 19888896);
  assert_int_equal(arb_arena_float_payload(&m->state.state), 0);
  assert_int_equal(arb_arena_float_payload(&m->state.votes), 0);
  assert_int_equal(arb_arena_float_payload(&m->update), 0);
  assert_null(m->state.state_memory);
  assert_null(m->state.votes_memory);
  assert_null(m->activation_memory);
  assert_null(m->work_memory);
  assert_int_equal(m->state.tensor_count, 2 + 4 * 6 + 1);
  assert_true(arb_model_position_weight(&books) == 0x1p-12f);
  arb_model_destroy(&m);
  assert_null(m);
  arb_model_destroy(&m);
}

static void test_memory(void **state) {
  (void)state;
  arb_model *plan, *m = open_model(ref, &small);
  arb_assert_ok(arb_model_create(&small, ref, &plan));
  arb_model_measure(plan);
  const arb_arena *measured[] = {&plan->state.state, &plan->state.votes, &plan->activations, &plan->work, &plan->update};
  const arb_arena *assigned[] = {&m->state.state, &m->state.votes, &m->activations, &m->work, &m->update};
  for (int i = 0; i < 5; i++) {
    assert_int_equal(measured[i]->peak, assigned[i]->capacity);
    assert_int_equal(assigned[i]->peak, assigned[i]->capacity);
    assert_memory_equal(measured[i]->payload, assigned[i]->payload, sizeof assigned[i]->payload);
  }
  /* dim 24, channels 16, hidden 41, 2 layers */
  assert_int_equal(arb_state_weights(&m->state), 16 * 297 + 24 * 48 + 2 * (4 * 24 * 24 + 3 * 24 * 41) + 297 * 24);
  assert_int_equal(arb_state_norm_exponents(&m->state), 48 + 2 * (3 * 24 + 41) + 24);
  arb_model_destroy(&plan);
  arb_model_destroy(&m);
}

static void test_position_weight(void **state) {
  (void)state;
  const int64_t rows[] = {1, 2, 3, 4, 5, 1023, 1024, 1025};
  const float weight[] = {1.0f, 0.5f, 0.25f, 0.25f, 0.125f, 0x1p-10f, 0x1p-10f, 0x1p-11f};
  for (int i = 0; i < 8; i++) {
    const arb_model_spec spec = {.rows_per_grain = rows[i]};
    assert_true(arb_model_position_weight(&spec) == weight[i]);
  }
}

static void test_bad_arguments(void **state) {
  (void)state;
  arb_state s;
  arb_tensor *t;
  arb_norm *n;
  const int64_t rows[] = {4, 4, 4, 4, 4};
  arb_state_init(&s, ref);
  arb_assert_ok(arb_state_stack(&s, "a", 1, NULL, rows, 8, 1, &t));
  arb_assert_fails(arb_state_stack(&s, "a", 1, NULL, rows, 8, 1, &t), ARB_ERR_ARG, "a and a share an id");
  arb_assert_fails(arb_state_norm(&s, "a", 8, &n), ARB_ERR_ARG, "share an id");
  arb_assert_fails(arb_state_stack(&s, "b", 5, NULL, rows, 8, 1, &t), ARB_ERR_ARG, "stack b");
  arb_assert_fails(arb_state_stack(&s, "b", 0, NULL, rows, 8, 1, &t), ARB_ERR_ARG, "stack b");
  arb_assert_fails(arb_state_stack(&s, "b", 1, NULL, rows, 1 << 24, 1, &t), ARB_ERR_ARG, "stack b");
  char name[ARB_NAME_CHARS + 1];
  memset(name, 'n', ARB_NAME_CHARS);
  name[ARB_NAME_CHARS] = '\0';
  arb_assert_fails(arb_state_norm(&s, name, 8, &n), ARB_ERR_ARG, "too long");
  name[ARB_NAME_CHARS - 1] = '\0';
  arb_assert_ok(arb_state_norm(&s, name, 8, &n));
  assert_string_equal(n->name, name);
  arb_state_deinit(&s);

  arb_model *m = open_model(ref, &small);
  int32_t ids[2 * ROWS] = {0};
  arb_pass p;
  const arb_rows two = {ROWS, 2, 0, 1}, longer = {ROWS + CONTEXT, 1, 0, 1};
  arb_assert_fails(arb_model_pass(m, &two, ids, NULL, 0, 1, &p), ARB_ERR_ARG, "planned for");
  arb_assert_fails(arb_model_pass(m, &longer, ids, NULL, 0, 1, &p), ARB_ERR_ARG, "planned for");
  arb_model_destroy(&m);
}

/* ---- independence ---- */

static void same_votes(const arb_model *a, const arb_model *b) {
  for (int i = 0; i < a->state.tensor_count; i++) {
    const arb_stack *x = &a->state.tensors[i]->w, *y = &b->state.tensors[i]->w;
    int64_t cast_votes = 0;
    for (int64_t j = 0; j < x->n * x->k; j++) {
      if (x->votes[j] != y->votes[j]) fail_msg("%s: vote %lld differs", a->state.tensors[i]->name, (long long)j);
      cast_votes += x->votes[j] != 0;
    }
    if (cast_votes == 0) fail_msg("%s: no votes", a->state.tensors[i]->name);
  }
}

/* Grains one at a time, in pairs, all together and on two ranks: the same sums of votes, the same loss. */
static void test_batching(void **state) {
  (void)state;
  arb_model *one = open_model(ref, &small);
  arb_model *others[3];
  const int32_t batch[] = {2, 4, 3};
  for (int i = 0; i < 3; i++) {
    arb_model_spec spec = small;
    spec.grains_per_batch = batch[i];
    others[i] = open_model(i == 1 ? cpu : ref, &spec);
  }
  for (int64_t step = 1; step <= 25; step++) {
    begin(one, step, 0.1f);
    cast(one, step, 0, 1, GRAINS);
    for (int i = 0; i < 3; i++) {
      begin(others[i], step, 0.1f);
      if (i == 0) { /* as two ranks would: even grains, then odd ones */
        cast(others[i], step, 0, 2, GRAINS / 2);
        cast(others[i], step, 1, 2, GRAINS / 2);
      } else {
        cast(others[i], step, 0, 1, GRAINS);
      }
      if (step > 20) same_votes(one, others[i]); /* by then the exponents have settled and all votes are there */
    }
    const outcome o = finish(one);
    assert_int_equal(o.count, GRAINS * ROWS);
    for (int i = 0; i < 3; i++) {
      const outcome other = finish(others[i]);
      assert_memory_equal(&other, &o, sizeof o);
      assert_true(same(digest_of(others[i]), digest_of(one)));
    }
  }
  arb_model_destroy(&one);
  for (int i = 0; i < 3; i++) arb_model_destroy(&others[i]);
}

/* Nothing in activations or work memory lives from one step to the next, and the backends agree on the whole. */
static void test_poison(void **state) {
  (void)state;
  arb_model *plain = open_model(ref, &small), *poisoned = open_model(ref, &small), *fast = open_model(cpu, &small);
  const arb_u128 start = digest_of(plain);
  for (int64_t step = 1; step <= 30; step++) {
    arb_assert_ok(arb_model_poison(poisoned));
    const outcome a = train_step(plain, step, 0.1f), b = train_step(poisoned, step, 0.1f), c = train_step(fast, step, 0.1f);
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_equal(&a, &c, sizeof a);
  }
  assert_false(same(digest_of(plain), start));
  assert_true(same(digest_of(plain), digest_of(poisoned)));
  assert_true(same(digest_of(plain), digest_of(fast)));
  arb_model_destroy(&plain);
  arb_model_destroy(&poisoned);
  arb_model_destroy(&fast);
}

/* Votes made as late as a GPU's side stream may make them, when the next ones are asked for, from what their arguments hold by
 * then. */
static struct {
  arb_status (*vote)(arb_backend *be, const arb_rows *r, const int8_t *hq, const float *sh, const int8_t *q, const float *s,
                     int vmax, const arb_stack *w);
  arb_rows rows;
  const int8_t *hq, *q;
  const float *sh, *s;
  int vmax;
  const arb_stack *w;
} late;

static arb_status vote_now(arb_backend *be) {
  const arb_stack *w = late.w;
  late.w = NULL;
  return w ? late.vote(be, &late.rows, late.hq, late.sh, late.q, late.s, late.vmax, w) : ARB_OK;
}

static arb_status vote_later(arb_backend *be, const arb_rows *r, const int8_t *hq, const float *sh, const int8_t *q,
                             const float *s, int vmax, const arb_stack *w) {
  ARB_TRY(vote_now(be));
  late.rows = *r, late.hq = hq, late.sh = sh, late.q = q, late.s = s, late.vmax = vmax, late.w = w;
  return ARB_OK;
}

static void test_late_votes(void **state) {
  (void)state;
  arb_backend *side;
  arb_assert_ok(arb_backend_ref_create(&side));
  late.vote = side->ops.linear_dw_vote;
  side->ops.linear_dw_vote = vote_later;
  arb_model_spec spec = small;
  spec.grains_per_batch = GRAINS;
  arb_model *a = open_model(ref, &spec), *b = open_model(side, &spec);
  for (int64_t step = 1; step <= 6; step++) {
    begin(a, step, 0.1f), begin(b, step, 0.1f);
    cast(a, step, 0, 1, GRAINS), cast(b, step, 0, 1, GRAINS);
    arb_assert_ok(vote_now(side));
    const outcome x = finish(a), y = finish(b);
    assert_memory_equal(&x, &y, sizeof x);
    assert_true(same(digest_of(a), digest_of(b)));
  }
  arb_model_destroy(&a);
  arb_model_destroy(&b);
  arb_backend_destroy(&side);
}

/* A pass without targets or backward changes neither votes nor state. */
static void test_forward_alone(void **state) {
  (void)state;
  arb_model *m = open_model(ref, &small);
  int32_t ids[ROWS], targets[ROWS];
  arb_pass p;
  const arb_rows r = {ROWS, 1, 0, 1};
  fill(3, 1, ids, targets);
  begin(m, 1, 0.1f);
  const arb_u128 start = digest_of(m);
  arb_assert_ok(arb_model_pass(m, &r, ids, NULL, 0, 31, &p));
  arb_assert_ok(arb_model_forward(m, &p));
  assert_non_null(p.logits);
  static uint16_t logits[ROWS * ARB_VOCABULARY];
  memcpy(logits, p.logits, sizeof logits);
  assert_int_equal(*m->count, 0);
  assert_int_equal(*m->loss, 0);
  arb_assert_ok(arb_model_pass(m, &r, ids, targets, 0, 31, &p));
  arb_assert_ok(arb_model_forward(m, &p));
  assert_memory_equal(logits, p.logits, sizeof logits);
  assert_int_equal(*m->count, ROWS);
  assert_true(*m->loss > 0);
  for (int i = 0; i < m->state.tensor_count; i++) {
    const arb_stack *w = &m->state.tensors[i]->w;
    for (int64_t j = 0; j < w->n * w->k; j++) assert_int_equal(w->votes[j], 0);
  }
  assert_true(same(digest_of(m), start));
  /* A later byte never changes an earlier logit. */
  ids[CONTEXT / 2] ^= 1;
  arb_assert_ok(arb_model_pass(m, &r, ids, NULL, 0, 31, &p));
  arb_assert_ok(arb_model_forward(m, &p));
  const int64_t cut = CONTEXT / 2 * ARB_VOCABULARY, sequence = CONTEXT * ARB_VOCABULARY;
  assert_memory_equal(logits, p.logits, (size_t)cut * 2);
  assert_memory_not_equal(logits + cut, p.logits + cut, (size_t)(sequence - cut) * 2);
  assert_memory_equal(logits + sequence, p.logits + sequence, (size_t)sequence * 2); /* nor the other sequence */
  arb_model_destroy(&m);
}

/* ---- learning ---- */

static void test_flips(void **state) {
  (void)state;
  enum { STEPS = 60 };
  arb_model *m = open_model(cpu, &small);
  uint8_t *trits[64];
  for (int i = 0; i < m->state.tensor_count; i++) {
    const arb_stack *w = &m->state.tensors[i]->w;
    trits[i] = malloc((size_t)(w->n * w->k));
    assert_non_null(trits[i]);
    for (int64_t j = 0; j < w->n * w->k; j++) trits[i][j] = (uint8_t)(w->code[j] / 85);
  }
  double first = 0, last = 0;
  int64_t flips = 0;
  for (int64_t step = 1; step <= STEPS; step++) {
    const outcome o = train_step(m, step, 0.12f * (step < 20 ? (float)step / 20.0f : 1.0f));
    const double loss = (double)o.loss / (double)o.count / 1048576.0;
    first = step == 1 ? loss : first;
    last = loss;
    flips += o.flips;
  }
  for (int i = 0; i < m->state.tensor_count; i++) {
    const arb_tensor *t = m->state.tensors[i];
    const arb_stack *w = &t->w;
    for (int member = 0; member < w->members; member++) {
      int64_t flipped = 0;
      for (int64_t j = w->begin[member] * w->k; j < w->begin[member + 1] * w->k; j++) {
        assert_int_not_equal(w->code[j], 255);
        flipped += w->code[j] / 85 != trits[i][j];
      }
      if (flipped == 0) fail_msg("%s %s: no trit flipped in %d steps", t->name, t->member[member], STEPS);
    }
    free(trits[i]);
  }
  assert_true(flips > 1000);
  /* ln 297 = 5.7 at the start; the text has 64 positions, most of them told apart by three bytes. */
  assert_true(first > 5.0);
  assert_true(last < 0.6 * first);
  arb_model_destroy(&m);
}

/* ---- digest ---- */

static void test_digest(void **state) {
  (void)state;
  arb_model *m = open_model(ref, &small), *again = open_model(ref, &small);
  for (int64_t step = 1; step <= 3; step++) train_step(m, step, 0.1f);
  for (int64_t step = 1; step <= 3; step++) train_step(again, step, 0.1f);
  const arb_u128 whole = digest_of(m);
  assert_true(same(whole, digest_of(again)));
  arb_model_destroy(&again);

  const int count = arb_state_array_count(&m->state);
  arb_state_array *arrays = calloc((size_t)count, sizeof *arrays);
  assert_non_null(arrays);
  arb_state_arrays(&m->state, arrays);
  arb_u128 sum = {0, 0};
  size_t bytes_seen = 0;
  for (int i = 0; i < count; i++) {
    const arb_state_array *a = &arrays[i];
    const int64_t row_bytes = a->columns * (int64_t)arb_dtype_size(a->type), bytes = a->rows * row_bytes;
    assert_false(arb_dtype_is_float(a->type));
    bytes_seen += (size_t)bytes;
    for (int j = 0; j < i; j++) assert_true(arrays[j].array != a->array);
    /* One bit anywhere: the first, the last and some between. */
    uint8_t *data = a->data;
    for (int64_t at = 0; at < bytes; at = at == bytes - 1              ? bytes
                                          : at + 1 + bytes / 5 < bytes ? at + 1 + bytes / 5
                                                                       : bytes - 1) {
      data[at] ^= (uint8_t)(1 << at % 8);
      if (same(digest_of(m), whole)) fail_msg("%s.%s: a bit does not count", a->tensor, arb_field_name(a->field));
      data[at] ^= (uint8_t)(1 << at % 8);
    }
    /* Shards of uneven sizes, hashed where they lie. */
    int64_t row = 0;
    for (int64_t share = 1; row < a->rows; share = share * 2 + 1) {
      const int64_t rows = a->rows - row < share ? a->rows - row : share;
      arb_u128 part;
      arb_assert_ok(m->be->ops.digest(m->be, a->array, data + row * row_bytes, rows, row_bytes, row, &part));
      sum = arb_u128_add(sum, part);
      row += rows;
    }
  }
  assert_true(same(sum, whole));
  assert_true(same(digest_of(m), whole));
  assert_int_equal(bytes_seen, arb_arena_payload(&m->state.state)); /* every byte of the state is in some array */
  /* Votes are not state. */
  m->state.tensors[0]->w.votes[0] ^= 1;
  assert_true(same(digest_of(m), whole));
  free(arrays);
  arb_model_destroy(&m);
}

/* Another seed is another state; another model beside it is not: a tensor's start depends on its name and seed alone. */
static void test_fresh(void **state) {
  (void)state;
  arb_model_spec deeper = small;
  deeper.layers = 3;
  arb_model *a = open_model(ref, &small), *b = open_model(cpu, &deeper);
  for (int i = 0; i < a->state.tensor_count; i++)
    for (int j = 0; j < b->state.tensor_count; j++) {
      const arb_tensor *x = a->state.tensors[i], *y = b->state.tensors[j];
      if (strcmp(x->name, y->name) == 0)
        assert_memory_equal(x->w.code, y->w.code, (size_t)(x->w.n * x->w.k));
      else if (x->w.n == y->w.n && x->w.k == y->w.k)
        assert_memory_not_equal(x->w.code, y->w.code, (size_t)(x->w.n * x->w.k));
    }
  const arb_u128 seven = digest_of(a);
  arb_assert_ok(arb_state_fresh(&a->state, SEED + 1));
  assert_false(same(digest_of(a), seven));
  arb_assert_ok(arb_state_fresh(&a->state, SEED));
  assert_true(same(digest_of(a), seven));
  arb_model_destroy(&a);
  arb_model_destroy(&b);
}

static int open_backends(void **state) {
  (void)state;
  return arb_backend_ref_create(&ref) != ARB_OK || arb_backend_cpu_create(2, "auto", &cpu) != ARB_OK;
}
static int close_backends(void **state) {
  (void)state;
  arb_backend_destroy(&ref);
  arb_backend_destroy(&cpu);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_books_shape),   cmocka_unit_test(test_memory),     cmocka_unit_test(test_position_weight),
      cmocka_unit_test(test_bad_arguments), cmocka_unit_test(test_batching),   cmocka_unit_test(test_poison),
      cmocka_unit_test(test_forward_alone), cmocka_unit_test(test_flips),      cmocka_unit_test(test_digest),
      cmocka_unit_test(test_fresh),         cmocka_unit_test(test_late_votes),
  };
  return cmocka_run_group_tests(tests, open_backends, close_backends);
}
