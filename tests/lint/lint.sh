#!/usr/bin/env bash
# lint.sh ROOT [FILE...]: rules of the source tree, for all of it or for some files. Prints what breaks a rule, a line each, and
# exits with 1 if anything does.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
shift
if [ $# -gt 0 ]; then files=("$@"); else
  mapfile -t files < <(find . -name 'build*' -prune -o -name .git -prune -o -type f -print | sed 's/^\.\///' | sort)
fi
sources=() scripts=()
for f in "${files[@]}"; do
  case $f in
    *.c | *.h | *.cu | *.cuh) sources+=("$f") ;;
    *.sh | *.awk | *.cmake | */CMakeLists.txt | CMakeLists.txt) scripts+=("$f") ;;
  esac
done
bad=
if [ ${#sources[@]} -gt 0 ]; then bad=$(awk -f "$here/layers.awk" "${sources[@]}"); fi
if [ ${#scripts[@]} -gt 0 ]; then
  bad+=$(grep -HnoE "(^|[^A-Za-z0-9_])(TO""DO|FIX""ME|XX""X)([^A-Za-z0-9_]|$)" "${scripts[@]}" | sed 's/^\([^:]*:[0-9]*\):/\n\1: marker: /' || true)
fi
[ $((${#sources[@]} + ${#scripts[@]})) -gt 0 ] || bad="no sources in $PWD"
printf '%s\n' "$bad" | sed '/^$/d'
[ -z "$bad" ]
