"""How high a score can be, by how far the people who labelled a corpus agree.

A label is what a panel of people said of a clip. Another panel would have said
something else of some clips, so that no model can be expected to reach 1.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln

from vavl_sb.utils.metrics import concordance, emotion_scores

SPLITS = 10  # of the raters into two halves
RESAMPLES = 200  # of the clips, for an interval
BOUND = 7.0  # of the logarithm of a Dirichlet parameter


def vote_ceiling(
    votes: np.ndarray,
    acted: Sequence[int] | np.ndarray,
    draws: int = 50,
    seed: int = 1234,
) -> dict:
    """The expected score of a judge who knows how each clip's votes fell.

    What a new panel as large would say follows the Dirichlet-multinomial of the
    clips that were acted alike, updated by the clip's own votes: votes that
    luck gave to its winner (the winner's curse of the largest share) are drawn
    back to the acted class's profile. The judge names the most probable class;
    how often the panel agrees is seen on draws that had no part in the choice.

    ``votes`` are counts (N, K), a row a clip, a column a class; ``acted`` (N,)
    is what each clip was meant to show; ``draws`` panels are drawn for each.

    Returns
    -------
    dict
        ``clips``; ``votes_per_clip``; ``accuracy`` against the class with most
        votes of a new panel (ties count in part), with its ``interval`` (95 %,
        bootstrap over clips); ``split_half``: how often two halves of a panel
        agree, a lower bound without a model; ``unlimited_votes``: accuracy of
        a judge who knows what infinitely many people would say.
        ``with_majority``: ``clips`` with more than half of their votes for a
        class, the mean ``accuracy`` on them, and ``f1_micro``, ``f1_macro``
        and ``uar`` where a new panel's label, too, counts only with a majority.

    Example
    -------
    >>> votes = np.array([[9, 1], [8, 2], [1, 9], [2, 8]])
    >>> found = vote_ceiling(votes, acted=[0, 0, 1, 1])
    >>> found["clips"], found["votes_per_clip"], found["accuracy"] > 0.9
    (4, 10.0, True)
    """
    votes, acted = np.asarray(votes, dtype=np.int64), np.asarray(acted)
    rng = np.random.default_rng(seed)
    sizes = votes.sum(axis=1)
    posterior = votes.astype(float)
    for kind in np.unique(acted):
        rows = acted == kind
        posterior[rows] += fit_dirichlet_multinomial(votes[rows])
    answers = posterior.argmax(axis=1)[:, None]

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

    right = np.take_along_axis(labels, answers, axis=1)[:, 0]
    clips = rng.integers(len(right), size=(RESAMPLES, len(right)))
    kept = _has_majority(votes)
    confusion = np.zeros((votes.shape[1],) * 2)
    np.add.at(confusion.T, answers[:, 0], majorities)
    return {
        "clips": len(votes),
        "votes_per_clip": round(float(sizes.mean()), 3),
        "accuracy": _rounded(right.mean()),
        "interval": _interval(right[clips].mean(axis=1)),
        "split_half": _rounded(_vote_agreement(votes, rng)),
        "unlimited_votes": _rounded(unlimited.mean()),
        "with_majority": {
            "clips": int(kept.sum()),
            "accuracy": _rounded(right[kept].mean() if kept.any() else 0.0),
            **{k: _rounded(v) for k, v in emotion_scores(confusion).items()},
        },
    }


def fit_dirichlet_multinomial(votes: np.ndarray) -> np.ndarray:
    """The Dirichlet distribution that makes some counts (N, K) most probable.

    Gives its parameters (K,): their shares are the mean profile, their sum is
    how alike the rows are. Each is between e^-7 and e^7.
    """
    sizes = votes.sum(axis=1)

    def loss(logarithms):
        """Negative log-likelihood, without its constant, and gradient."""
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
    """The CCC of a panel's mean ratings with those of another panel.

    The raters of each clip are split into halves at random, and the CCC of the
    halves' means is stepped up to all raters (Spearman-Brown). ``ratings`` has
    the shape (N, R, K): clip, rater, attribute; NaN for a rater that a clip
    does not have. Clips of a single rater are left out.

    Returns
    -------
    dict
        ``clips``; ``ratings_per_clip``; and under ``ccc`` for each attribute
        ``split_half`` (of the halves), ``all`` (stepped up to panels as large
        as these), its ``interval`` (95 %, bootstrap over clips), and
        ``unlimited_ratings``: the CCC that a judge has with these means who
        knows the mean of infinitely many raters.

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
    # A half's mean errs as 1 / its raters, on the average over clips.
    step = np.mean(1 / (counts // 2)) / np.mean(1 / counts)

    def stepped_up(ccc, times):
        """The CCC of panels so many times as large; 0 without agreement."""
        ccc = np.maximum(ccc, 0)
        return times * ccc / (1 + (times - 1) * ccc)

    half = np.mean([concordance(*pair) for pair in halves], axis=0)
    whole, found = stepped_up(half, step), []
    for number in range(RESAMPLES):
        rows = rng.integers(len(ratings), size=len(ratings))
        first, second = halves[number % SPLITS]
        found.append(stepped_up(concordance(first[rows], second[rows]), step))
    return {
        "clips": len(ratings),
        "ratings_per_clip": round(float(counts.mean()), 3),
        "ccc": {
            name: {
                "all": _rounded(whole[k]),
                "interval": _interval([ccc[k] for ccc in found]),
                "split_half": _rounded(half[k]),
                "unlimited_ratings": _rounded(stepped_up(whole[k], 2)),
            }
            for k, name in enumerate(names)
        },
    }


def votes_as_ratings(votes: np.ndarray) -> np.ndarray:
    """Votes (N, K) as ratings of each class by 0 or 1, whose means are the
    shares.

    Of shape (N, R, K), for the most votes R that a clip has; NaN beyond a
    clip's own.

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
    """How high a score can be, in a sentence, from what prepare_report.json
    has; "" for None.

    Example
    -------
    >>> ccc = {"all": 0.8123, "interval": [0.8, 0.82]}
    >>> ceiling_text({"audiovisual": {"ccc": {"valence": ccc}}})
    "Two panels as large as the corpus's agree to a CCC of 0.812 [0.800, \
0.820] for valence."
    """
    if not ceiling or "audiovisual" not in ceiling:
        return ""
    found = ceiling["audiovisual"]

    def words(score, interval):
        return f"{score:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"

    if "ccc" in found:
        each = ", ".join(
            f"{words(ccc['all'], ccc['interval'])} for {name}"
            for name, ccc in found["ccc"].items()
        )
        return f"Two panels as large as the corpus's agree to a CCC of {each}."
    kept = found["with_majority"]
    return (
        "A judge who knows how each clip's votes fell is expected to have an "
        f"accuracy of {words(found['accuracy'], found['interval'])} against a "
        "new panel as large; where labels count only with a majority, "
        f"{kept['f1_micro']:.3f}, and a macro F1 of {kept['f1_macro']:.3f}."
    )


def _halves(ratings, rng):
    """The means of two halves of the raters, chosen at random, (N, K) each;
    of an odd number of raters one is in neither."""
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
    """How often the two halves of a panel have the same winner."""
    ratings = votes_as_ratings(votes[votes.sum(axis=1) > 1])
    if not len(ratings):
        return 0.0
    found = []
    for _ in range(SPLITS):
        first, second = map(_winners, _halves(ratings, rng))
        found.append((first * second).sum(axis=1).mean())
    return float(np.mean(found))


def _winners(votes):
    """1 for the class with most votes; those that tie share it, (N, K)."""
    winners = votes == votes.max(axis=1, keepdims=True)
    return winners / winners.sum(axis=1, keepdims=True)


def _has_majority(votes):
    """Which rows have a class with more than half of the votes, (N,)."""
    return 2 * votes.max(axis=1) > votes.sum(axis=1)


def _interval(values):
    """The middle 95 %."""
    return [_rounded(v) for v in np.quantile(values, [0.025, 0.975])]


def _rounded(value):
    """As it stands in a report."""
    return round(float(value), 4)
