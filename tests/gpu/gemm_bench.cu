/* Speed of the three products beside cuBLASLt: int8 (int32 out) at 8192^3, bf16 (fp32 sums, bf16 out) at a language model's
 * shapes. Random data, buffer sets rotated beyond the L2, batches of launches in a CUDA graph between two events. All that are
 * compared take turns, a batch each a round, so that a clock that drifts meets all of them: medians of the rounds and their
 * spread, and the median of the ratios to cuBLASLt in the same round. Everything a call does is inside its time; "prep" is what
 * expanding the state bytes takes alone. cuBLASLt gets the fastest of its first eight heuristic answers, found the same way.
 * Arguments: none, or "big", "forward", "dx", "dw"; "profile" runs each kernel once, for ncu. */
#include <cublasLt.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_turn.cuh"

#define CHECK(call)                                                                \
  do {                                                                             \
    const auto err_ = (call);                                                      \
    if ((int)err_ != 0) {                                                          \
      std::printf("%s:%d: %s: status %d\n", __FILE__, __LINE__, #call, (int)err_); \
      std::exit(2);                                                                \
    }                                                                              \
  } while (0)

namespace {

constexpr double PEAK_INT8 = 1979e12;
const char *const VARIANTS[] = {"portable", "auto", "256 pair", "256", "128 pair", "128", "still"};
const char *const VOTES[] = {"portable", "auto", "256", "128, 2 x 2", "128", "direct", ""};
const int PATHS[] = {0, -1, 2, 3, 4, 5, 6};

/* Something that takes its turn in every round. */
struct contender {
  std::string who;
  bool part; /* of the one before, not a product of its own */
  int launches;
  cudaGraphExec_t run;
  std::vector<double> us; /* a round */
};

__global__ void noise(uint32_t *p, size_t words, uint32_t seed, int kind) {
  for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < words; i += (size_t)gridDim.x * blockDim.x) {
    uint32_t x = (uint32_t)i * 0x9E3779B9u + seed;
    x ^= x >> 16, x *= 0x85EBCA6Bu, x ^= x >> 13, x *= 0xC2B2AE35u, x ^= x >> 16;
    if (kind == 1) /* bf16 around 1, both signs */
      x = (x & 0x80ff80ffu) | 0x3f003f00u;
    else if (kind == 2) /* state bytes: no 255 */
      x &= 0xfefefefeu;
    else if (kind == 3) /* fp32 in [0.5, 1) */
      x = 0x3f000000u | (x & 0x7fffffu);
    else /* int8 without -128 */
      for (int j = 0; j < 4; j++)
        if (((x >> (8 * j)) & 0xffu) == 0x80u) x ^= 1u << (8 * j);
    p[i] = x;
  }
}

std::vector<void *> held;
void *fresh(size_t bytes, int kind) {
  void *p = nullptr;
  bytes = (bytes + 255) / 256 * 256;
  CHECK(cudaMalloc(&p, bytes));
  held.push_back(p);
  noise<<<1024, 256>>>(static_cast<uint32_t *>(p), bytes / 4, (uint32_t)held.size() * 77777u, kind);
  return p;
}
void drop_all() {
  CHECK(cudaDeviceSynchronize());
  for (void *p : held) cudaFree(p);
  held.clear();
}

cudaStream_t stream;

void enter(std::vector<contender> &all, const std::string &who, bool part, int sets, const std::function<void(int)> &call,
           double about_us) {
  contender c = {who, part, (int)std::max(4.0, std::min(60.0, 4000.0 / about_us)) / sets * sets + sets, nullptr, {}};
  cudaGraph_t graph;
  call(0);
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < c.launches; i++) call(i % sets);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&c.run, graph, 0));
  cudaGraphDestroy(graph);
  all.push_back(c);
}

/* Batches of about 4 ms; the clock needs some of them after a pause. */
void rounds(std::vector<contender> &all, int count) {
  constexpr int WARM = 6;
  cudaEvent_t a, b;
  CHECK(cudaEventCreate(&a));
  CHECK(cudaEventCreate(&b));
  for (int i = -std::max(1, WARM / std::max(1, (int)all.size())); i < count; i++)
    for (contender &c : all) {
      CHECK(cudaEventRecord(a, stream));
      CHECK(cudaGraphLaunch(c.run, stream));
      CHECK(cudaEventRecord(b, stream));
      CHECK(cudaEventSynchronize(b));
      float ms = 0;
      CHECK(cudaEventElapsedTime(&ms, a, b));
      if (i >= 0) c.us.push_back(ms * 1000.0 / c.launches);
    }
  cudaEventDestroy(a);
  cudaEventDestroy(b);
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

/* Column-major C[rows][cols] = op(A) op(B) over depth, as cuBLASLt sees it: its fastest answer takes part, as `who`. */
void library(std::vector<contender> &all, const char *who, cudaDataType_t in, cublasComputeType_t compute, cudaDataType_t scale,
             cudaDataType_t out, cublasOperation_t ta, cublasOperation_t tb, int64_t rows, int64_t cols, int64_t depth,
             int sets, const std::vector<void *> &a, const std::vector<void *> &b, const std::vector<void *> &c,
             double about_us) {
  static cublasLtHandle_t lt = nullptr;
  if (!lt) CHECK(cublasLtCreate(&lt));
  const size_t room = (size_t)64 << 20;
  void *space = fresh(room, 0);
  CHECK(cudaDeviceSynchronize());
  cublasLtMatmulDesc_t op;
  CHECK(cublasLtMatmulDescCreate(&op, compute, scale));
  CHECK(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta));
  CHECK(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb));
  cublasLtMatrixLayout_t la, lb, lc;
  CHECK(cublasLtMatrixLayoutCreate(&la, in, (uint64_t)(ta == CUBLAS_OP_T ? depth : rows),
                                   (uint64_t)(ta == CUBLAS_OP_T ? rows : depth), ta == CUBLAS_OP_T ? depth : rows));
  CHECK(cublasLtMatrixLayoutCreate(&lb, in, (uint64_t)(tb == CUBLAS_OP_T ? cols : depth),
                                   (uint64_t)(tb == CUBLAS_OP_T ? depth : cols), tb == CUBLAS_OP_T ? cols : depth));
  CHECK(cublasLtMatrixLayoutCreate(&lc, out, (uint64_t)rows, (uint64_t)cols, rows));
  cublasLtMatmulPreference_t pref;
  CHECK(cublasLtMatmulPreferenceCreate(&pref));
  CHECK(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room));
  cublasLtMatmulHeuristicResult_t found[8];
  int count = 0;
  CHECK(cublasLtMatmulAlgoGetHeuristic(lt, op, la, lb, lc, lc, pref, 8, found, &count));
  std::vector<contender> answers;
  const float one_f = 1, zero_f = 0;
  const int32_t one_i = 1, zero_i = 0;
  const void *one = scale == CUDA_R_32I ? (const void *)&one_i : &one_f,
             *zero = scale == CUDA_R_32I ? (const void *)&zero_i : &zero_f;
  for (int i = 0; i < count; i++) {
    auto go = [&](int set) {
      return cublasLtMatmul(lt, op, one, a[(size_t)set], la, b[(size_t)set], lb, zero, c[(size_t)set], lc, c[(size_t)set], lc,
                            &found[i].algo, space, room, stream);
    };
    if (go(0) != CUBLAS_STATUS_SUCCESS) continue;
    enter(
        answers, who, false, sets, [&](int set) { CHECK(go(set)); }, about_us);
  }
  if (answers.empty()) {
    std::printf("%s has no answer\n", who);
    std::exit(2);
  }
  rounds(answers, 5);
  size_t best = 0;
  for (size_t i = 1; i < answers.size(); i++)
    if (median(answers[i].us) < median(answers[best].us)) best = i;
  std::printf("         %s: %.2f us, answer %d of %d; the first %.2f us\n", who, median(answers[best].us), (int)best + 1,
              (int)answers.size(), median(answers[0].us));
  for (size_t i = 0; i < answers.size(); i++)
    if (i != best) cudaGraphExecDestroy(answers[i].run);
  answers[best].us.clear();
  all.push_back(answers[best]);
  cublasLtMatmulPreferenceDestroy(pref);
  cublasLtMatrixLayoutDestroy(la), cublasLtMatrixLayoutDestroy(lb), cublasLtMatrixLayoutDestroy(lc);
  cublasLtMatmulDescDestroy(op);
}

std::vector<void *> several(int sets, size_t bytes, int kind) {
  std::vector<void *> v;
  for (int i = 0; i < sets; i++) v.push_back(fresh(bytes, kind));
  return v;
}

/* All of them, beside the first when that is not ours; then they are gone. */
void report(const char *form, int64_t m, int64_t k, int64_t n, std::vector<contender> &all, const char *peer) {
  for (contender &c : all) {
    const auto range = std::minmax_element(c.us.begin(), c.us.end());
    const double us = median(c.us), rate = 2.0 * (double)m * (double)k * (double)n / (us * 1e-6);
    cudaGraphExecDestroy(c.run);
    if (c.part) {
      std::printf("         %s alone %.2f us (%.2f .. %.2f)\n", c.who.c_str(), us, *range.first, *range.second);
      continue;
    }
    std::printf("%-8s %6lld x %5lld x %5lld  %-13s %9.2f us (%.2f .. %.2f)  %7.1f TOP/s  %5.1f%% of 1979", form, (long long)m,
                (long long)k, (long long)n, c.who.c_str(), us, *range.first, *range.second, rate * 1e-12,
                100.0 * rate / PEAK_INT8);
    if (&c != &all[0]) {
      std::vector<double> ratio;
      for (size_t i = 0; i < c.us.size(); i++) ratio.push_back(all[0].us[i] / c.us[i]);
      std::printf("  %5.2fx %s", median(ratio), peer);
    }
    std::printf("\n");
  }
  std::fflush(stdout);
  all.clear();
}

enum form { FORWARD, DX, DW };
const char *const NAMES[] = {"forward", "dx", "dw"};

void bench(form f, int64_t m, int64_t k, int64_t n, bool int8_library, bool once = false) {
  const size_t sm = (size_t)m, sk = (size_t)k, sn = (size_t)n;
  const double about = 2.0 * (double)m * (double)k * (double)n / 600e12 * 1e6 + 5;
  const size_t one_set = f == FORWARD ? sm * sk + 2 * sm * sn : f == DX ? sm * sn + 2 * sm * sk : sm * (sk + sn);
  const int sets = (int)std::max<size_t>(2, (((size_t)240 << 20) + one_set - 1) / one_set);
  constexpr int ROUNDS = 15;
  std::vector<contender> all;
  const auto T = CUBLAS_OP_T, N = CUBLAS_OP_N;
  if (!once && int8_library) {
    const auto x = several(sets, sm * sk, 0), w = several(sets, sn * sk, 0), y = several(sets, 4 * sm * sn, 0);
    library(all, "cuBLASLt int8", CUDA_R_8I, CUBLAS_COMPUTE_32I, CUDA_R_32I, CUDA_R_32I, T, N, n, m, k, sets, w, x, y, about);
  }
  if (!once) {
    const auto x = several(sets, 2 * sm * sk, 1), w = several(sets, 2 * sn * sk, 1), y = several(sets, 2 * sm * sn, 1);
    const auto in = CUDA_R_16BF;
    const auto c = CUBLAS_COMPUTE_32F;
    const auto r = CUDA_R_32F;
    if (f == FORWARD) library(all, "cuBLASLt bf16", in, c, r, in, T, N, n, m, k, sets, w, x, y, about);
    if (f == DX) library(all, "cuBLASLt bf16", in, c, r, in, N, N, k, m, n, sets, w, y, x, about);
    if (f == DW) library(all, "cuBLASLt bf16", in, c, r, in, N, T, k, n, m, sets, x, y, w, about);
  }
  const auto q = several(sets, sm * sk, 0), hq = several(sets, sm * sn, 0), code = several(2, sn * sk, 2),
             s = several(2, 4 * sm, 3);
  const auto e = several(2, sn, 0), work = several(1, arb_cuda_gemm_work_bytes(m / 8, 8, k, n), 0);
  const auto out = several(sets, f == FORWARD ? 2 * sm * sn : f == DX ? 2 * sm * sk : sn * sk, 0);
  const arb_cuda_step step = {12345, 678, 0.0f};
  arb_cuda_step *dstep = static_cast<arb_cuda_step *>(fresh(sizeof step, 0));
  int8_t *p = static_cast<int8_t *>(fresh(sn, 0));
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaMemcpy(dstep, &step, sizeof step, cudaMemcpyHostToDevice));
  CHECK(cudaMemset(p, 17, sn));
  int *flag = static_cast<int *>(fresh(8 * sizeof(int), 0));
  bool cast_alone = false;
  auto call = [&](int set) {
    const size_t i = (size_t)set, j = i % 2;
    const auto *x = static_cast<const int8_t *>(q[i]), *h = static_cast<const int8_t *>(hq[i]);
    const auto *c = static_cast<const uint8_t *>(code[j]);
    const auto *scale = static_cast<const float *>(s[j]);
    if (f == FORWARD)
      CHECK(arb_cuda_gemm_forward(stream, m, k, n, x, scale, c, static_cast<const int8_t *>(e[j]),
                                  static_cast<uint16_t *>(out[i]), work[0], 0));
    if (f == DX) CHECK(arb_cuda_gemm_dx(stream, m, k, n, h, scale, c, static_cast<uint16_t *>(out[i]), work[0], 0));
    if (f == DW) {
      arb_cuda_dw d = {};
      d.rows_per_grain = m / 8, d.grains = 8, d.first = 0, d.stride = 1, d.n = n, d.k = k, d.hq = h, d.q = x, d.sh = scale;
      d.s = scale, d.p = p, d.vmax = 15, d.tensor = 7, d.step = dstep, d.votes = static_cast<int8_t *>(out[i]),
      d.nonfinite = flag;
      CHECK(cast_alone ? arb_cuda_gemm_dw_cast(stream, &d, work[0], 1) : arb_cuda_gemm_dw_votes(stream, &d, work[0]));
    }
  };
  for (int path : PATHS) {
    if (path == 0 && (int8_library || m * k * n > (int64_t)32768 * 512 * 512)) continue;
    if (f == DW ? path > 5 : path == 6 && (f == FORWARD ? k : n) > 512) continue;
    arb_cuda_gemm_path(path);
    if (once) { /* for a profiler */
      call(0);
      continue;
    }
    enter(all, (f == DW ? VOTES : VARIANTS)[path < 1 ? path == -1 : path], false, sets, call, about);
    if (f != DW || path == 0) continue;
    cast_alone = true;
    enter(all, "products and votes", true, sets, call, about);
    cast_alone = false;
  }
  arb_cuda_gemm_path(-1);
  if (once) {
    drop_all();
    return;
  }
  if (f == FORWARD) {
    const int64_t blocks = std::min<int64_t>(2048, (n * ((k + 15) / 16) + 255) / 256);
    enter(
        all, "prep", true, sets,
        [&](int set) {
          arb_prep::expand<<<(unsigned)blocks, arb_prep::THREADS, 0, stream>>>(
              (int32_t)n, (int32_t)k, (int32_t)((k + 15) / 16 * 16), static_cast<const uint8_t *>(code[(size_t)set % 2]),
              static_cast<const int8_t *>(e[0]), static_cast<uint8_t *>(work[0]) + 65536, static_cast<float *>(work[0]), false);
        },
        about);
  }
  if (f == DX) {
    const dim3 grid((unsigned)((k + 31) / 32), (unsigned)((n + 127) / 128));
    enter(
        all, "prep", true, sets,
        [&](int set) {
          arb_prep::expand_transposed<<<grid, arb_prep::THREADS, 0, stream>>>(
              (int32_t)n, (int32_t)k, (int32_t)((n + 15) / 16 * 16), static_cast<const uint8_t *>(code[(size_t)set % 2]),
              static_cast<uint8_t *>(work[0]) + 65536, static_cast<float *>(work[0]), false);
        },
        about);
  }
  if (f == DW) {
    arb_turn::args t = {};
    t.rows = (int32_t)(m / 8), t.permute = 1, t.sh = t.s = static_cast<const float *>(s[0]);
    t.most = static_cast<const uint32_t *>(fresh(4 * 8 * arb_turn::PARTS, 3));
    t.cexp = reinterpret_cast<int32_t *>(flag), t.nonfinite = flag;
    t.draws.n = (int32_t)n, t.draws.uses = 1, t.draws.stride = 1, t.draws.step = dstep;
    const dim3 grid((unsigned)((n + 127) / 128 + (k + 127) / 128), (unsigned)((m / 8 + 127) / 128), 8);
    enter(
        all, "turning", true, sets,
        [&](int set) {
          int8_t *to = static_cast<int8_t *>(work[0]);
          t.gradient = {static_cast<const int8_t *>(hq[(size_t)set]), to, (int32_t)n, (int32_t)((n + 127) / 128)};
          t.input = {static_cast<const int8_t *>(q[(size_t)set]), to + m * ((n + 15) / 16 * 16), (int32_t)k,
                     (int32_t)((k + 127) / 128)};
          arb_turn::turn<<<grid, arb_turn::THREADS, 0, stream>>>(t);
        },
        about);
  }
  rounds(all, ROUNDS);
  report(NAMES[f], m, k, n, all, int8_library ? "cuBLASLt int8" : "bf16");
  drop_all();
}

}  // namespace

int main(int argc, char **argv) {
  const char *only = argc > 1 ? argv[1] : "";
  auto wanted = [&](const char *what) { return !*only || !std::strcmp(only, what); };
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const int64_t shapes[][2] = {{512, 512}, {512, 1408}, {1408, 512}, {512, 1536}, {512, 2816}};
  if (!std::strcmp(only, "profile")) {
    bench(FORWARD, 32768, 512, 2816, false, true);
    bench(DX, 32768, 1408, 512, false, true);
    bench(DW, 32768, 512, 512, false, true);
    bench(DW, 32768, 512, 2816, false, true);
    return 0;
  }
  if (wanted("big")) bench(FORWARD, 8192, 8192, 8192, true);
  if (wanted("forward"))
    for (const auto &s : shapes) bench(FORWARD, 32768, s[0], s[1], false);
  if (wanted("dx"))
    for (const auto &s : shapes) bench(DX, 32768, s[0], s[1], false);
  if (wanted("dw"))
    for (const auto &s : shapes) bench(DW, 32768, s[0], s[1], false);
  return 0;
}
