#!/usr/bin/env python3
"""peer.py ARBDIST [THREADS]: the encoders beside HuggingFace transformers on PyTorch, float32, in one run. No part of the tests:
it needs torch, transformers, safetensors, pillow and numpy. peer.py --cuda ARBDIST: on a GPU, see cuda_peer.py.

Models of the published shapes get random weights and are saved as such folders are; ARBDIST reads them, a PNG and a WAV. Prints
the largest difference of the features (PyTorch with the weights quantised and dequantised by the published scheme), whether the
greedy transcripts agree, then times: PyTorch, ARBDIST, PyTorch again. On a busy machine compare milliseconds of CPU with one
thread: waiting costs none.
"""
import statistics, subprocess, sys, tempfile, time, wave

if "--cuda" in sys.argv:
    import cuda_peer

    sys.exit()
import numpy, torch
from PIL import Image
from safetensors.torch import load_file
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model, MoonshineConfig, MoonshineForConditionalGeneration

arbdist, threads = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2
torch.set_num_threads(threads)
torch.manual_seed(1)
folder = tempfile.mkdtemp()
at = lambda name: f"{folder}/{name}"


def randomise(model):
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1 and "embed_tokens" not in name:
                p.copy_(torch.randn_like(p) * (2.0 / p[0].numel()) ** 0.5)
            elif p.dim() > 1:
                p.copy_(0.03 * torch.randn_like(p))
            else:
                p.copy_(0.1 * torch.randn_like(p) + float(("norm" in name and name.endswith("weight")) or "lambda" in name))


def quantise(model):
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                w = module.weight
                s = (w.flatten(1).abs().amax(1) / 127).view(-1, *[1] * (w.dim() - 1))
                w.copy_(torch.clamp(torch.round(w / s), -128, 127) * s)


def run(*arguments):
    done = subprocess.run([arbdist, *arguments, "--set", f"run.threads={threads}"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


dino = Dinov2Model(Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)).eval()
half = {f"{h}_{k}": 8 for h in ("encoder", "decoder") for k in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")}
moonshine = MoonshineForConditionalGeneration(
    MoonshineConfig(vocab_size=32768, hidden_size=416, intermediate_size=1664, partial_rotary_factor=0.62, **half)).eval()
for model, name in (dino, "dino"), (moonshine, "moonshine"):
    randomise(model)
    model.save_pretrained(at(name))
quantise(dino)
quantise(moonshine.model)

random = numpy.random.RandomState(2)
image = Image.fromarray((random.rand(15, 20, 3) * 255).astype("uint8")).resize((500, 331), 3)
image.save(at("i.png"))
process = BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, resample=3,
                               image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
pixels = process(image, return_tensors="pt")["pixel_values"]
t = numpy.arange(52345) / 16000
pcm = ((0.3 * numpy.sin(2 * numpy.pi * (200 + 300 * t) * t) + 0.05 * random.randn(len(t))).clip(-1, 1) * 32767).astype("<i2")
with wave.open(at("a.wav"), "wb") as w:
    w.setnchannels(1), w.setsampwidth(2), w.setframerate(16000), w.writeframes(pcm.tobytes())
sound = torch.tensor(pcm.astype("float32") / 32768)[None]

use = ["--set", f"sidecars.dino={at('dino')}", "--set", f"sidecars.moonshine={at('moonshine')}"]
run("sidecar", "encode", at("i.png"), "--out", at("i.st"), *use)
run("sidecar", "encode", at("a.wav"), "--out", at("a.st"), *use)
ours = [int(x) for x in run("sidecar", "transcribe", at("a.wav"), *use).split(":")[1].split()]
with torch.inference_mode():
    for name, want, got in (("image", dino(pixels).last_hidden_state[0, 1:], load_file(at("i.st"))["features"]),
                            ("speech", moonshine.model.encoder(sound).last_hidden_state[0], load_file(at("a.st"))["features"])):
        print(f"{name}: {tuple(got.shape)}, largest difference {(want - got).abs().max():.2e}, mean magnitude {want.abs().mean():.3f}")
    theirs = moonshine.generate(sound, max_new_tokens=len(ours), do_sample=False)[0].tolist()[1:]
    print(f"transcripts of {len(ours)} tokens ({len(set(ours))} different): {'equal' if ours == theirs else 'DIFFERENT'}")

    def measure(name, call):
        wall, cpu = [], []
        for i in range(-2, 15):
            a, b = time.perf_counter(), time.process_time()
            call()
            if i >= 0:
                wall.append(1e3 * (time.perf_counter() - a)), cpu.append(1e3 * (time.process_time() - b))
        print(f"{name:16} {statistics.median(wall):9.2f} ms ({min(wall):.2f} - {max(wall):.2f}), "
              f"{statistics.median(cpu):9.2f} ms of CPU", flush=True)

    image1, short, long = torch.randn(1, 3, 224, 224), torch.randn(1, 15360) * 0.3, torch.randn(1, 160000) * 0.3
    for again in range(2):
        print(f"PyTorch {torch.__version__}, float32, {threads} threads")
        measure("image", lambda: dino(image1))
        measure("speech 0.96 s", lambda: moonshine.model.encoder(short))
        measure("speech 10 s", lambda: moonshine.model.encoder(long))
        if not again:
            print(run("bench", "sidecar", *use), end="")
