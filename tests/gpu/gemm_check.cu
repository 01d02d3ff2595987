/* The GPU's three products against their definition: integer sums by a plain loop on the device, everything after them on the
 * host with kernels/common. Every kernel path runs on every shape; outputs are poisoned first and compared byte for byte.
 * Prints "N passed, N failed"; exit status 0 when none failed. Argument "quick": small shapes only. */
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/common/philox.h"
#include "kernels/common/scale.h"
#include "kernels/common/trit.h"
#include "kernels/cuda/gemm.h"

#define CHECK(call)                                                                        \
  do {                                                                                     \
    const cudaError_t err_ = (call);                                                       \
    if (err_ != cudaSuccess) {                                                             \
      std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(err_)); \
      std::exit(2);                                                                        \
    }                                                                                      \
  } while (0)

namespace {

const int PATHS[] = {0, -1, 2, 3, 4, 5, 6};
int passed, failed;

uint64_t state = 0x243F6A8885A308D3u;
uint32_t draw() {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33) ^ (uint32_t)(state >> 12);
}

template <typename T>
struct device_array {
  T *p = nullptr;
  size_t count;
  explicit device_array(size_t n) : count(n) { CHECK(cudaMalloc(&p, (n ? n : 1) * sizeof(T))); }
  explicit device_array(const std::vector<T> &v) : device_array(v.size()) { put(v); }
  device_array(const device_array &) = delete;
  ~device_array() { cudaFree(p); }
  void put(const std::vector<T> &v) { CHECK(cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice)); }
  std::vector<T> get() const {
    std::vector<T> v(count);
    CHECK(cudaMemcpy(v.data(), p, count * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
  }
};

/* out[r][c] = sum over d < depth of a[r * ar + d * ad] * b[c * br + d * bd]; b as trits of state bytes when codes. */
__global__ void plain(int64_t rows, int64_t cols, int64_t depth, const int8_t *a, int64_t ar, int64_t ad, const int8_t *b,
                      int64_t br, int64_t bd, bool codes, int32_t *out) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= rows * cols) return;
  const int64_t r = at / cols, c = at % cols;
  int32_t sum = 0;
  for (int64_t d = 0; d < depth; d++) {
    const int8_t y = b[c * br + d * bd];
    sum += a[r * ar + d * ad] * (codes ? arb_code_trit((uint8_t)y) : y);
  }
  out[at] = sum;
}

std::vector<int32_t> sums(int64_t rows, int64_t cols, int64_t depth, const int8_t *a, int64_t ar, int64_t ad, const void *b,
                          int64_t br, int64_t bd, bool codes) {
  device_array<int32_t> out((size_t)(rows * cols));
  plain<<<(unsigned)((rows * cols + 255) / 256), 256>>>(rows, cols, depth, a, ar, ad, static_cast<const int8_t *>(b), br, bd,
                                                        codes, out.p);
  CHECK(cudaGetLastError());
  return out.get();
}

template <typename T>
void compare(const char *form, int path, const char *shape, const std::vector<T> &want, const std::vector<T> &got) {
  size_t bad = 0, first = 0;
  for (size_t i = 0; i < want.size(); i++)
    if (std::memcmp(&want[i], &got[i], sizeof(T)) != 0 && bad++ == 0) first = i;
  if (!bad) {
    passed++;
    return;
  }
  failed++;
  if (failed <= 40)
    std::printf("FAILED %s path %d %s: %zu of %zu differ, first at %zu\n", form, path, shape, bad, want.size(), first);
}

std::vector<int8_t> quantised(size_t count, bool extreme) {
  std::vector<int8_t> v(count);
  for (auto &x : v) x = extreme ? (int8_t)(draw() % 8 ? 127 : -127) : (int8_t)((int)(draw() % 255) - 127);
  return v;
}
std::vector<uint8_t> codes(size_t count, bool extreme) {
  std::vector<uint8_t> v(count);
  for (auto &x : v) x = (uint8_t)(extreme ? 170 + draw() % 85 : draw() % 255);
  return v;
}
std::vector<int8_t> exponents(size_t count, int low, int high) {
  std::vector<int8_t> v(count);
  for (auto &x : v) x = (int8_t)(low + (int)(draw() % (uint32_t)(high - low + 1)));
  return v;
}
/* Row scales: ordinary, zero, tiny enough for subnormal results, huge; NaN and infinity where asked. */
std::vector<float> scales(size_t count, bool extreme) {
  std::vector<float> v(count);
  for (auto &x : v) {
    const uint32_t kind = draw() % 16;
    x = (float)(draw() % 65536 + 1) * 0x1p-20f;
    if (kind == 0) x = 0.0f;
    if (kind == 1) x *= 0x1p-120f;
    if (kind == 2) x *= 0x1p115f;
    if (extreme && kind == 3) x = arb_f32_of_bits(ARB_F32_INF_BITS);
    if (extreme && kind == 4) x = arb_f32_of_bits(ARB_F32_NAN_BITS);
  }
  return v;
}
void forward_and_dx(int64_t m, int64_t k, int64_t n, bool extreme) {
  char shape[96];
  std::snprintf(shape, sizeof shape, "%lld x %lld x %lld%s", (long long)m, (long long)k, (long long)n,
                extreme ? " extreme" : "");
  const auto q = quantised((size_t)(m * k), extreme), hq = quantised((size_t)(m * n), extreme);
  const auto code = codes((size_t)(n * k), extreme);
  const auto s = scales((size_t)m, extreme);
  const auto e = exponents((size_t)n, -128, 127);
  device_array<int8_t> dq(q), dh(hq), de(e);
  device_array<uint8_t> dcode(code);
  device_array<float> ds(s);
  device_array<uint8_t> work(arb_cuda_gemm_work_bytes(m, 1, k, n));
  const auto fs = sums(m, n, k, dq.p, k, 1, dcode.p, k, 1, true), xs = sums(m, k, n, dh.p, n, 1, dcode.p, 1, k, true);
  std::vector<uint16_t> y((size_t)(m * n));
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++)
      y[(size_t)(i * n + j)] =
          arb_bf16_of_f32(((float)fs[(size_t)(i * n + j)] * s[(size_t)i]) * arb_pow2_eighths(e[(size_t)j]));
  std::vector<uint16_t> dx((size_t)(m * k));
  for (int64_t i = 0; i < m * k; i++) dx[(size_t)i] = arb_bf16_of_f32((float)xs[(size_t)i] * s[(size_t)(i / k)]);
  for (int path : PATHS) {
    arb_cuda_gemm_path(path);
    device_array<uint16_t> dy((size_t)(m * n));
    CHECK(cudaMemset(dy.p, 0xcd, dy.count * 2));
    CHECK(cudaMemset(work.p, 0x55, work.count));
    CHECK(arb_cuda_gemm_forward(0, m, k, n, dq.p, ds.p, dcode.p, de.p, dy.p, work.p, 0));
    CHECK(cudaDeviceSynchronize());
    compare("forward", path, shape, y, dy.get());
    device_array<uint16_t> ddx((size_t)(m * k));
    CHECK(cudaMemset(ddx.p, 0xcd, ddx.count * 2));
    CHECK(cudaMemset(work.p, 0xaa, work.count));
    CHECK(arb_cuda_gemm_dx(0, m, k, n, dh.p, ds.p, dcode.p, ddx.p, work.p, 0));
    CHECK(cudaDeviceSynchronize());
    compare("dx", path, shape, dx, ddx.get());
  }
}

void dw(int64_t rpg, int grains, int64_t k, int64_t n, int vmax, bool extreme) {
  char shape[96];
  std::snprintf(shape, sizeof shape, "%d x %lld rows, n %lld, k %lld%s", grains, (long long)rpg, (long long)n, (long long)k,
                extreme ? " extreme" : "");
  const int64_t m = rpg * grains;
  const auto hq = quantised((size_t)(m * n), extreme), q = quantised((size_t)(m * k), extreme);
  int base = 0; /* so that most votes land inside the range */
  while ((int64_t)1 << (2 * base) < rpg * 127 * 127) base++;
  auto p = exponents((size_t)n, extreme ? -120 : -4, extreme ? 120 : 4);
  if (!extreme)
    for (auto &x : p) x = (int8_t)(x + base - 8);
  std::vector<int8_t> votes = exponents((size_t)(n * k), -128, 127);
  std::vector<float> sh((size_t)m), s((size_t)m);
  for (auto &x : s) x = (float)(draw() % 1000 + 1) * 0x1p-10f;
  for (auto &x : sh)
    x = draw() % 9 == 0 ? 0.0f : (float)(draw() % 65536 + 1) * (extreme && draw() % 3 == 0 ? 0x1p-60f : 0x1p-18f);
  if (!extreme && rpg % 8 == 0) { /* a row whose weight is the grain's power of two: ratio 65536 */
    const size_t row = (size_t)(m - 1 - rpg / 3);
    sh[row] = 2.0f, s[row] = 1.0f;
  }
  if (grains > 1) std::fill(sh.begin() + rpg, sh.begin() + 2 * rpg, 0x1p-110f); /* a grain that casts no votes */
  arb_cuda_dw d = {};
  d.rows_per_grain = rpg, d.grains = grains, d.first = 3, d.stride = 5, d.n = n, d.k = k;
  device_array<int8_t> dhq(hq), dq(q), dp(p), dv((size_t)(n * k)), dtq((size_t)(m * n));
  device_array<float> dsh(sh), ds(s);
  device_array<int> flag(std::vector<int>{0});
  const arb_cuda_step step = {0x0123456789abcdefu ^ (uint64_t)draw(), draw() % 100000, 0.0f};
  device_array<arb_cuda_step> dstep(std::vector<arb_cuda_step>{step});
  device_array<uint8_t> work(arb_cuda_gemm_work_bytes(rpg, grains, k, n));
  d.hq = dhq.p, d.sh = dsh.p, d.q = dq.p, d.s = ds.p, d.p = dp.p, d.vmax = vmax, d.tensor = 77, d.step = dstep.p,
  d.votes = dv.p, d.nonfinite = flag.p;
  std::vector<int8_t> want = votes, tq((size_t)(m * n));
  const arb_philox_key turn = arb_philox_key_of(step.seed, ARB_DRAW_DW), key = arb_philox_key_of(step.seed, ARB_DRAW_VOTE);
  size_t inside = 0;
  for (int g = 0; g < grains; g++) {
    float most = 0.0f;
    for (int64_t i = g * rpg; i < (g + 1) * rpg; i++) most = std::max(most, sh[(size_t)i] * s[(size_t)i]);
    const int c = arb_rows_exponent(most);
    const uint32_t number = (uint32_t)(d.first + g * d.stride);
    for (int64_t i = g * rpg; i < (g + 1) * rpg; i++)
      for (int64_t j = 0; j < n; j++) {
        const int64_t element = (i - g * rpg) * arb_pad8(n) + j;
        const arb_philox_block b = arb_philox(turn, (uint32_t)(element / 8), d.tensor, step.step, number);
        tq[(size_t)(i * n + j)] = (int8_t)arb_rescale(hq[(size_t)(i * n + j)], arb_row_ratio(sh[(size_t)i] * s[(size_t)i], c),
                                                      arb_philox_half(&b, (int)(element % 8)));
      }
    dtq.put(tq);
    const auto sum = sums(n, k, rpg, dtq.p + g * rpg * n, 1, n, dq.p + g * rpg * k, 1, k, false);
    if (c == ARB_NO_SCALE) continue;
    for (int64_t i = 0; i < n; i++) {
      const float scale = arb_vote_scale(c - p[(size_t)i]);
      arb_philox_block b = {};
      for (int64_t j = 0; j < k; j++) {
        const int64_t element = i * arb_pad8(k) + j;
        if (j % 8 == 0) b = arb_philox(key, (uint32_t)(element / 8), d.tensor, step.step, number);
        const float x = arb_clamp((float)sum[(size_t)(i * k + j)] * scale, (float)vmax);
        inside += x != 0.0f && arb_fabsf(x) != (float)vmax;
        const int v = (int)arb_stochastic_round(x, arb_philox_half(&b, (int)(element % 8)));
        want[(size_t)(i * k + j)] = (int8_t)(want[(size_t)(i * k + j)] + v);
      }
    }
  }
  if (!extreme && n * k >= 10000 && inside == 0) std::printf("note: %s: no vote inside the range\n", shape);
  for (int path : PATHS) {
    arb_cuda_gemm_path(path);
    dv.put(votes);
    CHECK(cudaMemset(work.p, 0x55, work.count));
    CHECK(arb_cuda_gemm_dw_votes(0, &d, work.p));
    CHECK(cudaDeviceSynchronize());
    compare("dw", path, shape, want, dv.get());
  }
}

}  // namespace

int main(int argc, char **argv) {
  const bool quick = argc > 1 && !std::strcmp(argv[1], "quick");
  const int64_t small[][3] = {{1, 1, 1},       {1, 16, 8},      {7, 5, 3},      {2, 297, 1},   {128, 128, 128},
                              {129, 127, 131}, {33, 297, 297},  {300, 297, 64}, {64, 64, 297}, {256, 512, 256},
                              {257, 160, 96},  {384, 144, 272}, {5, 48, 1000},  {1000, 33, 40}};
  const int64_t large[][3] = {{1000, 512, 1408},  {2048, 1408, 512}, {640, 2816, 512}, {777, 2048, 1536},
                              {3000, 1000, 1000}, {131, 4096, 2000}, {4096, 512, 512}, {1536, 297, 1408},
                              {20000, 512, 130},  {6000, 600, 1032} /* blocks have tiles of several columns */};
  for (const auto &s : small) forward_and_dx(s[0], s[1], s[2], false), forward_and_dx(s[0], s[1], s[2], true);
  const int64_t grains[][4] = {{1, 1, 1, 1},        {5, 3, 7, 9},      {128, 1, 128, 128}, {100, 4, 256, 128},
                               {129, 2, 297, 64},   {257, 8, 64, 297}, {300, 5, 132, 140}, {64, 31, 260, 300},
                               {1000, 3, 512, 384}, {383, 2, 1000, 30}};
  for (const auto &g : grains) {
    const int vmax = (int)(127 / g[1]);
    dw(g[0], (int)g[1], g[2], g[3], vmax < 1 ? 1 : vmax, false);
    dw(g[0], (int)g[1], g[2], g[3], vmax < 1 ? 1 : vmax, true);
  }
  if (!quick) {
    for (const auto &s : large) forward_and_dx(s[0], s[1], s[2], s[0] == 777);
    dw(512, 8, 512, 512, 15, false);
    dw(1024, 8, 512, 1408, 15, false);
    dw(640, 6, 1408, 512, 21, false);
    dw(2000, 3, 1536, 1000, 42, false);
    dw(16384, 2, 512, 512, 63, true);
  }
  const int chosen = arb_cuda_gemm_path(-1);
  std::printf("%d passed, %d failed (%s)\n", passed, failed, chosen ? "sm_90a" : "portable");
  return failed != 0;
}
