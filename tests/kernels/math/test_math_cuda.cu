/* kernels/common/math.h gives the same bits on the device as on the host.
 *
 *   test_math_cuda [stride]      every stride-th of the 2^32 patterns (default 257); 1 for all, under a minute
 *
 * By hand:  nvcc -std=c++17 -O2 --fmad=false -gencode=arch=compute_90a,code=sm_90a -I. -o test_math_cuda
 *             tests/kernels/math/test_math_cuda.cu loops.o      (loops.c, built by a C compiler, see CMakeLists.txt)
 * Without a device it exits with 77, which ctest reads as skipped. */
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "kernels/common/math.h"

extern "C" {
#include "tests/kernels/math/loops.h"
}

#define BLOCK (1 << 22)

static __device__ float eval(int f, float x) {
  switch (f) {
    case ARB_M_EXP:
      return arb_expf(x);
    case ARB_M_LOG:
      return arb_logf(x);
    case ARB_M_SIGMOID:
      return arb_sigmoidf(x);
    case ARB_M_TANH:
      return arb_tanhf(x);
    case ARB_M_ERF:
      return arb_erff(x);
    case ARB_M_COS:
      return arb_cosf(x);
    default:
      return arb_rsqrtf(x);
  }
}

static __global__ void eval_k(int f, float *y, uint16_t *h, uint64_t first, uint64_t stride, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float x = arb_f32_of_bits((uint32_t)(first + stride * (uint64_t)i));
  y[i] = eval(f, x);
  h[i] = arb_bf16_of_f32(x);
}

static bool ok(cudaError_t e) {
  if (e != cudaSuccess) fprintf(stderr, "cuda: %s\n", cudaGetErrorString(e));
  return e == cudaSuccess;
}

int main(int argc, char **argv) {
  uint64_t stride = argc > 1 ? strtoull(argv[1], NULL, 10) : 257;
  int devices = 0, bad = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 77;
  if (stride == 0) return 2;
  arb_math_loop *const *host = arb_math_plain;
#ifdef ARB_X86_LOOPS
  if (__builtin_cpu_supports("avx512f")) host = arb_math_avx512;
#endif
  std::vector<float> x(BLOCK), y(BLOCK), z(BLOCK);
  std::vector<uint16_t> h(BLOCK);
  float *dy = NULL;
  uint16_t *dh = NULL;
  if (!ok(cudaMalloc((void **)&dy, BLOCK * sizeof *dy)) || !ok(cudaMalloc((void **)&dh, BLOCK * sizeof *dh))) return 1;
  for (int f = 0; f < ARB_M__COUNT; f++) {
    uint64_t count = 0, differ = 0;
    for (uint64_t first = 0; first < UINT64_C(1) << 32;) {
      uint64_t left = ((UINT64_C(1) << 32) - first + stride - 1) / stride;
      int n = left < BLOCK ? (int)left : BLOCK;
      eval_k<<<(n + 255) / 256, 256>>>(f, dy, dh, first, stride, n);
      if (!ok(cudaGetLastError())) return 1;
      for (int i = 0; i < n; i++) x[i] = arb_f32_of_bits((uint32_t)(first + stride * (uint64_t)i));
      host[f](y.data(), x.data(), (size_t)n);
      if (!ok(cudaMemcpy(z.data(), dy, n * sizeof *dy, cudaMemcpyDeviceToHost))) return 1;
      if (!ok(cudaMemcpy(h.data(), dh, n * sizeof *dh, cudaMemcpyDeviceToHost))) return 1;
      for (int i = 0; i < n; i++) {
        bool same = arb_bits_of_f32(y[i]) == arb_bits_of_f32(z[i]) && h[i] == arb_bf16_of_f32(x[i]);
        if (!same && differ++ < 3)
          fprintf(stderr, "function %d at %08x: host %08x, device %08x\n", f, arb_bits_of_f32(x[i]), arb_bits_of_f32(y[i]),
                  arb_bits_of_f32(z[i]));
      }
      count += (uint64_t)n;
      first += stride * (uint64_t)n;
    }
    printf("function %d: %llu inputs, %llu differ\n", f, (unsigned long long)count, (unsigned long long)differ);
    bad |= differ != 0;
  }
  cudaFree(dy);
  cudaFree(dh);
  return bad;
}
