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

from vavl_sb.features.cache import FeatureCache, read_index
from vavl_sb.utils.errors import VAVLError

PENALTIES = tuple(10.0**power for power in (-4, -3, -2, -1, 0))


def clip_features(run, cache, split, kind="mean"):
    """Time-averaged speech features of a run's clips.

    Arguments
    ---------
    run : str or Path
        Output folder of a train.py.
    cache : str or Path
        Its feature folder.
    split : str
        "train" or "test".
    kind : str
        "mean": over time. "last": likewise, of the encoder's last layer alone.

    Returns
    -------
    features : np.ndarray
        Shape (N, D).
    labels, speakers : np.ndarray
        Shape (N,), of str.
    """
    folder = Path(run)
    index = read_index(folder / "features.json")
    entries = json.loads((folder / f"{split}.json").read_text("utf-8"))
    reader, found = FeatureCache(cache), []
    width = encoder_width(run) if kind == "last" else 0
    kept = [clip for clip in sorted(entries) if index[clip]["audio"]]
    for clip in kept:
        frames = reader.read(Path(index[clip]["audio"])).astype(np.float64)
        # Layers stand side by side, the last one last; [-0:] takes them all.
        found.append(frames.mean(axis=0)[-width:])
    return (
        np.stack(found),
        np.array([entries[clip]["emotion"] for clip in kept]),
        np.array([entries[clip]["spk_id"] for clip in kept]),
    )


def encoder_width(run):
    """Numbers per frame of one layer of a run's speech encoder.

    Arguments
    ---------
    run : str or Path
        Output folder of a train.py.

    Returns
    -------
    int
        0 where it is no network with layers (log-mel).
    """
    path = Path(run) / "inference" / "audio_encoder" / "config.json"
    config = json.loads(path.read_text("utf-8"))
    # wav2vec 2.0, HuBERT and WavLM say hidden_size, Whisper d_model.
    return config.get("hidden_size") or config.get("d_model") or 0


def check_sklearn():
    """Says how to install scikit-learn where it is missing (VAVLError)."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise VAVLError(
            "the logistic regression needs scikit-learn; "
            "pip install scikit-learn"
        ) from None


def logistic_regression(run, cache, kind="mean"):
    """Predictions of the yardstick for a run's test clips.

    Arguments
    ---------
    run : str or Path
        Output folder of a train.py.
    cache : str or Path
        Its feature folder.
    kind : str
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

    features, labels, speakers = clip_features(run, cache, "train", kind)
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
    features, truths, _ = clip_features(run, cache, "test", kind)
    return truths, search.predict(features)
