#!/usr/bin/env bash
# sidecar_video.sh: the video VAE on the command line: check, decode to PNG frames, encode them again, and what is refused.
# Synthetic weights at full size, small frames.
. "$(dirname "$0")/../train/run.sh"

vae=(--set sidecars.vae=synthetic --set sidecars.conv_int8=yes)
# ask NAME CODE ARGUMENTS...: the output, in $log, and the exit code.
ask() {
  local name=$1 want=$2 rc=0
  shift 2
  "$ARBDIST" "$@" >"$log" 2>&1 || rc=$?
  same "$name: exit code" "$want" "$rc" "$(tail -n 5 "$log")"
}
# latent FRAMES HEIGHT WIDTH [NAME]: a latent of zeros, as safetensors.
latent() {
  local bytes=$((16 * $1 * $2 * $3 * 4)) text
  text="{\"${4:-latent}\":{\"dtype\":\"F32\",\"shape\":[16,$1,$2,$3],\"data_offsets\":[0,$bytes]}}"
  printf "\\x$(printf %02x $((${#text} & 255)))\\x$(printf %02x $((${#text} >> 8)))\\0\\0\\0\\0\\0\\0%s" "$text"
  head -c "$bytes" /dev/zero
}
cd "$scratch"

ask "check" 0 sidecar check --set sidecars.vae=synthetic
contains "check: counts, bytes, values" "$(cat "$log")" '^sidecar wan-2.1-vae: imported, frozen' \
  '^  conv2d +10 +4414464 +10 +10 +10 +4414464 ' '^  conv3d +61 +122442176 +0 +0 +0 +0 ' '^  all +194 +126892531 +10 +10 +10 ' \
  'latent of the test input, normalised \[16\]\[1\]\[4\]\[6\]: 0\.35'

latent 2 1 2 >two.safetensors
ask "decode" 0 sidecar decode two.safetensors --out frames "${vae[@]}"
same "decode: five frames" "frame-00001.png frame-00002.png frame-00003.png frame-00004.png frame-00005.png" "$(echo $(ls frames))"
contains "decode: sizes" "$(cat "$log")" '5 images of 16 x 8 in frames'
ask "encode a folder" 0 sidecar encode frames --out again.safetensors "${vae[@]}"
contains "encode a folder: the latent" "$(cat "$log")" '^wan-2.1-vae, weights [0-9a-f]{32}$' 'frames \[16\]\[2\]\[1\]\[2\]: '
ask "decode into a folder in use" 2 sidecar decode again.safetensors --out frames "${vae[@]}"
contains "decode into a folder in use: why not" "$(cat "$log")" '--out frames: expected a new or an empty folder'
same "decode into a folder in use: nothing is lost" 5 "$(ls frames | wc -l)"
ask "decode what was encoded" 0 sidecar decode again.safetensors --out second "${vae[@]}"
same "decode what was encoded: five frames" 5 "$(ls second | wc -l)"

latent 1 1 1 >one.safetensors
ask "decode a still" 0 sidecar decode one.safetensors --out still.png "${vae[@]}"
ask "encode a still" 0 sidecar encode still.png "${vae[@]}"
contains "encode a still: the latent" "$(cat "$log")" 'still.png \[16\]\[1\]\[1\]\[1\]: '
ask "a video into one image" 2 sidecar decode two.safetensors --out all.png "${vae[@]}"
contains "a video into one image: why not" "$(cat "$log")" 'two.safetensors gives 5 frames, which need a folder'

rm frames/frame-00005.png
ask "four frames" 3 sidecar encode frames "${vae[@]}"
contains "four frames: what is possible" "$(cat "$log")" '^arbdist: data: frames: a clip of 4 frames.*1, 5, 9'
cp still.png frames/frame-00005.png
ask "frames of two sizes" 3 sidecar encode frames "${vae[@]}"
contains "frames of two sizes: which" "$(cat "$log")" 'frames/frame-00005.png: 8 x 8 pixels, unlike the first'
mkdir none
ask "a folder without images" 3 sidecar encode none "${vae[@]}"
contains "a folder without images: says so" "$(cat "$log")" 'none: no image'
latent 1 1 1 latents >other.safetensors
ask "another tensor" 3 sidecar decode other.safetensors --out x "${vae[@]}"
contains "another tensor: the name" "$(cat "$log")" '^arbdist: data: other.safetensors.*latent'
ask "both encoders" 2 sidecar encode still.png --set sidecars.dino=synthetic "${vae[@]}"
contains "both encoders: give one" "$(cat "$log")" 'sidecars.dino and sidecars.vae both encode images'
ask "decode without --out" 2 sidecar decode one.safetensors "${vae[@]}"
contains "decode without --out: what was expected" "$(cat "$log")" 'expected --out FOLDER'
ask "decode without weights" 2 sidecar decode one.safetensors --out x
contains "decode without weights: which key" "$(cat "$log")" 'sidecars.vae=WEIGHTS'
finish
