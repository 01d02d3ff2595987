"""Synthetic weights of the encoders, as src/sidecar/source.h defines them, for the scripts that measure PyTorch beside them."""
import numpy


def draws(name, n):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) % 2**64
    u = numpy.uint64
    x = u(h) + numpy.arange(1, n + 1, dtype=u) * u(0x9E3779B97F4A7C15)
    x = (x ^ (x >> u(30))) * u(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> u(27))) * u(0x94D049BB133111EB)
    return ((x ^ (x >> u(31))) >> u(40)).astype(numpy.float64) / 2**23 - 1
