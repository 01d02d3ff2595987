#!/usr/bin/env bash
# media.sh: configs/speech.ini and configs/images.ini on a few real recordings and pictures, through encoders of full size with
# synthetic weights: the same digest on 1, 2 and 4 ranks, live and from a cache; one copy of the weights a node; generation; and
# a corrupt file.
. "$(dirname "$0")/run.sh"
configs=$here/../../configs data=$here/../../../shared/data
for archive in digits cifar10; do
  if [ ! -r "$data/$archive.tar.xz" ]; then
    skip "training on $archive" "$data/$archive.tar.xz is not there"
    finish
  fi
  tar -xf "$data/$archive.tar.xz" -C "$scratch"
done
# A few files each, in folders of their own.
mkdir -p "$scratch"/{speech,images/cat,images/ship}
for digit in 0 1 2 3; do cp "$scratch"/digits/train/${digit}_{theo,jackson}_5.wav "$scratch/speech"; done
for class in cat ship; do find "$scratch/cifar10/test/$class" -name '*.jpg' | sort | head -n 2 | xargs -I{} cp {} "$scratch/images/$class"; done
"$configs/manifest.sh" digits "$scratch/speech" >"$log"
contains "manifest.sh digits" "$(cat "$log" "$scratch/speech/manifest.jsonl")" '8 samples$' \
  '^\{"audio": "3_theo_5.wav", "text": "three"\}$'
"$configs/manifest.sh" images "$scratch/images" >"$log"
contains "manifest.sh images" "$(cat "$log" "$scratch/images/manifest.jsonl")" '4 samples$' \
  '^\{"image": "ship/[0-9]+.jpg", "text": "a photo of a ship"\}$'

# run KIND PLACE RANKS COMMAND OPTION...: PLACE is the run folder; as train of run.sh.
run() {
  local kind=$1 place=$2 ranks=$3 command=$4 start=()
  shift 4
  rc=0
  case $ranks in
    loopback*) set -- "$@" --loopback "${ranks#* }" ;;
    mpi*) start=("$MPIRUN" "${ranks#* }") ;;
  esac
  ASAN_OPTIONS=detect_leaks=0 timeout -k 5 240 "${start[@]}" "$ARBDIST" "$command" "$configs/$kind.ini" --set run.dir="$scratch/$place" \
    --set run.device=cpu --set run.threads=1 --set data.threads=1 --set data.pairs="$scratch/$kind/manifest.jsonl" \
    --set data.valid_pairs="$scratch/$kind/manifest.jsonl" --set train.grains=4 --set train.sequences=4 --set train.warmup=1 \
    --set train.steps=2 --set eval.sequences=4 --set model.dim=32 --set model.glu_hidden=64 --set checkpoint.every=2 \
    "$@" >"$log" 2>&1 || rc=$?
}
for kind in speech images; do
  run "$kind" live one train --set data.feature_cache=
  base=$(digest)
  if [ "$rc" -eq 0 ] && [ -n "$base" ]; then pass "$kind, live"; else fail "$kind, live" "exit code $rc"$'\n'"$(tail -n 20 "$log")"; fi
  run "$kind" cold one train --set data.feature_cache="$scratch/cache"
  same "$kind, filling a cache: digest" "0 $base" "$rc $(digest)" "$(tail -n 5 "$log")"
  for ranks in "loopback 2" "mpi 2" "mpi 4"; do
    if [[ $ranks = mpi* ]] && [ -z "$MPIRUN" ]; then
      skip "$kind, $ranks" "no MPI here"
      continue
    fi
    run "$kind" "${ranks// /}" "$ranks" train --set data.feature_cache="$scratch/cache"
    same "$kind from a cache, $ranks: digest" "0 $base" "$rc $(digest)" "$(tail -n 5 "$log")"
  done
  run "$kind" sharded "loopback 3" train --set data.feature_cache="$scratch/cache" --set dist.shard_state=yes
  same "$kind from a cache, 3 ranks that share the state: digest" "0 $base" "$rc $(digest)" "$(tail -n 5 "$log")"
done
files=$(find "$scratch/cache" -name '*.h5' | wc -l)
same "the cache holds every sample once" 12 "$files"
if command -v h5dump >/dev/null; then
  contains "h5dump reads a cached sample" "$(find "$scratch/cache" -name '*.h5' | head -n 1 | xargs h5dump -A 2>&1)" 'DATASET "q"' 'int8 rows, fp32 scale'
else
  skip "h5dump reads a cached sample" "no hdf5-tools"
fi
if [ -n "$MPIRUN" ]; then
  run speech audit "mpi 3" audit
  contains "audit: one copy of the encoder for 3 ranks" "$(cat "$log")"$'\n'"exit code $rc" \
    '^  moonshine-base encoder, synthetic weights +[0-9]+ bytes, 1 replica for 3 ranks on 1 node$' '^exit code 0$'
fi
run speech live one eval --set data.feature_cache="$scratch/cache"
contains "eval: right and shuffled, and names" "$(cat "$log")"$'\n'"exit code $rc" '^step 2: 4 validation samples with a recording$' \
  '^  name +[0-9.]+ +[0-9.]+ +-?[0-9.]+$' '% of the names are generated right' 'synthetic weights$' '^published weights: not run' '^exit code 0$'
run speech live one generate --set sample.audio="$scratch/speech/2_theo_5.wav" --set sample.length=6 --set sample.prompt=t
contains "generate about a recording" "$(cat "$log")"$'\n'"exit code $rc" '^t' '^exit code 0$'
run speech live one generate --set sample.audio="$scratch/images/manifest.jsonl" --set sample.length=6
contains "generate about what is no recording" "$(cat "$log")"$'\n'"exit code $rc" 'sample.audio.*manifest.jsonl: ' '^exit code 3$'

head -c 700 "$scratch/speech/1_theo_5.wav" >"$scratch/cut" && mv "$scratch/cut" "$scratch/speech/1_theo_5.wav"
run speech cut one train --set data.feature_cache="$scratch/cache"
contains "a recording cut short is skipped and listed" "$(plain "$log")"$'\n'"exit code $rc" \
  'skipped: .*manifest.jsonl:4: .*1_theo_5.wav: ' 'samples skipped$' '^exit code 0$'
run speech cut2 one train --set data.feature_cache="$scratch/cache" --set data.corrupt_limit=0
contains "and ends a run that allows none" "$(plain "$log")"$'\n'"exit code $rc" \
  'more than data.corrupt_limit = 0' '^exit code 3$'
finish
