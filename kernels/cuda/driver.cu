/* Finding the GPU, and saying what does not fit: a driver that is older than the build's CUDA answers nothing else than that.
 */
#include <stdio.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/driver.h"

/* What a failure of the runtime means for whoever installed the machine. */
static const char *meaning(cudaError_t error, int driver) {
  switch (error) {
    case cudaErrorInsufficientDriver:
      return driver ? "the NVIDIA driver is too old for this build: install a newer driver, or build with an older CUDA"
                    : "no NVIDIA driver was found (libcuda.so.1)";
    case cudaErrorSystemDriverMismatch:
      return "the NVIDIA driver does not fit itself: its kernel module and libcuda.so.1 are of different versions; reboot "
             "after "
             "an upgrade, or reinstall it";
    case cudaErrorCompatNotSupportedOnDevice:
      return "the NVIDIA driver is too old for this build, and this GPU does not take a newer libcuda.so.1 on top of it: "
             "install "
             "a newer driver, or build with an older CUDA";
    case cudaErrorCallRequiresNewerDriver:
      return "the NVIDIA driver is too old for this build: install a newer driver, or build with an older CUDA";
    case cudaErrorUnsupportedPtxVersion:
      return "the NVIDIA driver is too old for this build's kernels: install a newer driver, or build with an older CUDA";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return "this build has no code for it: add it to ARB_CUDA_ARCHITECTURES";
    case cudaErrorNoDevice:
      return "none is visible";
    default:
      return cudaGetErrorString(error);
  }
}

static cudaError_t count_devices(int *count, int *driver, int *runtime) {
  *count = *driver = *runtime = 0;
  (void)cudaDriverGetVersion(driver);
  (void)cudaRuntimeGetVersion(runtime);
  const cudaError_t error = cudaGetDeviceCount(count);
  (void)cudaGetLastError();
  return error == cudaSuccess && *count == 0 ? cudaErrorNoDevice : error;
}

extern "C" int arb_cuda_absent(void) {
  int count, driver, runtime;
  const cudaError_t error = count_devices(&count, &driver, &runtime);
  return driver == 0 || error == cudaErrorNoDevice;
}

arb_status arb_cuda_find_device(int device, const void *kernel, cudaDeviceProp *properties) {
  int count, driver, runtime;
  cudaFuncAttributes attributes;
  char which[400] = "no usable NVIDIA GPU";
  cudaError_t error = count_devices(&count, &driver, &runtime);
  if (error == cudaSuccess) {
    ARB_REQUIRE(device >= 0 && device < count, ARB_ERR_UNSUPPORTED, "GPU %d was asked for, %d are visible (0 to %d)", device,
                count, count - 1);
    error = cudaSetDevice(device);
    if (error == cudaSuccess) error = cudaGetDeviceProperties(properties, device);
    if (error == cudaSuccess) {
      snprintf(which, sizeof which, "GPU %d (%s, compute capability %d.%d) cannot run this build", device, properties->name,
               properties->major, properties->minor);
      error = cudaFuncGetAttributes(&attributes, kernel);
    }
    (void)cudaGetLastError();
  }
  ARB_REQUIRE(error == cudaSuccess, ARB_ERR_UNSUPPORTED,
              "%s: %s (driver supports CUDA %d.%d, this build was made with CUDA %d.%d; %s)", which, meaning(error, driver),
              driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, cudaGetErrorName(error));
  return ARB_OK;
}

extern "C" void arb_cuda_describe(int device, char *text, size_t bytes) {
  int driver = 0;
  cudaDeviceProp p;
  (void)cudaDriverGetVersion(&driver);
  if (cudaGetDeviceProperties(&p, device) != cudaSuccess) {
    (void)cudaGetLastError();
    snprintf(text, bytes, "GPU %d", device);
    return;
  }
  snprintf(text, bytes, "%s (compute capability %d.%d), driver for CUDA %d.%d", p.name, p.major, p.minor, driver / 1000,
           driver % 1000 / 10);
}
