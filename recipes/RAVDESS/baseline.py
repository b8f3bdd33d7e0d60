"""A yardstick for a network: logistic regression on time-averaged features.

Class-weighted, with standardized features; the penalty is chosen by
cross-validation over the training speakers. It reads the very features that a
run of train.py computed.

Authors
 * The vavl_sb authors 2026
"""

import json
from pathlib import Path

import numpy as np

from vavl_sb.dataio.features import FeatureCache, read_index
from vavl_sb.utils.errors import VAVLError

PENALTIES = tuple(10.0**power for power in (-4, -3, -2, -1, 0))


def clip_features(run, cache, split, deviation=False):
    """Time-averaged speech features of a run's clips.

    Arguments
    ---------
    run : str or Path
        Output folder of a train.py.
    cache : str or Path
        Its feature folder.
    split : str
        "train" or "test".
    deviation : bool
        Whether the standard deviation over time stands beside the mean.

    Returns
    -------
    features : np.ndarray
        Shape (N, D), or (N, 2 D).
    labels, speakers : np.ndarray
        Shape (N,), of str.
    """
    folder = Path(run)
    index = read_index(folder / "features.json")
    entries = json.loads((folder / f"{split}.json").read_text("utf-8"))
    reader, found = FeatureCache(cache), []
    kept = [clip for clip in sorted(entries) if index[clip]["audio"]]
    for clip in kept:
        frames = reader.read(Path(index[clip]["audio"])).astype(np.float64)
        parts = [frames.mean(axis=0)]
        if deviation:
            parts.append(frames.std(axis=0))
        found.append(np.concatenate(parts))
    return (
        np.stack(found),
        np.array([entries[clip]["emotion"] for clip in kept]),
        np.array([entries[clip]["spk_id"] for clip in kept]),
    )


def check_sklearn():
    """Says how to install scikit-learn where it is missing (VAVLError)."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise VAVLError(
            "the logistic regression needs scikit-learn; "
            "pip install scikit-learn"
        ) from None


def logistic_regression(run, cache, deviation=False):
    """Predictions of the yardstick for a run's test clips.

    Arguments
    ---------
    run : str or Path
        Output folder of a train.py.
    cache : str or Path
        Its feature folder.
    deviation : bool
        See :func:`clip_features`.

    Returns
    -------
    truths, predictions : np.ndarray
        Shape (N,), of str.
    """
    check_sklearn()
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels, speakers = clip_features(run, cache, "train", deviation)
    search = GridSearchCV(
        make_pipeline(
            StandardScaler(),
            LogisticRegression(class_weight="balanced", max_iter=3000),
        ),
        {"logisticregression__C": PENALTIES},
        scoring="balanced_accuracy",
        cv=GroupKFold(min(4, len(set(speakers)))),
    )
    search.fit(features, labels, groups=speakers)
    features, truths, _ = clip_features(run, cache, "test", deviation)
    return truths, search.predict(features)
