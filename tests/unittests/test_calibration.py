"""Temperatures and calibration errors, beside closed forms and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from vavl_sb.nnet.calibration import (
    HIGHEST,
    expected_calibration_error,
    fit_temperature,
    softmax,
)


def drawn(clips, scale, seed=0, classes=4):
    """Logits `scale` times those that the targets are drawn from."""
    rng = np.random.default_rng(seed)
    true = 1.5 * rng.standard_normal((clips, classes))
    shares = softmax(true).cumsum(axis=1)
    targets = (rng.random((clips, 1)) > shares[:, :-1]).sum(axis=1)
    return scale * true, targets


@pytest.mark.parametrize("share", [0.6, 0.75, 0.95])
def test_the_temperature_is_the_closed_form_of_two_classes(share):
    # All equally sure, and right in a known share of the clips.
    clips, logit = 4000, 5.0
    targets = (np.arange(clips) >= share * clips).astype(int)
    logits = np.tile([logit, 0.0], (clips, 1))
    expected = logit / math.log(share / (1 - share))
    assert fit_temperature(logits, targets) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_logits_that_are_too_large_are_divided_by_how_much(scale):
    logits, targets = drawn(20000, scale)
    temperature = fit_temperature(logits, targets)
    assert temperature == pytest.approx(scale, rel=0.05)
    other_logits, other_targets = drawn(20000, scale, seed=1)
    before, after = (
        expected_calibration_error(softmax(other_logits, t), other_targets)
        for t in (1.0, temperature)
    )
    assert after < 0.015 and (scale == 1.0 or before > 5 * after)


def test_no_temperature_of_a_grid_has_a_lower_loss():
    logits, targets = drawn(2000, 3.0)
    found, *others = (
        torch.nn.functional.cross_entropy(
            torch.from_numpy(logits / temperature), torch.from_numpy(targets)
        )
        for temperature in (
            fit_temperature(logits, targets),
            *np.geomspace(1 / HIGHEST, HIGHEST, 200),
        )
    )
    assert found <= min(others) + 1e-4


def test_a_few_clips_that_are_all_right_do_not_make_a_head_certain():
    logits = 2.0 * np.eye(6)
    temperature = fit_temperature(logits, np.arange(6))
    assert 0.3 < temperature < 1
    # Nor do a few that are all wrong make it say nothing.
    assert 1 < fit_temperature(logits, (np.arange(6) + 1) % 6) < HIGHEST


@pytest.mark.parametrize("bins", [5, 15])
def test_the_calibration_error_is_that_of_torchmetrics(bins):
    logits, targets = drawn(700, 3.0)
    probabilities = softmax(logits)
    metric = MulticlassCalibrationError(4, n_bins=bins, norm="l1")
    expected = metric(torch.tensor(probabilities), torch.tensor(targets))
    found = expected_calibration_error(probabilities, targets, bins)
    assert found == pytest.approx(expected.item(), abs=1e-6)
