"""Masking for batches of clips of different lengths or without a modality."""

from collections.abc import Iterable

import torch
from speechbrain.dataio.dataio import length_to_mask


def masked_mean(x: torch.Tensor, padding_mask: torch.Tensor) -> torch.Tensor:
    """Computes the mean over the valid frames of each clip.

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
    # Half precision is too coarse for sums over frames.
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    total = x.masked_fill(~valid, 0.0).sum(dim=1)
    return total / valid.sum(dim=1).clamp(min=1)


def masked_statistics(
    x: torch.Tensor, padding_mask: torch.Tensor
) -> torch.Tensor:
    """Computes the mean and standard deviation over the valid frames of each
    clip.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape (B, T, D).
    padding_mask : torch.Tensor
        True where a frame is padding, shape (B, T).

    Returns
    -------
    torch.Tensor
        Means, then population standard deviations (at least 1e-6, also for one
        frame), shape (B, 2 D).

    Example
    -------
    >>> x = torch.tensor([[[1.0], [3.0], [100.0]]])
    >>> masked_statistics(x, torch.tensor([[False, False, True]]))
    tensor([[2., 1.]])
    """
    mean = masked_mean(x, padding_mask)
    variance = masked_mean((x - mean.unsqueeze(1)).square(), padding_mask)
    # The square root has an infinite gradient at 0.
    return torch.cat([mean, variance.clamp(min=1e-12).sqrt()], dim=-1)


class PresentRows:
    """Selects the rows of a batch that have a modality.

    Rows without it are dropped before the encoder, which saves time and avoids
    a softmax over padding alone. :meth:`scatter` restores their places.

    Arguments
    ---------
    features : torch.Tensor
        Shape (B, T, D), or None.
    lens : torch.Tensor
        Relative lengths, shape (B,); 0 for a missing modality; None: no
        padding.

    Attributes
    ----------
    features : torch.Tensor
        Features of the selected rows, shape (count, T, D); None if count is 0.
    padding_mask : torch.Tensor
        bool, shape (count, T), True for padding; None if count is 0.
    present : torch.Tensor
        Whether each row has the modality, bool, shape (B,).
    count : int
        Number of rows that have it.
    """

    def __init__(
        self, features: torch.Tensor | None, lens: torch.Tensor | None
    ):
        self.features, self.padding_mask, self.present = None, None, None
        self.count, self.all_present = 0, False
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
        # Truncating the product of floats would lose a frame in a third of the
        # clips.
        frames = torch.round(lens * features.shape[1]).long().clamp(min=1)
        longest = int(frames.max())
        self.features = features[:, :longest]
        self.padding_mask = ~length_to_mask(frames, longest).bool()

    def scatter(self, x: torch.Tensor) -> torch.Tensor:
        """Restores the rows' places in the batch; all other rows are 0.

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
        assert self.present is not None
        return scatter_rows(x, self.present)


def have_all(inputs: Iterable[PresentRows]) -> torch.Tensor | None:
    """Returns which rows have all of the given modalities, bool (B,); None if
    no row does."""
    inputs = list(inputs)
    if not all(rows.count for rows in inputs):
        return None
    present = torch.stack([rows.present for rows in inputs]).all(dim=0)
    return present if present.any() else None


def scatter_rows(x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Writes rows (n, D) to the n places that are True in ``present`` (B,);
    returns (B, D), with 0 at all other places."""
    full = x.new_zeros(len(present), x.shape[-1])
    return full.masked_scatter(present.unsqueeze(-1), x)
