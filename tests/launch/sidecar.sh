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

# A second of a rising tone, 16-bit WAV, written byte by byte: wav RATE SAMPLES
le() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
wav() {
  printf "RIFF$(le $((36 + 2 * $2)))WAVEfmt $(le 16)\\x01\\x00\\x01\\x00$(le "$1")$(le $((2 * $1)))\\x02\\x00\\x10\\x00data$(le $((2 * $2)))"
  printf "$(awk -v n="$2" 'BEGIN { for (i = 0; i < n; i++) { v = int(9000 * sin(i * i / 9000)); if (v < 0) v += 65536
    printf "\\x%02x\\x%02x", v % 256, int(v / 256) } }')"
}
wav 8000 8000 >"$scratch/tone.wav"
ask "encode a sound" 0 sidecar encode "$scratch/tone.wav" --set sidecars.moonshine=synthetic --out "$scratch/tone.safetensors"
contains "encode a sound: 40 frames of a second" "$(cat "$log")" '^moonshine-base encoder, weights [0-9a-f]{32}$' \
  'tone.wav \[40\]\[416\]: '
header=$(od -An -tu4 -N4 "$scratch/tone.safetensors")
same "encode a sound: the file of features" $((40 * 416 * 4)) $(($(stat -c %s "$scratch/tone.safetensors") - 8 - header))
ask "transcribe" 0 sidecar transcribe "$scratch/tone.wav" --set sidecars.moonshine=synthetic
contains "transcribe: tokens without a tokenizer" "$(cat "$log")" '^tokens \(no tokenizer.json beside the weights\):( [0-9]+)+$'
printf 'P6\n' >"$scratch/x.ppm"
ask "encode another format" 3 sidecar encode "$scratch/x.ppm" --set sidecars.dino=synthetic
contains "encode another format: what was expected" "$(cat "$log")" 'x.ppm: expected an image \(.png, .jpg, .jpeg\), a folder of them or a sound'
printf 'no image' >"$scratch/x.png"
ask "encode a broken image" 3 sidecar encode "$scratch/x.png" --set sidecars.dino=synthetic
contains "encode a broken image: the file" "$(cat "$log")" "^arbdist: data: $scratch/x.png"
ask "encode without an encoder" 2 sidecar encode "$scratch/tone.wav" --set sidecars.dino=synthetic
contains "encode without an encoder: which key" "$(cat "$log")" 'sidecars.moonshine=FOLDER'
wav 16000 400 >"$scratch/short.wav"
ask "a sound too short" 3 sidecar transcribe "$scratch/short.wav" --set sidecars.moonshine=synthetic
contains "a sound too short: the file and the limits" "$(cat "$log")" \
  "^arbdist: data: $scratch/short.wav: 0.025 s of sound; 0.056 to 64 s"
ask "encode without a file" 2 sidecar encode
contains "encode without a file: what was expected" "$(cat "$log")" 'sidecar encode: expected a file'

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
