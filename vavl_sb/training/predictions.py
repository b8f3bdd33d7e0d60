"""The table of predictions that a test leaves, predictions_test.csv.

It has a row for each clip and head. The scores of a test can be computed from
it alone, and it is what statistics and comparisons read.
"""

import csv
import io
from pathlib import Path

import numpy as np
import torch

from vavl_sb.lobes.vavl import HEADS
from vavl_sb.utils.metrics import ConcordanceStats, EmotionStats

STATS: dict[str, type[EmotionStats] | type[ConcordanceStats]] = {
    "classification": EmotionStats,
    "regression": ConcordanceStats,
}


def predictions_csv(task: str, labels: list, stats: dict) -> bytes:
    """Predictions as CSV: a row for each clip and head, sorted.

    Of each head's ``EmotionStats`` or ``ConcordanceStats``. Columns ``id,
    modality``, then for classes ``label, prediction`` and ``prob_<class>``, for
    attributes ``label_<name>`` and ``prediction_<name>``; numbers with seven
    digits.
    """
    if task == "classification":
        columns = ["label", "prediction", *(f"prob_{c}" for c in labels)]
    else:
        columns = [f"{k}_{a}" for k in ("label", "prediction") for a in labels]
    rows = []
    for head, collected in stats.items():
        if len(collected) == 0:
            continue
        for clip, output, target in zip(collected.ids, *collected.stacked()):
            if task == "classification":
                words = [labels[int(target)], labels[int(output.argmax())]]
                shares = np.exp(output - output.max())
                numbers = shares / shares.sum()
            else:
                words, numbers = [], [*target, *output]
            digits = [f"{float(number):.7g}" for number in numbers]
            rows.append([clip, head, *words, *digits])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "modality", *columns])
    writer.writerows(sorted(rows))
    # A clip named after a file may have what is no UTF-8 in its name.
    return text.getvalue().encode("utf-8", "backslashreplace")


def read_predictions(path: str | Path, task: str, labels: list) -> dict:
    """Reads what :func:`predictions_csv` makes.

    Head to ``EmotionStats``, whose predictions are 1 for the predicted class
    and 0 elsewhere, or ``ConcordanceStats``; heads without a clip are not in
    it. OSError, KeyError or ValueError where the file is missing, lacks a
    column, or has an unknown head or label.

    Example
    -------
    >>> path = getfixture("tmp_path") / "predictions_test.csv"
    >>> _ = path.write_text(
    ...     "id,modality,label,prediction\\na,audio,sad,sad\\nb,audio,sad,angry"
    ... )
    >>> found = read_predictions(path, "classification", ["angry", "sad"])
    >>> found["audio"].ids, found["audio"].summarize("uar")
    (['a', 'b'], 0.5)
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_head = {head: [] for head in HEADS}
    for row in rows:
        by_head[row["modality"]].append(row)
    stats = {}
    for head, rows in by_head.items():
        if not rows:
            continue
        if task == "classification":
            targets, predictions = (
                torch.tensor([labels.index(row[key]) for row in rows])
                for key in ("label", "prediction")
            )
            predictions = torch.eye(len(labels))[predictions]
        else:
            targets, predictions = (
                torch.tensor(
                    [[float(row[f"{k}_{a}"]) for a in labels] for row in rows]
                )
                for k in ("label", "prediction")
            )
        stats[head] = STATS[task](labels)
        stats[head].append([row["id"] for row in rows], predictions, targets)
    return stats
