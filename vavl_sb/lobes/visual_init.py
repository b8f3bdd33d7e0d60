"""Random weights for the visual encoder that are of use without training.

A random EfficientNet whose BatchNorm layers hold mean 0 and variance 1
collapses: the signal shrinks from layer to layer until all pictures look the
same. Here the statistics are those of pictures drawn for the purpose, and the
output is set to mean 0 and variance 1 over such pictures. They must be as
varied as natural ones: with statistics of noise, which is alike everywhere,
the flat wall behind a speaker drives the network 50 deviations off.

Global average pooling is of use where channels have learnt to say what is
there. Random channels say little, and then it matters where they say it: in an
aligned face, the corner of the mouth is at its place. So random weights come
with random weights for the pooling, one for each channel and place.

Weights and pictures are made of integers by exact arithmetic, the same on
every machine. The statistics come from convolutions, whose last bits differ
between machines; they are rounded to 11 bits, so that nearly all are the same.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import math

import numpy as np
import torch
from torch import nn

# Enough of each for the estimates, few enough for about 4 s on one core. At
# 160 pixels the statistics are those at 224 within a tenth of a deviation.
STATISTICS_PICTURES = 10
OUTPUT_PICTURES = 12
PICTURE_SIZE = 160
MANTISSA_BITS = 11
NOTHING = 1e-6
# Places of the last maps of EfficientNet-B2 at 224 pixels, on a side.
POOL_SIZE = 7
# Gain of what a block adds to its input. Random blocks wash out what earlier
# ones found; at 0.2 a linear probe reads more from the features than at 1.
SKIPPED_GAIN = 0.2


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
    numbers = tensor.double().numpy()
    # Means that are 0 in theory are 1e-15 one way or the other.
    numbers = np.where(np.abs(numbers) < NOTHING, 0.0, numbers)
    mantissa, exponent = np.frexp(numbers)
    mantissa = np.rint(np.ldexp(mantissa, MANTISSA_BITS))
    rounded = np.ldexp(mantissa, exponent - MANTISSA_BITS)
    return torch.from_numpy(rounded.astype(np.float32))


def pool_by_place(maps, pool):
    """Weighted mean over the places of feature maps.

    Arguments
    ---------
    maps : torch.Tensor
        Shape (N, D, H, W).
    pool : torch.Tensor
        A weight for each channel and place, shape (D, h, w); stretched to
        (H, W) where that differs.

    Returns
    -------
    torch.Tensor
        Shape (N, D).

    Example
    -------
    >>> pool = torch.ones(2, 3, 3)
    >>> pool_by_place(torch.full((1, 2, 3, 3), 4.0), pool)
    tensor([[4., 4.]])
    """
    if maps.shape[-2:] != pool.shape[-2:]:
        pool = nn.functional.interpolate(
            pool[None], maps.shape[-2:], mode="bilinear", align_corners=False
        )[0]
    return (maps * pool).mean(dim=(2, 3))


@contextlib.contextmanager
def _one_thread():
    """Sums in one order, however many threads the program has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
@torch.no_grad()
def init_calibrated(backbone, normalize, seed=0):
    """Gives a convolutional network random weights that are of use.

    Arguments
    ---------
    backbone : torch.nn.Module
        A convolutional model of timm: ``forward_features`` takes (N, 3, H, W)
        and gives maps (N, D, h, w); its convolutions are followed by
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
    pool : torch.Tensor
        Random weights for :func:`pool_by_place`, shape (D, 7, 7).
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
        if getattr(module, "has_skip", False):
            last = [m for m in module.children() if _is_norm(m)][-1]
            last.weight.fill_(SKIPPED_GAIN)
    size = backbone.num_features * POOL_SIZE**2
    pool = torch.from_numpy(_uniform(generator, size).astype(np.float32))
    pool = pool.view(backbone.num_features, POOL_SIZE, POOL_SIZE)
    backbone.to(memory_format=torch.channels_last).train()
    backbone(normalize(draw_pictures(STATISTICS_PICTURES, seed=1)))
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
            module.running_mean.copy_(_rounded(module.running_mean))
            module.running_var.copy_(_rounded(module.running_var))
            module.num_batches_tracked.zero_()
    backbone.eval()
    pictures = draw_pictures(OUTPUT_PICTURES, seed=2).split(8)
    outputs = torch.cat(
        [
            pool_by_place(backbone.forward_features(normalize(p)), pool)
            for p in pictures
        ]
    )
    deviation = outputs.std(0)
    # An output that hardly moves would blow up on other pictures.
    deviation = deviation.clamp(min=0.2 * deviation.median().item())
    return _rounded(outputs.mean(0)), _rounded(1.0 / deviation), pool


def _is_norm(module):
    """Whether a module is a BatchNorm."""
    return isinstance(module, nn.BatchNorm2d)


def _init_convolution(module, gain, generator):
    """Uniform weights that keep the variance (fan-in, ReLU); no bias."""
    fan_in = module.weight[0].numel()
    numbers = _uniform(generator, module.weight.numel())
    numbers *= gain * math.sqrt(6.0 / fan_in)
    weight = torch.from_numpy(numbers.astype(np.float32))
    module.weight.copy_(weight.view_as(module.weight))
    if module.bias is not None:
        module.bias.zero_()
