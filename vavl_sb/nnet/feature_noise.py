"""Noise on a clip's features in training, as another speaker would make.

Authors
 * The vavl_sb authors 2026
"""

import torch
from torch import nn

from vavl_sb.utils.errors import VAVLError


class FeatureNoise(nn.Module):
    """Moves a clip's features at random, and leaves some out; in training.

    Each clip is moved as a whole, by the same for all of its frames, since
    that is how speakers and rooms differ; noise of each frame by itself would
    fall away in the mean over time. Some of its features are then 0 in all
    frames, and the others larger by as much. In evaluation nothing changes.

    Arguments
    ---------
    noise : float
        Standard deviation of the Gaussian noise, where that of the features
        is 1; 0 for none. On whitened features (:mod:`vavl_sb.nnet.wccn`)
        it is spread as clips of one class are.
    dropout : float
        Probability with which a feature is left out, in [0, 1).

    Raises
    ------
    VAVLError
        In one line: a number that cannot be meant.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> features = torch.ones(1, 2, 5)
    >>> moved = FeatureNoise(noise=0.1, dropout=0.5)(features)
    >>> torch.equal(moved[:, 0], moved[:, 1]), torch.equal(moved, features)
    (True, False)
    """

    def __init__(self, noise=0.0, dropout=0.0):
        super().__init__()
        if not _is_number(noise) or not 0 <= noise <= 100:
            raise VAVLError(f"feature_noise: must be 0 to 100, not {noise!r}")
        if not _is_number(dropout) or not 0 <= dropout < 1:
            raise VAVLError(
                f"feature_dropout: must be 0 to below 1, not {dropout!r}"
            )
        self.noise = float(noise)
        self.dropout = float(dropout)

    def forward(self, x):
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
        if not self.training:
            return x
        clips = x.new_ones(x.shape[0], 1, x.shape[2])
        if self.noise:
            x = x + self.noise * torch.randn_like(clips)
        if self.dropout:
            x = x * nn.functional.dropout(clips, self.dropout)
        return x

    def extra_repr(self):
        """Its numbers, where a network is printed."""
        return f"noise={self.noise}, dropout={self.dropout}"


def _is_number(value):
    """Whether it is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
