"""What a network has to be better than: models that scikit-learn has."""

from typing import TYPE_CHECKING

import numpy as np

from vavl_sb.utils.errors import VAVLError

if TYPE_CHECKING:
    from sklearn.model_selection import GridSearchCV

PENALTIES = tuple(10.0**power for power in range(-4, 1))


def logistic_regression(
    features: np.ndarray, labels: np.ndarray, speakers: np.ndarray
) -> "GridSearchCV":
    """Class-weighted logistic regression on standardized features.

    The penalty is chosen by cross-validation over the speakers.

    Arguments
    ---------
    features : np.ndarray
        One vector a clip, such as its features' mean over time, shape (N, D).
    labels, speakers : np.ndarray
        Class and speaker of each clip, shape (N,), of str.

    Returns
    -------
    sklearn.model_selection.GridSearchCV
        Fitted; it has ``predict``, ``predict_proba`` and ``classes_``.

    Raises
    ------
    VAVLError
        scikit-learn is not installed.
    """
    check_sklearn()
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(class_weight="balanced", max_iter=3000)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model),
        {"logisticregression__C": PENALTIES},
        scoring="balanced_accuracy",
        cv=GroupKFold(min(4, len(set(speakers)))),
    )
    return search.fit(features, labels, groups=speakers)


def check_sklearn() -> None:
    """Raises a VAVLError that says how to install scikit-learn."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise VAVLError(
            "the logistic regression needs scikit-learn; "
            "pip install scikit-learn"
        ) from None
