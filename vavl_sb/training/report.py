"""Test report of a run: scores, predictions, plots and temperatures.

The temperatures of classification heads are fitted to the validation clips.
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
    """Summarizes the metric of each head that has clips.

    Each summary also has the head's main score, ``score``, and its
    ``score_name``.
    """
    summaries = {}
    for name, collected in stats.items():
        if len(collected):
            summary = dict(collected.summarize())
            main = {"score": summary[collected.main]}
            summaries[name] = {**summary, **main, "score_name": collected.main}
    return summaries


def write_test_report(
    output_folder: str | Path,
    task: str,
    labels: list[str],
    stats: dict,
    temperatures: dict[str, float],
    title: str,
) -> dict:
    """Writes metrics.json, predictions_test.csv, scores.txt and the plots of a
    test.

    ``stats`` maps heads to their metrics over the test set, ``temperatures``
    heads to temperatures; ``title`` has the model and the corpus. Returns the
    content of metrics.json. Called in the main process, by ``run_on_main``.
    """
    test = {k: dict(c.summarize()) for k, c in stats.items() if len(c)}
    for name, calibration in calibration_scores(stats, temperatures).items():
        test[name].update(calibration)
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
            caption = f"{name}, {len(stats[name])} test clips"
            plots.confusion(
                np.array(summary["confusion"]),
                labels,
                f"{plots.plain(title, 90)}\n{caption}",
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
    """Fits a temperature for each head whose ``EmotionStats`` has clips, which
    must not be training clips; ignores other metrics.

    Example
    -------
    >>> import torch
    >>> stats = EmotionStats(["angry", "sad"])
    >>> stats.append(["a", "b"], 9 * torch.eye(2), torch.tensor([0, 0]))
    >>> fit_temperatures({"audio": stats})["audio"] > 3  # Overconfident.
    True
    """
    return {
        head: fit_temperature(*collected.stacked())
        for head, collected in stats.items()
        if isinstance(collected, EmotionStats) and len(collected)
    }


def calibrate(stats: dict, temperatures: dict[str, float]) -> dict:
    """Copies the metrics and divides their logits by each head's temperature
    (default 1); other metrics than ``EmotionStats`` do not change."""
    calibrated = dict(stats)
    for head, collected in stats.items():
        if isinstance(collected, EmotionStats):
            calibrated[head] = copy.copy(collected)
            temperature = temperatures.get(head, 1.0)
            calibrated[head].predictions = [
                logits / temperature for logits in collected.predictions
            ]
    return calibrated


def calibration_scores(
    stats: dict, temperatures: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Computes calibration errors from the uncalibrated logits of a test.

    Returns head to ``ece`` (expected calibration error with the temperature),
    ``ece_before`` (without it) and ``temperature``.
    """
    calibration = {}
    for head, collected in stats.items():
        if isinstance(collected, EmotionStats) and len(collected):
            logits, targets = collected.stacked()
            temperature = temperatures.get(head, 1.0)
            after, before = (
                expected_calibration_error(softmax(logits, t), targets)
                for t in (temperature, 1.0)
            )
            calibration[head] = {
                "ece": after,
                "ece_before": before,
                "temperature": temperature,
            }
    return calibration


def predictions_csv(task: str, labels: list, stats: dict) -> bytes:
    """Formats predictions as CSV: one row per clip and head, sorted.

    ``stats`` maps heads to ``EmotionStats`` or ``ConcordanceStats``. The
    columns are ``id, modality``, then for classes ``label, prediction`` and
    ``prob_<class>``, for attributes ``label_<name>`` and
    ``prediction_<name>``; numbers have seven digits.
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
    # Clip names come from file names, which may not be valid UTF-8.
    return text.getvalue().encode("utf-8", "backslashreplace")


def read_predictions(path: str | Path, task: str, labels: list) -> dict:
    """Reads the CSV of :func:`predictions_csv`.

    Returns head to ``EmotionStats``, whose predictions are 1 for the predicted
    class and 0 elsewhere, or to ``ConcordanceStats``; no heads without clips.
    Raises OSError, KeyError or ValueError if the file is missing, lacks a
    column, or has an unknown head or label.

    Example
    -------
    >>> path = getfixture("tmp_path") / "predictions_test.csv"
    >>> _ = path.write_text(
    ...     "id,modality,label,prediction\\na,audio,sad,sad\\nb,audio,sad,angry"
    ... )
    >>> stats = read_predictions(path, "classification", ["angry", "sad"])
    >>> stats["audio"].ids, stats["audio"].summarize("uar")
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
    """Formats metrics.json as the lines of a table with one row per head."""
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
    """Formats a Markdown table with aligned columns.

    Untrusted cells must be escaped by :func:`~vavl_sb.utils.text.markdown`.

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
    """Adds an epoch's losses and scores by name, and its checkpoint criterion,
    to learning_curves.json; replaces epochs that a resumed run repeats."""
    path = Path(folder) / "learning_curves.json"
    kept = read_json(path) if epoch > 1 and path.exists() else []
    kept = [entry for entry in kept if entry["epoch"] < epoch]
    entry = {"train": train, "valid": valid, "criterion": criterion}
    write_json(path, [*kept, {"epoch": epoch, **entry}])


def draw_curves(folder: str | Path, title: str = "") -> None:
    """Plots learning_curves.json, if it exists."""
    path = Path(folder) / "learning_curves.json"
    if path.exists():
        plots.learning_curves(read_json(path), path.with_suffix(""), title)
