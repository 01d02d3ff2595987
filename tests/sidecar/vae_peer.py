#!/usr/bin/env python3
"""vae_peer.py ARBDIST [THREADS]: the video VAE beside the same arithmetic in PyTorch, float32, in one run. No part of the tests: it
needs torch, numpy and pillow. vae_peer.py --cuda ARBDIST: both on the GPU, without TF32, times alone, from frames in the host's
memory to frames there; pillow is not needed.

Both sides have the synthetic weights (src/sidecar/source.h). Prints the largest difference of a latent of 5 frames, with the
Conv2d weights quantised by the published scheme, and of the 5 decoded 8-bit frames; then times PyTorch, ARBDIST, PyTorch again.
A still is timed twice in PyTorch: as the original computes it, over frames of zeros, and without those frames. On a busy machine
compare seconds of CPU with one thread: waiting costs none.
"""
import json, re, statistics, struct, subprocess, sys, tempfile, time
import numpy, torch
import torch.nn.functional as F
from synthetic import draws

cuda = "--cuda" in sys.argv
plain = [a for a in sys.argv[1:] if a != "--cuda"]
arbdist, threads = plain[0], int(plain[1]) if len(plain) > 1 else 2
device = torch.device("cuda" if cuda else "cpu")
if cuda:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name(0)}, float32, TF32 off")
else:
    from PIL import Image
torch.set_num_threads(threads)
torch.set_grad_enabled(False)
weights, leave_out_zeros = {}, False


def tensor(name, *shape):
    """Made when first used; Conv2d weights quantised and dequantised."""
    if name not in weights:
        v = draws(name, int(numpy.prod(shape)))
        v = 1 + 0.1 * v if name.endswith("gamma") else 0.05 * v if name.endswith("bias") else v * (3 / numpy.prod(shape[1:])) ** 0.5
        w = torch.from_numpy(v.astype(numpy.float32).reshape(shape))
        if len(shape) == 4 and name.endswith("weight"):
            s = (w.flatten(1).abs().amax(1) / 127).view(-1, 1, 1, 1)
            w = torch.clamp(torch.round(w / s), -128, 127) * s
        weights[name] = w.to(device)
    return weights[name]


def conv(x, p, cout, kt=3, k=3):
    w, b = tensor(p + ".weight", cout, x.shape[1], kt, k, k), tensor(p + ".bias", cout)
    if leave_out_zeros and kt == 3 and x.shape[2] == 1:
        return F.conv2d(x[:, :, 0], w[:, :, 2], b, padding=k // 2)[:, :, None]
    return F.conv3d(F.pad(x, (k // 2,) * 4 + (kt - 1, 0)), w, b)


def flat(x, p, cout, k, **how):  # a Conv2d, frame by frame
    y = x.transpose(1, 2).flatten(0, 1)
    y = F.conv2d(F.pad(y, (0, 1, 0, 1)) if how else y, tensor(p + ".weight", cout, y.shape[1], k, k), tensor(p + ".bias", cout),
                 padding=0 if how else k // 2, **how)
    return y.view(x.shape[0], x.shape[2], *y.shape[1:]).transpose(1, 2)


def norm(x, p, *ones):
    c = x.shape[1]
    return F.normalize(x, dim=1) * c**0.5 * tensor(p + ".gamma", c, *ones).view(1, c, 1, 1, 1)


def res(x, p, cout):
    s = x if x.shape[1] == cout else conv(x, p + ".shortcut", cout, 1, 1)
    for i, j in ((0, 2), (3, 6)):
        x = conv(F.silu(norm(x, f"{p}.residual.{i}", 1, 1, 1)), f"{p}.residual.{j}", cout)
    return x + s


def attend(x, p):
    b, c, t, h, w = x.shape
    q, k, v = flat(norm(x, p + ".norm", 1, 1), p + ".to_qkv", 3 * c, 1).permute(0, 2, 3, 4, 1).reshape(b, t, h * w, 3 * c).split(c, -1)
    y = F.scaled_dot_product_attention(q, k, v).reshape(b, t, h, w, c).permute(0, 4, 1, 2, 3)
    return x + flat(y, p + ".proj", c, 1)


def middle(x, p):
    return res(attend(res(x, p + ".middle.0", 384), p + ".middle.1"), p + ".middle.2", 384)


def down(x, p, in_time):
    c = x.shape[1]
    y = flat(x, p + ".resample.1", c, 3, stride=2)
    if not in_time or y.shape[2] == 1:
        return y
    z = F.conv3d(y, tensor(p + ".time_conv.weight", c, c, 3, 1, 1), tensor(p + ".time_conv.bias", c), stride=(2, 1, 1))
    return torch.cat([y[:, :, :1], z], 2)


def up(x, p, in_time):
    b, c, t, h, w = x.shape
    if in_time and t > 1:
        z = conv(x[:, :, 1:], p + ".time_conv", 2 * c, 3, 1).view(b, 2, c, t - 1, h, w)
        x = torch.cat([x[:, :, :1], z.permute(0, 2, 3, 1, 4, 5).reshape(b, c, 2 * t - 2, h, w)], 2)
    return flat(x.repeat_interleave(2, 3).repeat_interleave(2, 4), p + ".resample.1", c // 2, 3)


def encode(x):
    x = conv(x, "encoder.conv1", 96)
    for k, cout in enumerate((96, 96, 0, 192, 192, 0, 384, 384, 0, 384, 384)):
        p = f"encoder.downsamples.{k}"
        x = res(x, p, cout) if cout else down(x, p, k > 2)
    x = conv(F.silu(norm(middle(x, "encoder"), "encoder.head.0", 1, 1, 1)), "encoder.head.2", 32)
    return conv(x, "conv1", 32, 1, 1)[:, :16]


def decode(z):
    x = middle(conv(conv(z, "conv2", 16, 1, 1), "decoder.conv1", 384), "decoder")
    for k, cout in enumerate((384, 384, 384, 0, 384, 384, 384, 0, 192, 192, 192, 0, 96, 96, 96)):
        p = f"decoder.upsamples.{k}"
        x = res(x, p, cout) if cout else up(x, p, k < 11)
    return conv(F.silu(norm(x, "decoder.head.0", 1, 1, 1)), "decoder.head.2", 3)


def run(*arguments):
    options = ["--set", "sidecars.vae=synthetic", "--set", "run.device=cuda" if cuda else f"run.threads={threads}"]
    done = subprocess.run([arbdist, *arguments, *options], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


mean = torch.tensor([-.7571, -.7089, -.9113, .1075, -.1745, .9653, -.1517, 1.5508, .4134, -.0715, .5517, -.3632, -.1922, -.9497,
                     .2503, -.2921]).view(1, 16, 1, 1, 1)
deviation = torch.tensor([2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382,
                          1.1253, 2.8251, 1.9160]).view(1, 16, 1, 1, 1)
if not cuda:
    folder = tempfile.mkdtemp()
    subprocess.run(["mkdir", f"{folder}/in"], check=True)
    pixels = numpy.random.RandomState(1).randint(0, 256, (5, 32, 48, 3), dtype=numpy.uint8)
    for i, frame in enumerate(pixels):
        Image.fromarray(frame).save(f"{folder}/in/{i}.png")
    run("sidecar", "encode", f"{folder}/in", "--out", f"{folder}/z.safetensors")
    run("sidecar", "decode", f"{folder}/z.safetensors", "--out", f"{folder}/out")
    with open(f"{folder}/z.safetensors", "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        shape = json.loads(f.read(n))["latent"]["shape"]
        z = torch.frombuffer(bytearray(f.read()), dtype=torch.float32).view(1, *shape)
    want = (encode(torch.from_numpy(pixels).permute(3, 0, 1, 2)[None].float() / 127.5 - 1) - mean) / deviation
    print(f"latent {tuple(z.shape[1:])}: largest difference {(z - want).abs().max():.2e}, mean magnitude {want.abs().mean():.3f}")
    frames = numpy.stack([numpy.asarray(Image.open(f"{folder}/out/frame-{i:05}.png")).astype(int) for i in range(1, 6)])
    levels = ((decode(z * deviation + mean).clamp(-1, 1)[0] + 1) * 127.5).round().permute(1, 2, 3, 0).numpy().astype(int)
    print(f"frames {frames.shape}: {int((frames != levels).sum())} values differ, by {abs(frames - levels).max()} levels at most")

still, clip, z1, z2 = (torch.rand(1, c, t, s, s) * 2 - 1 for c, t, s in ((3, 1, 224), (3, 5, 224), (16, 1, 28), (16, 2, 28)))
work = (("encode, still", encode, still, False), ("encode, still, no zeros", encode, still, True), ("decode, still", decode, z1, False),
        ("decode, still, no zeros", decode, z1, True), ("encode, 5 frames", encode, clip, False), ("decode, 5 frames", decode, z2, False))
medians = {}
for turn in range(2):
    for what, f, x, leave_out_zeros in work:
        wall, cpu = [], []
        for i in range(-1, 3):
            t, c = time.perf_counter(), time.process_time()
            f(x.to(device)).cpu()
            if i >= 0:
                wall.append(time.perf_counter() - t)
                cpu.append(time.process_time() - c)
        medians.setdefault(what, []).append(statistics.median(wall))
        print(f"PyTorch {what:24} {statistics.median(wall):9.3f} s ({min(wall):.3f} - {max(wall):.3f}), {statistics.median(cpu):9.3f} s of CPU",
              flush=True)
    if turn == 0:
        bench = run("bench", "sidecar")
        print(bench, end="", flush=True)
for ours, theirs in (("encode 224 x 224", "encode, still, no zeros"), ("decode 224 x 224", "decode, still, no zeros"),
                     ("encode 5 frames of 224 x 224", "encode, 5 frames"), ("decode 5 frames of 224 x 224", "decode, 5 frames")):
    ratios = [1e3 * t / float(re.search(rf"^{ours} +([0-9.]+) ms", bench, re.M)[1]) for t in medians[theirs]]
    print(f"{ours}: PyTorch takes {min(ratios):.2f} - {max(ratios):.2f} times as long")
