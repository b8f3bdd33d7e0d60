"""Statistics by speaker: bootstrap intervals and a permutation test.

Clips of one speaker are alike, so the speaker, not the clip, is what is drawn
or swapped here. A score of a whole set (a macro F1, a concordance coefficient)
is computed anew for each draw, from sums that each speaker adds to: a
confusion matrix for classes, six moments for attributes.

Tables are arrays of shape (runs, speakers, ...): what each speaker's clips add
up to in each run, and zeros where the run does not test the speaker.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np

DRAWS = 10_000
CHUNK = 500  # draws at a time: bounds the memory


def mean_scores(tables, weights, score):
    """The mean over runs of each score, for each draw of weights.

    Arguments
    ---------
    tables : np.ndarray
        Shape (runs, speakers, ...).
    weights : np.ndarray
        How often each speaker counts, shape (draws, speakers).
    score : callable
        From :func:`~vavl_sb.evaluation.sufficient_statistics.score_function`.

    Returns
    -------
    dict
        Score name to array of shape (draws,).
    """
    parts = []
    for start in range(0, len(weights), CHUNK):
        part = weights[start : start + CHUNK]
        sums = np.tensordot(part, tables, axes=([1], [1]))
        parts.append({name: v.mean(axis=1) for name, v in score(sums).items()})
    return {
        name: np.concatenate([part[name] for part in parts])
        for name in parts[0]
    }


def draw_speakers(tested, draws=DRAWS, seed=0):
    """Draws speakers with replacement, as weights.

    Speakers are drawn among those whose runs have test speakers in common: all
    runs of one partition share a draw; partitions without a common speaker are
    drawn each on its own, as many speakers as it has; partitions that overlap
    are drawn together, so that a speaker counts the same in all of them. A
    draw that leaves a run without any speaker is drawn anew.

    Arguments
    ---------
    tested : np.ndarray
        Whether a run tests a speaker, bool, shape (runs, speakers).
    draws : int
        How many draws.
    seed : int
        Of the random numbers.

    Returns
    -------
    np.ndarray
        How often each speaker is drawn, shape (draws, speakers).

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


def interval(values, level=0.95):
    """Percentile interval of bootstrap draws.

    Arguments
    ---------
    values : np.ndarray
        Shape (draws,).
    level : float
        Coverage.

    Returns
    -------
    list of float
        Lower and upper end.
    """
    tail = 50 * (1 - level)
    return [float(v) for v in np.percentile(values, [tail, 100 - tail])]


def swap_test(first, second, score, draws=DRAWS, seed=0):
    """Paired permutation test: all that a speaker has is swapped at once.

    Under the hypothesis that the two ways of training do not differ, which of
    the two made a speaker's predictions is a coin's toss. Each draw swaps the
    two ways for a random half of the speakers, in all runs together, and the
    difference of the mean scores is computed anew. All swaps are tried where
    that is no more than ``draws``; swapping every speaker only turns the
    sign, so that 2^(speakers - 1) are all that a two-sided test needs.

    Arguments
    ---------
    first, second : np.ndarray
        Tables of the two ways on the same clips, shape (runs, speakers, ...).
    score : callable
        From :func:`~vavl_sb.evaluation.sufficient_statistics.score_function`.
    draws : int
        How many swaps to try.
    seed : int
        Of the random numbers.

    Returns
    -------
    dict
        Score name to (difference first - second, two-sided p).
    exact : bool
        Whether all swaps were tried.
    """
    speakers = first.shape[1]
    exact = speakers <= 60 and 2 ** (speakers - 1) <= draws
    if exact:
        numbers = np.arange(2 ** (speakers - 1))[:, None]
        swaps = (numbers >> np.arange(speakers)) & 1
    else:
        random = np.random.default_rng(seed)
        swaps = random.integers(0, 2, size=(draws, speakers))
    identity = np.zeros((1, speakers), swaps.dtype)
    swaps = np.concatenate([identity, swaps[1:] if exact else swaps])
    one = mean_scores(
        np.concatenate([first, second], axis=1),
        np.concatenate([1 - swaps, swaps], axis=1),
        score,
    )
    other = mean_scores(
        np.concatenate([first, second], axis=1),
        np.concatenate([swaps, 1 - swaps], axis=1),
        score,
    )
    found = {}
    for name in one:
        differences = one[name] - other[name]
        # The first is what was seen; it counts, among all or among the drawn.
        # Equal differences must not be told apart by rounding.
        reached = np.abs(differences) >= abs(differences[0]) - 1e-12
        found[name] = (float(differences[0]), float(reached.mean()))
    return found, exact


def holm(p_values):
    """Holm's correction: p-values that hold for all tests together.

    Arguments
    ---------
    p_values : list of float
        Of the tests of one family.

    Returns
    -------
    list of float
        In the same order, at most 1.

    Example
    -------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    raised = p[order] * (len(p) - np.arange(len(p)))
    corrected = np.minimum(np.maximum.accumulate(raised), 1.0)
    result = np.empty_like(p)
    result[order] = corrected
    return [float(value) for value in result]
