#!/bin/sh
# rank.sh FOLDER PROGRAM ARGS...: under mpirun; leaves the process id of each rank in FOLDER/pid.RANK.
echo $$ >"$1/pid.$OMPI_COMM_WORLD_RANK"
shift
exec "$@"
