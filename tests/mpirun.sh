#!/usr/bin/env bash
# mpirun.sh N PROGRAM ARGS...: N ranks on this machine, whatever its core count and user.
set -eu
np=$1; shift
flags=(-np "$np" --bind-to none --oversubscribe)
[ "$(id -u)" -eq 0 ] && flags+=(--allow-run-as-root)
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_rmaps_base_oversubscribe=1
exec mpirun "${flags[@]}" "$@"
