"""Noise on a clip's features in training, as another speaker would make."""

import torch
from torch import nn

from vavl_sb.utils.errors import VAVLError


class FeatureNoise(nn.Module):
    """Moves a clip's features at random, in training.

    Each clip is moved as a whole, by the same for all of its frames, since
    that is how speakers and rooms differ; noise of each frame by itself would
    fall away in the mean over time. In evaluation nothing changes.

    Arguments
    ---------
    noise : float
        Standard deviation of the Gaussian noise, where that of the features
        is 1; 0 for none. On whitened features (:mod:`vavl_sb.nnet.wccn`)
        it is spread as clips of one class are.

    Raises
    ------
    VAVLError
        In one line: a number that cannot be meant.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> features = torch.ones(1, 2, 5)
    >>> moved = FeatureNoise(noise=0.1)(features)
    >>> torch.equal(moved[:, 0], moved[:, 1]), torch.equal(moved, features)
    (True, False)
    """

    def __init__(self, noise: float = 0.0):
        super().__init__()
        if not _is_number(noise) or not 0 <= noise <= 100:
            raise VAVLError(f"feature_noise: must be 0 to 100, not {noise!r}")
        self.noise = float(noise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Disturbs clips.

        Arguments
        ---------
        x : torch.Tensor
            Standardized features, shape (B, T, D).

        Returns
        -------
        torch.Tensor
            Same shape; ``x`` itself where there is nothing to do.
        """
        if not (self.training and self.noise):
            return x
        return x + self.noise * torch.randn_like(x[:, :1])

    def extra_repr(self) -> str:
        """Its number, where a network is printed."""
        return f"noise={self.noise}"


def _is_number(value):
    """Whether it is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
