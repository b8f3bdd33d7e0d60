"""What is done with a network's input features: normalization, and noise."""

import torch
from torch import nn

from vavl_sb.utils.errors import VAVLError


class InputNormalization(nn.Module):
    """Subtracts a mean from features and divides by a deviation.

    Frozen features share a large offset, next to which what differs between
    clips is small; learning is slow until it is gone. The statistics are those
    of the training clips, part of the model, and the same for every clip and
    frame, so nothing depends on a batch. Until they are set, nothing changes.

    Arguments
    ---------
    dim : int
        Size of a feature vector.

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
            Shape (dim,). What hardly varies in training is divided by no less
            than a tenth of the median deviation.
        """
        self.mean.copy_(mean)
        floor = 0.1 * deviation.median().item() or 1.0
        self.deviation.copy_(deviation.clamp(min=floor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalizes.

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
    """Moves a clip's features at random, in training.

    Each clip is moved as a whole, by the same for all of its frames, since
    that is how speakers and rooms differ; noise of each frame by itself would
    fall away in the mean over time. In evaluation nothing changes.

    Arguments
    ---------
    noise : float
        Standard deviation of the Gaussian noise, where that of the features
        is 1; 0 for none.

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
        if type(noise) not in (int, float) or not 0 <= noise <= 100:
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
