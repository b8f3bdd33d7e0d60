"""How high a score can be: simulated panels, whose truth is known."""

import numpy as np
import pytest
from scipy.stats import dirichlet_multinomial

from vavl_sb.dataio.label_ceiling import (
    fit_dirichlet_multinomial,
    rating_ceiling,
    vote_ceiling,
)

# Of votes for clips acted in four ways: how a Dirichlet distribution has them.
PROFILES = np.array(
    [
        [3.0, 0.6, 0.3, 0.6],
        [0.3, 2.4, 0.3, 1.2],
        [0.6, 0.3, 1.8, 1.8],
        [0.2, 0.2, 0.4, 5.0],
    ]
)
VOTES = 6


class Panels:
    """Clips whose distribution of votes is known, and a panel for each."""

    def __init__(self, clips=4000, seed=0):
        self.rng = np.random.default_rng(seed)
        self.acted = self.rng.integers(4, size=clips)
        shares = self.rng.standard_gamma(PROFILES[self.acted])
        self.shares = shares / shares.sum(axis=1, keepdims=True)
        self.votes = self.panel()

    def panel(self, shares=None):
        shares = self.shares if shares is None else shares
        return self.rng.multinomial(VOTES, shares)

    def accuracy(self, answers, shares=None, panels=40):
        """How often new panels agree with some answers, one a clip."""
        agree = []
        for _ in range(panels):
            votes = self.panel(shares)
            # Ties are broken at random.
            label = (votes + 0.5 * self.rng.random(votes.shape)).argmax(axis=1)
            agree.append((label == answers).mean())
        return np.mean(agree)

    def best_answers(self):
        """Those of a judge who knows the profiles and the votes."""
        return (PROFILES[self.acted] + self.votes).argmax(axis=1)


@pytest.fixture(scope="module")
def panels():
    return Panels()


@pytest.fixture(scope="module")
def found(panels):
    return vote_ceiling(panels.votes, panels.acted)


def test_a_judge_of_the_votes_is_scored_as_on_new_panels(panels, found):
    truth = panels.accuracy(panels.best_answers())
    assert found["accuracy"] == pytest.approx(truth, abs=0.01)
    low, high = found["interval"]
    assert low < truth < high and 0.005 < high - low < 0.03
    # The votes themselves, taken for the truth, promise more.
    naive = panels.accuracy(
        panels.votes.argmax(axis=1), shares=panels.votes / VOTES
    )
    assert naive > truth + 0.02


def test_a_judge_of_unlimited_votes_is_scored_as_on_new_panels(panels, found):
    truth = panels.accuracy(panels.shares.argmax(axis=1))
    assert found["unlimited_votes"] == pytest.approx(truth, abs=0.01)
    assert truth > found["accuracy"] + 0.015


def test_the_fitted_distribution_is_the_most_likely_one(panels):
    rows = panels.votes[panels.acted == 1]
    alpha = fit_dirichlet_multinomial(rows)
    assert alpha == pytest.approx(PROFILES[1], rel=0.15)

    def likelihood(alpha):
        return dirichlet_multinomial.logpmf(rows, alpha, VOTES).sum()

    best = likelihood(alpha)
    for column in range(4):
        for factor in (0.97, 1.03):
            other = alpha.copy()
            other[column] *= factor
            assert likelihood(other) < best


@pytest.mark.parametrize("raters", [6, [3, 5, 8, 20]])
def test_ratings_are_as_reliable_as_their_variances_say(raters):
    rng = np.random.default_rng(2)
    clips, noise = 6000, np.array([1.0, 2.0])
    counts = rng.choice(np.atleast_1d(raters), size=clips)
    truth = rng.normal(3.0, 0.8, (clips, 1, 2))
    ratings = truth + noise * rng.standard_normal((clips, max(counts), 2))
    ratings[np.arange(max(counts)) >= counts[:, None]] = np.nan
    found = rating_ceiling(ratings, ["arousal", "valence"])
    assert found["clips"] == clips
    for name, spread in zip(("arousal", "valence"), noise):
        # Two panels share the clips' variance, and each errs by itself.
        error = np.mean(spread**2 / counts)
        ccc = found["ccc"][name]
        whole, known = (0.64 / (0.64 + error), 1.28 / (1.28 + error))
        assert ccc["all"] == pytest.approx(whole, abs=0.01)
        assert ccc["interval"][0] < whole < ccc["interval"][1]
        assert ccc["unlimited_ratings"] == pytest.approx(known, abs=0.01)
        assert ccc["split_half"] < whole - 0.03
