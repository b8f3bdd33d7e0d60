"""Bootstrap, permutation test and scores from sums, against other truths."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import f1_score, recall_score

from vavl_sb.evaluation.statistics import (
    clip_statistics,
    draw_speakers,
    holm,
    mean_scores,
    score_function,
    swap_test,
)
from vavl_sb.utils.metrics import concordance


def mean_of_first(sums):
    """A score that is the mean of the predictions: additive over clips."""
    return {"mean": sums[..., 0, 1] / sums[..., 0, 0]}


def one_clip_each(values):
    """Sums of one run in which every speaker has one clip."""
    values = np.asarray(values, float)[:, None]
    return clip_statistics("regression", values, values)[None]


def confusions(guesses, truths, n=4):
    """The statistics of clips whose predicted classes are given."""
    return clip_statistics("classification", np.eye(n)[guesses], truths)


def classes(seed, clips=80, speakers=8, n=4, hit=0.5):
    """Random class predictions, with the speakers of the clips."""
    random = np.random.default_rng(seed)
    truths = random.integers(0, n, clips)
    guesses = np.where(
        random.random(clips) < hit, truths, random.integers(0, n, clips)
    )
    return truths, guesses, random.integers(0, speakers, clips)


def by_speaker(sums, who, speakers):
    """Sums of clips' statistics by speaker, one run."""
    sums = [sums[who == s].sum(axis=0) for s in range(speakers)]
    return np.stack(sums)[None]


def test_resampled_class_scores_are_those_of_the_resampled_clips():
    truths, guesses, who = classes(0)
    sums = by_speaker(confusions(guesses, truths), who, 8)
    weights = draw_speakers(np.ones((1, 8), bool), draws=20)
    found = mean_scores(sums, weights, score_function("classification", []))
    for draw, weight in enumerate(weights.astype(int)):
        # The clips themselves, each as often as its speaker was drawn.
        rows = np.repeat(np.arange(len(who)), weight[who])
        t, p = truths[rows], guesses[rows]
        expected = f1_score(t, p, average="macro")
        assert found["f1_macro"][draw] == pytest.approx(expected)
        expected = f1_score(t, p, average="micro")
        assert found["f1_micro"][draw] == pytest.approx(expected)
        expected = recall_score(t, p, average="macro")
        assert found["uar"][draw] == pytest.approx(expected)


def test_a_class_that_a_draw_lacks_counts_as_in_scikit_learn():
    # Speaker 1 alone shows class 2.
    truths, guesses = np.array([0, 1, 1, 2]), np.array([0, 1, 0, 2])
    sums = by_speaker(confusions(guesses, truths, 3), np.array([0, 0, 0, 1]), 2)
    found = mean_scores(
        sums, np.array([[2.0, 0.0]]), score_function("classification", [])
    )
    expected = f1_score(truths[:3], guesses[:3], average="macro")
    assert found["f1_macro"][0] == pytest.approx(expected)


@pytest.mark.parametrize("offset", [0.0, 3.0, 100.0])
def test_resampled_concordance_is_that_of_the_resampled_clips(offset):
    random = np.random.default_rng(1)
    truths = random.normal(size=(60, 2)) + offset
    guesses = 0.6 * truths + random.normal(size=(60, 2)) * 0.5
    who = random.integers(0, 6, 60)
    sums = by_speaker(clip_statistics("regression", guesses, truths), who, 6)
    weights = draw_speakers(np.ones((1, 6), bool), draws=20)
    found = mean_scores(sums, weights, score_function("regression", ["a", "v"]))
    for draw, weight in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(60), weight[who])
        expected = concordance(guesses[rows], truths[rows])
        assert found["ccc_a"][draw] == pytest.approx(expected[0], abs=1e-9)
        assert found["ccc_v"][draw] == pytest.approx(expected[1], abs=1e-9)
        assert found["ccc_mean"][draw] == pytest.approx(
            expected.mean(), abs=1e-9
        )


def test_clips_of_a_speaker_stay_together():
    # Ten equal clips of each speaker say no more than one.
    values = np.random.default_rng(4).normal(size=12)
    once = one_clip_each(values)
    weights = draw_speakers(np.ones((1, 12), bool), draws=500)
    single = mean_scores(once, weights, mean_of_first)["mean"]
    tenfold = mean_scores(once * 10, weights, mean_of_first)["mean"]
    assert np.allclose(single, tenfold)


def test_runs_with_common_speakers_are_drawn_together_others_apart():
    tested = np.zeros((5, 9), dtype=bool)
    tested[0, :3] = tested[1, :3] = True  # two seeds of one partition
    tested[2, 2:5] = True  # shares speaker 2 with them
    tested[3, 5:] = tested[4, 5:] = True  # another partition
    weights = draw_speakers(tested, draws=3000, seed=5)
    assert (weights[:, :5].sum(axis=1) == 5).all()
    assert (weights[:, 5:].sum(axis=1) == 4).all()
    # Every run keeps a speaker in every draw.
    assert (weights @ tested.T > 0).all()
    # Apart: what is drawn in one group says nothing about the other.
    assert abs(np.corrcoef(weights[:, 0], weights[:, 6])[0, 1]) < 0.06
    # With replacement: Var of Binomial(4, 1/4).
    assert weights[:, 5:].var(axis=0) == pytest.approx([0.75] * 4, rel=0.1)


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_exact_p_equals_scipy(shift):
    random = np.random.default_rng(6)
    a = random.normal(size=9) + shift
    b = random.normal(size=9)
    found, exact = swap_test(one_clip_each(a), one_clip_each(b), mean_of_first)
    theirs = scipy.stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x, axis) - np.mean(y, axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert exact
    assert found["mean"][0] == pytest.approx(theirs.statistic)
    assert found["mean"][1] == pytest.approx(theirs.pvalue, abs=1e-12)


def test_swapping_speakers_recomputes_the_score_of_the_set():
    # By hand: all 2^3 swaps of three speakers, clip by clip.
    truths, first, who = classes(9, clips=24, speakers=3)
    _, second, _ = classes(10, clips=24, speakers=3)
    differences = []
    for code in range(8):
        swap = np.array([(code >> s) & 1 for s in range(3)], bool)[who]
        one = np.where(swap, second, first)
        other = np.where(swap, first, second)
        differences.append(
            f1_score(truths, one, average="macro")
            - f1_score(truths, other, average="macro")
        )
    expected = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)
    sums = [
        by_speaker(confusions(guess, truths), who, 3)
        for guess in (first, second)
    ]
    found, exact = swap_test(*sums, score_function("classification", []))
    assert exact
    assert found["f1_macro"] == pytest.approx((differences[0], expected))


def test_no_difference_has_p_1_and_a_large_one_the_smallest():
    a = one_clip_each(np.arange(10.0))
    found, _ = swap_test(a, a, mean_of_first)
    assert found["mean"] == (0.0, 1.0)
    found, exact = swap_test(
        one_clip_each(np.arange(10.0) + 100), a, mean_of_first
    )
    assert exact and found["mean"][1] == pytest.approx(0.5**9)
    many = one_clip_each(np.arange(30.0))
    found, exact = swap_test(
        one_clip_each(np.arange(30.0) + 100), many, mean_of_first
    )
    assert not exact and found["mean"][1] == pytest.approx(1 / 10_001)


def test_holm():
    # Step-down by hand: 4 * 0.005, 3 * 0.01, max(0.03, 2 * 0.03), 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
