"""Normalization of a network's input features by the training clips."""

import torch
from torch import nn

from vavl_sb.nnet.wccn import RANK, check_whitening, whiten, whitening


class InputNormalization(nn.Module):
    """Subtracts a mean from features, divides by a deviation, may apply WCCN.

    Frozen features share a large offset, next to which what differs between
    clips is small; learning is slow until it is gone. The statistics are those
    of the training clips, part of the model, and the same for every clip and
    frame, so nothing depends on a batch. Until they are set, nothing changes.

    Arguments
    ---------
    dim : int
        Size of a feature vector.
    whitening : float
        Shrinkage of the covariance that is whitened
        (:mod:`vavl_sb.nnet.wccn`); None for no whitening.

    Example
    -------
    >>> normalize = InputNormalization(2)
    >>> normalize.set_statistics(
    ...     torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.0])
    ... )
    >>> normalize(torch.tensor([[2.0, 2.0]]))
    tensor([[2., 0.]])
    """

    def __init__(self, dim: int, whitening: float | None = None):
        super().__init__()
        self.shrinkage = check_whitening(whitening)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        if self.shrinkage is not None:
            rank = min(dim, RANK)
            self.register_buffer("whitening_base", torch.ones(()))
            self.register_buffer("directions", torch.zeros(dim, rank))
            self.register_buffer("gains", torch.zeros(rank))

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

    def set_whitening(self, means: torch.Tensor, targets: torch.Tensor) -> None:
        """Sets the whitening, after the statistics.

        Arguments
        ---------
        means : torch.Tensor
            Features of clips, means over time, on the CPU, shape (N, dim).
        targets : torch.Tensor
            Class indices or attributes, see
            :func:`vavl_sb.nnet.wccn.whitening`.
        """
        assert self.shrinkage is not None  # else there is nothing to set
        # The network may be on a GPU already, which knows no double on a Mac.
        normalized = (means - self.mean.cpu()) / self.deviation.cpu()
        found = whitening(normalized, targets, self.shrinkage)
        base, directions, gains = found
        self.whitening_base.copy_(base)
        self.directions.zero_()[:, : len(gains)] = directions
        self.gains.zero_()[: len(gains)] = gains

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
        x = (x - self.mean) / self.deviation
        if self.shrinkage is None:
            return x
        # In full precision, as the rest of this.
        with torch.autocast(x.device.type, enabled=False):
            return whiten(x, self.whitening_base, self.directions, self.gains)
