# The CUDA backend's sources, and the flags that its bits depend on (docs/arithmetic.md): set on every .cu file of the project.
set(ARB_CUDA_FLAGS -std=c++17 --fmad=false --ftz=false --prec-div=true --prec-sqrt=true -Xcompiler=-ffp-contract=off)
set(ARB_CUDA_SOURCES
  cuda/cuda.cu cuda/driver.cu cuda/random.cu cuda/norms.cu cuda/features.cu cuda/gates.cu cuda/recurrence.cu cuda/loss.cu cuda/grads.cu cuda/embedding.cu
  cuda/products.cu cuda/dense.cu cuda/dense_products.cu cuda/dense_rows.cu cuda/update.cu cuda/shard.cu cuda/digest.cu cuda/record.cu)
