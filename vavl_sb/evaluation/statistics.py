"""Statistics by speaker: bootstrap intervals and a permutation test.

Clips of one speaker are alike, so the speaker, not the clip, is what is drawn
or swapped here. A score of a whole set (a macro F1, a concordance coefficient)
is computed anew for each draw from its sufficient statistics, which each clip
adds to: a confusion matrix for classes, six moments for attributes.

``sums`` are arrays of shape (runs, speakers, ...): what the clips of each
speaker add up to in each run, and zeros where a run does not test a speaker.
"""

from collections.abc import Callable

import numpy as np

from vavl_sb.utils.metrics import emotion_scores

DRAWS = 10_000
CHUNK = 500  # draws at a time: bounds the memory


def clip_statistics(
    task: str, predictions: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """What each clip adds to the sufficient statistics of its set.

    Of logits or attributes (N, n), and of class indices (N,) or attributes (N,
    n). Classes: shape (N, n, n), a single 1 for each clip, true class by row.
    Attributes: shape (N, n, 6): 1, p, t, p^2, t^2 and p t.
    """
    if task == "classification":
        confusion = np.zeros((*predictions.shape, predictions.shape[1]))
        confusion[np.arange(len(targets)), targets, predictions.argmax(1)] = 1
        return confusion
    p, t = np.asarray(predictions, float), np.asarray(targets, float)
    return np.stack([np.ones_like(p), p, t, p * p, t * t, p * t], axis=-1)


def _concordance(moments):
    """Concordance correlation coefficients (...) of moments (..., 6).

    0 where neither side varies, as in :func:`vavl_sb.utils.metrics.concordance`.
    """
    count = np.maximum(moments[..., :1], 1e-300)
    mean_p, mean_t, square_p, square_t, product = np.moveaxis(
        moments[..., 1:] / count, -1, 0
    )
    gap = mean_p - mean_t
    spread = square_p - mean_p**2 + square_t - mean_t**2 + gap**2
    covariance = product - mean_p * mean_t
    # What is left of a difference of equal numbers is rounding, not spread.
    real = spread > 1e-12 * (square_p + square_t)
    return np.divide(
        2 * covariance, spread, out=np.zeros_like(spread), where=real
    )


def score_function(task: str, labels: list) -> Callable:
    """The scores of a task, as a function of summed statistics.

    It gives score name ("f1_macro", "f1_micro" and "uar", or "ccc_mean" and
    "ccc_<name>") to array.
    """
    if task == "classification":
        return emotion_scores

    def score(moments):
        ccc = _concordance(moments)
        each = {f"ccc_{name}": ccc[..., i] for i, name in enumerate(labels)}
        return {"ccc_mean": ccc.mean(axis=-1), **each}

    return score


def speaker_sums(
    runs: list, speakers: list | None = None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Sums the clips' statistics by run and speaker.

    Each of the ``runs`` is clip id to
    :class:`~vavl_sb.evaluation.predictions.Clip`. Gives the sums (runs,
    speakers, ...); whether a run tests a speaker, bool (runs, speakers); and
    the speakers in that order, by default all of them, sorted.
    """
    if speakers is None:
        speakers = sorted({c.speaker for run in runs for c in run.values()})
    place = {who: index for index, who in enumerate(speakers)}
    first = next(iter(runs[0].values())).statistics
    sums = np.zeros((len(runs), len(speakers), *first.shape))
    tested = np.zeros((len(runs), len(speakers)), dtype=bool)
    for run, clips in enumerate(runs):
        columns = np.array([place[c.speaker] for c in clips.values()])
        np.add.at(sums[run], columns, [c.statistics for c in clips.values()])
        tested[run, columns] = True
    return sums, tested, speakers


def mean_scores(sums: np.ndarray, weights: np.ndarray, score: Callable) -> dict:
    """The mean over runs of each score (draws,), for each draw of weights: how
    often each speaker counts, shape (draws, speakers)."""
    parts = []
    for start in range(0, len(weights), CHUNK):
        part = weights[start : start + CHUNK]
        drawn = np.tensordot(part, sums, axes=([1], [1]))
        parts.append({k: v.mean(axis=1) for k, v in score(drawn).items()})
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def draw_speakers(
    tested: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """Draws speakers with replacement, as weights of shape (draws, speakers).

    Speakers are drawn among those whose runs have test speakers in common: all
    runs of one partition share a draw; partitions without a common speaker are
    drawn each on its own, as many speakers as it has; partitions that overlap
    are drawn together, so that a speaker counts the same in all of them. A draw
    that leaves a run without any speaker is drawn anew. ``tested`` is what
    :func:`speaker_sums` gives.

    Example
    -------
    >>> tested = np.array([[True, True, False], [False, False, True]])
    >>> draw_speakers(tested, draws=50).sum(axis=1).tolist() == [3] * 50
    True
    """
    from scipy.sparse.csgraph import connected_components

    random = np.random.default_rng(seed)
    together = tested.T.astype(int) @ tested.astype(int)
    _, group_of = connected_components(together, directed=False)
    weights = np.zeros((draws, tested.shape[1]))
    for group in np.unique(group_of):
        members = np.flatnonzero(group_of == group)
        runs = tested[:, members]
        runs = np.unique(runs[runs.any(axis=1)], axis=0).astype(float)
        left = np.arange(draws)
        while len(left):
            chances = np.full(len(members), 1 / len(members))
            drawn = random.multinomial(len(members), chances, size=len(left))
            weights[np.ix_(left, members)] = drawn
            left = left[(drawn @ runs.T == 0).any(axis=1)]
    return weights


def interval(values: np.ndarray) -> list:
    """The 95 % percentile interval of bootstrap draws (draws,): two floats."""
    return [float(end) for end in np.percentile(values, [2.5, 97.5])]


def swap_test(
    first: np.ndarray,
    second: np.ndarray,
    score: Callable,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[dict, bool]:
    """Paired permutation test: all that a speaker has is swapped at once.

    If two ways of training do not differ, it is chance which of them made a
    speaker's predictions. Each draw swaps the two for a random half of the
    speakers, in all runs together, and the difference of the mean scores is
    computed anew. All swaps are tried where that is no more than ``draws``;
    swapping every speaker only turns the sign, so that 2^(speakers - 1) are all
    that a two-sided test needs.

    ``first`` and ``second`` are sums of the two on the same clips. Gives score
    name to (difference first - second, two-sided p), and whether all swaps were
    tried.
    """
    speakers = first.shape[1]
    exact = speakers <= 60 and 2 ** (speakers - 1) <= draws
    if exact:
        numbers = np.arange(2 ** (speakers - 1))[:, None]
        swaps = (numbers >> np.arange(speakers)) & 1
    else:
        swaps = np.random.default_rng(seed).integers(0, 2, (draws, speakers))
        swaps = np.concatenate([np.zeros((1, speakers), swaps.dtype), swaps])
    sums = np.concatenate([first, second], axis=1)
    one = mean_scores(sums, np.concatenate([1 - swaps, swaps], axis=1), score)
    other = mean_scores(sums, np.concatenate([swaps, 1 - swaps], axis=1), score)
    found = {}
    for name in one:
        differences = one[name] - other[name]
        # The first is the observed one; it counts among all, or the drawn.
        # Equal differences must not be told apart by rounding.
        reached = np.abs(differences) >= abs(differences[0]) - 1e-12
        found[name] = (float(differences[0]), float(reached.mean()))
    return found, exact


def holm(p_values: list) -> list:
    """Holm's correction: p-values that hold for all tests of a family together.

    In the same order, at most 1.

    Example
    -------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    raised = p[order] * (len(p) - np.arange(len(p)))
    result = np.empty_like(p)
    result[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return result.tolist()
