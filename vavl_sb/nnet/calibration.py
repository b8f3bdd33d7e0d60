"""Calibration: probabilities that are right as often as they say.

A network that has learned its training clips well is too sure of others. One
number for each head mends it, found on clips that it has not learned from
(Guo et al., "On calibration of modern neural networks", ICML 2017).
"""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15
HIGHEST = 20.0  # Temperature; the lowest is one by it.


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature with the lowest cross-entropy on some clips.

    A standard normal prior on its logarithm weighs as much as a clip or two:
    where a few clips are all recognised, no temperature is low enough for the
    cross-entropy alone.

    Arguments
    ---------
    logits : np.ndarray
        Shape (N, n), of clips that the network has not learned from.
    targets : np.ndarray
        Class indices, shape (N,).

    Returns
    -------
    float
        1, which changes nothing, where no other lowers the cross-entropy.

    Example
    -------
    >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    >>> fit_temperature(logits, np.array([0, 0, 1, 0])) > 3  # Half are right.
    True
    """

    logits, rows = np.asarray(logits, np.float64), np.arange(len(targets))

    def cross_entropy(temperature):
        """Sum over the clips."""
        return -log_softmax(logits / temperature, axis=1)[rows, targets].sum()

    def loss(logarithm):
        """Of the clips and the prior."""
        return cross_entropy(math.exp(logarithm)) + logarithm**2 / 2

    limit = math.log(HIGHEST)
    found = minimize_scalar(loss, bounds=(-limit, limit), method="bounded")
    temperature = math.exp(found.x)
    better = cross_entropy(temperature) < cross_entropy(1.0)
    return temperature if better else 1.0


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of logits that are divided by a temperature.

    Arguments
    ---------
    logits : np.ndarray
        Shape (N, n).
    temperature : float
        From :func:`fit_temperature`.

    Returns
    -------
    np.ndarray
        Shape (N, n).
    """
    return np.exp(log_softmax(np.asarray(logits) / temperature, axis=1))


def reliability(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS
) -> np.ndarray:
    """How often predictions are right, by how sure they are.

    Arguments
    ---------
    probabilities : np.ndarray
        Shape (N, n).
    targets : np.ndarray
        Class indices, shape (N,).
    bins : int
        Of equal width, from 0 to 1.

    Returns
    -------
    np.ndarray
        Shape (3, bins): for the clips whose highest probability is in a bin
        their share of all clips, the mean of that probability, and the share
        of them that is right; NaN for the latter two in an empty bin.

    Example
    -------
    >>> sure = np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> reliability(sure, np.array([0, 1]), bins=2)[:, 1].round(2).tolist()
    [1.0, 0.85, 0.5]
    """
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    # The upper end of a bin belongs to it.
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [
            np.bincount(place, weights=values, minlength=bins) / count
            for values in (sure, right)
        ]
    return np.stack([count / max(len(sure), 1), *means])


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS
) -> float:
    """How far from the truth the highest probability is, on average.

    Arguments
    ---------
    probabilities, targets, bins
        As for :func:`reliability`.

    Returns
    -------
    float
        The distance of confidence and accuracy in each bin, weighted by the
        bin's share of the clips: 0 to 1.

    Example
    -------
    >>> sure = np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> round(expected_calibration_error(sure, np.array([0, 1]), bins=2), 4)
    0.35
    """
    share, confidence, accuracy = reliability(probabilities, targets, bins)
    return float(np.nansum(share * np.abs(confidence - accuracy)))
