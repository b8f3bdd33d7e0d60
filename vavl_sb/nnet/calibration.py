"""Calibration by temperature scaling.

Networks are overconfident on clips outside of their training set. Temperature
scaling corrects this with one parameter per head, fitted on validation clips
(Guo et al., "On calibration of modern neural networks", ICML 2017).
"""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15
HIGHEST = 20.0  # Temperature; the lowest is 1 / HIGHEST.


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Fits the temperature with the lowest cross-entropy.

    The logarithm of the temperature has a standard normal prior, whose weight
    is that of one or two clips: without it the optimum is 0 if all of a few
    clips are classified correctly.

    Arguments
    ---------
    logits : np.ndarray
        Logits of clips that the network was not trained on, shape (N, n).
    targets : np.ndarray
        Class indices, shape (N,).

    Returns
    -------
    float
        The temperature; 1 (no scaling) if it does not lower the cross-entropy.

    Example
    -------
    >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    >>> fit_temperature(logits, np.array([0, 0, 1, 0])) > 3  # Half are right.
    True
    """

    logits, rows = np.asarray(logits, np.float64), np.arange(len(targets))

    def cross_entropy(temperature):
        """Cross-entropy, summed over the clips."""
        return -log_softmax(logits / temperature, axis=1)[rows, targets].sum()

    def loss(logarithm):
        """Cross-entropy and negative log-prior."""
        return cross_entropy(math.exp(logarithm)) + logarithm**2 / 2

    limit = math.log(HIGHEST)
    optimum = minimize_scalar(loss, bounds=(-limit, limit), method="bounded")
    temperature = math.exp(optimum.x)
    better = cross_entropy(temperature) < cross_entropy(1.0)
    return temperature if better else 1.0


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Computes the softmax of logits divided by a temperature.

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
    """Computes the accuracy of predictions as a function of their confidence.

    Arguments
    ---------
    probabilities : np.ndarray
        Shape (N, n).
    targets : np.ndarray
        Class indices, shape (N,).
    bins : int
        Number of bins of confidence (highest probability) of equal width, from
        0 to 1.

    Returns
    -------
    np.ndarray
        Shape (3, bins): share of the clips in each bin, their mean confidence,
        and their accuracy; the latter two are NaN in an empty bin.

    Example
    -------
    >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> targets = np.array([0, 1])
    >>> reliability(probabilities, targets, bins=2)[:, 1].round(2).tolist()
    [1.0, 0.85, 0.5]
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    # Bins include their upper ends.
    place = np.ceil(confidence * bins).astype(int) - 1
    place = np.clip(place, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [
            np.bincount(place, weights=values, minlength=bins) / count
            for values in (confidence, correct)
        ]
    return np.stack([count / max(len(confidence), 1), *means])


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS
) -> float:
    """Computes the mean distance of confidence and accuracy over bins, weighted
    by their shares of the clips.

    Arguments
    ---------
    probabilities, targets, bins
        As for :func:`reliability`.

    Returns
    -------
    float
        In [0, 1].

    Example
    -------
    >>> probabilities, targets = np.array([[0.9, 0.1], [0.8, 0.2]]), [0, 1]
    >>> round(expected_calibration_error(probabilities, targets, bins=2), 4)
    0.35
    """
    share, confidence, accuracy = reliability(probabilities, targets, bins)
    return float(np.nansum(share * np.abs(confidence - accuracy)))
