/* The row operations of kernels/dense/device.h. A warp owns a row and a lane its elements j, j + 32, ..., so sums have the
 * order of kernels/common/reduce.h and no lane reads what another one writes. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/dense_impl.cuh"

enum { WARPS = 4 }; /* of a block */

static __device__ __forceinline__ int64_t first_row(void) { return (int64_t)blockIdx.x * WARPS + threadIdx.x / 32; }
static __device__ __forceinline__ int64_t row_stride(void) { return (int64_t)gridDim.x * WARPS; }
static __device__ __forceinline__ int lane_of(void) { return (int)threadIdx.x % 32; }

static unsigned row_grid(const arb_cuda *c, int64_t rows) { return arb_cuda_grid(c, rows, WARPS, 16); }

static __global__ void layer_norm_kernel(const float *x, int64_t ldx, int64_t m, int width, const float *weight,
                                         const float *bias, float eps, float *y, int64_t ldy) {
  arb_previous_done();
  arb_next_may_start();
  const int lane = lane_of();
  for (int64_t r = first_row(); r < m; r += row_stride()) {
    const float *const from = x + r * ldx;
    float *const to = y + r * ldy;
    float sum = 0.0f, squares = 0.0f;
    for (int i = lane; i < width; i += 32) sum += from[i];
    const float mean = arb_divf(arb_warp_sum(sum), (float)width);
    for (int i = lane; i < width; i += 32) {
      const float d = from[i] - mean;
      squares += d * d;
    }
    const float inv = arb_divf(1.0f, arb_sqrtf(arb_divf(arb_warp_sum(squares), (float)width) + eps));
    for (int i = lane; i < width; i += 32) {
      const float v = ((from[i] - mean) * inv) * weight[i];
      to[i] = bias ? v + bias[i] : v;
    }
  }
}

static arb_status layer_norm(arb_dense_device *d, const float *x, int64_t ldx, int64_t m, int64_t width, const float *weight,
                             const float *bias, float eps, float *y, int64_t ldy) {
  arb_cuda *c;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  ARB_CUDA_CHAIN(c, "layer norm", layer_norm_kernel, row_grid(c, m), 32 * WARPS, 0, x, ldx, m, (int)width, weight, bias, eps, y,
                 ldy);
  return ARB_OK;
}

/* Row i of one head: keys go to column i % 32 of a panel, values stay rows of 32. */
static __global__ void append_kernel(const arb_dense_kv kv, const float *k, int64_t ldk, const float *v, int64_t ldv,
                                     int64_t m) {
  arb_previous_done();
  arb_next_may_start();
  const int lane = lane_of(), w = (int)kv.width;
  const int64_t panels = (kv.width + ARB_DENSE_PANEL - 1) / ARB_DENSE_PANEL;
  for (int64_t job = first_row(); job < m * kv.heads; job += row_stride()) {
    const int64_t row = job / kv.heads, head = job % kv.heads, place = kv.count + row;
    float *const keys =
        kv.keys + head * kv.capacity * w + place / ARB_DENSE_PANEL * w * ARB_DENSE_PANEL + place % ARB_DENSE_PANEL;
    float *const values = kv.values + head * panels * kv.capacity * ARB_DENSE_PANEL;
    const float *const from_k = k + row * ldk + head * w, *const from_v = v + row * ldv + head * w;
    for (int i = lane; i < w; i += 32) {
      keys[(int64_t)i * ARB_DENSE_PANEL] = from_k[i];
      values[((int64_t)(i / ARB_DENSE_PANEL) * kv.capacity + place) * ARB_DENSE_PANEL + i % ARB_DENSE_PANEL] = from_v[i];
    }
  }
}

static arb_status append(arb_dense_device *d, const arb_dense_kv *kv, const float *k, int64_t ldk, const float *v, int64_t ldv,
                         int64_t m) {
  arb_cuda *c;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  ARB_REQUIRE(kv->count + m <= kv->capacity, ARB_ERR_ARG, "%lld keys, room for %lld", (long long)(kv->count + m),
              (long long)kv->capacity);
  ARB_CUDA_CHAIN(c, "append", append_kernel, row_grid(c, m * kv->heads), 32 * WARPS, 0, *kv, k, ldk, v, ldv, m);
  return ARB_OK;
}

static __global__ void table_kernel(const arb_dense_matrix w, const int32_t *ids, int64_t count, float *out, int64_t ldo) {
  arb_previous_done();
  arb_next_may_start();
  for (int64_t r = first_row(); r < count; r += row_stride()) {
    const int64_t id = ids[r], at = id / ARB_DENSE_PANEL * w.k * ARB_DENSE_PANEL + id % ARB_DENSE_PANEL;
    for (int64_t i = lane_of(); i < w.k; i += 32)
      out[r * ldo + i] = w.q ? (float)w.q[at + i * ARB_DENSE_PANEL] * w.scale[id] : w.f[at + i * ARB_DENSE_PANEL];
  }
}

static arb_status table(arb_dense_device *d, const arb_dense_matrix *w, const int32_t *ids, int64_t count, float *out,
                        int64_t ldo) {
  arb_cuda *c;
  arb_cuda_dense *s = arb_cuda_dense_of(d);
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  if (count > s->id_count) {
    void *memory;
    ARB_CUDA_TRY(cudaStreamSynchronize(c->stream), "growing a list of rows");
    s->be->ops.free(s->be, s->ids);
    s->ids = NULL;
    s->id_count = 0;
    ARB_TRY(s->be->ops.alloc(s->be, (size_t)count * sizeof *s->ids, &memory));
    s->ids = (int32_t *)memory;
    s->id_count = count;
  }
  ARB_TRY(s->be->ops.upload(s->be, s->ids, ids, (size_t)count * sizeof *s->ids));
  ARB_CUDA_CHAIN(c, "table", table_kernel, row_grid(c, count), 32 * WARPS, 0, *w, s->ids, count, out, ldo);
  return ARB_OK;
}

static __global__ void gate_kernel(const float *value, const float *gate, int64_t ld, int64_t m, int64_t width, float *out,
                                   int64_t ldo) {
  arb_previous_done();
  arb_next_may_start();
  const int64_t all = m * width;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (int64_t)gridDim.x * blockDim.x) {
    const int64_t r = i / width, j = i % width;
    const float g = gate[r * ld + j];
    out[r * ldo + j] = (g * arb_sigmoidf(g)) * value[r * ld + j];
  }
}

static arb_status gate(arb_dense_device *d, const float *value, const float *gate, int64_t ld, int64_t m, int64_t width,
                       float *out, int64_t ldo) {
  arb_cuda *c;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  ARB_CUDA_CHAIN(c, "gate", gate_kernel, arb_cuda_grid(c, m * width, 128, 16), 128, 0, value, gate, ld, m, width, out, ldo);
  return ARB_OK;
}

static __global__ void rotate_kernel(float *x, int64_t ld, int64_t m, int64_t heads, int64_t width, int64_t pairs,
                                     const float *turns) {
  arb_previous_done();
  arb_next_may_start();
  const int64_t per_row = heads * pairs;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < m * per_row; i += (int64_t)gridDim.x * blockDim.x) {
    const int64_t r = i / per_row, head = i % per_row / pairs, p = i % pairs;
    float *const pair = x + r * ld + head * width + 2 * p;
    const float a = pair[0], b = pair[1], cosine = turns[r * 2 * pairs + p], sine = turns[r * 2 * pairs + pairs + p];
    pair[0] = a * cosine - b * sine;
    pair[1] = b * cosine + a * sine;
  }
}

static arb_status rotate(arb_dense_device *d, float *x, int64_t ld, int64_t m, int64_t heads, int64_t width, int64_t pairs,
                         const float *turns) {
  arb_cuda *c;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  ARB_CUDA_CHAIN(c, "rotate", rotate_kernel, arb_cuda_grid(c, m * heads * pairs, 128, 16), 128, 0, x, ld, m, heads, width,
                 pairs, turns);
  return ARB_OK;
}

/* ---- group norm ---- */

static __global__ void group_sum_kernel(const float *x, int64_t m, int width, float *sums) {
  arb_previous_done();
  arb_next_may_start();
  for (int64_t r = first_row(); r < m; r += row_stride()) {
    float sum = 0.0f;
    for (int i = lane_of(); i < width; i += 32) sum += x[r * width + i];
    sum = arb_warp_sum(sum);
    if (lane_of() == 0) sums[r] = sum;
  }
}

static __global__ void group_centre_kernel(float *x, int64_t m, int width, const float *moments, float *sums) {
  arb_previous_done();
  arb_next_may_start();
  const float mean = moments[0];
  for (int64_t r = first_row(); r < m; r += row_stride()) {
    float sum = 0.0f;
    for (int i = lane_of(); i < width; i += 32) {
      const float v = x[r * width + i] - mean;
      x[r * width + i] = v;
      sum += v * v;
    }
    sum = arb_warp_sum(sum);
    if (lane_of() == 0) sums[r] = sum;
  }
}

/* All sums in order, in double, by one thread of one block; the others fetch. deviation: the second moment. */
static __global__ void __launch_bounds__(256)
    group_total_kernel(const float *sums, int64_t m, double count, double eps, int deviation, float *moments) {
  arb_previous_done();
  arb_next_may_start();
  __shared__ float part[2048];
  double all = 0.0;
  for (int64_t first = 0; first < m; first += 2048) {
    const int here = m - first < 2048 ? (int)(m - first) : 2048;
    for (int i = (int)threadIdx.x; i < here; i += 256) part[i] = sums[first + i];
    __syncthreads();
    if (threadIdx.x == 0)
      for (int i = 0; i < here; i++) all = __dadd_rn(all, (double)part[i]);
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  const double mean = __ddiv_rn(all, count);
  moments[deviation] = (float)(deviation ? __ddiv_rn(1.0, __dsqrt_rn(__dadd_rn(mean, eps))) : mean);
}

static __global__ void group_scale_kernel(float *x, int64_t all, int width, const float *moments, const float *weight,
                                          const float *bias) {
  arb_previous_done();
  arb_next_may_start();
  const float inv = moments[1];
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += (int64_t)gridDim.x * blockDim.x) {
    const int column = (int)(i % width);
    x[i] = (x[i] * inv) * weight[column] + bias[column];
  }
}

static arb_status group_norm(arb_dense_device *d, float *x, int64_t m, int64_t width, const float *weight, const float *bias,
                             float eps, float *sums) {
  arb_cuda *c;
  float *moments = arb_cuda_dense_of(d)->moments;
  const double count = (double)m * (double)width;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  ARB_CUDA_CHAIN(c, "group sum", group_sum_kernel, row_grid(c, m), 32 * WARPS, 0, x, m, (int)width, sums);
  ARB_CUDA_CHAIN(c, "group total", group_total_kernel, 1, 256, 0, sums, m, count, (double)eps, 0, moments);
  ARB_CUDA_CHAIN(c, "group centre", group_centre_kernel, row_grid(c, m), 32 * WARPS, 0, x, m, (int)width, moments, sums);
  ARB_CUDA_CHAIN(c, "group total", group_total_kernel, 1, 256, 0, sums, m, count, (double)eps, 1, moments);
  ARB_CUDA_CHAIN(c, "group scale", group_scale_kernel, arb_cuda_grid(c, m * width, 256, 8), 256, 0, x, m * width, (int)width,
                 moments, weight, bias);
  return ARB_OK;
}

/* ---- frames ---- */

/* y = x / max(||x||, 1e-12) * sqrt(width) * gain of one pixel, by a warp; then SiLU. */
static __device__ __forceinline__ void rms_pixel(const float *x, int width, const float *gain, bool silu, int lane, float *y) {
  float squares = 0.0f;
  for (int i = lane; i < width; i += 32) squares += x[i] * x[i];
  const float norm = arb_sqrtf(arb_warp_sum(squares));
  const float inv = arb_divf(arb_sqrtf((float)width), norm > 1e-12f ? norm : 1e-12f);
  for (int i = lane; i < width; i += 32) {
    const float v = x[i] * inv * gain[i];
    y[i] = silu ? v * arb_sigmoidf(v) : v;
  }
}

/* A warp a pixel of the bordered frame. */
static __global__ void frame_kernel(const arb_dense_frame f, float *out) {
  arb_previous_done();
  arb_next_may_start();
  const int lane = lane_of(), times = f.doubled ? 2 : 1, w = times * f.w + 2, h = times * f.h + 2;
  for (int64_t p = first_row(); p < (int64_t)w * h; p += row_stride()) {
    const int y = (int)(p / w), x = (int)(p % w);
    float *const to = out + p * f.c;
    if (y == 0 || y == h - 1 || x == 0 || x == w - 1) {
      for (int i = lane; i < f.c; i += 32) to[i] = 0.0f;
      continue;
    }
    const float *const from = f.x + ((int64_t)((y - 1) / times) * f.w + (x - 1) / times) * f.ldx;
    if (f.gain) {
      rms_pixel(from, f.c, f.gain, true, lane, to);
    } else {
      for (int i = lane; i < f.c; i += 32) to[i] = from[i];
    }
  }
}

static arb_status frame(arb_dense_device *d, const arb_dense_frame *f, float *out) {
  arb_cuda *c;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  const int64_t times = f->doubled ? 2 : 1, pixels = (times * f->h + 2) * (times * f->w + 2);
  ARB_CUDA_CHAIN(c, "frame", frame_kernel, row_grid(c, pixels), 32 * WARPS, 0, *f, out);
  return ARB_OK;
}

static __global__ void rms_kernel(const float *x, int64_t m, int width, const float *gain, float *y) {
  arb_previous_done();
  arb_next_may_start();
  for (int64_t r = first_row(); r < m; r += row_stride())
    rms_pixel(x + r * width, width, gain, false, lane_of(), y + r * width);
}

static arb_status rms(arb_dense_device *d, const float *x, int64_t m, int64_t width, const float *gain, float *y) {
  arb_cuda *c;
  ARB_TRY(arb_cuda_dense_enter(d, &c));
  ARB_CUDA_CHAIN(c, "rms", rms_kernel, row_grid(c, m), 32 * WARPS, 0, x, m, (int)width, gain, y);
  return ARB_OK;
}

void arb_cuda_dense_fill_rows(arb_dense_device *d) {
  d->layer_norm = layer_norm;
  d->append = append;
  d->table = table;
  d->gate = gate;
  d->rotate = rotate;
  d->group_norm = group_norm;
  d->frame = frame;
  d->rms = rms;
}
