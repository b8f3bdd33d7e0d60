"""Batches whose rows have different lengths, or lack the modality.

Authors
 * The vavl_sb authors 2026
"""

import torch
from speechbrain.dataio.dataio import length_to_mask
from torch import nn

from vavl_sb.nnet.wccn import RANK, check_whitening, whiten, whitening


def masked_mean(x, padding_mask):
    """Mean over the valid frames of each clip.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape (B, T, D).
    padding_mask : torch.Tensor
        True where a frame is padding, shape (B, T).

    Returns
    -------
    torch.Tensor
        Shape (B, D).

    Example
    -------
    >>> x = torch.tensor([[[1.0], [3.0], [100.0]]])
    >>> masked_mean(x, torch.tensor([[False, False, True]]))
    tensor([[2.]])
    """
    valid = ~padding_mask.unsqueeze(-1)
    # Half precision cannot add up a clip's frames.
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    total = x.masked_fill(~valid, 0.0).sum(dim=1)
    return total / valid.sum(dim=1).clamp(min=1)


class Rows:
    """The rows of a batch that have a modality, and the way back.

    Rows without it are dropped before the encoder: they cost nothing and no
    all-padding row ever meets a softmax.

    Arguments
    ---------
    features : torch.Tensor
        Shape (B, T, D), or None.
    lens : torch.Tensor
        Relative lengths, shape (B,); 0 for an absent row; None for all 1.
    """

    def __init__(self, features, lens):
        self.features, self.padding_mask, self.present = None, None, None
        self.count = 0
        if features is None:
            return
        if lens is None:
            lens = torch.ones(len(features), device=features.device)
        self.present = lens > 0
        self.count = int(self.present.sum())
        if self.count == 0:
            return
        self.all_present = self.count == len(features)
        if not self.all_present:
            features, lens = features[self.present], lens[self.present]
        # Relative lengths are float: truncating loses a frame a third of the
        # time, rounding never does.
        frames = torch.round(lens * features.shape[1]).long().clamp(min=1)
        longest = int(frames.max())
        self.features = features[:, :longest]
        self.padding_mask = ~length_to_mask(frames, longest).bool()

    def scatter(self, x):
        """Puts rows back to their places; absent rows are 0.

        Arguments
        ---------
        x : torch.Tensor
            Shape (count, D).

        Returns
        -------
        torch.Tensor
            Shape (B, D).
        """
        if self.all_present:
            return x
        full = x.new_zeros(len(self.present), x.shape[-1])
        return full.masked_scatter(self.present.unsqueeze(-1), x)


class Standardize(nn.Module):
    """Subtracts a mean from features, divides by a deviation, may whiten.

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
    >>> standardize = Standardize(2)
    >>> standardize.set(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.0]))
    >>> standardize(torch.tensor([[2.0, 2.0]]))
    tensor([[2., 0.]])
    """

    def __init__(self, dim, whitening=None):
        super().__init__()
        self.shrinkage = check_whitening(whitening)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        if self.shrinkage is not None:
            rank = min(dim, RANK)
            self.register_buffer("whitening_base", torch.ones(()))
            self.register_buffer("directions", torch.zeros(dim, rank))
            self.register_buffer("gains", torch.zeros(rank))

    def set(self, mean, deviation):
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

    def set_whitening(self, means, targets):
        """Sets the whitening, after the statistics.

        Arguments
        ---------
        means : torch.Tensor
            Features of clips, means over time, on the CPU, shape (N, dim).
        targets : torch.Tensor
            Class indices or attributes, see
            :func:`vavl_sb.nnet.wccn.whitening`.
        """
        # The network may be on a GPU already, which knows no double on a Mac.
        standardized = (means - self.mean.cpu()) / self.deviation.cpu()
        found = whitening(standardized, targets, self.shrinkage)
        base, directions, gains = found
        self.whitening_base.copy_(base)
        self.directions.zero_()[:, : len(gains)] = directions
        self.gains.zero_()[: len(gains)] = gains

    def forward(self, x):
        """Standardizes.

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
