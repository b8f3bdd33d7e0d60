"""Mixup: a network learns from clips that lie between clips.

Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018: inputs
and targets of two clips are averaged with the same random weight, which keeps
a network from learning a few speakers by heart.
"""

from collections.abc import Callable

import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData

from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.utils.errors import VAVLError, first_line


class Mixup:
    """Mixes each clip of a batch with another one of it, in training.

    All are mixed with one weight, drawn from Beta(alpha, alpha). (Where several
    processes share a batch, each mixes its own share, with its own.) A clip's
    partner has the same modalities, so that one target holds for all that is
    mixed, and a clip that is the only one of its kind stays as it is. A clip
    keeps its length: a shorter partner is repeated, a longer one is cut.

    Arguments
    ---------
    alpha : float
        Of the Beta distribution: 0 for no mixing, or 0.01 to 100.
    num_classes : int
        Number of classes; None where targets are attributes.
    loss : callable
        The prediction loss. Of mixed clips it gets class probabilities, float
        (B, num_classes), where it gets class indices, int64 (B,), otherwise:
        for the same classes, both must give the same loss, up to a factor.

    Raises
    ------
    VAVLError
        In one line: another alpha, or a loss that takes no probabilities.
    """

    def __init__(
        self,
        alpha: float,
        num_classes: int | None = None,
        loss: Callable | None = None,
    ):
        number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
        # Below, draws in fp32 are no longer distributed as they should be.
        if not number or not (alpha == 0 or 0.01 <= alpha <= 100):
            raise VAVLError(
                f"mixup: must be 0 (none) or 0.01 to 100, not {alpha!r}"
            )
        self.alpha, self.num_classes = float(alpha), num_classes
        if num_classes is not None and loss is not None:
            _check_loss(loss, num_classes, mixes=alpha > 0)

    def __call__(self, batch: PaddedBatch) -> PaddedBatch:
        """Mixes a batch, and gives it back.

        Its ``audio`` and ``visual`` are replaced; and its ``label``, class
        indices (B, 1) or attributes (B, n), by class probabilities
        (B, num_classes) or attributes (B, n).
        """
        if not self.alpha:
            return batch
        beta = torch.distributions.Beta(self.alpha, self.alpha)
        weight = beta.sample().item()
        partner = partners(batch.audio.lengths > 0, batch.visual.lengths > 0)
        for modality in MODALITIES:
            padded = getattr(batch, modality)
            mixed = mix_frames(padded.data, padded.lengths, partner, weight)
            setattr(batch, modality, PaddedData(mixed, padded.lengths))
        target = batch.label.data
        if self.num_classes is not None:
            target = torch.nn.functional.one_hot(
                target.squeeze(-1), self.num_classes
            )
        target = target.float()
        target = weight * target + (1 - weight) * target[partner]
        batch.label = PaddedData(target, batch.label.lengths)
        return batch


def partners(has_audio: torch.Tensor, has_visual: torch.Tensor) -> torch.Tensor:
    """Draws a partner for each clip, among those with the same modalities.

    From bool, shape (B,), to places in the batch, int64, shape (B,): a random
    permutation.

    Example
    -------
    >>> has = torch.tensor([True, True, False])
    >>> sorted(partners(has, ~has).tolist()), partners(has, ~has)[2].item()
    ([0, 1, 2], 2)
    """
    kinds = 2 * has_audio.long() + has_visual.long()
    partner = torch.arange(len(kinds), device=kinds.device)
    for kind in range(4):
        rows = torch.nonzero(kinds == kind).flatten()
        # Drawn on the CPU, whose random numbers a checkpoint holds.
        partner[rows] = rows[torch.randperm(len(rows)).to(rows.device)]
    return partner


def mix_frames(
    x: torch.Tensor, lens: torch.Tensor, partner: torch.Tensor, weight: float
) -> torch.Tensor:
    """Weighted mean of clips and their partners, frame by frame.

    Of features (B, T, D) or samples (B, T), 0 past a clip's end, as the result
    is, with lengths (B,) relative to T. Partners (B,) are places in the batch;
    the weight, in [0, 1], is that of a clip itself.

    Example
    -------
    >>> x = torch.tensor([[1.0, 3.0, 5.0], [8.0, 0.0, 0.0]])
    >>> lens, partner = torch.tensor([1.0, 1 / 3]), torch.tensor([1, 0])
    >>> mix_frames(x, lens, partner, 0.5).tolist()
    [[4.5, 5.5, 6.5], [4.5, 0.0, 0.0]]
    """
    frames = (lens.double() * x.shape[1]).round().long().clamp(min=1)
    place = torch.arange(x.shape[1], device=x.device)
    repeated = place % frames[partner].unsqueeze(1)
    inside = place < frames.unsqueeze(1)
    if x.ndim == 3:
        repeated = repeated.unsqueeze(-1).expand(-1, -1, x.shape[2])
        inside = inside.unsqueeze(-1)
    others = x[partner].gather(1, repeated)
    return torch.where(inside, weight * x + (1 - weight) * others, x)


def _check_loss(loss, num_classes, mixes):
    """Refuses a loss that fails, or reads probabilities as something else."""
    random = torch.Generator().manual_seed(0)
    classes = torch.arange(num_classes)
    certain = torch.eye(num_classes)
    trials = torch.randn(3, *certain.shape, generator=random)
    # Whatever is wrong in the user's loss, the user needs the one line.
    try:
        values = torch.stack([loss(logits, classes) for logits in trials])
    except Exception as error:
        raise VAVLError(
            f"prediction_loss: fails for logits ({num_classes}, {num_classes}) "
            f"and class indices: {first_line(error)}"
        ) from None
    if not mixes:
        return
    try:
        mixed = torch.stack([loss(logits, certain) for logits in trials])
        ratios = mixed / values
        same = torch.allclose(ratios, ratios[0], rtol=1e-3)
    except Exception:
        same = False
    if not same:
        raise VAVLError(
            "prediction_loss: does not take the class probabilities, float "
            "(B, classes), that mixup makes of class indices; let it take "
            "both, or set mixup to 0"
        )
