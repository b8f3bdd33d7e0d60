"""Faces without a network: what is the same, and what is not."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from small_clips import pictures

from vavl_sb.lobes.visual_encoder import FaceDescriptor


def hog(crop):
    """The description of one crop of 66 x 66 pixels, in NumPy."""
    grey = np.tensordot([0.299, 0.587, 0.114], crop.numpy() / 255, axes=1)
    dx, dy = grey[1:-1, 2:] - grey[1:-1, :-2], grey[2:, 1:-1] - grey[:-2, 1:-1]
    row, column = np.mgrid[0:64, 0:64] + 0.5
    places = np.zeros((8, 8, 8))  # directions, rows, columns
    for k in range(8):
        slope = np.hypot(dx, dy) * np.cos(np.arctan2(dy, dx) - k * np.pi / 4)
        for i in range(8):
            for j in range(8):
                far = (row - 8 * i - 4) ** 2 + (column - 8 * j - 4) ** 2
                near = np.exp(-far / (2 * 8.0**2))
                places[k, i, j] = np.average(np.maximum(slope, 0), weights=near)
    power = (places**2).mean(0)
    for i in range(8):
        for j in range(8):
            near = power[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean()
            contrast = near + 0.36 * power.mean() + 1e-6
            places[:, i, j] /= np.sqrt(contrast)
    return (places.ravel() - 0.75) / 0.27


def test_it_is_the_histogram_of_oriented_gradients():
    crop = pictures(1, 66)[0]
    found = FaceDescriptor()(crop[None])[0].numpy()
    assert np.abs(found - hog(crop)).max() < 1e-4


def test_brightness_and_contrast_cancel_out():
    crops = pictures(4, 224) // 2  # Room for more light.
    describe = FaceDescriptor()
    lit = describe(crops * 2), describe(crops + 100)
    for other in lit:
        assert (other - describe(crops)).abs().max() < 0.1
    # The faces themselves are far apart.
    assert torch.pdist(describe(crops)).min() > 5


@pytest.mark.parametrize("size, quality", [(112, 50), (448, 75)])
def test_codec_and_resolution_hardly_change_it(size, quality):
    crops, again = pictures(4, 224), []
    for crop in crops:
        image = Image.fromarray(crop.permute(1, 2, 0).numpy())
        file = io.BytesIO()
        image.resize((size, size)).save(file, "JPEG", quality=quality)
        image = Image.open(file).resize((224, 224))
        again.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    describe = FaceDescriptor()
    change = (describe(torch.stack(again)) - describe(crops)).norm(dim=1)
    assert change.max() < 0.05 * torch.pdist(describe(crops)).min()
