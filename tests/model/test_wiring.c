/* The whole backward pass against the whole forward pass: the mean votes of every matrix are the gradient of the loss by its
 * trits, as central differences of the model in double, without any rounding, give it.
 *
 * The product rounds activations and gradients to 8 bits, so the two gradients agree only to some percent (cosines above
 * 0.994); a part that is wired wrongly (another member's gradient, a residual path forgotten, a norm left out) is far outside
 * of that. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/model/model.h"
#include "tests/test.h"

enum { DIM = 24, CHANNELS = 8, LAYERS = 2, HIDDEN = 40, CONTEXT = 12, ROWS = 2 * CONTEXT, VOCABULARY = 297, VMAX = 31 };
enum { WINDOWS = 4, WIDTH = 10, FEATURES = ROWS / CONTEXT * (WINDOWS + 2) }; /* of the model with images */
enum { SETTLE = 30, STEPS = 200, SAMPLES = 40, WIDEST = 3 * DIM > 2 * HIDDEN ? 3 * DIM : 2 * HIDDEN };

static arb_model_spec spec = {.dim = DIM,
                              .embed_channels = CHANNELS,
                              .layers = LAYERS,
                              .glu_hidden = HIDDEN,
                              .context = CONTEXT,
                              .rows_per_grain = ROWS,
                              .grains_per_batch = 1};
static int windows; /* rows of features in front of a sequence's text, 0 or WINDOWS */

/* ---- the model in double ---- */

static double *weights[64]; /* [n][k] trits as real numbers, in the order of the model's tensors */
static int8_t *exponents[64];
static double ladder[DIM];
static int32_t ids[ROWS], targets[ROWS]; /* of the text rows */
static int8_t feature_q[FEATURES * WIDTH];
static float feature_s[FEATURES];

static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

static void linear(const double *x, int tensor, int n, int k, double *y) {
  for (int i = 0; i < n; i++) {
    double sum = 0;
    for (int j = 0; j < k; j++) sum += weights[tensor][i * k + j] * x[j];
    y[i] = sum * exp2(exponents[tensor][i] / 8.0);
  }
}

/* Gains are 1. */
static void norm(const double *x, int width, double *y) {
  double sum = 0;
  for (int i = 0; i < width; i++) sum += x[i] * x[i];
  const double inv = 1.0 / sqrt(sum / width + 1e-6);
  for (int i = 0; i < width; i++) y[i] = x[i] * inv;
}

static double loss_in_double(void) {
  static double stream[ROWS][DIM], h[LAYERS][DIM];
  double loss = 0, in[WIDEST], z[WIDEST], mid[WIDEST], out[DIM], logits[VOCABULARY];
  const int text = CONTEXT - windows, input = windows ? 1 : 0; /* first tensor of the text's part */
  for (int row = 0; row < ROWS; row++) {
    const int sequence = row / CONTEXT, at = row % CONTEXT - windows;
    if (at < 0) {
      for (int i = 0; i < 3 * WIDTH; i++) {
        const int feature = sequence * (WINDOWS + 2) + at + windows + i / WIDTH;
        in[i] = feature_q[feature * WIDTH + i % WIDTH] * (double)feature_s[feature];
      }
      norm(in, 3 * WIDTH, in);
      linear(in, 0, DIM, 3 * WIDTH, stream[row]);
      continue;
    }
    for (int slot = 0; slot < 3; slot++) {
      const int back = 2 - slot, id = at < back ? ARB_ID_PAD : ids[sequence * text + at - back];
      for (int c = 0; c < CHANNELS; c++)
        in[slot * CHANNELS + c] = weights[input][c * VOCABULARY + id] * exp2(exponents[input][c] / 8.0);
    }
    norm(in, 3 * CHANNELS, in);
    linear(in, input + 1, DIM, 3 * CHANNELS, stream[row]);
  }
  for (int row = 0; row < ROWS; row++) {
    double *x = stream[row];
    int tensor = input + 2;
    if (row % CONTEXT == 0) memset(h, 0, sizeof h);
    for (int layer = 0; layer < LAYERS; layer++) {
      norm(x, DIM, in);
      linear(in, tensor++, 3 * DIM, DIM, z);
      for (int i = 0; i < DIM; i++) {
        const double f = sigmoid(z[i] + ladder[i]), c = z[DIM + i] * sigmoid(z[DIM + i]);
        h[layer][i] = f * h[layer][i] + (1.0 - f) * c;
      }
      norm(h[layer], DIM, mid);
      for (int i = 0; i < DIM; i++) mid[i] *= sigmoid(z[2 * DIM + i]);
      linear(mid, tensor++, DIM, DIM, out);
      for (int i = 0; i < DIM; i++) x[i] += out[i];
      norm(x, DIM, in);
      linear(in, tensor++, 2 * HIDDEN, DIM, z);
      for (int i = 0; i < HIDDEN; i++) mid[i] = z[i] * sigmoid(z[i]) * z[HIDDEN + i];
      norm(mid, HIDDEN, mid);
      linear(mid, tensor++, DIM, HIDDEN, out);
      for (int i = 0; i < DIM; i++) x[i] += out[i];
    }
    norm(x, DIM, in);
    linear(in, tensor, VOCABULARY, DIM, logits);
    double most = logits[0], sum = 0;
    for (int i = 0; i < VOCABULARY; i++) most = fmax(most, logits[i]);
    for (int i = 0; i < VOCABULARY; i++) sum += exp(logits[i] - most);
    const int at = row % CONTEXT - windows;
    if (at >= 0) loss += log(sum) - (logits[targets[row / CONTEXT * text + at]] - most);
  }
  return loss;
}

/* ---- the product's votes on fixed weights ---- */

static void vote(arb_model *m, uint32_t step, int64_t *used) {
  const arb_rows r = {ROWS, 1, 0, 1};
  arb_pass p;
  arb_assert_ok(m->be->ops.begin_step(m->be, 3, step, 0.0f)); /* rate 0: exponents move, codes do not */
  arb_assert_ok(arb_model_begin(m));
  static const uint8_t present[ROWS / CONTEXT] = {1, 1};
  const arb_model_features features[ARB_FEATURE_KINDS] = {{feature_q, feature_s, present}};
  arb_assert_ok(arb_model_pass_features(m, &r, ids, targets, features, 1, VMAX, &p));
  arb_assert_ok(arb_model_forward(m, &p));
  arb_assert_ok(arb_model_backward(m, &p));
  for (int i = 0; i < m->state.tensor_count; i++) used[i] = 1;
}

/* Some weights of member rows [begin, end) whose votes are not all zero: correlation and slope of the two gradients. */
static void compare(const arb_tensor *t, int tensor, int member, const double *mean) {
  const arb_stack *w = &t->w;
  const int64_t begin = w->begin[member] * w->k, count = w->begin[member + 1] * w->k - begin;
  double ab = 0, aa = 0, bb = 0;
  int taken = 0;
  for (int64_t i = 0; i < count && taken < SAMPLES; i++) {
    const int64_t at = begin + (i * 7919) % count; /* count is no multiple of 7919: all are visited */
    if (mean[at] == 0.0) continue;
    double *x = &weights[tensor][at];
    const double kept = *x, step = 1e-4;
    *x = kept + step;
    const double up = loss_in_double();
    *x = kept - step;
    const double down = loss_in_double();
    *x = kept;
    const double want = (up - down) / (2.0 * step);
    ab += mean[at] * want;
    aa += mean[at] * mean[at];
    bb += want * want;
    taken++;
  }
  assert_int_equal(taken, SAMPLES);
  const double cosine = ab / sqrt(aa * bb), slope = ab / bb;
  if (!(cosine > 0.98) || !(slope > 0.9 && slope < 1.1))
    fail_msg("%s %s: cosine %.4f, slope %.4f", t->name, t->member[member], cosine, slope);
}

static void check_gradient(void) {
  arb_backend *be;
  arb_model *m;
  int64_t used[64];
  arb_assert_ok(arb_backend_ref_create(&be));
  arb_assert_ok(arb_model_create(&spec, be, &m));
  arb_assert_ok(arb_model_allocate(m));
  arb_assert_ok(arb_state_fresh(&m->state, 5));
  for (int i = 0; i < ROWS; i++) {
    ids[i] = "it was the best of times"[i];
    targets[i] = i + 1 < ROWS ? (unsigned char)"it was the best of times"[i + 1] : ',';
  }
  for (int i = 0; i < DIM; i++) ladder[i] = 1.0 + 4.0 * i / (DIM - 1);
  const int tensors = m->state.tensor_count;
  double *mean[64];
  assert_int_equal(tensors, (windows ? 1 : 0) + 2 + 4 * LAYERS + 1);
  for (int i = 0; i < tensors; i++) {
    const arb_stack *w = &m->state.tensors[i]->w;
    weights[i] = calloc((size_t)(w->n * w->k), sizeof *weights[i]);
    mean[i] = calloc((size_t)(w->n * w->k), sizeof *mean[i]);
    assert_true(weights[i] && mean[i]);
    for (int64_t j = 0; j < w->n * w->k; j++) weights[i][j] = w->code[j] / 85 - 1;
    exponents[i] = w->e;
  }
  for (uint32_t step = 1; step <= SETTLE + STEPS; step++) {
    vote(m, step, used);
    if (step > SETTLE)
      for (int i = 0; i < tensors; i++) {
        const arb_stack *w = &m->state.tensors[i]->w;
        for (int64_t j = 0; j < w->n * w->k; j++) mean[i][j] += ldexp(w->votes[j], w->p[j / w->k]) / STEPS;
      }
    if (step < SETTLE) arb_assert_ok(arb_model_update(m, used, VMAX));
    if (step == SETTLE) /* sparse rows vote at the limit, the embedding's most: take a larger unit, where nothing is cut */
      for (int i = 0; i < tensors; i++)
        for (int64_t n = 0; n < m->state.tensors[i]->w.n; n++)
          m->state.tensors[i]->w.p[n] = (int8_t)(m->state.tensors[i]->w.p[n] + (windows && i == 1 ? 12 : 4));
  }
  /* The loss itself: 8-bit activations against none. */
  int64_t loss, count;
  arb_assert_ok(be->ops.download(be, &loss, m->loss, 8));
  arb_assert_ok(be->ops.download(be, &count, m->count, 8));
  assert_int_equal(count, ROWS - ROWS / CONTEXT * windows);
  const double weight = (double)arb_model_position_weight(&spec), exact = loss_in_double();
  assert_true(fabs((double)loss / 1048576.0 / exact - 1.0) < 0.02);
  for (int i = 0; i < tensors; i++) { /* the votes are of the weighted loss */
    const arb_stack *w = &m->state.tensors[i]->w;
    for (int64_t j = 0; j < w->n * w->k; j++) mean[i][j] /= weight;
    for (int member = 0; member < w->members; member++) compare(m->state.tensors[i], i, member, mean[i]);
  }
  for (int i = 0; i < tensors; i++) {
    free(weights[i]);
    free(mean[i]);
  }
  arb_model_destroy(&m);
  arb_backend_destroy(&be);
}

static void test_text(void **state) {
  (void)state;
  check_gradient();
}

static void test_image(void **state) {
  (void)state;
  windows = WINDOWS;
  spec.features[ARB_FEATURE_IMAGE].windows = WINDOWS;
  spec.features[ARB_FEATURE_IMAGE].width = WIDTH;
  for (int i = 0; i < FEATURES * WIDTH; i++) feature_q[i] = (int8_t)(i * 7919 % 255 - 127);
  for (int i = 0; i < FEATURES; i++) feature_s[i] = 0.01f * (float)(1 + i % 3);
  check_gradient();
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_text), cmocka_unit_test(test_image)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
