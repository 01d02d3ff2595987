#!/usr/bin/env bash
# peer.sh: decoding and resampling of images against Pillow, and decoding of sound against Python's wave module.
# PYTHON names a python3 that has Pillow; by default python3. MEDIA_PRINT: our program.
. "$(dirname "$0")/../check.sh"
python=${PYTHON:-python3}
if ! "$python" -c 'import PIL.Image' 2>/dev/null; then
  skip "IMAGES WERE NOT COMPARED WITH PILLOW" "$python has no package PIL"
  finish
fi
cat >"$scratch/peer.py" <<'PY'
import os, random, struct, subprocess, sys, wave
from PIL import Image
folder, ours = sys.argv[1], os.environ["MEDIA_PRINT"]
random.seed(1)
bad = []

def out(*words):
    done = subprocess.run([ours, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.stdout if done.returncode == 0 else done.stderr

def check(what, a, b):
    if a != b: bad.append(what)

def noise(mode, w, h):  # smooth and rough together, so that rounding and clamping both happen
    bands = len(Image.new(mode, (1, 1)).getbands())
    data = bytes((x * 3 + y * 5 + random.choice((0, 0, 0, 90, 255))) & 255 for y in range(h) for x in range(w) for _ in range(bands))
    return Image.frombytes(mode, (w, h), data)

def passes(im, w, h):  # horizontal, then vertical: what resize itself does up to Pillow 12
    return im.resize((w, im.height), Image.BICUBIC).resize((w, h), Image.BICUBIC)

images = [("png", noise(m, w, h)) for m in ("L", "RGB", "RGBA", "LA") for w, h in ((1, 1), (37, 21), (300, 200))]
images += [("png", noise("RGB", 64, 40).quantize(c)) for c in (2, 5, 16, 256)] + [("png", noise("L", 33, 9).convert("1"))]
images += [("jpg", noise(m, w, h)) for m in ("L", "RGB") for w, h in ((1, 1), (37, 21), (300, 200), (257, 1023))]
for i, (kind, im) in enumerate(images):
    path = f"{folder}/{i}.{kind}"
    options = dict(quality=(50, 75, 95)[i % 3], subsampling=i % 3, progressive=i % 2 == 1) if kind == "jpg" else {}
    im.save(path, **options)
    rgb = Image.open(path).convert("RGB")
    check(f"decode {path} {im.mode} {im.size}", out("image", path), rgb.tobytes())
    for _ in range(3):
        w, h = random.randint(1, 500), random.randint(1, 500)
        check(f"resize {rgb.size} to {w} x {h}", out("resize", path, w, h), passes(rgb, w, h).tobytes())
    s, l = min(rgb.size), max(rgb.size)
    long = int(256 * l / s)
    w, h = (long, 256) if rgb.width > rgb.height else (256, long)
    left, top = (w - 224) // 2, (h - 224) // 2
    check(f"crop {rgb.size}", out("crop", path), passes(rgb, w, h).crop((left, top, left + 224, top + 224)).tobytes())
for i, channels in enumerate((1, 2, 3)):
    path = f"{folder}/{i}.wav"
    frames = [[random.randint(-32768, 32767) for _ in range(channels)] for _ in range(1000)]
    with wave.open(path, "wb") as f:
        f.setnchannels(channels); f.setsampwidth(2); f.setframerate(16000)
        f.writeframes(b"".join(struct.pack("<h", s) for frame in frames for s in frame))
    check(f"decode {path}", out("sound", path), b"".join(struct.pack("<f", sum(frame) / 32768 / channels) for frame in frames))
print(f"{len(images)} images, 3 sounds; different: {bad[:5] if bad else 'none'}")
PY
same "pixels and samples as Pillow and wave have them" "25 images, 3 sounds; different: none" "$("$python" "$scratch/peer.py" "$scratch" 2>&1)"
finish
