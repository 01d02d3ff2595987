#!/usr/bin/env bash
# format.sh: sources look as clang-format writes them. Versions differ in what they write, so only one is asked.
. "$(dirname "$0")/../check.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
version=14
tool=$(command -v clang-format-$version || command -v clang-format || true)
if [ -z "$tool" ] || ! "$tool" --version | grep -q "version $version\."; then
  skip "THE FORMAT OF THE SOURCES WAS NOT CHECKED" "no clang-format $version here"
  finish
fi
cd "$root"
mapfile -t sources < <(find src kernels dist launch tools tests -type f \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) | sort)
unclean=$("$tool" --style=file --dry-run "${sources[@]}" 2>&1 | sed -nE 's/^(\.\/)?([^:]*):.*clang-format-violations.*/\2/p' | sort | uniq -c || true)
if [ -z "$unclean" ]; then pass "${#sources[@]} sources are formatted"; else
  fail "lines that clang-format would write differently, by file" "$unclean"
fi
cp .clang-format "$scratch/"
printf 'int  f( void ){return 1;}\n' >"$scratch/x.c"
if "$tool" --style=file --dry-run -Werror "$scratch/x.c" >/dev/null 2>&1; then fail "a planted mistake is not seen"; else pass "a planted mistake is seen"; fi
finish
