#!/usr/bin/env bash
# symbols.sh CC LIBRARY...: what is above the transports and devices links against none of them.
. "$(dirname "$0")/../check.sh"
cc=$1
shift
foreign() { nm -u "$1" | awk '$1 == "U" && $2 ~ /^(P?MPI_|ompi_|cuda|cu[A-Z]|nccl|pnccl)/ { print $2 }' | sort -u; }
for library in "$@"; do
  count=$(nm -u "$library" | grep -c ' U ' || true)
  found=$(foreign "$library")
  if [ -z "$found" ] && [ "$count" -gt 0 ]; then pass "${library##*/}: $count undefined symbols, none foreign"; else
    fail "${library##*/}: $count undefined symbols" "$found"
  fi
done
for name in MPI_Init cudaMalloc ncclAllReduce; do
  printf 'int %s(void);\nint f(void);\nint f(void) { return %s(); }\n' $name $name >"$scratch/x.c"
  "$cc" -c "$scratch/x.c" -o "$scratch/x.o"
  same "a planted $name is seen" "$name" "$(foreign "$scratch/x.o")"
done
finish
