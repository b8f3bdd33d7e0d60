"""Sums that scores of a set are made of: confusion matrices and moments.

Each clip adds to them, so the score of any set of clips, each as often as one
likes, is a function of a sum over the clips.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np

from vavl_sb.utils.metrics import emotion_scores


def clip_moments(predictions, targets):
    """What each clip adds to the moments that a CCC is made of.

    Arguments
    ---------
    predictions : np.ndarray
        Shape (N, n).
    targets : np.ndarray
        Shape (N, n).

    Returns
    -------
    np.ndarray
        Shape (N, n, 6): 1, p, t, p^2, t^2 and p t.
    """
    p, t = np.asarray(predictions, float), np.asarray(targets, float)
    return np.stack([np.ones_like(p), p, t, p * p, t * t, p * t], axis=-1)


def clip_confusions(predictions, targets, classes):
    """What each clip adds to a confusion matrix.

    Arguments
    ---------
    predictions : np.ndarray
        Class indices, shape (N,).
    targets : np.ndarray
        Class indices, shape (N,).
    classes : int
        How many classes there are.

    Returns
    -------
    np.ndarray
        Shape (N, classes, classes): a single 1 each, true class by row.
    """
    table = np.zeros((len(targets), classes, classes))
    table[np.arange(len(targets)), targets, predictions] = 1
    return table


def concordance_of(moments):
    """Concordance correlation coefficient from summed moments.

    Arguments
    ---------
    moments : np.ndarray
        Sums of :func:`clip_moments` over clips, shape (..., 6).

    Returns
    -------
    np.ndarray
        Shape (...); 0 where neither side varies, as in
        :func:`vavl_sb.utils.metrics.concordance`.

    Example
    -------
    >>> x = np.array([[1.0], [2.0], [3.0]])
    >>> concordance_of(clip_moments(x, x + 1).sum(axis=0)).round(4)
    array([0.5714])
    """
    count = np.maximum(moments[..., :1], 1e-300)
    mean_p, mean_t, square_p, square_t, product = np.moveaxis(
        moments[..., 1:] / count, -1, 0
    )
    gap = mean_p - mean_t
    spread = square_p - mean_p**2 + square_t - mean_t**2 + gap**2
    covariance = product - mean_p * mean_t
    # What is left of a difference of equal numbers is rounding, not spread.
    real = spread > 1e-12 * (square_p + square_t)
    return np.divide(
        2 * covariance, spread, out=np.zeros_like(spread), where=real
    )


def attribute_scores(labels):
    """The scores of attributes, as a function of summed moments.

    Arguments
    ---------
    labels : list
        Names of the attributes.

    Returns
    -------
    callable
        From (..., n, 6) to "ccc_mean" and "ccc_<name>", shape (...) each.
    """

    def score(moments):
        ccc = concordance_of(moments)
        scores = {"ccc_mean": ccc.mean(axis=-1)}
        for index, name in enumerate(labels):
            scores[f"ccc_{name}"] = ccc[..., index]
        return scores

    return score


def score_function(task, labels):
    """The scores of a task, as a function of summed tables.

    Arguments
    ---------
    task : str
        "classification" or "regression".
    labels : list
        Names of classes or attributes.

    Returns
    -------
    callable
        From sums over clips to score name to array.
    """
    if task == "classification":
        return emotion_scores
    return attribute_scores(labels)
