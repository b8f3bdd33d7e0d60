"""How high a score on CREMA-D can be, by its real votes."""

import csv
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "recipes" / "CREMA-D"))

from cremad_prepare import read_ceiling  # noqa: E402

pytestmark = pytest.mark.real

# Accuracies of independent work on the votes of all 7,442 clips.
PUBLISHED = {"audiovisual": 0.828, "audio": 0.727, "visual": 0.797}


@pytest.fixture(scope="module")
def ceiling(real_data):
    return read_ceiling(str(real_data / "crema_d_mini"), "classification")


@pytest.mark.parametrize("shown", PUBLISHED)
def test_a_judge_of_real_votes_scores_as_others_have_found(ceiling, shown):
    found = ceiling[shown]
    assert found["clips"] == 7442
    assert found["accuracy"] == pytest.approx(PUBLISHED[shown], abs=0.015)
    low, high = found["interval"]
    assert low < found["accuracy"] < high < low + 0.015
    assert found["split_half"] < low and high < found["unlimited_votes"]


def test_the_clips_that_the_recipe_uses_are_the_easy_ones(ceiling):
    found = ceiling["audiovisual"]
    kept = found["with_majority"]
    assert kept["clips"] == 5913
    assert kept["accuracy"] == pytest.approx(0.90, abs=0.01)
    assert kept["f1_micro"] > kept["accuracy"] > found["interval"][1]


def test_the_shares_of_real_votes_promise_more_than_a_judge_can_keep(
    real_data, ceiling
):
    path = real_data / "crema_d_mini" / "processedResults/tabulatedVotes.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row[""][0] == "3"]
    votes = np.array(
        [[int(row[letter]) for letter in "ADFHNS"] for row in rows]
    )
    sizes, rng = votes.sum(axis=1), np.random.default_rng(0)
    answers, agree = votes.argmax(axis=1), []
    for _ in range(20):
        panel = rng.multinomial(sizes, votes / sizes[:, None])
        noise = 0.5 * rng.random(panel.shape)  # Ties are broken at random.
        agree.append(((panel + noise).argmax(axis=1) == answers).mean())
    assert np.mean(agree) == pytest.approx(0.88, abs=0.01)
    assert np.mean(agree) > ceiling["audiovisual"]["accuracy"] + 0.03
