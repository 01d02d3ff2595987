/* Speed of the slots that work on rows, at the shapes of configs/books.ini: microseconds (median of batches between two events,
 * and their spread) and the bytes that a call must move over that time. Every slot's output is compared, byte for byte, with
 * what it makes of the same input one element off its alignment, which the kernels for any row take (the slot tests compare
 * those with kernels/ref): on ordinary and on wild contents, and at widths of other kernels. */
#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cuda/context.h"
#include "tests/gpu/gpu_test.h"

namespace {

constexpr int64_t SEQUENCES = 64, CONTEXT = 512, GRAINS = 8, DIM = 512, HIDDEN = 1408;

arb_backend *be;
cudaStream_t stream;

enum content { NORMAL, SMALL, WILD, EXPONENTS, SCALES };

__device__ uint32_t mix(uint32_t x) {
  x ^= x >> 16, x *= 0x85EBCA6Bu, x ^= x >> 13, x *= 0xC2B2AE35u;
  return x ^ x >> 16;
}
__device__ float normal(uint32_t i, uint32_t seed) { /* a sum of four uniforms, variance 1 */
  const uint32_t a = mix(i * 2u + seed * 0x9E3779B9u), b = mix(i * 2u + 1u + seed * 0x9E3779B9u);
  return ((float)(a & 0xffffu) + (float)(a >> 16) + (float)(b & 0xffffu) + (float)(b >> 16) - 131070.0f) *
         (1.7320508f / 65536.0f);
}
/* kind: bytes of an element. */
__global__ void noise(void *p, size_t count, int bytes, uint32_t seed, content what) {
  for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) {
    const uint32_t r = mix((uint32_t)i * 0x9E3779B9u + seed);
    float v = normal((uint32_t)i, seed) * (what == SMALL ? 1e-4f : 1.0f);
    if (what == SCALES) v = fabsf(v) + 0.1f;
    if (bytes == 4)
      ((uint32_t *)p)[i] = what == WILD ? (r % 64 ? __float_as_uint(v) : mix(r)) : __float_as_uint(v);
    else if (bytes == 2)
      ((uint16_t *)p)[i] = what == WILD && r % 16 == 0 ? (uint16_t)mix(r) : arb_bf16_of_f32(v);
    else
      ((int8_t *)p)[i] = what == EXPONENTS ? (int8_t)((int)(r % 13) - 20) : (int8_t)r;
  }
}

__global__ void differ(const uint32_t *a, const uint32_t *b, size_t words, unsigned long long *bad) {
  unsigned long long mine = 0;
  for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < words; i += (size_t)gridDim.x * blockDim.x)
    mine += a[i] != b[i];
  if (mine) atomicAdd(bad, mine);
}

struct buffer {
  void *p;
  size_t bytes;
};
std::vector<buffer> outputs;
std::vector<void *> held;

void *room(size_t bytes) {
  void *p = nullptr;
  MUST(be->ops.alloc(be, (bytes + 15) / 16 * 16, &p));
  held.push_back(p);
  return p;
}
template <typename T>
T *input(int64_t count, content what) {
  void *p = room((size_t)count * sizeof(T));
  noise<<<1024, 256, 0, stream>>>(p, (size_t)count, (int)sizeof(T), (uint32_t)held.size() * 7919u, what);
  return (T *)p;
}
template <typename T>
T *output(int64_t count) {
  const size_t bytes = ((size_t)count * sizeof(T) + 15) / 16 * 16;
  void *p = room(bytes);
  outputs.push_back({p, bytes});
  return (T *)p;
}
void drop() {
  MUST(be->ops.sync(be));
  for (void *p : held) be->ops.free(be, p);
  held.clear(), outputs.clear();
}

void clear_outputs() {
  for (const buffer &b : outputs)
    MUST(arb_cuda_check(cudaMemsetAsync(b.p, 0xA5, b.bytes, stream), "memset", __FILE__, __LINE__));
}

/* The same elements one element further. */
template <typename T>
const T *shifted(const T *from, int64_t count) {
  T *p = (T *)room((size_t)(count + 1) * sizeof(T)) + 1;
  MUST(arb_cuda_check(cudaMemcpyAsync(p, from, (size_t)count * sizeof(T), cudaMemcpyDeviceToDevice, stream), "copy", __FILE__,
                      __LINE__));
  return p;
}

int run_once(const std::function<void()> &call) {
  int flag = 0;
  clear_outputs();
  call();
  MUST(be->ops.take_nonfinite(be, &flag));
  return flag;
}

/* `call` and, on shifted input, `any`. bytes: what one call must move; 0: not measured. */
void slot(const char *name, double bytes, const std::function<void()> &call, const std::function<void()> &any) {
  std::vector<void *> want;
  const int flag_want = run_once(any);
  for (const buffer &b : outputs) {
    void *p = room(b.bytes);
    MUST(arb_cuda_check(cudaMemcpyAsync(p, b.p, b.bytes, cudaMemcpyDeviceToDevice, stream), "copy", __FILE__, __LINE__));
    want.push_back(p);
  }
  const int flag = run_once(call);
  unsigned long long count = 0, *bad = (unsigned long long *)room(8);
  MUST(be->ops.fill(be, bad, 0, 8));
  for (size_t i = 0; i < outputs.size(); i++)
    differ<<<1024, 256, 0, stream>>>((const uint32_t *)outputs[i].p, (const uint32_t *)want[i], outputs[i].bytes / 4, bad);
  MUST(be->ops.download(be, &count, bad, 8));
  char what[128];
  snprintf(what, sizeof what, "%s%s: %llu words differ, flag %d of %d", name, bytes > 0.0 ? "" : ", wild", count, flag,
           flag_want);
  gpu_check(count == 0 && flag == flag_want, what);
  if (bytes > 0.0) {
    cudaEvent_t a, b;
    cudaEventCreate(&a), cudaEventCreate(&b);
    std::vector<double> t;
    for (int i = 0; i < 11; i++) {
      cudaEventRecord(a, stream);
      for (int k = 0; k < 8; k++) call();
      cudaEventRecord(b, stream);
      cudaEventSynchronize(b);
      float ms = 0;
      cudaEventElapsedTime(&ms, a, b);
      if (i >= 2) t.push_back(ms * 1000.0 / 8);
    }
    std::sort(t.begin(), t.end());
    printf("%-22s %8.2f us (%.2f .. %.2f)  %6.0f GB/s%s\n", name, t[t.size() / 2], t.front(), t.back(),
           bytes / t[t.size() / 2] * 1e-3, count ? "  DIFFERS" : "");
    fflush(stdout);
    cudaEventDestroy(a), cudaEventDestroy(b);
  }
  drop();
}

arb_stack stack(int members, int64_t n, int uses) {
  arb_stack w = {};
  w.id = 0x1234567u;
  w.uses = uses;
  w.members = members;
  w.n = n;
  w.k = 1;
  for (int i = 0; i <= members; i++) w.begin[i] = n / members * i;
  w.e = input<int8_t>(n, EXPONENTS);
  return w;
}

void all(int64_t sequences, bool wild, int64_t dim, int64_t hidden) {
  const int64_t m = sequences * CONTEXT, wide = 3 * dim, pair = 2 * hidden;
  const arb_rows r = {m / GRAINS, (int32_t)GRAINS, 0, 1};
  const double rows = wild ? 0.0 : (double)m;
  const content z = wild ? WILD : NORMAL, small = wild ? WILD : SMALL;
  {
    const uint16_t *uv = input<uint16_t>(m * pair, z), *off = shifted(uv, m * pair);
    const int8_t *e = input<int8_t>(hidden, EXPONENTS);
    int8_t *q = output<int8_t>(m * hidden);
    float *s = output<float>(m), *inv = output<float>(m);
    auto call = [=](const uint16_t *in) { MUST(be->ops.glu_norm_quant(be, &r, hidden, in, in + hidden, pair, e, q, s, inv)); };
    slot(
        "glu_norm_quant", rows * (double)(hidden * 5), [=] { call(uv); }, [=] { call(off); });
  }
  {
    const arb_stack w = stack(2, pair, 1);
    const uint16_t *uv = input<uint16_t>(m * pair, z), *dy = input<uint16_t>(m * hidden, small), *off = shifted(uv, m * pair);
    const int8_t *e = input<int8_t>(hidden, EXPONENTS);
    const float *inv = input<float>(m, SCALES);
    int8_t *hq = output<int8_t>(m * pair);
    float *sh = output<float>(m);
    auto call = [=](const uint16_t *in) {
      MUST(be->ops.glu_norm_backward(be, &r, hidden, in, in + hidden, pair, inv, e, dy, &w, hq, sh));
    };
    slot(
        "glu_norm_backward", rows * (double)(hidden * 8), [=] { call(uv); }, [=] { call(off); });
  }
  {
    const uint16_t *fcg = input<uint16_t>(m * wide, z), *off = shifted(fcg, m * wide);
    const float *h = input<float>(m * dim, z);
    const int8_t *e = input<int8_t>(dim, EXPONENTS);
    int8_t *q = output<int8_t>(m * dim);
    float *s = output<float>(m), *inv = output<float>(m);
    auto call = [=](const uint16_t *in) { MUST(be->ops.gate_norm_quant(be, &r, dim, h, in + 2 * dim, wide, e, q, s, inv)); };
    slot(
        "gate_norm_quant", rows * (double)(dim * 7), [=] { call(fcg); }, [=] { call(off); });
  }
  {
    const uint16_t *fcg = input<uint16_t>(m * wide, z), *dy = input<uint16_t>(m * dim, small), *off = shifted(fcg, m * wide);
    const float *h = input<float>(m * dim, z), *inv = input<float>(m, SCALES);
    const int8_t *e = input<int8_t>(dim, EXPONENTS);
    uint16_t *dh = output<uint16_t>(m * dim), *dz = output<uint16_t>(m * wide);
    auto call = [=](const uint16_t *in) {
      MUST(be->ops.gate_norm_backward(be, &r, dim, h, in + 2 * dim, wide, inv, e, dy, dh, dz + 2 * dim, wide));
    };
    slot(
        "gate_norm_backward", rows * (double)(dim * 12), [=] { call(fcg); }, [=] { call(off); });
  }
  {
    const uint16_t *fcg = input<uint16_t>(m * wide, z), *off = shifted(fcg, m * wide);
    const float *bias = input<float>(dim, NORMAL);
    float *h = output<float>(m * dim);
    auto call = [=](const uint16_t *in) { MUST(be->ops.mlgru_forward(be, &r, CONTEXT, dim, in, in + dim, wide, bias, h)); };
    slot(
        "mlgru_forward", rows * (double)(dim * 8), [=] { call(fcg); }, [=] { call(off); });
  }
  {
    const uint16_t *fcg = input<uint16_t>(m * wide, z), *dh = input<uint16_t>(m * dim, small), *off = shifted(fcg, m * wide);
    const float *bias = input<float>(dim, NORMAL), *h = input<float>(m * dim, z);
    uint16_t *dz = output<uint16_t>(m * wide);
    auto call = [=](const uint16_t *in) {
      MUST(be->ops.mlgru_backward(be, &r, CONTEXT, dim, in, in + dim, wide, bias, h, dh, dz, dz + dim, wide));
    };
    slot(
        "mlgru_backward", rows * (double)(dim * 14), [=] { call(fcg); }, [=] { call(off); });
  }
  {
    const arb_stack w = stack(3, wide, 1);
    const uint16_t *g = input<uint16_t>(m * wide, small), *off = shifted(g, m * wide);
    int8_t *hq = output<int8_t>(m * wide);
    float *sh = output<float>(m);
    auto call = [=](const uint16_t *in) { MUST(be->ops.grad_quant(be, &r, NULL, in, wide, &w, 0, hq, sh)); };
    slot(
        "grad_quant, 1536 bf16", rows * (double)(wide * 3), [=] { call(g); }, [=] { call(off); });
  }
  {
    const arb_stack w = stack(1, dim, 1);
    const float *g = input<float>(m * dim, small), *off = shifted(g, m * dim);
    int8_t *hq = output<int8_t>(m * dim);
    float *sh = output<float>(m);
    auto call = [=](const float *in) { MUST(be->ops.grad_quant(be, &r, in, NULL, dim, &w, 0, hq, sh)); };
    slot(
        "grad_quant, 512 fp32", rows * (double)(dim * 5), [=] { call(g); }, [=] { call(off); });
  }
  {
    const arb_stack w = stack(1, dim / 2, 3);
    const uint16_t *g = input<uint16_t>(m * 3 * dim / 2, small), *off = shifted(g, m * 3 * dim / 2);
    int8_t *hq = output<int8_t>(m * dim / 2);
    float *sh = output<float>(m);
    auto call = [=](const uint16_t *in) { MUST(be->ops.grad_quant(be, &r, NULL, in + dim / 2, 3 * dim / 2, &w, 1, hq, sh)); };
    slot(
        "grad_quant, 256 bf16", rows * (double)(dim / 2 * 3), [=] { call(g); }, [=] { call(off); });
  }
  {
    const float *x = input<float>(m * dim, z), *off = shifted(x, m * dim);
    const uint16_t *y = input<uint16_t>(m * dim, z);
    const int8_t *e = input<int8_t>(dim, EXPONENTS);
    float *out = output<float>(m * dim), *s = output<float>(m), *inv = output<float>(m);
    int8_t *q = output<int8_t>(m * dim);
    auto call = [=](const float *in) { MUST(be->ops.add_norm_quant(be, &r, dim, in, y, out, e, q, s, inv)); };
    slot(
        "add_norm_quant", rows * (double)(dim * 11), [=] { call(x); }, [=] { call(off); });
  }
  {
    const arb_stack w = stack(1, dim, 1);
    const float *x = input<float>(m * dim, z), *inv = input<float>(m, SCALES), *off = shifted(x, m * dim);
    const uint16_t *dy = input<uint16_t>(m * dim, small);
    const int8_t *e = input<int8_t>(dim, EXPONENTS);
    float *g = output<float>(m * dim), *sh = output<float>(m);
    int8_t *hq = output<int8_t>(m * dim);
    auto call = [=](const float *in) { MUST(be->ops.norm_backward(be, &r, dim, in, inv, e, dy, 1, g, &w, hq, sh)); };
    slot(
        "norm_backward", rows * (double)(dim * 15), [=] { call(x); }, [=] { call(off); });
  }
  {
    const int64_t width = 3 * dim / 2;
    const uint16_t *x = input<uint16_t>(m * width, z), *dy = input<uint16_t>(m * width, small), *off = shifted(x, m * width);
    const float *inv = input<float>(m, SCALES);
    const int8_t *e = input<int8_t>(width, EXPONENTS);
    uint16_t *g = output<uint16_t>(m * width);
    auto call = [=](const uint16_t *in) { MUST(be->ops.input_norm_backward(be, &r, width, in, inv, e, dy, g)); };
    slot(
        "input_norm_backward", rows * (double)(width * 6), [=] { call(x); }, [=] { call(off); });
  }
}

}  // namespace

int main(int argc, char **argv) {
  (void)argv;
  be = gpu_backend();
  stream = arb_cuda_of(be)->stream;
  MUST(be->ops.begin_step(be, 0x123456789abcdefull, 17, 0.1f));
  if (argc == 1) {
    all(8, true, DIM, HIDDEN);
    all(8, true, 264, 520);
    all(8, true, 64, 96);
    all(8, true, 1024, 2048);
    all(1, true, 2048, 5504);
    all(1, true, 256, 7000);
    all(1, true, 256, 8192);
  }
  all(SEQUENCES, false, DIM, HIDDEN);
  arb_backend_destroy(&be);
  return gpu_totals();
}
