"""Scores of emotion recognition, computed once over a whole set.

SpeechBrain's ``MetricStats`` averages scores over items. A concordance
coefficient or a macro F1 cannot be averaged that way, so the classes here
collect predictions and targets and compute each score from all of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vavl_sb.utils.errors import VAVLError


class _SetStats:
    """Collects (id, prediction, target) and scores them together.

    ``labels`` are the names of the outputs, in their order; ``more`` has name
    to a score of one's own: a function of predictions and targets, NumPy arrays
    of all clips, that gives a number.
    """

    main = ""  # The score that stands for all.
    numbers: tuple[str, ...] = ()  # Scores that are a number.
    _scores: Callable[..., dict]  # From predictions and targets.

    def __init__(
        self, labels: list[str], more: dict[str, Callable] | None = None
    ):
        self.labels, self.more = list(labels), dict(more or {})
        self.clear()

    def clear(self) -> None:
        """Forgets everything collected so far."""
        self.ids, self.predictions, self.targets = [], [], []
        self.summary = {}

    def append(
        self, ids: list[str], predictions: torch.Tensor, targets: torch.Tensor
    ) -> None:
        """Collects one batch: names of the B clips, logits or attributes (B,
        n), and class indices (B,) or attributes (B, n)."""
        self.ids.extend(ids)
        self.predictions.append(predictions.detach().float().cpu())
        self.targets.append(targets.detach().cpu())

    def __len__(self):
        return len(self.ids)

    def stacked(self) -> tuple[np.ndarray, np.ndarray]:
        """All predictions and all targets, as two numpy arrays."""
        return (
            torch.cat(self.predictions).double().numpy(),
            torch.cat(self.targets).numpy(),
        )

    def summarize(self, field: str | None = None) -> Any:
        """Scores over all clips collected; or one ``field`` of them, by its
        name, "score" for the one that stands for all."""
        collected = self.stacked()
        own = {k: float(score(*collected)) for k, score in self.more.items()}
        self.summary = {**self._scores(*collected), **own}
        if field is None:
            return self.summary
        return self.summary[self.main if field == "score" else field]

    def check_selection(self, name: str) -> None:
        """Refuses, in one line, what cannot choose a checkpoint: neither "loss"
        nor a score that is a number."""
        numbers = [*self.numbers, *self.more]
        if name not in ("loss", *numbers):
            raise VAVLError(
                f"select_by: no score is called {name}; give loss, "
                f"{', '.join(numbers)}, or one that you name under metric"
            )


class ConcordanceStats(_SetStats):
    """Concordance correlation coefficient (CCC) of each attribute; see
    :class:`EmotionStats`.

    Example
    -------
    >>> stats = ConcordanceStats(["valence"])
    >>> x = torch.tensor([[1.0], [2.0], [3.0]])
    >>> stats.append(["a", "b", "c"], x, x + 1)
    >>> round(stats.summarize("ccc_mean"), 4)  # 2 * 2/3 / (2/3 + 2/3 + 1)
    0.5714
    """

    main = "ccc_mean"
    numbers = ("ccc_mean",)

    def _scores(self, predictions: np.ndarray, targets: np.ndarray) -> dict:
        """ "ccc" maps each attribute to its CCC, in [-1, 1]; where predictions
        and targets do not vary at all it is 0."""
        ccc = concordance(predictions, targets)
        return {
            "ccc": dict(zip(self.labels, ccc.tolist())),
            "ccc_mean": float(ccc.mean()),
        }


class EmotionStats(_SetStats):
    """Macro and micro F1, unweighted average recall, and confusion.

    Arguments
    ---------
    labels : list
        Names of the classes, in the order of the logits.
    more : dict
        Name to a score of one's own.

    Example
    -------
    >>> stats = EmotionStats(["angry", "happy"])
    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    >>> stats.append(["a", "b", "c"], logits, torch.tensor([0, 1, 1]))
    >>> stats.summarize("uar")
    0.75
    """

    main = "f1_macro"
    numbers = ("f1_macro", "f1_micro", "uar")

    def _scores(self, predictions: np.ndarray, targets: np.ndarray) -> dict:
        """Of :func:`emotion_scores`, and "confusion": counts (n, n), rows are
        true classes, columns predicted."""
        n = len(self.labels)
        pairs = targets.astype(int) * n + predictions.argmax(axis=1)
        counts = np.bincount(pairs, minlength=n * n).reshape(n, n)
        scores = {k: float(v) for k, v in emotion_scores(counts).items()}
        return {**scores, "confusion": counts.tolist()}


def emotion_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of one or many confusion matrices (..., n, n) of counts or
    weights: rows are true classes, columns predicted.

    "f1_macro" (mean over the classes that occur among targets or predictions),
    "f1_micro" and "uar" (mean recall of the classes that occur among the
    targets), each of shape (...); 0 for an empty matrix.

    Example
    -------
    >>> {k: float(v) for k, v in emotion_scores(np.eye(2)).items()}
    {'f1_macro': 1.0, 'f1_micro': 1.0, 'uar': 1.0}
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    seen, present = true + predicted > 0, true > 0
    return {
        "f1_macro": _ratio(
            _ratio(2 * hits, true + predicted).sum(axis=-1), seen.sum(axis=-1)
        ),
        "f1_micro": _ratio(hits.sum(axis=-1), true.sum(axis=-1)),
        "uar": _ratio(_ratio(hits, true).sum(axis=-1), present.sum(axis=-1)),
    }


def _ratio(above, below) -> np.ndarray:
    """A quotient, and 0 where the divisor is 0."""
    above, below = np.broadcast_arrays(above, np.asarray(below, np.float64))
    return np.divide(above, below, out=np.zeros(below.shape), where=below > 0)


def concordance(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Concordance correlation coefficient (n,) of each column of (N, n), in
    float64; 0 where neither side varies.

    Population moments, as Lin defines it (Biometrics 45, 1989). torchmetrics
    divides by N - 1 instead, which differs by O(1/N) where the means do; and
    where a column is constant it gives NaN or what rounding leaves, not 0.

    Example
    -------
    >>> concordance(np.array([[0.0], [2.0]]), np.array([[0.0], [2.0]]))
    array([1.])
    """
    predictions = np.asarray(predictions, dtype=np.float64)
    targets = np.asarray(targets, dtype=np.float64)
    mean_p, mean_t = predictions.mean(axis=0), targets.mean(axis=0)
    covariance = ((predictions - mean_p) * (targets - mean_t)).mean(axis=0)
    spread = predictions.var(axis=0) + targets.var(axis=0)
    spread = spread + (mean_p - mean_t) ** 2
    # A mean of equal numbers may be off by a rounding: that is no spread.
    size = np.square(predictions).mean(axis=0) + np.square(targets).mean(axis=0)
    return np.divide(
        2 * covariance,
        spread,
        out=np.zeros_like(spread),
        where=spread > 1e-24 * size,
    )
