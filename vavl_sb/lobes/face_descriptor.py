"""A fixed description of a face crop, without weights: oriented gradients.

What log-mel is for sound: it needs no download and no training, and two
encodings of one picture get nearly the same numbers.
"""

import math

import torch
from torch import nn

# What a model's records call it, as they say "logmel" of speech.
NAME = "gradients"
# Red, green and blue in the brightness of a picture (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


class FaceDescriptor(nn.Module):
    """Histograms of oriented gradients of a grey face crop.

    As in HOG (Dalal & Triggs, CVPR 2005), edges are counted by place and
    direction, and each place is divided by the contrast around it; as in DAISY
    (Tola et al., PAMI 2010), the counts are half-wave rectified derivatives,
    which have no jumps where an edge turns. Brightness and contrast of the
    picture cancel out; what is smaller than a pixel of the 64 x 64 that the
    crop is reduced to, such as what a codec leaves, is averaged away.

    Places are wide and overlap, since a detector finds a face a few pixels away
    in another copy of a picture. The output is fixed to about mean 0 and
    deviation 1 on aligned faces.

    Example
    -------
    >>> crops = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    >>> FaceDescriptor()(crops).shape
    torch.Size([2, 512])
    """

    size = 64  # pixels on a side, after reduction
    places = 8  # on a side
    directions = 8
    reach = 0.8  # deviation of a place's window, in distances of places
    # Contrast, relative to that of the whole face, below which a place counts
    # as flat, and gradients (of brightness in 0 to 1) below which a picture is.
    floor = 0.6
    least = 1e-3
    mean, deviation = 0.7, 0.33
    num_features = directions * places**2

    def __init__(self):
        super().__init__()
        luma = torch.tensor(LUMA).view(1, 3, 1, 1) / 255
        angles = torch.arange(self.directions) * 2 * math.pi / self.directions
        steer = torch.stack([angles.cos(), angles.sin()], dim=1)
        step = self.size / self.places
        centres = (torch.arange(self.places) + 0.5) * step
        away = torch.arange(self.size) + 0.5 - centres.unsqueeze(1)
        window = torch.softmax(-((away / (self.reach * step)) ** 2) / 2, dim=1)
        self.register_buffer("luma", luma, persistent=False)
        self.register_buffer("steer", steer, persistent=False)
        self.register_buffer("window", window, persistent=False)

    def settings(self) -> dict:
        """All that the features depend on.

        Returns
        -------
        dict
        """
        names = "size places directions reach floor least mean deviation"
        return {"kind": NAME, **{k: getattr(self, k) for k in names.split()}}

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Features of face crops.

        Arguments
        ---------
        crops : torch.Tensor
            uint8, RGB, shape (N, 3, H, W).

        Returns
        -------
        torch.Tensor
            float32, shape (N, 512).
        """
        grey = (crops.float() * self.luma).sum(dim=1, keepdim=True)
        grey = nn.functional.interpolate(
            grey, (self.size + 2,) * 2, mode="bilinear", antialias=True
        )
        dx = grey[:, 0, 1:-1, 2:] - grey[:, 0, 1:-1, :-2]
        dy = grey[:, 0, 2:, 1:-1] - grey[:, 0, :-2, 1:-1]
        edges = torch.einsum(
            "kc,cnhw->nkhw", self.steer, torch.stack([dx, dy])
        ).relu()
        places = self.window @ edges @ self.window.T
        power = places.square().mean(dim=1, keepdim=True)
        around = nn.functional.avg_pool2d(
            power, 3, stride=1, padding=1, count_include_pad=False
        )
        whole = power.mean(dim=(2, 3), keepdim=True)
        contrast = (around + self.floor**2 * whole + self.least**2).sqrt()
        return ((places / contrast - self.mean) / self.deviation).flatten(1)
