/* The operations of kernels/dense on a GPU against the CPU's: the same bits in shapes that fit no tile, and nothing written
 * beside them. */
#include "kernels/common/math.h"
#include "kernels/common/reduce.h"
#include "tests/gpu/encoder_test.h"

static const arb_dense_kernels *host;
static arb_dense_device *gpu;

/* Device memory that mirrors a host's array. */
static void *there(const void *x, size_t bytes) {
  void *memory;
  MUST(gpu->alloc(gpu, bytes, &memory));
  MUST(gpu->upload(gpu, memory, x, bytes));
  return memory;
}
static float *floats_there(const float *x, int64_t count) { return there(x, (size_t)count * sizeof *x); }

/* In [-1, 1), one of eight a zero of either sign. */
static float *draws(int64_t count) {
  float *x = floats(count);
  for (int64_t i = 0; i < count; i++) {
    const int64_t v = gpu_below(1 << 24);
    x[i] = v % 8 == 0 ? (v & 8 ? -0.0f : 0.0f) : (float)(v - (1 << 23)) * 0x1p-23f;
  }
  return x;
}

static void same_there(const char *what, const float *want, const float *on_gpu, int64_t count) {
  float *got = floats(count);
  MUST(gpu->download(gpu, got, on_gpu, (size_t)count * sizeof *got));
  same(what, want, got, count);
  free(got);
}

/* ---- products ---- */

typedef struct {
  int64_t m, n, depth, taps, width; /* rows; outputs; inputs of a tap; taps; rows of a line */
  int64_t pixel, gap, shift;        /* floats from row to row; more at a line's end; from an aligned address */
} shape;

static void product(const shape *s, bool int8, int variant) {
  static const float zeros[4096];
  const int64_t k = s->taps * s->depth, panels = arb_dense_panels(s->n), packed = panels * k * ARB_DENSE_PANEL;
  const int64_t lines = (s->m + s->width - 1) / s->width, row = s->width * s->pixel + s->gap, ldy = s->n + variant;
  const int64_t inputs = (lines + s->taps) * row + s->depth + s->shift, outputs = s->m * ldy + 8;
  const bool blank = variant == 2 && s->taps > 1 && s->pixel == s->depth && row * lines < 4096;
  float *x = draws(inputs), *w = draws(packed), *vectors = draws(3 * panels * ARB_DENSE_PANEL), *y = draws(outputs);
  int8_t *q = calloc((size_t)packed, 1);
  const float **at = calloc((size_t)(s->taps * s->m), sizeof *at), *scratch = floats(arb_dense_scratch(s->depth));
  for (int64_t i = 0; i < packed; i++) q[i] = (int8_t)(gpu_below(255) - 127);
  float *x_there = floats_there(x, inputs), *v_there = floats_there(vectors, 3 * panels * ARB_DENSE_PANEL);
  float *y_there = floats_there(y, outputs), *zeros_there = floats_there(zeros, 4096);
  void *w_there = int8 ? there(q, (size_t)packed) : floats_there(w, packed);
  arb_dense_reach reach = {.taps = s->taps, .depth = s->depth, .width = s->width, .row = row, .pixel = s->pixel};
  for (int64_t t = 0; t < s->taps; t++) {
    const bool zero = blank && t % 2 == 0;
    const int64_t from = zero ? 0 : s->shift + t * row;
    reach.at[t] = (zero ? zeros_there : x_there) + from;
    for (int64_t r = 0; r < s->m; r++)
      at[t * s->m + r] = (zero ? zeros : x) + from + r / s->width * row + r % s->width * s->pixel;
  }
  const int64_t vector = panels * ARB_DENSE_PANEL;
  arb_dense_matrix m = {.n = s->n, .k = k, .q = int8 ? q : NULL, .f = int8 ? NULL : w, .scale = int8 ? vectors : NULL};
  arb_dense_epilogue e = {.act = (arb_dense_activation)(variant % 4), .ldr = ldy};
  if (variant != 1) e.bias = vectors + vector;
  if (variant >= 2) e.residual = y;
  if (variant == 3) e.gain = vectors + 2 * vector;
  const arb_dense_input in = {.at = at, .stride = s->m, .taps = s->taps, .depth = s->depth};
  for (int64_t r = 0; r < s->m; r += ARB_DENSE_ROWS)
    for (int64_t p = 0; p < panels; p++)
      host->product(&in, r, r + ARB_DENSE_ROWS < s->m ? r + ARB_DENSE_ROWS : s->m, &m, p, &e, y, ldy, (float *)scratch);
  m.q = int8 ? w_there : NULL;
  m.f = int8 ? NULL : w_there;
  if (int8) m.scale = v_there;
  if (e.bias) e.bias = v_there + vector;
  if (e.residual) e.residual = y_there;
  if (e.gain) e.gain = v_there + 2 * vector;
  MUST(gpu->product(gpu, &reach, s->m, &m, &e, y_there, ldy));
  char what[128];
  snprintf(what, sizeof what, "product %lld x %lld x %lld * %lld, lines of %lld, %s, variant %d", (long long)s->m,
           (long long)s->n, (long long)s->taps, (long long)s->depth, (long long)s->width, int8 ? "int8" : "float", variant);
  same_there(what, y, y_there, outputs);
  void *const on_gpu[] = {x_there, v_there, y_there, zeros_there, w_there};
  for (size_t i = 0; i < sizeof on_gpu / sizeof on_gpu[0]; i++) gpu->free(gpu, on_gpu[i]);
  free(x), free(w), free(vectors), free(y), free(q), free((void *)at), free((void *)scratch);
}

static void test_products(void) {
  static const shape shapes[] = {{1, 1, 1, 1, 1, 1, 0, 0},
                                 {1, 33, 100, 1, 1, 100, 0, 0},
                                 {3, 70, 17, 1, 3, 19, 0, 1},
                                 {4, 416, 416, 1, 4, 416, 0, 0},
                                 {5, 31, 16, 1, 5, 16, 0, 0},
                                 {33, 95, 15, 1, 33, 15, 0, 0},
                                 {65, 129, 588, 1, 65, 588, 0, 0},
                                 {257, 384, 50, 1, 257, 52, 0, 2},
                                 {100, 3, 288, 9, 10, 32, 64, 0},
                                 {63, 96, 9, 9, 7, 3, 6, 0},
                                 {77, 40, 12, 3, 11, 4, 8, 0},
                                 {77, 40, 12, 3, 11, 4, 9, 1},
                                 {49, 64, 8, 9, 7, 8, 0, 0},
                                 {2, 32, 5, 3, 1, 5, 5, 0},
                                 {300, 130, 33, 2, 20, 33, 3, 3},
                                 {2, 70, 2500, 1, 2, 2500, 0, 0},
                                 {1, 33, 1056, 1, 1, 1056, 0, 1},
                                 {4097, 33, 24, 3, 64, 8, 16, 0},
                                 {1500, 1300, 20, 1, 1500, 20, 0, 0},
                                 {20000, 96, 12, 9, 130, 4, 8, 0},
                                 {20000, 40, 9, 9, 130, 3, 6, 0}};
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
    for (int v = 0; v < 4; v++) product(&shapes[i], v % 2 == 0, v), product(&shapes[i], v % 2 == 1, v);
}

/* ---- attention ---- */

/* Row i of head h, from the packed keys and values of the host. */
static void attend_row(const float *q, const float *keys, const float *values, int64_t width, int64_t capacity, int64_t count,
                       int64_t seen, float scale, float *scores, float *scratch, float *out) {
  const arb_dense_epilogue nothing = {0};
  float scales[512];
  for (int64_t i = 0; i < 512; i++) scales[i] = scale;
  const arb_dense_matrix by_key = {.n = count, .k = width, .f = keys, .scale = scales};
  const arb_dense_matrix by_row = {.n = width, .k = capacity, .f = values};
  const arb_dense_input x = {.x = q, .ld = width, .taps = 1, .depth = width}, s = {.x = scores, .taps = 1, .depth = count};
  for (int64_t p = 0; p < arb_dense_panels(count); p++) host->product(&x, 0, 1, &by_key, p, &nothing, scores, count, scratch);
  host->softmax(scores, seen);
  for (int64_t i = seen; i < count; i++) scores[i] = 0.0f;
  for (int64_t p = 0; p < arb_dense_panels(width); p++) host->product(&s, 0, 1, &by_row, p, &nothing, out, width, scratch);
}

static void attention(int64_t heads, int64_t width, int64_t count, int64_t m, bool causal) {
  const int64_t capacity = arb_dense_panels(count + 5) * ARB_DENSE_PANEL, ld = heads * width + 3, first = count / 3;
  const int64_t keys = heads * capacity * width, values = heads * arb_dense_panels(width) * ARB_DENSE_PANEL * capacity;
  float *k = draws(count * ld), *v = draws(count * ld), *q = draws(m * ld), *out = draws(m * ld),
        *memory = draws(keys + values);
  float *kp = floats(keys), *vp = floats(values), *scores = floats(capacity), *scratch = floats(arb_dense_scratch(512));
  float *k_there = floats_there(k, count * ld), *v_there = floats_there(v, count * ld), *q_there = floats_there(q, m * ld);
  float *out_there = floats_there(out, m * ld), *kv_there = floats_there(memory, keys + values);
  const int64_t head_values = arb_dense_panels(width) * ARB_DENSE_PANEL * capacity;
  for (int64_t h = 0; h < heads; h++)
    for (int64_t i = 0; i < count; i++) {
      arb_dense_pack_f(kp + h * capacity * width, width, i, k + i * ld + h * width);
      for (int64_t c = 0; c < width; c++)
        vp[h * head_values + (c / ARB_DENSE_PANEL * capacity + i) * ARB_DENSE_PANEL + c % ARB_DENSE_PANEL] =
            v[i * ld + h * width + c];
    }
  for (int64_t h = 0; h < heads; h++)
    for (int64_t i = 0; i < m; i++)
      attend_row(q + i * ld + h * width, kp + h * capacity * width, vp + h * head_values, width, capacity, count,
                 causal ? count - m + i + 1 : count, 0.3f, scores, scratch, out + i * ld + h * width);
  arb_dense_kv kv = {.heads = heads, .width = width, .capacity = capacity, .keys = kv_there, .values = kv_there + keys};
  if (first) MUST(gpu->append(gpu, &kv, k_there, ld, v_there, ld, first));
  kv.count = first;
  MUST(gpu->append(gpu, &kv, k_there + first * ld, ld, v_there + first * ld, ld, count - first));
  kv.count = count;
  MUST(gpu->attend(gpu, &kv, q_there, ld, m, 0.3f, causal, out_there, ld));
  char what[128];
  snprintf(what, sizeof what, "attention, %lld heads of %lld, %lld keys, %lld rows%s", (long long)heads, (long long)width,
           (long long)count, (long long)m, causal ? ", causal" : "");
  same_there(what, out, out_there, m * ld);
  void *const on_gpu[] = {k_there, v_there, q_there, out_there, kv_there};
  for (size_t i = 0; i < sizeof on_gpu / sizeof on_gpu[0]; i++) gpu->free(gpu, on_gpu[i]);
  free(k), free(v), free(q), free(out), free(memory), free(kp), free(vp), free(scores), free(scratch);
}

static void test_attention(void) {
  static const int64_t shapes[][4] = {{1, 1, 1, 1},     {2, 5, 3, 3},     {8, 52, 37, 37}, {6, 64, 257, 257}, {3, 33, 65, 1},
                                      {1, 384, 24, 24}, {2, 17, 100, 33}, {8, 52, 31, 4},  {8, 52, 32, 4}};
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
    for (int causal = 0; causal < 2; causal++) attention(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], causal);
}

/* ---- rows ---- */

static void rms(const float *x, int64_t c, const float *gain, bool silu, float *y) {
  const float norm = sqrtf(arb_row_dot(x, x, c)), inv = sqrtf((float)c) / (norm > 1e-12f ? norm : 1e-12f);
  for (int64_t i = 0; i < c; i++) y[i] = x[i] * inv * gain[i];
  if (silu) host->activate(ARB_DENSE_SILU, y, c);
}

static void rows(int64_t m, int64_t width) {
  const int64_t ld = width + 3, count = m * ld, pairs = width / 2;
  float *x = draws(count), *gain = draws(2 * width), *y = draws(count), *turns = draws(m * 2 * pairs + 1), *z = draws(count);
  memset(x, 0, (size_t)width * sizeof *x); /* a row of zeros: the norm's floor */
  float *x_there = floats_there(x, count), *g_there = floats_there(gain, 2 * width), *y_there = floats_there(y, count);
  float *t_there = floats_there(turns, m * 2 * pairs + 1), *z_there = floats_there(z, count);
  for (int bias = 0; bias < 2; bias++) {
    for (int64_t r = 0; r < m; r++) host->layer_norm(x + r * ld, width, gain, bias ? gain + width : NULL, 1e-5f, y + r * ld);
    MUST(gpu->layer_norm(gpu, x_there, ld, m, width, g_there, bias ? g_there + width : NULL, 1e-5f, y_there, ld));
    same_there("layer norm", y, y_there, count);
  }
  for (int64_t r = 0; r < m; r++) host->gate(x + r * ld, y + r * ld, width, z + r * ld);
  MUST(gpu->gate(gpu, x_there, y_there, ld, m, width, z_there, ld));
  same_there("gate", z, z_there, count);
  for (int64_t r = 0; r < m; r++)
    for (int64_t i = 0; i < pairs; i++) {
      float *pair = z + r * ld + 2 * i;
      const float a = pair[0], b = pair[1], c = turns[r * 2 * pairs + i], s = turns[r * 2 * pairs + pairs + i];
      pair[0] = a * c - b * s;
      pair[1] = b * c + a * s;
    }
  if (pairs) MUST(gpu->rotate(gpu, z_there, ld, m, 1, width, pairs, t_there));
  same_there("rotation", z, z_there, count);
  for (int64_t r = 0; r < m; r++) rms(x + r * width, width, gain, false, y + r * width);
  MUST(gpu->rms(gpu, x_there, m, width, g_there, y_there));
  same_there("RMS norm", y, y_there, count);
  void *const on_gpu[] = {x_there, g_there, y_there, t_there, z_there};
  for (size_t i = 0; i < sizeof on_gpu / sizeof on_gpu[0]; i++) gpu->free(gpu, on_gpu[i]);
  free(x), free(gain), free(y), free(turns), free(z);
}

static void group_norm(int64_t m, int64_t width) {
  const int64_t count = m * width;
  float *x = draws(count), *gain = draws(2 * width), *sums = floats(m);
  float *x_there = floats_there(x, count), *g_there = floats_there(gain, 2 * width), *sums_there = floats_there(sums, m);
  double mean = 0.0, square = 0.0;
  for (int64_t r = 0; r < m; r++) mean += (double)arb_row_sum(x + r * width, width);
  const float centre = (float)(mean / (double)count);
  for (int64_t i = 0; i < count; i++) x[i] -= centre;
  for (int64_t r = 0; r < m; r++) square += (double)arb_row_dot(x + r * width, x + r * width, width);
  const float inv = (float)(1.0 / sqrt(square / (double)count + (double)1e-5f));
  for (int64_t i = 0; i < count; i++) x[i] = (x[i] * inv) * gain[i % width] + gain[width + i % width];
  MUST(gpu->group_norm(gpu, x_there, m, width, g_there, g_there + width, 1e-5f, sums_there));
  same_there("group norm", x, x_there, count);
  gpu->free(gpu, x_there), gpu->free(gpu, g_there), gpu->free(gpu, sums_there);
  free(x), free(gain), free(sums);
}

static void frame(int h, int w, int c, int64_t ldx, bool doubled, bool normed) {
  const int times = doubled ? 2 : 1;
  const int64_t inputs = (int64_t)h * w * ldx, outputs = (int64_t)(times * h + 2) * (times * w + 2) * c;
  float *x = draws(inputs), *gain = draws(c), *want = floats(outputs), *out = draws(outputs);
  float *x_there = floats_there(x, inputs), *g_there = floats_there(gain, c), *out_there = floats_there(out, outputs);
  for (int64_t i = 0; i < times * h; i++)
    for (int64_t j = 0; j < times * w; j++) {
      const float *const from = x + (i / times * w + j / times) * ldx;
      float *const to = want + ((i + 1) * (times * w + 2) + j + 1) * c;
      if (normed)
        rms(from, c, gain, true, to);
      else
        memcpy(to, from, (size_t)c * sizeof *to);
    }
  const arb_dense_frame f = {x_there, ldx, h, w, c, doubled, normed ? g_there : NULL};
  MUST(gpu->frame(gpu, &f, out_there));
  same_there("frame", want, out_there, outputs);
  gpu->free(gpu, x_there), gpu->free(gpu, g_there), gpu->free(gpu, out_there);
  free(x), free(gain), free(want), free(out);
}

static void test_rows(void) {
  static const int64_t shapes[][2] = {{1, 1}, {1, 31}, {3, 32}, {7, 33}, {257, 384}, {39, 416}, {5, 100}};
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) rows(shapes[i][0], shapes[i][1]);
  group_norm(1, 5), group_norm(37, 33), group_norm(2049, 3), group_norm(4500, 40);
  frame(1, 1, 3, 3, false, false), frame(5, 7, 33, 40, false, false), frame(4, 3, 96, 96, false, true);
  frame(3, 9, 5, 5, false, true), frame(3, 5, 17, 34, true, false), frame(8, 6, 384, 384, false, true);
}

int main(void) {
  arb_backend *be = gpu_backend(); /* or exit 77 */
  arb_backend_destroy(&be);
  host = arb_dense_pick("auto");
  MUST(arb_cuda_dense_open(0, &gpu));
  test_products();
  test_attention();
  test_rows();
  gpu->destroy(gpu);
  return gpu_totals();
}
