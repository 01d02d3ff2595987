#!/usr/bin/env bash
# sidecar.sh: imported encoders on the command line: check, audit, bench, and what is refused. Synthetic weights at full size.
. "$(dirname "$0")/../train/run.sh"

# ask NAME CODE ARGUMENTS...: the output, in $log, and the exit code.
ask() {
  local name=$1 want=$2 rc=0
  shift 2
  "$ARBDIST" "$@" >"$log" 2>&1 || rc=$?
  same "$name: exit code" "$want" "$rc" "$(tail -n 5 "$log")"
}

ask "check, images" 0 sidecar check --set sidecars.dino=synthetic
contains "check, images: counts, bytes, digest" "$(cat "$log")" '^sidecar dinov2-small: imported, frozen' \
  '^  linear +72 +21233664 +72 +72 +72 +21233664 ' '^  conv2d +1 +225792 +1 +1 +1 +225792 ' '^  all +223 +22056576 +73 +73 +73 ' \
  '^  digest +[0-9a-f]{32} '
ask "check, speech" 0 sidecar check --set sidecars.moonshine=synthetic
contains "check, speech: counts" "$(cat "$log")" '^  linear +128 +44302336 +128 +128 +128 +44302336 ' '^  conv1d +3 +3513952 +0 +0 +0 +0 ' \
  '^  embedding +1 +13631488 +0 +0 +0 ' '^  all +210 +61513920 ' 'features of the test input \[38\]\[416\]: 1\.6742'
ask "audit --sidecars" 0 audit "$config" --sidecars --set sidecars.dino=synthetic --set sidecars.moonshine=synthetic \
  --set sidecars.conv_int8=yes
contains "audit --sidecars: apart from the ternary state" "$(cat "$log")" '^trainable float parameters +0$' \
  '^imported sidecars: apart from the ternary state above' '^sidecar dinov2-small' '^sidecar moonshine-base encoder' \
  '^  conv1d +3 +3513952 +3 +3 +3 +3513952 '
ask "audit without the option" 0 audit "$config" --set sidecars.dino=synthetic
if grep -q sidecar "$log"; then fail "audit without the option does not speak of sidecars"; else pass "audit without the option does not speak of sidecars"; fi

ask "no action" 2 sidecar
contains "no action: what was expected" "$(cat "$log")" 'sidecar: expected check'
ask "nothing to check" 2 sidecar check
contains "nothing to check: what was expected" "$(cat "$log")" 'sidecar check: expected a folder or file'
ask "--sidecars elsewhere" 2 eval "$config" --sidecars
contains "--sidecars elsewhere: who takes it" "$(cat "$log")" '^arbdist: config: --sidecars: only audit'
ask "no such weights" 3 sidecar check "$scratch/none"
contains "no such weights: the path" "$(cat "$log")" "^arbdist: data: $scratch/none"
printf 'hello\n' >"$scratch/model.safetensors"
ask "a text as weights, in a folder" 3 audit "$config" --sidecars --set sidecars.dino="$scratch"
contains "a text as weights: the file" "$(cat "$log")" "^arbdist: data: $scratch/model.safetensors: "
finish
