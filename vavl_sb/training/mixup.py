"""Mixup: inputs and targets of two clips are averaged with a random weight.

It reduces overfitting to few speakers. Source: Zhang et al., "mixup: Beyond
empirical risk minimization", ICLR 2018.
"""

from collections.abc import Callable

import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData

from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.utils.errors import VAVLError, first_line


class Mixup:
    """Mixes each clip of a batch with another clip of it, in training.

    One weight per batch is drawn from Beta(alpha, alpha). (Each of several
    processes mixes its own share of a batch, with its own weight.) A clip's
    partner has the same modalities, so that the mixed target is valid for each;
    a clip without such a partner is not mixed. A clip keeps its length: a
    shorter partner is repeated, a longer one is cut.

    Arguments
    ---------
    alpha : float
        Parameter of the Beta distribution, 0.01 to 100; 0 for no mixing.
    num_classes : int
        Number of classes; None for attributes.
    loss : callable
        The prediction loss. For mixed clips its targets are class
        probabilities, float (B, num_classes), otherwise class indices, int64
        (B,). For the same classes, both must give the same loss, up to a
        factor.

    Raises
    ------
    VAVLError
        If alpha is invalid or the loss does not accept probabilities.
    """

    def __init__(
        self,
        alpha: float,
        num_classes: int | None = None,
        loss: Callable | None = None,
    ):
        number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
        # Below 0.01, float32 samples do not follow the distribution.
        if not number or not (alpha == 0 or 0.01 <= alpha <= 100):
            raise VAVLError(
                f"mixup: must be 0 (none) or 0.01 to 100, not {alpha!r}"
            )
        self.alpha, self.num_classes = float(alpha), num_classes
        if num_classes is not None and loss is not None:
            _check_loss(loss, num_classes, mixes=alpha > 0)

    def __call__(self, batch: PaddedBatch) -> PaddedBatch:
        """Mixes a batch in place, and returns it.

        Replaces ``audio`` and ``visual``, and ``label``: class indices (B, 1)
        by class probabilities (B, num_classes), attributes (B, n) by attributes
        (B, n).
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
    """Draws a partner for each clip among those with the same modalities.

    Takes bool tensors (B,); returns a random permutation of the batch's
    indices, int64 (B,).

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
        # On the CPU, whose random state every checkpoint restores.
        partner[rows] = rows[torch.randperm(len(rows)).to(rows.device)]
    return partner


def mix_frames(
    x: torch.Tensor, lens: torch.Tensor, partner: torch.Tensor, weight: float
) -> torch.Tensor:
    """Computes the weighted mean of clips and their partners, frame by frame.

    Takes features (B, T, D) or samples (B, T), 0 past a clip's end as in the
    result, with lengths (B,) relative to T. Partners (B,) are indices into the
    batch; ``weight``, in [0, 1], is that of the clip itself.

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
    mixed_in = x[partner].gather(1, repeated)
    return torch.where(inside, weight * x + (1 - weight) * mixed_in, x)


def _check_loss(loss, num_classes, mixes):
    """Raises an error for a loss that fails or misinterprets probabilities."""
    random = torch.Generator().manual_seed(0)
    classes = torch.arange(num_classes)
    certain = torch.eye(num_classes)
    trials = torch.randn(3, *certain.shape, generator=random)
    # The user's loss may raise any error.
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
            "prediction_loss: does not accept class probabilities, float "
            "(B, classes), which mixup creates from class indices; let it "
            "accept both, or set mixup to 0"
        )
