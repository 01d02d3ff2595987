#!/usr/bin/env bash
# manifest.sh: writes the manifest of a folder of labelled files, for [data] pairs and valid_pairs. Two layouts are known:
#
#   manifest.sh images FOLDER   FOLDER/CLASS/FILE.jpg (or png), as CIFAR-10 unpacked: "a photo of a CLASS"
#   manifest.sh digits FOLDER   FOLDER/DIGIT_SPEAKER_INDEX.wav, as free-spoken-digit-dataset: the digit's name
#
# It writes FOLDER/manifest.jsonl; paths in it are relative, so the folder may move. Other data: any script that prints one
# {"image": "FILE", "audio": "FILE", "text": "..."} a line (image and audio are optional).
set -euo pipefail
names=(zero one two three four five six seven eight nine)
usage() { sed -n 's/^# \{0,1\}//; 2,8p' "$0" >&2; exit 2; }
[ $# -eq 2 ] && [ -d "$2" ] || usage
kind=$1
cd "$2"
case $kind in
  images) find . -mindepth 2 -maxdepth 2 -type f \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' \) ;;
  digits) find . -mindepth 1 -maxdepth 1 -type f -iname '[0-9]_*.wav' ;;
  *) usage ;;
esac | LC_ALL=C sort | while IFS= read -r file; do
  file=${file#./}
  case $file in *[\"\\[:cntrl:]]*)
    echo "manifest.sh: $file: a name with quotes or backslashes; rename it" >&2
    exit 1
    ;;
  esac
  case $kind in
    images) printf '{"image": "%s", "text": "a photo of a %s"}\n' "$file" "${file%%/*}" ;;
    digits) printf '{"audio": "%s", "text": "%s"}\n' "$file" "${names[${file:0:1}]}" ;;
  esac
done >manifest.jsonl.new
[ -s manifest.jsonl.new ] || { rm manifest.jsonl.new; echo "manifest.sh: no such files in $2" >&2; exit 1; }
mv manifest.jsonl.new manifest.jsonl
echo "$2/manifest.jsonl: $(wc -l <manifest.jsonl) samples"
