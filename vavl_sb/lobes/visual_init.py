"""Random weights for the visual encoder that are of use without training.

A random EfficientNet whose BatchNorm layers hold mean 0 and variance 1
collapses: the signal shrinks from layer to layer until all pictures look the
same. Here the statistics are those of pictures drawn for the purpose, and the
output is set to mean 0 and variance 1 over such pictures. They must be as
varied as natural ones: with statistics of noise, which is alike everywhere,
the flat wall behind a speaker drives the network 50 deviations off.

The result is meant to be the same to the bit on every machine, since cached
features and exported models are known by a digest of the weights. Weights and
pictures are made of integers by exact arithmetic. The statistics come from
convolutions, whose rounding differs between machines; so they are computed in
double precision and rounded to 11 bits, 10 orders of magnitude coarser than
the differences.

Authors
 * The vavl_sb authors 2026
"""

import math

import numpy as np
import torch
from torch import nn

# Enough of each for the estimates, few enough for about 3 s on two cores. At
# 160 pixels the statistics are those at 224 within a tenth of a deviation.
STATISTICS_PICTURES = 12
OUTPUT_PICTURES = 24
PICTURE_SIZE = 160
MANTISSA_BITS = 11


def _uniform(generator, count):
    """Exact float64 numbers in [-1, 1), of 24 random bits each."""
    # The raw stream is part of numpy's promise, that of its distributions
    # is not.
    raw = generator.random_raw(count) >> np.uint64(40)
    return raw.astype(np.float64) / 2.0**23 - 1.0


def draw_pictures(count, size=PICTURE_SIZE, seed=0):
    """Pictures with structure on all scales: shades, blobs and edges.

    Arguments
    ---------
    count : int
        How many.
    size : int
        Height and width, in pixels.
    seed : int
        Equal seeds give equal pictures, on every machine.

    Returns
    -------
    torch.Tensor
        uint8, shape (count, 3, size, size).

    Example
    -------
    >>> draw_pictures(2, 32).shape
    torch.Size([2, 3, 32, 32])
    """
    generator = np.random.PCG64(seed)
    pictures = [_picture(generator, size) for _ in range(count)]
    return torch.from_numpy(np.stack(pictures))


def _picture(generator, size):
    """One picture, uint8 (3, size, size): a "dead leaves" image.

    Opaque ellipses of one colour each, small ones more often than large
    ones, lie on one another; that gives the edges, the flat regions and the
    spectrum of natural pictures (Lee, Mumford, Huang, "Occlusion models for
    natural images", 2001). How many there are is the picture's own, from
    nearly flat to crowded; so are light, contrast and shading.
    """
    y, x = np.mgrid[0:size, 0:size] * (2.0 / size) - 1.0
    light, contrast, crowd = _uniform(generator, 3)
    picture = _colours(generator, 1)[0] + np.zeros((3, size, size))
    count = 4 + int(24 * (crowd + 1.0))
    places = _uniform(generator, 5 * count).reshape(count, 5)
    for place, colour in zip(places, _colours(generator, count), strict=True):
        dx, dy = x - 1.2 * place[0], y - 1.2 * place[1]
        radius = 0.08 / (0.55 + 0.45 * place[2])
        dy = (dy + place[3] * dx) * (1.5 + place[4])
        inside = dx * dx + dy * dy < radius * radius
        picture = np.where(inside, colour, picture)
    noise = _uniform(generator, 75).reshape(3, 5, 5)
    picture = picture + 0.3 * _enlarge(noise, size)
    picture = 128.0 + 70.0 * light + (90.0 + 60.0 * contrast) * picture
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _colours(generator, count):
    """Greys with some colour in them, (count, 3, 1, 1), about -1 to 1."""
    numbers = _uniform(generator, 4 * count).reshape(count, 4, 1, 1)
    return numbers[:, :1] + 0.3 * numbers[:, 1:]


def _enlarge(noise, size):
    """Bilinear interpolation of (3, n + 1, n + 1) to (3, size, size)."""
    for axis in (1, 2):
        cells = noise.shape[axis] - 1
        position = np.arange(size) * cells / size
        left = position.astype(int)
        weight = position - left
        weight = weight[:, None] if axis == 1 else weight
        low = noise.take(left, axis)
        noise = low + weight * (noise.take(left + 1, axis) - low)
    return noise


def _rounded(tensor):
    """float32 with few bits of mantissa."""
    mantissa, exponent = np.frexp(tensor.double().numpy())
    mantissa = np.rint(np.ldexp(mantissa, MANTISSA_BITS))
    rounded = np.ldexp(mantissa, exponent - MANTISSA_BITS)
    return torch.from_numpy(rounded.astype(np.float32))


@torch.no_grad()
def init_calibrated(backbone, normalize, seed=0):
    """Gives a convolutional network random weights that are of use.

    Arguments
    ---------
    backbone : torch.nn.Module
        Takes (N, 3, H, W), gives (N, D); its convolutions are followed by
        BatchNorm. Changed in place.
    normalize : callable
        From uint8 pictures to what the backbone takes.
    seed : int
        Equal seeds give equal weights; torch's global seed plays no part.

    Returns
    -------
    shift : torch.Tensor
        Mean of each output over pictures, shape (D,).
    scale : torch.Tensor
        1 / deviation of each output over pictures, shape (D,).
    """
    generator = np.random.PCG64(seed)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            # Gates of squeeze-and-excitation stay near 1/2: open, they would
            # amplify strong signals in 23 blocks one after another.
            gain = 0.1 if ".se." in name else 1.0
            _init_convolution(module, gain, generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = 1.0
    backbone.double().train()
    backbone(normalize(draw_pictures(STATISTICS_PICTURES, seed=1)).double())
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
            module.running_mean.copy_(_rounded(module.running_mean))
            module.running_var.copy_(_rounded(module.running_var))
            module.num_batches_tracked.zero_()
    backbone.eval()
    pictures = draw_pictures(OUTPUT_PICTURES, seed=2).split(8)
    outputs = torch.cat([backbone(normalize(p).double()) for p in pictures])
    backbone.float()
    deviation = outputs.std(0)
    # An output that hardly moves would blow up on other pictures.
    deviation = deviation.clamp(min=0.2 * deviation.median().item())
    return _rounded(outputs.mean(0)), _rounded(1.0 / deviation)


def _init_convolution(module, gain, generator):
    """Uniform weights that keep the variance (fan-in, ReLU); no bias."""
    fan_in = module.weight[0].numel()
    numbers = _uniform(generator, module.weight.numel())
    numbers *= gain * math.sqrt(6.0 / fan_in)
    weight = torch.from_numpy(numbers.astype(np.float32))
    module.weight.copy_(weight.view_as(module.weight))
    if module.bias is not None:
        module.bias.zero_()
