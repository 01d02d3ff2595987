# packages.sh: sourced by the scripts that build. The Debian packages that arbdist needs, and a function that installs the
# missing ones: as root, or through sudo if that asks for no password; otherwise it prints what to run and exits with 3.
#
#   . launch/packages.sh; packages_need "${packages_build[@]}"
packages_build=(gcc g++ libc6-dev cmake ninja-build pkg-config openmpi-bin libopenmpi-dev libhdf5-dev libcmocka-dev libinih-dev
  libjansson-dev libxxhash-dev liblzma-dev libpng-dev libjpeg-dev libsndfile1-dev libsamplerate0-dev)
packages_tests=(clang libclang-rt-14-dev hdf5-tools xz-utils)

# packages_has NAME: installed by the package manager, or there in another way.
packages_has() {
  case $(dpkg-query -W -f='${Status}' "$1" 2>/dev/null) in *"install ok installed") return 0 ;; esac
  case $1 in
    gcc | g++ | cmake | pkg-config | clang) command -v "$1" ;;
    libc6-dev) [ -e /usr/include/stdio.h ] && echo yes ;;
    ninja-build) command -v ninja ;;
    openmpi-bin) command -v mpirun ;;
    libopenmpi-dev) command -v mpicc ;;
    libhdf5-dev) pkg-config --exists hdf5-serial && echo yes ;;
    libcmocka-dev) pkg-config --exists cmocka && echo yes ;;
    libinih-dev) pkg-config --exists inih && echo yes ;;
    libjansson-dev) pkg-config --exists jansson && echo yes ;;
    libxxhash-dev) pkg-config --exists libxxhash && echo yes ;;
    libpng-dev) pkg-config --exists libpng && echo yes ;;
    libjpeg-dev) pkg-config --exists libjpeg && echo yes ;;
    libsndfile1-dev) pkg-config --exists sndfile && echo yes ;;
    libsamplerate0-dev) pkg-config --exists samplerate && echo yes ;;
    liblzma-dev) pkg-config --exists liblzma && echo yes ;;
    libclang-rt-14-dev) compgen -G "$(clang -print-resource-dir)/lib/linux/libclang_rt.asan*" ;;
    hdf5-tools) command -v h5dump ;;
    xz-utils) command -v xz ;;
    *) false ;;
  esac >/dev/null 2>&1
}

packages_need() {
  local name missing=() as=()
  for name in "$@"; do packages_has "$name" || missing+=("$name"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}")
  if [ "$(id -u)" -ne 0 ]; then as=(sudo -n); fi
  if ! command -v apt-get >/dev/null || { [ ${#as[@]} -gt 0 ] && ! sudo -n true 2>/dev/null; }; then
    {
      echo "missing: ${missing[*]}"
      echo "As root, run this and start again (on Debian 12; elsewhere, the same things by other names):"
      echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    } >&2
    exit 3
  fi
  echo "installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { "${as[@]}" "${install[@]}" || { "${as[@]}" apt-get update && "${as[@]}" "${install[@]}"; }; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    echo "the packages could not be installed: apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 3
  fi
  rm -f "$log"
}
