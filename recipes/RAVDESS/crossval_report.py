"""What a cross-validation found: scores of all folds, and a table of them.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np
from baseline import logistic_regression

from vavl_sb.evaluation.results import read_result
from vavl_sb.utils.errors import VAVLError

# What the yardstick reads besides the network's own features.
YARDSTICKS = {
    "mean over time": "mean",
    "mean over time, last layer alone": "last",
}


def audio_uar(run):
    """The audio head's UAR of a finished run.

    Arguments
    ---------
    run : Path
        Output folder of a train.py.

    Returns
    -------
    float
        VAVLError, in one line, if no test clip has sound.
    """
    scores = read_result(run).scores
    if "audio" not in scores:
        raise VAVLError(f"{run}: no test clip has sound; it cannot be scored")
    return scores["audio"]["uar"]


def score(runs, cache):
    """The network and the yardsticks on all folds.

    Arguments
    ---------
    runs : list of list of Path
        From crossval.py's ``test``.
    cache : str
        The feature folder.

    Returns
    -------
    dict
        Name to a list over folds of lists over seeds (one value for a
        yardstick): UAR on the fold's own actors.
    """
    from sklearn.metrics import balanced_accuracy_score

    found = {"VAVL": []}
    for fold in runs:
        found["VAVL"].append([audio_uar(run) for run in fold])
        for name, kind in YARDSTICKS.items():
            truths, predictions = logistic_regression(fold[0], cache, kind)
            uar = balanced_accuracy_score(truths, predictions)
            key = f"logistic regression, {name}"
            found.setdefault(key, []).append([float(uar)])
    return found


def report(found, folds, inner, names):
    """The result as Markdown.

    Arguments
    ---------
    found : dict
        From :func:`score`.
    folds : list of list
        From crossval.py's ``make_folds``.
    inner : list of dict
        From crossval.py's ``choose``.
    names : list of str
        The choice of each fold.

    Returns
    -------
    list of str
        Lines.
    """
    count = len(folds)
    lines = [
        "| UAR | "
        + " | ".join(f"fold {k + 1}" for k in range(count))
        + " | mean ± SD over seeds |",
        "|---" * (count + 2) + "|",
    ]
    for name, values in found.items():
        means = [f"{np.mean(fold):.3f}" for fold in values]
        by_seed = np.mean(values, axis=0)
        spread = f" ± {by_seed.std(ddof=1):.3f}" if len(by_seed) > 1 else ""
        total = f"{by_seed.mean():.3f}{spread}"
        lines.append(f"| {name} | {' | '.join(means)} | {total} |")
    lines.append(f"| choice | {' | '.join(names)} | |")
    lines += ["", "Choices, UAR on the training actors, each held out:", ""]
    lines += ["| fold | " + " | ".join(inner[0]) + " |"]
    lines += ["|---" * (len(inner[0]) + 1) + "|"]
    for k, scores in enumerate(inner, 1):
        values = " | ".join(f"{value:.3f}" for value in scores.values())
        lines.append(f"| {k} | {values} |")
    return lines
