#!/usr/bin/env bash
# pack.sh BUILD FOLDER: a folder that runs on another machine with a GPU, Open MPI and NCCL: the programs of BUILD, the shared
# libraries that such a machine may lack, scripts, configs, and (third argument) a folder of texts.
set -euo pipefail
build=$1 out=$2 data=${3:-}
root=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$out"
mkdir -p "$out/lib" "$out/tests/gpu" "$out/configs"
# A wrapper, so that only arbdist itself sees the libraries, not the mpirun around it.
cp "$build/arbdist" "$out/arbdist.bin"
printf '%s\n' '#!/bin/sh' 'here=$(dirname "$0")' 'LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/arbdist.bin" "$@"' >"$out/arbdist"
chmod +x "$out/arbdist"
find "$build" -type f -executable -path '*tests/gpu/*' ! -name '*.o' ! -name '*.so' -exec cp {} "$out/" \;
# glibc, MPI, NCCL and the driver belong to the machine; everything else travels.
ldd "$out/arbdist.bin" | awk '$3 ~ /^\// {print $3}' |
  grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*|libmpi|libopen-rte|libopen-pal|libhwloc|libevent[^/]*|libudev|libnccl|libcuda|libstdc\+\+|libgcc_s)\.so' |
  xargs -r -I{} cp -L {} "$out/lib/"
cp "$root"/tests/gpu/*.sh "$root"/tests/mpirun.sh "$out/tests/gpu/"
mkdir -p "$out/tests/train" "$out/tests/sidecar"
cp "$root"/tests/check.sh "$root"/tests/mpirun.sh "$out/tests/"
cp "$root"/tests/train/golden.sh "$out/tests/train/"
cp "$root"/tests/sidecar/{cuda_peer,vae_peer,synthetic}.py "$out/tests/sidecar/"
cp -r "$root"/tests/golden "$out/tests/"
cp -r "$root"/configs/. "$out/configs/"
if [ -n "$data" ]; then cp -r "$data" "$out/data"; fi
du -sh "$out"
