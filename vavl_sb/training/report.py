"""What a run leaves behind: scores, predictions, pictures and a table.

The temperatures of heads of classes are fitted to the clips that choose the
checkpoint. Attributes have none.
"""

import copy
import csv
import io
from pathlib import Path

import numpy as np
import torch

from vavl_sb.dataio.preparation import read_target
from vavl_sb.lobes.vavl import HEADS
from vavl_sb.nnet.calibration import (
    expected_calibration_error,
    fit_temperature,
    softmax,
)
from vavl_sb.training import plots
from vavl_sb.utils.files import (
    read_json,
    write_atomically,
    write_json,
    write_lines,
)
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.metrics import ConcordanceStats, EmotionStats
from vavl_sb.utils.text import markdown

logger = get_logger(__name__)

STATS: dict[str, type[EmotionStats] | type[ConcordanceStats]] = {
    "classification": EmotionStats,
    "regression": ConcordanceStats,
}


def scores(stats: dict) -> dict:
    """Summaries of the heads that had clips to score, by head.

    Each has ``score`` as well, the number that stands for it, and
    ``score_name``.
    """
    found = {}
    for name, collected in stats.items():
        if len(collected):
            summary = dict(collected.summarize())
            main = {"score": summary[collected.main]}
            found[name] = {**summary, **main, "score_name": collected.main}
    return found


def write_test_report(
    output_folder: str | Path,
    task: str,
    labels: list[str],
    stats: dict,
    temperatures: dict[str, float],
    title: str,
) -> dict:
    """Writes metrics.json, predictions_test.csv and the pictures of a test.

    ``stats`` has each head's statistics over the test set, ``temperatures``
    what its logits are divided by, and ``title`` names model and corpus. Gives what metrics.json holds. Of several
    processes the main one calls it, by ``run_on_main``.
    """
    test = {k: dict(c.summarize()) for k, c in stats.items() if len(c)}
    for name, found in calibration_scores(stats, temperatures).items():
        test[name].update(found)
    metrics = {
        "task": task,
        "labels": list(labels),
        "target": read_target(output_folder)["target"],
        "test": test,
        "n_test": {name: len(collected) for name, collected in stats.items()},
    }
    folder = Path(output_folder)
    write_json(folder / "metrics.json", metrics)
    write_atomically(
        folder / "predictions_test.csv",
        predictions_csv(task, labels, calibrate(stats, temperatures)),
    )
    for name, summary in test.items():
        if "confusion" in summary:
            plots.confusion(
                np.array(summary["confusion"]),
                labels,
                f"{plots.plain(title, 90)}\n{name}, {len(stats[name])} test clips",
                folder / f"confusion_{name}",
            )
    if task == "classification" and test:
        path = folder / "reliability"
        plots.reliability_diagram(stats, temperatures, path, title)
    lines = score_table(metrics)
    write_lines(folder / "scores.txt", lines)
    message = "Test scores (in %s)" + "\n%s" * len(lines)
    logger.info(message, folder / "metrics.json", *lines)
    return metrics


def fit_temperatures(stats: dict) -> dict[str, float]:
    """The temperature of each head whose ``EmotionStats`` has clips, which it
    has not learned from; other metrics are passed over.

    Example
    -------
    >>> import torch
    >>> stats = EmotionStats(["angry", "sad"])
    >>> stats.append(["a", "b"], 9 * torch.eye(2), torch.tensor([0, 0]))
    >>> fit_temperatures({"audio": stats})["audio"] > 3  # It was too sure.
    True
    """
    return {
        head: fit_temperature(*collected.stacked())
        for head, collected in stats.items()
        if isinstance(collected, EmotionStats) and len(collected)
    }


def calibrate(stats: dict, temperatures: dict[str, float]) -> dict:
    """The same statistics, by head, of logits that are divided by a
    temperature, 1 for heads that have none. Other metrics stay as they are."""
    found = dict(stats)
    for head, collected in stats.items():
        if isinstance(collected, EmotionStats):
            found[head] = copy.copy(collected)
            temperature = temperatures.get(head, 1.0)
            found[head].predictions = [
                logits / temperature for logits in collected.predictions
            ]
    return found


def calibration_scores(
    stats: dict, temperatures: dict[str, float]
) -> dict[str, dict[str, float]]:
    """How far each head's confidence is from how often it is right.

    Of the test's statistics, as the network gave the logits: head to ``ece``
    (expected calibration error of what the model says), ``ece_before`` (without
    its temperature) and ``temperature``.
    """
    found = {}
    for head, collected in stats.items():
        if isinstance(collected, EmotionStats) and len(collected):
            logits, targets = collected.stacked()
            temperature = temperatures.get(head, 1.0)
            after, before = (
                expected_calibration_error(softmax(logits, t), targets)
                for t in (temperature, 1.0)
            )
            found[head] = {
                "ece": after,
                "ece_before": before,
                "temperature": temperature,
            }
    return found


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


def score_table(metrics: dict) -> list[str]:
    """What metrics.json holds, as the lines of a table: a row for each head."""
    if metrics["task"] == "classification":
        columns = {"macro F1": "f1_macro", "micro F1": "f1_micro", "UAR": "uar"}
    else:
        columns = {markdown(name): name for name in metrics["labels"]}
        columns["CCC mean"] = "ccc_mean"
    rows = []
    for head, count in metrics["n_test"].items():
        values = metrics["test"].get(head, {})
        values = {**values.get("ccc", {}), **values}
        cells = [values.get(key) for key in columns.values()]
        cells = ["-" if x is None else f"{x:.3f}" for x in cells]
        rows.append([head, count, *cells])
    lines = table(["modality", "clips", *columns], rows)
    if metrics.get("target"):
        lines += ["", f"labels: {markdown(metrics['target'])}"]
    return lines


def table(head: list, rows: list) -> list[str]:
    """A Markdown table, whose columns line up for who reads it as text.

    Of cells what others wrote must have passed
    :func:`~vavl_sb.utils.text.markdown`.

    Example
    -------
    >>> table(["a", "b"], [["c", 0.25]])
    ['| a | b    |', '|---|------|', '| c | 0.25 |']
    """
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells]
    rule = "|".join("-" * (width + 2) for width in widths)
    return [lines[0], f"|{rule}|", *lines[1:]]


def add_epoch(
    folder: str | Path, epoch: int, train: dict, valid: dict, criterion: float
) -> None:
    """Adds an epoch to learning_curves.json: losses and scores by name, and
    what the lowest of chooses an epoch.

    A resumed run replaces the epochs that it repeats.
    """
    path = Path(folder) / "learning_curves.json"
    kept = read_json(path) if epoch > 1 and path.exists() else []
    kept = [entry for entry in kept if entry["epoch"] < epoch]
    found = {"train": train, "valid": valid, "criterion": criterion}
    write_json(path, [*kept, {"epoch": epoch, **found}])


def draw_curves(folder: str | Path, title: str = "") -> None:
    """Draws learning_curves.json, where there is one, as pictures."""
    path = Path(folder) / "learning_curves.json"
    if path.exists():
        plots.learning_curves(read_json(path), path.with_suffix(""), title)
