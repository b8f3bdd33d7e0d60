"""Upper bounds on scores (ceilings), from the agreement of a corpus's raters.

A label is the judgement of one panel of raters. Another panel would have judged
some clips differently, so no model can be expected to reach a score of 1.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln

from vavl_sb.utils.metrics import concordance, emotion_scores

SPLITS = 10  # random splits of the raters into two halves
RESAMPLES = 200  # bootstrap samples of the clips
BOUND = 7.0  # limit of the logarithm of a Dirichlet parameter


def vote_ceiling(
    votes: np.ndarray,
    acted: Sequence[int] | np.ndarray,
    draws: int = 50,
    seed: int = 1234,
) -> dict:
    """Estimates the scores of an ideal judge who knows the votes of each clip.

    The votes of a new panel of the same size are modelled by a
    Dirichlet-multinomial distribution, fitted to the clips of the same acted
    class and updated by the clip's own votes. This shrinks vote shares towards
    the profile of the acted class, to correct the largest share for chance (the
    winner's curse). The judge predicts the most probable class, and is scored
    on simulated panels.

    Arguments
    ---------
    votes : np.ndarray
        Counts (N, K): clips by classes.
    acted : sequence of int
        The acted class of each clip (N,).
    draws : int
        Simulated panels per clip.
    seed : int
        Seed of the simulation.

    Returns
    -------
    dict
        ``clips``; ``votes_per_clip``; ``accuracy`` against the class with most
        votes of a new panel (ties count in part), with its ``interval`` (95 %,
        bootstrap over clips); ``split_half``: how often two halves of a panel
        agree, a lower bound without a model; ``unlimited_votes``: accuracy of
        a judge who knows the votes of infinitely many raters.
        ``with_majority``: ``clips`` with more than half of their votes for a
        class, the mean ``accuracy`` on them, and ``f1_micro``, ``f1_macro``
        and ``uar`` if the new panel's label, too, requires a majority.

    Example
    -------
    >>> votes = np.array([[9, 1], [8, 2], [1, 9], [2, 8]])
    >>> ceiling = vote_ceiling(votes, acted=[0, 0, 1, 1])
    >>> ceiling["clips"], ceiling["votes_per_clip"], ceiling["accuracy"] > 0.9
    (4, 10.0, True)
    """
    votes, acted = np.asarray(votes, dtype=np.int64), np.asarray(acted)
    rng = np.random.default_rng(seed)
    sizes = votes.sum(axis=1)
    posterior = votes.astype(float)
    for acted_class in np.unique(acted):
        rows = acted == acted_class
        posterior[rows] += fit_dirichlet_multinomial(votes[rows])
    predictions = posterior.argmax(axis=1)[:, None]

    labels, majorities = np.zeros(votes.shape), np.zeros(votes.shape)
    unlimited = np.zeros(len(votes))
    for _ in range(draws):
        shares = np.asarray(rng.standard_gamma(posterior))
        shares /= shares.sum(axis=1, keepdims=True)
        panel = rng.multinomial(sizes, shares)
        label = _winners(panel)
        labels += label / draws
        majorities += label * _has_majority(panel)[:, None] / draws
        best = shares.argmax(axis=1)[:, None]
        unlimited += np.take_along_axis(label, best, axis=1)[:, 0] / draws

    correct = np.take_along_axis(labels, predictions, axis=1)[:, 0]
    clips = rng.integers(len(correct), size=(RESAMPLES, len(correct)))
    kept = _has_majority(votes)
    confusion = np.zeros((votes.shape[1],) * 2)
    np.add.at(confusion.T, predictions[:, 0], majorities)
    return {
        "clips": len(votes),
        "votes_per_clip": round(float(sizes.mean()), 3),
        "accuracy": _rounded(correct.mean()),
        "interval": _interval(correct[clips].mean(axis=1)),
        "split_half": _rounded(_vote_agreement(votes, rng)),
        "unlimited_votes": _rounded(unlimited.mean()),
        "with_majority": {
            "clips": int(kept.sum()),
            "accuracy": _rounded(correct[kept].mean() if kept.any() else 0.0),
            **{k: _rounded(v) for k, v in emotion_scores(confusion).items()},
        },
    }


def fit_dirichlet_multinomial(votes: np.ndarray) -> np.ndarray:
    """Fits a Dirichlet-multinomial distribution to counts (N, K).

    Returns the maximum-likelihood Dirichlet parameters (K,), each between e^-7
    and e^7. Normalized, they are the mean profile; a large sum means that the
    rows are similar.
    """
    sizes = votes.sum(axis=1)

    def loss(logarithms):
        """Negative log-likelihood, up to a constant, and its gradient."""
        alpha = np.exp(logarithms)
        total = alpha.sum()
        value = (gammaln(total) - gammaln(total + sizes)).sum()
        value += (gammaln(alpha + votes) - gammaln(alpha)).sum()
        slope = (digamma(total) - digamma(total + sizes)).sum()
        slope = slope + (digamma(alpha + votes) - digamma(alpha)).sum(axis=0)
        return -value, -slope * alpha

    profile = (votes.sum(axis=0) + 0.5) / (votes.sum() + 0.5 * votes.shape[1])
    bounds = [(-BOUND, BOUND)] * votes.shape[1]
    start = np.clip(np.log(2 * profile), -BOUND, BOUND)
    return np.exp(minimize(loss, start, jac=True, bounds=bounds).x)


def rating_ceiling(
    ratings: np.ndarray, names: Sequence[str], seed: int = 1234
) -> dict:
    """Estimates the CCC of a panel's mean ratings with those of another panel.

    The raters of each clip are split at random into halves. The CCC of the
    halves' means is extrapolated to all raters by the Spearman-Brown formula.
    ``ratings`` has shape (N, R, K): clips, raters, attributes; NaN for missing
    raters. Clips with a single rater are left out.

    Returns
    -------
    dict
        ``clips``; ``ratings_per_clip``; and ``ccc``, which has for each
        attribute ``split_half``; ``all``, extrapolated to panels of full size,
        with its ``interval`` (95 %, bootstrap over clips); and
        ``unlimited_ratings``, the CCC of these means with the mean of
        infinitely many raters.

    Example
    -------
    >>> ratings = np.array([[[1.0], [1.0]], [[3.0], [3.0]], [[5.0], [5.0]]])
    >>> rating_ceiling(ratings, ["valence"])["ccc"]["valence"]["all"]
    1.0
    """
    rng = np.random.default_rng(seed)
    counts = np.isfinite(ratings).all(axis=2).sum(axis=1)
    ratings, counts = ratings[counts > 1], counts[counts > 1]
    halves = [_halves(ratings, rng) for _ in range(SPLITS)]
    # The error variance of a mean is proportional to 1 / the number of raters.
    step = np.mean(1 / (counts // 2)) / np.mean(1 / counts)

    def stepped_up(ccc, times):
        """CCC of panels ``times`` as large; 0 without agreement."""
        ccc = np.maximum(ccc, 0)
        return times * ccc / (1 + (times - 1) * ccc)

    half_ccc = np.mean([concordance(*pair) for pair in halves], axis=0)
    full_ccc, samples = stepped_up(half_ccc, step), []
    for number in range(RESAMPLES):
        rows = rng.integers(len(ratings), size=len(ratings))
        first, second = halves[number % SPLITS]
        ccc = concordance(first[rows], second[rows])
        samples.append(stepped_up(ccc, step))
    return {
        "clips": len(ratings),
        "ratings_per_clip": round(float(counts.mean()), 3),
        "ccc": {
            name: {
                "all": _rounded(full_ccc[k]),
                "interval": _interval([ccc[k] for ccc in samples]),
                "split_half": _rounded(half_ccc[k]),
                "unlimited_ratings": _rounded(stepped_up(full_ccc[k], 2)),
            }
            for k, name in enumerate(names)
        },
    }


def votes_as_ratings(votes: np.ndarray) -> np.ndarray:
    """Converts votes (N, K) to ratings 0 or 1 of each class by each rater.

    Returns shape (N, R, K), where R is the largest number of votes of a clip,
    with NaN for missing votes. The means over raters are the vote shares.

    Example
    -------
    >>> votes_as_ratings(np.array([[1, 1]])).tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    ends = np.cumsum(votes, axis=1)[:, None]
    rater = np.arange(ends.max(initial=0))[None, :, None]
    ratings = ((rater >= ends - votes[:, None]) & (rater < ends)).astype(float)
    ratings[rater[..., 0] >= ends[..., -1]] = np.nan
    return ratings


def ceiling_text(ceiling: dict | None) -> str:
    """Describes the ceiling in a prepare_report.json in one sentence.

    Example
    -------
    >>> ceiling_text(None)
    ''
    >>> ccc = {"all": 0.8123, "interval": [0.8, 0.82]}
    >>> ceiling_text({"audiovisual": {"ccc": {"valence": ccc}}})
    "Two panels as large as the corpus's agree to a CCC of 0.812 [0.800, \
0.820] for valence."
    """
    if not ceiling or "audiovisual" not in ceiling:
        return ""
    scores = ceiling["audiovisual"]

    def format_score(score, interval):
        return f"{score:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"

    if "ccc" in scores:
        each = ", ".join(
            f"{format_score(ccc['all'], ccc['interval'])} for {name}"
            for name, ccc in scores["ccc"].items()
        )
        return f"Two panels as large as the corpus's agree to a CCC of {each}."
    majority = scores["with_majority"]
    accuracy = format_score(scores["accuracy"], scores["interval"])
    return (
        "An ideal judge who knows the votes of each clip is expected to reach "
        f"an accuracy of {accuracy} against a new panel of the same size; if "
        f"labels require a majority, {majority['f1_micro']:.3f}, and a macro "
        f"F1 of {majority['f1_macro']:.3f}."
    )


def _halves(ratings, rng):
    """Splits the raters at random, and returns the means of both halves, (N, K)
    each; an odd rater is in neither."""
    present = np.isfinite(ratings).all(axis=2)
    order = np.where(present, rng.random(present.shape), np.inf).argsort(axis=1)
    ratings = np.take_along_axis(ratings, order[..., None], axis=1)
    size = present.sum(axis=1, keepdims=True) // 2
    place = np.arange(ratings.shape[1])
    return [
        np.where(rows[..., None], ratings, 0.0).sum(axis=1) / size
        for rows in (place < size, (place >= size) & (place < 2 * size))
    ]


def _vote_agreement(votes, rng):
    """How often two halves of a panel have the same winner."""
    ratings = votes_as_ratings(votes[votes.sum(axis=1) > 1])
    if not len(ratings):
        return 0.0
    agreement = []
    for _ in range(SPLITS):
        first, second = map(_winners, _halves(ratings, rng))
        agreement.append((first * second).sum(axis=1).mean())
    return float(np.mean(agreement))


def _winners(votes):
    """1 for the class with most votes, divided among ties, (N, K)."""
    winners = votes == votes.max(axis=1, keepdims=True)
    return winners / winners.sum(axis=1, keepdims=True)


def _has_majority(votes):
    """Mask (N,) of rows in which a class has more than half of the votes."""
    return 2 * votes.max(axis=1) > votes.sum(axis=1)


def _interval(values):
    """2.5 % and 97.5 % quantiles."""
    return [_rounded(v) for v in np.quantile(values, [0.025, 0.975])]


def _rounded(value):
    return round(float(value), 4)
