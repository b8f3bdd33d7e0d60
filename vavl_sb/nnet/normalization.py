"""Normalization of a network's input features, and noise on them."""

import torch
from torch import nn

from vavl_sb.utils.errors import VAVLError


class InputNormalization(nn.Module):
    """Normalizes features by a fixed mean and standard deviation.

    Frozen features have a large common offset compared with the differences
    between clips, which slows training. The statistics are those of the
    training clips, the same for all clips and frames, and saved with the model.
    The initial mean 0 and deviation 1 have no effect.

    Arguments
    ---------
    dim : int
        Feature size.

    Example
    -------
    >>> normalize = InputNormalization(2)
    >>> normalize.set_statistics(
    ...     torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.0])
    ... )
    >>> normalize(torch.tensor([[2.0, 2.0]]))
    tensor([[2., 0.]])
    """

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def set_statistics(
        self, mean: torch.Tensor, deviation: torch.Tensor
    ) -> None:
        """Sets the statistics.

        Arguments
        ---------
        mean : torch.Tensor
            Shape (dim,).
        deviation : torch.Tensor
            Shape (dim,). Values below a tenth of the median are raised to it.
        """
        self.mean.copy_(mean)
        floor = 0.1 * deviation.median().item() or 1.0
        self.deviation.copy_(deviation.clamp(min=floor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalizes features.

        Arguments
        ---------
        x : torch.Tensor
            Shape (..., dim).

        Returns
        -------
        torch.Tensor
            Same shape.
        """
        return (x - self.mean) / self.deviation


class FeatureNoise(nn.Module):
    """Adds Gaussian noise to features in training.

    All frames of a clip get the same noise, like a difference between speakers
    or rooms; independent noise would average out over time.

    Arguments
    ---------
    noise : float
        Standard deviation of the noise, relative to that of the features; 0 for
        none.

    Raises
    ------
    VAVLError
        If the noise is not between 0 and 100.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> features = torch.ones(1, 2, 5)
    >>> noisy = FeatureNoise(noise=0.1)(features)
    >>> torch.equal(noisy[:, 0], noisy[:, 1]), torch.equal(noisy, features)
    (True, False)
    """

    def __init__(self, noise: float = 0.0):
        super().__init__()
        if type(noise) not in (int, float) or not 0 <= noise <= 100:
            raise VAVLError(f"feature_noise: must be 0 to 100, not {noise!r}")
        self.noise = float(noise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds noise to features.

        Arguments
        ---------
        x : torch.Tensor
            Normalized features, shape (B, T, D).

        Returns
        -------
        torch.Tensor
            Same shape; ``x`` itself in evaluation or without noise.
        """
        if not (self.training and self.noise):
            return x
        return x + self.noise * torch.randn_like(x[:, :1])

    def extra_repr(self) -> str:
        """Returns the argument, for printing the network."""
        return f"noise={self.noise}"
