"""Normalization of a network's input features by the training clips."""

import torch
from torch import nn


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
