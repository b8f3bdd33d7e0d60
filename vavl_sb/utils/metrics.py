"""Metrics of emotion recognition, computed once over a whole set.

SpeechBrain's ``MetricStats`` averages scores over items. Concordance and macro
F1 are not averages over items, so the classes here collect all predictions and
targets first.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vavl_sb.utils.errors import VAVLError


class _SetStats:
    """Collects ids, predictions and targets, and scores them together.

    ``labels`` are the names of the outputs, in order; ``more`` maps names to
    further scores: functions of predictions and targets (NumPy arrays of all
    clips) that return a number.
    """

    main = ""  # Name of the main score.
    numbers: tuple[str, ...] = ()  # Names of scalar scores.
    _scores: Callable[..., dict]  # Computes scores of predictions and targets.

    def __init__(
        self, labels: list[str], more: dict[str, Callable] | None = None
    ):
        self.labels, self.more = list(labels), dict(more or {})
        self.clear()

    def clear(self) -> None:
        """Removes all collected clips."""
        self.ids, self.predictions, self.targets = [], [], []
        self.summary = {}

    def append(
        self, ids: list[str], predictions: torch.Tensor, targets: torch.Tensor
    ) -> None:
        """Collects a batch: ids of B clips, predictions as logits or attributes
        (B, n), and targets as class indices (B,) or attributes (B, n)."""
        self.ids.extend(ids)
        self.predictions.append(predictions.detach().float().cpu())
        self.targets.append(targets.detach().cpu())

    def __len__(self):
        return len(self.ids)

    def stacked(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns all predictions and all targets as NumPy arrays."""
        return (
            torch.cat(self.predictions).double().numpy(),
            torch.cat(self.targets).numpy(),
        )

    def summarize(self, field: str | None = None) -> Any:
        """Computes the scores over all collected clips; with ``field`` returns
        the score of that name, or the main score for "score"."""
        collected = self.stacked()
        more = {k: float(score(*collected)) for k, score in self.more.items()}
        self.summary = {**self._scores(*collected), **more}
        if field is None:
            return self.summary
        return self.summary[self.main if field == "score" else field]

    def check_selection(self, name: str) -> None:
        """Raises a VAVLError if a checkpoint cannot be selected by ``name``,
        which must be "loss" or a scalar score."""
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
        """Computes "ccc", attribute to CCC in [-1, 1] (0 if predictions and
        targets are constant), and "ccc_mean"."""
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
        Name to function of a further score.

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
        """Computes :func:`emotion_scores`, and "confusion": counts (n, n), rows
        true and columns predicted."""
        n = len(self.labels)
        pairs = targets.astype(int) * n + predictions.argmax(axis=1)
        counts = np.bincount(pairs, minlength=n * n).reshape(n, n)
        scores = {k: float(v) for k, v in emotion_scores(counts).items()}
        return {**scores, "confusion": counts.tolist()}


def emotion_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Computes scores of confusion matrices (..., n, n) of counts or weights,
    rows true and columns predicted.

    Returns "f1_macro" (mean over the classes that occur in targets or
    predictions), "f1_micro" and "uar" (mean recall of the classes that occur in
    the targets), each of shape (...); 0 for an empty matrix.

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


def _ratio(a, b) -> np.ndarray:
    """Divides a by b, with 0 where b is 0."""
    a, b = np.broadcast_arrays(a, np.asarray(b, np.float64))
    return np.divide(a, b, out=np.zeros(b.shape), where=b > 0)


def concordance(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Computes the concordance correlation coefficient (n,) of each column of
    (N, n), in float64; 0 if both predictions and targets are constant.

    Uses population moments, as defined by Lin (Biometrics 45, 1989).
    torchmetrics divides by N - 1, which differs by O(1/N) if the means differ,
    and returns NaN or rounding errors for constant columns.

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
    # Rounding may give constant columns a tiny variance.
    size = np.square(predictions).mean(axis=0) + np.square(targets).mean(axis=0)
    return np.divide(
        2 * covariance,
        spread,
        out=np.zeros_like(spread),
        where=spread > 1e-24 * size,
    )
