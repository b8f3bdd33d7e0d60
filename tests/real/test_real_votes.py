"""How high a score on CREMA-D can be, by its real votes."""

import sys

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
