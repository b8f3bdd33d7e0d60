"""Statistics by speaker: bootstrap intervals and a permutation test.

Clips of one speaker are not independent, so speakers, not clips, are resampled
or swapped. Each draw recomputes the score of the whole set (macro F1, CCC) from
sufficient statistics summed over clips: a confusion matrix for classes, six
moments for attributes.

``sums`` are statistics summed by run and speaker, of shape (runs, speakers,
...), zero where a run does not test a speaker.
"""

from collections.abc import Callable

import numpy as np

from vavl_sb.utils.metrics import emotion_scores

DRAWS = 10_000
CHUNK = 500  # draws at a time: bounds the memory


def clip_statistics(
    task: str, predictions: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """Computes the sufficient statistics of each clip.

    ``predictions`` are logits or attributes (N, n); ``targets`` are class
    indices (N,) or attributes (N, n). Returns confusion matrices (N, n, n) with
    the true class by row, or moments (N, n, 6): 1, p, t, p^2, t^2 and p t.
    """
    if task == "classification":
        confusion = np.zeros((*predictions.shape, predictions.shape[1]))
        confusion[np.arange(len(targets)), targets, predictions.argmax(1)] = 1
        return confusion
    p, t = np.asarray(predictions, float), np.asarray(targets, float)
    return np.stack([np.ones_like(p), p, t, p * p, t * t, p * t], axis=-1)


def _concordance(moments):
    """Computes the CCC (...) from moments (..., 6).

    0 if both sides are constant, as in
    :func:`vavl_sb.utils.metrics.concordance`.
    """
    count = np.maximum(moments[..., :1], 1e-300)
    mean_p, mean_t, square_p, square_t, product = np.moveaxis(
        moments[..., 1:] / count, -1, 0
    )
    gap = mean_p - mean_t
    spread = square_p - mean_p**2 + square_t - mean_t**2 + gap**2
    covariance = product - mean_p * mean_t
    # A constant has a spread of rounding errors.
    varies = spread > 1e-12 * (square_p + square_t)
    return np.divide(
        2 * covariance, spread, out=np.zeros_like(spread), where=varies
    )


def score_function(task: str, labels: list) -> Callable:
    """Returns the function from summed statistics to the scores of a task.

    Scores are arrays by name: "f1_macro", "f1_micro" and "uar", or "ccc_mean"
    and "ccc_<name>".
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
    """Sums the statistics of clips by run and speaker.

    Each of ``runs`` maps clip id to
    :class:`~vavl_sb.evaluation.predictions.Clip`. Returns the sums (runs,
    speakers, ...), whether a run tests a speaker, bool (runs, speakers), and
    the speakers in order (default: all, sorted).
    """
    if speakers is None:
        speakers = sorted({c.speaker for run in runs for c in run.values()})
    index = {speaker: i for i, speaker in enumerate(speakers)}
    first = next(iter(runs[0].values())).statistics
    sums = np.zeros((len(runs), len(speakers), *first.shape))
    tested = np.zeros((len(runs), len(speakers)), dtype=bool)
    for run, clips in enumerate(runs):
        columns = np.array([index[c.speaker] for c in clips.values()])
        np.add.at(sums[run], columns, [c.statistics for c in clips.values()])
        tested[run, columns] = True
    return sums, tested, speakers


def mean_scores(sums: np.ndarray, weights: np.ndarray, score: Callable) -> dict:
    """Computes the mean over runs of each score (draws,), given how often each
    speaker counts: weights of shape (draws, speakers)."""
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

    All runs of one partition share a draw. Partitions with disjoint test
    speakers are drawn separately, each as many speakers as it has. Partitions
    that overlap are drawn together, so that a speaker has the same weight in
    all of them. A draw that leaves a run without speakers is repeated.
    ``tested`` comes from :func:`speaker_sums`.

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
        rows = np.arange(draws)
        while len(rows):
            uniform = np.full(len(members), 1 / len(members))
            drawn = random.multinomial(len(members), uniform, size=len(rows))
            weights[np.ix_(rows, members)] = drawn
            rows = rows[(drawn @ runs.T == 0).any(axis=1)]
    return weights


def interval(values: np.ndarray) -> list:
    """Returns the 95 % percentile interval of bootstrap draws (draws,)."""
    return [float(end) for end in np.percentile(values, [2.5, 97.5])]


def swap_test(
    first: np.ndarray,
    second: np.ndarray,
    score: Callable,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[dict, bool]:
    """Paired permutation test by speaker.

    Under the null hypothesis, predictions of the two systems are exchangeable.
    Each draw swaps them for a random half of the speakers, in all runs
    together, and recomputes the difference of the mean scores. The test is
    exact, with all swaps, if these are at most ``draws``. Swapping all speakers
    only changes the sign, so 2^(speakers - 1) swaps suffice.

    ``first`` and ``second`` are sums on the same clips. Returns score name to
    (difference first - second, two-sided p), and whether the test is exact.
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
    a = mean_scores(sums, np.concatenate([1 - swaps, swaps], axis=1), score)
    b = mean_scores(sums, np.concatenate([swaps, 1 - swaps], axis=1), score)
    tests = {}
    for name in a:
        differences = a[name] - b[name]
        # The first draw is the observed one, without swaps, and counts too.
        # The tolerance makes equal differences equal despite rounding.
        extreme = np.abs(differences) >= abs(differences[0]) - 1e-12
        tests[name] = (float(differences[0]), float(extreme.mean()))
    return tests, exact


def holm(p_values: list) -> list:
    """Corrects the p-values of a family of tests by Holm's method; keeps their
    order.

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
