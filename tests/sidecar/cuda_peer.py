#!/usr/bin/env python3
"""cuda_peer.py ARBDIST: the encoders on a GPU beside the same arithmetic in PyTorch on that GPU, float32 without TF32, in one run.
No part of the tests: it needs torch and numpy. peer.py --cuda is the same.

Both sides have the synthetic weights (src/sidecar/source.h), those of Linear and Conv2d quantised and dequantised by the published
scheme. Prints what `sidecar check` shows of the features and by how much PyTorch's differ, then times PyTorch, ARBDIST, PyTorch
again: milliseconds from values in the host's memory to features there, one input a call. PyTorch is timed as it is written and as
a CUDA graph.
"""
import re, statistics, subprocess, sys, time
import numpy, torch
import torch.nn.functional as F
from synthetic import draws

arbdist = [a for a in sys.argv[1:] if a != "--cuda"][0]
if not torch.cuda.is_available():
    print("PyTorch finds no GPU: nothing was measured")
    sys.exit(77)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
torch.set_grad_enabled(False)
weights = {}


def tensor(name, *shape):
    """Made when first used; weights of Linear and Conv2d quantised and dequantised."""
    if name not in weights:
        v = draws(name, int(numpy.prod(shape)))
        gain = name.endswith("lambda1") or ("norm" in name and name.endswith("weight"))
        token = name.endswith(("cls_token", "position_embeddings"))
        v = 1 + 0.1 * v if gain else 0.05 * v if name.endswith("bias") else 0.5 * v if token else v * (3 / numpy.prod(shape[1:])) ** 0.5
        w = torch.from_numpy(v.astype(numpy.float32).reshape(shape))
        if not token and len(shape) in (2, 4):
            s = (w.flatten(1).abs().amax(1) / 127).view(-1, *[1] * (len(shape) - 1))
            w = torch.clamp(torch.round(w / s), -128, 127) * s
        weights[name] = w.cuda()
    return weights[name]


def linear(x, p, n, bias=True):
    return F.linear(x, tensor(p + ".weight", n, x.shape[-1]), tensor(p + ".bias", n) if bias else None)


def stacked(x, names, n, bias):
    """Linears of one input as one product."""
    key = "+".join(names)
    if key not in weights:
        weights[key] = torch.cat([tensor(p + ".weight", n, x.shape[-1]) for p in names])
        weights[key + ".bias"] = torch.cat([tensor(p + ".bias", n) for p in names]) if bias else None
    return F.linear(x, weights[key], weights[key + ".bias"])


def attention(q, k, v, heads):
    split = lambda x: x.view(1, x.shape[1], heads, -1).transpose(1, 2)
    return F.scaled_dot_product_attention(split(q), split(k), split(v)).transpose(1, 2).reshape(q.shape)


def dino(pixels):
    e = "embeddings."
    x = F.conv2d(pixels, tensor(e + "patch_embeddings.projection.weight", 384, 3, 14, 14),
                 tensor(e + "patch_embeddings.projection.bias", 384), stride=14).flatten(2).transpose(1, 2)
    if "positions" not in weights:
        p = tensor(e + "position_embeddings", 1, 1370, 384)
        grid = F.interpolate(p[:, 1:].view(1, 37, 37, 384).permute(0, 3, 1, 2), size=(16, 16), mode="bicubic", align_corners=False)
        weights["positions"] = torch.cat([p[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    x = torch.cat([tensor(e + "cls_token", 1, 1, 384), x], 1) + weights["positions"]
    norm = lambda x, p: F.layer_norm(x, (384,), tensor(p + ".weight", 384), tensor(p + ".bias", 384), 1e-6)
    for i in range(12):
        p = f"encoder.layer.{i}."
        names = [f"{p}attention.attention.{n}" for n in ("query", "key", "value")]
        a = attention(*stacked(norm(x, p + "norm1"), names, 384, True).split(384, 2), 6)
        x = x + tensor(p + "layer_scale1.lambda1", 384) * linear(a, p + "attention.output.dense", 384)
        a = F.gelu(linear(norm(x, p + "norm2"), p + "mlp.fc1", 1536))
        x = x + tensor(p + "layer_scale2.lambda1", 384) * linear(a, p + "mlp.fc2", 384)
    return norm(x, "layernorm")[0, 1:]


def turn(x, cosine, sine):
    """Neighbours among the first 32 of every 52 are turned."""
    h = x.view(1, x.shape[1], 8, 52)
    a, b = h[..., 0:32:2], h[..., 1:32:2]
    turned = torch.stack([a * cosine - b * sine, b * cosine + a * sine], -1).flatten(-2)
    return torch.cat([turned, h[..., 32:]], -1).view(x.shape)


def moonshine(samples):
    e = "model.encoder."
    x = F.conv1d(samples[:, None], tensor(e + "conv1.weight", 416, 1, 127), stride=64).tanh()
    x = F.group_norm(x, 1, tensor(e + "groupnorm.weight", 416), tensor(e + "groupnorm.bias", 416), 1e-5)
    x = F.gelu(F.conv1d(x, tensor(e + "conv2.weight", 832, 416, 7), tensor(e + "conv2.bias", 832), stride=3))
    x = F.gelu(F.conv1d(x, tensor(e + "conv3.weight", 416, 832, 3), tensor(e + "conv3.bias", 416), stride=2)).transpose(1, 2)
    n = x.shape[1]
    if f"turns {n}" not in weights:
        angle = torch.arange(n).float()[:, None, None] * (1 / 10000 ** (torch.arange(16).double() / 16)).float()
        weights[f"turns {n}"] = angle.double().cos().float().cuda(), angle.double().sin().float().cuda()
    turns = weights[f"turns {n}"]
    norm = lambda x, p: F.layer_norm(x, (416,), tensor(p + ".weight", 416), None, 1e-5)
    for i in range(8):
        p = f"{e}layers.{i}."
        names = [f"{p}self_attn.{n}_proj" for n in "qkv"]
        q, k, v = stacked(norm(x, p + "input_layernorm"), names, 416, False).split(416, 2)
        x = x + linear(attention(turn(q, *turns), turn(k, *turns), v, 8), p + "self_attn.o_proj", 416, False)
        x = x + linear(F.gelu(linear(norm(x, p + "post_attention_layernorm"), p + "mlp.fc1", 1664)), p + "mlp.fc2", 416)
    return norm(x, e + "layer_norm")[0]


def run(*arguments):
    options = ["sidecars.dino=synthetic", "sidecars.moonshine=synthetic", "run.device=cuda"]
    done = subprocess.run([arbdist, *arguments, *[w for o in options for w in ("--set", o)]], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name(0)}, float32, TF32 off")
image = torch.from_numpy(draws("input.dino", 3 * 224 * 224).astype(numpy.float32)).view(1, 3, 224, 224)
sound = torch.from_numpy(draws("input.moon", 160000).astype(numpy.float32)).view(1, 160000)
work = {"image": (dino, image), "speech 0.96 s": (moonshine, sound[:, :15360]), "speech 10 s": (moonshine, sound)}
shown = re.findall(r"features of the test input \[\d+\]\[\d+\]: (.*) \.\.\. (.*); mean", run("sidecar", "check"))
for (first, last), name in zip(shown, work):
    f, x = work[name]
    theirs = f(x.cuda()).flatten().cpu()
    ours = torch.tensor([float(v) for v in first.split() + last.split()])
    seen = torch.cat([theirs[:4], theirs[-2:]])
    print(f"{name}: six values of the features differ by {(seen - ours).abs().max():.1e} at most, mean magnitude {theirs.abs().mean():.3f}")


def captured(f, x):
    """The same as a CUDA graph."""
    held, side = x.cuda(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            f(held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = f(held)

    def call(x):
        held.copy_(x)
        graph.replay()
        return out.cpu()

    return call


def milliseconds(call, x):
    times = []
    for i in range(-5, 15):
        start = time.perf_counter()
        call(x)
        if i >= 0:
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


graphs = {name: captured(f, x) for name, (f, x) in work.items()}
measure = lambda: {n: (milliseconds(lambda x: f(x.cuda()).cpu(), x), milliseconds(graphs[n], x)) for n, (f, x) in work.items()}
before = measure()
bench = run("bench", "sidecar")
after = measure()
print(bench, end="")
for name in work:
    ours = float(re.search(rf"^{re.escape(name)} +([0-9.]+) ms", bench, re.M)[1])
    for k, how in enumerate(("as written", "as a CUDA graph")):
        both = before[name][k], after[name][k]
        print(f"{name}: arbdist {ours:.2f} ms, PyTorch {how} {both[0]:.2f}, {both[1]:.2f}: ratio {min(both) / ours:.2f} - {max(both) / ours:.2f}")
