/* Speed of the slots that work on rows, at the shapes of configs/books.ini: microseconds (median of batches between two events,
 * and their spread) and the bytes that a call must move over that time. Every candidate's output is compared with candidate
 * 0's, byte for byte, on ordinary and on wild contents. */
#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cuda/context.h"
#include "kernels/cuda/variant.h"
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

/* variants: how many candidates besides 0. bytes: what one call must move. */
void slot(const char *name, int which, int variants, double bytes, bool wild, const std::function<void()> &call) {
  std::vector<void *> want;
  unsigned long long *bad = (unsigned long long *)room(8);
  int flag_want = 0;
  for (int v = 0; v <= variants; v++) {
    if (which >= 0) arb_variant[which] = v;
    clear_outputs();
    call();
    int flag = 0;
    MUST(be->ops.take_nonfinite(be, &flag));
    unsigned long long count = 0;
    if (v == 0) {
      flag_want = flag;
      for (const buffer &b : outputs) {
        void *p = room(b.bytes);
        MUST(arb_cuda_check(cudaMemcpyAsync(p, b.p, b.bytes, cudaMemcpyDeviceToDevice, stream), "copy", __FILE__, __LINE__));
        want.push_back(p);
      }
    } else {
      MUST(be->ops.fill(be, bad, 0, 8));
      for (size_t i = 0; i < outputs.size(); i++)
        differ<<<1024, 256, 0, stream>>>((const uint32_t *)outputs[i].p, (const uint32_t *)want[i], outputs[i].bytes / 4, bad);
      MUST(be->ops.download(be, &count, bad, 8));
      char what[128];
      snprintf(what, sizeof what, "%s, candidate %d%s: %llu words differ, flag %d of %d", name, v, wild ? ", wild" : "", count,
               flag, flag_want);
      gpu_check(count == 0 && flag == flag_want, what);
    }
    if (wild) continue;
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
    printf("%-22s %d  %8.2f us (%.2f .. %.2f)  %6.0f GB/s%s\n", name, v, t[t.size() / 2], t.front(), t.back(),
           bytes / t[t.size() / 2] * 1e-3, count ? "  DIFFERS" : "");
    fflush(stdout);
    cudaEventDestroy(a), cudaEventDestroy(b);
  }
  if (which >= 0) arb_variant[which] = 0;
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
  const double rows = (double)m;
  const content z = wild ? WILD : NORMAL, small = wild ? WILD : SMALL;
  {
    const uint16_t *uv = input<uint16_t>(m * pair, z);
    const int8_t *e = input<int8_t>(hidden, EXPONENTS);
    int8_t *q = output<int8_t>(m * hidden);
    float *s = output<float>(m), *inv = output<float>(m);
    slot("glu_norm_quant", VAR_GLU_FORWARD, 5, rows * (double)(hidden * 5), wild,
         [=] { MUST(be->ops.glu_norm_quant(be, &r, hidden, uv, uv + hidden, pair, e, q, s, inv)); });
  }
  {
    const arb_stack w = stack(2, pair, 1);
    const uint16_t *uv = input<uint16_t>(m * pair, z), *dy = input<uint16_t>(m * hidden, small);
    const int8_t *e = input<int8_t>(hidden, EXPONENTS);
    const float *inv = input<float>(m, SCALES);
    int8_t *hq = output<int8_t>(m * pair);
    float *sh = output<float>(m);
    slot("glu_norm_backward", VAR_GLU_BACKWARD, 8, rows * (double)(hidden * 8), wild,
         [=] { MUST(be->ops.glu_norm_backward(be, &r, hidden, uv, uv + hidden, pair, inv, e, dy, &w, hq, sh)); });
  }
  {
    const uint16_t *fcg = input<uint16_t>(m * wide, z);
    const float *h = input<float>(m * dim, z);
    const int8_t *e = input<int8_t>(dim, EXPONENTS);
    int8_t *q = output<int8_t>(m * dim);
    float *s = output<float>(m), *inv = output<float>(m);
    slot("gate_norm_quant", VAR_GATE_FORWARD, 4, rows * (double)(dim * 7), wild,
         [=] { MUST(be->ops.gate_norm_quant(be, &r, dim, h, fcg + 2 * dim, wide, e, q, s, inv)); });
  }
  {
    const uint16_t *fcg = input<uint16_t>(m * wide, z), *dy = input<uint16_t>(m * dim, small);
    const float *h = input<float>(m * dim, z), *inv = input<float>(m, SCALES);
    const int8_t *e = input<int8_t>(dim, EXPONENTS);
    uint16_t *dh = output<uint16_t>(m * dim), *dz = output<uint16_t>(m * wide);
    slot("gate_norm_backward", VAR_GATE_BACKWARD, 4, rows * (double)(dim * 12), wild,
         [=] { MUST(be->ops.gate_norm_backward(be, &r, dim, h, fcg + 2 * dim, wide, inv, e, dy, dh, dz + 2 * dim, wide)); });
  }
  {
    const uint16_t *fcg = input<uint16_t>(m * wide, z);
    const float *bias = input<float>(dim, NORMAL);
    float *h = output<float>(m * dim);
    slot("mlgru_forward", VAR_SCAN_FORWARD, 5, rows * (double)(dim * 8), wild,
         [=] { MUST(be->ops.mlgru_forward(be, &r, CONTEXT, dim, fcg, fcg + dim, wide, bias, h)); });
  }
  {
    const uint16_t *fcg = input<uint16_t>(m * wide, z), *dh = input<uint16_t>(m * dim, small);
    const float *bias = input<float>(dim, NORMAL), *h = input<float>(m * dim, z);
    uint16_t *dz = output<uint16_t>(m * wide);
    slot("mlgru_backward", VAR_SCAN_BACKWARD, 5, rows * (double)(dim * 14), wild,
         [=] { MUST(be->ops.mlgru_backward(be, &r, CONTEXT, dim, fcg, fcg + dim, wide, bias, h, dh, dz, dz + dim, wide)); });
  }
  {
    const arb_stack w = stack(3, wide, 1);
    const uint16_t *g = input<uint16_t>(m * wide, small);
    int8_t *hq = output<int8_t>(m * wide);
    float *sh = output<float>(m);
    slot("grad_quant, 1536 bf16", VAR_GRAD, 3, rows * (double)(wide * 3), wild,
         [=] { MUST(be->ops.grad_quant(be, &r, NULL, g, wide, &w, 0, hq, sh)); });
  }
  {
    const arb_stack w = stack(1, dim, 1);
    const float *g = input<float>(m * dim, small);
    int8_t *hq = output<int8_t>(m * dim);
    float *sh = output<float>(m);
    slot("grad_quant, 512 fp32", VAR_GRAD, 3, rows * (double)(dim * 5), wild,
         [=] { MUST(be->ops.grad_quant(be, &r, g, NULL, dim, &w, 0, hq, sh)); });
  }
  {
    const arb_stack w = stack(1, dim / 2, 3);
    const uint16_t *g = input<uint16_t>(m * 3 * dim / 2, small);
    int8_t *hq = output<int8_t>(m * dim / 2);
    float *sh = output<float>(m);
    slot("grad_quant, 256 bf16", VAR_GRAD, 3, rows * (double)(dim / 2 * 3), wild,
         [=] { MUST(be->ops.grad_quant(be, &r, NULL, g + dim / 2, 3 * dim / 2, &w, 1, hq, sh)); });
  }
  {
    const float *x = input<float>(m * dim, z);
    const uint16_t *y = input<uint16_t>(m * dim, z);
    const int8_t *e = input<int8_t>(dim, EXPONENTS);
    float *out = output<float>(m * dim), *s = output<float>(m), *inv = output<float>(m);
    int8_t *q = output<int8_t>(m * dim);
    slot("add_norm_quant", -1, 0, rows * (double)(dim * 11), wild,
         [=] { MUST(be->ops.add_norm_quant(be, &r, dim, x, y, out, e, q, s, inv)); });
  }
  {
    const arb_stack w = stack(1, dim, 1);
    const float *x = input<float>(m * dim, z), *inv = input<float>(m, SCALES);
    const uint16_t *dy = input<uint16_t>(m * dim, small);
    const int8_t *e = input<int8_t>(dim, EXPONENTS);
    float *g = output<float>(m * dim), *sh = output<float>(m);
    int8_t *hq = output<int8_t>(m * dim);
    slot("norm_backward", -1, 0, rows * (double)(dim * 15), wild,
         [=] { MUST(be->ops.norm_backward(be, &r, dim, x, inv, e, dy, 1, g, &w, hq, sh)); });
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
    all(8, true, 1024, 2048);
  }
  all(SEQUENCES, false, DIM, HIDDEN);
  arb_backend_destroy(&be);
  return gpu_totals();
}
