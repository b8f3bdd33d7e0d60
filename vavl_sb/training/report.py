"""What a run leaves behind: scores, predictions, pictures and a table."""

import time
from pathlib import Path

import numpy as np

from vavl_sb.dataio.preparation import read_target
from vavl_sb.training import plots
from vavl_sb.training.calibration import calibrate, calibration_scores
from vavl_sb.training.predictions import predictions_csv
from vavl_sb.utils.files import (
    read_json,
    write_atomically,
    write_json,
    write_lines,
)
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)


def scores(stats: dict) -> dict:
    """Summaries of the heads that had clips to score.

    Arguments
    ---------
    stats : dict
        Head name to ``EmotionStats`` or ``ConcordanceStats``.

    Returns
    -------
    dict
        Head name to its summary, with ``score`` (the number that stands for
        it) and ``score_name``.
    """
    found = {}
    for name, collected in stats.items():
        if len(collected) == 0:
            continue
        summary = dict(collected.summarize())
        summary["score"] = collected.summarize("score")
        summary["score_name"] = (
            "ccc_mean" if "ccc_mean" in summary else "f1_macro"
        )
        found[name] = summary
    return found


def write_test_report(
    output_folder: str | Path,
    task: str,
    labels: list[str],
    stats: dict,
    temperatures: dict | None = None,
) -> dict:
    """Writes metrics.json, predictions_test.csv and the pictures of a test.

    Of several processes the main one calls it, by ``run_on_main``.

    Arguments
    ---------
    output_folder : str or Path
        Of the run.
    task : str
        "classification" or "regression".
    labels : list of str
        Names of classes or attributes.
    stats : dict
        Head name to the statistics collected over the test set.
    temperatures : dict, optional
        Head name to its temperature, which predictions and scores are told
        with (see :mod:`vavl_sb.training.calibration`).

    Returns
    -------
    dict
        What metrics.json holds: ``task``, ``labels``, ``target`` (what the
        labels are; None where nothing says), ``test`` (scores of each head)
        and ``n_test`` (clips each was scored on).
    """
    test = {}
    for name, summary in scores(stats).items():
        test[name] = {
            key: value
            for key, value in summary.items()
            if key not in ("score", "score_name")
        }
    for name, found in calibration_scores(stats, temperatures or {}).items():
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
        predictions_csv(task, labels, calibrate(stats, temperatures or {})),
    )
    for name, summary in test.items():
        if "confusion" in summary:
            plots.confusion(
                np.array(summary["confusion"]),
                labels,
                f"{name}, {len(stats[name])} test clips",
                folder / f"confusion_{name}.png",
            )
    if task == "classification" and test:
        path = folder / "reliability.png"
        plots.reliability_diagram(stats, temperatures or {}, path)
    table = score_table(metrics)
    write_lines(folder / "scores.txt", table)
    message = "Test scores (in %s)" + "\n%s" * len(table)
    logger.info(message, folder / "metrics.json", *table)
    return metrics


def score_table(metrics: dict) -> list[str]:
    """The scores as a table for a terminal.

    Arguments
    ---------
    metrics : dict
        As in metrics.json.

    Returns
    -------
    list of str
        A line for each head, after the names of the columns.
    """
    classes = metrics["task"] == "classification"
    if classes:
        columns = {"macro F1": "f1_macro", "micro F1": "f1_micro", "UAR": "uar"}
    else:
        columns = {name: name for name in metrics["labels"]}
        columns["CCC mean"] = "ccc_mean"
    width = max(10, *(len(name) + 2 for name in columns))
    lines = [
        f"{'modality':<12}{'clips':>7}"
        + "".join(f"{name:>{width}}" for name in columns)
    ]
    for name, count in metrics["n_test"].items():
        values = metrics["test"].get(name)
        line = f"{name:<12}{count:>7}"
        for key in columns.values():
            if values is None:
                line += f"{'-':>{width}}"
            else:
                value = values[key] if key in values else values["ccc"][key]
                line += f"{value:>{width}.3f}"
        lines.append(line)
    if metrics.get("target"):
        lines.append(f"labels: {metrics['target']}")
    return lines


# A picture costs as much as a few batches: not one for each short epoch.
SECONDS_BETWEEN_PICTURES = 30.0


class LearningCurves:
    """Losses and scores by epoch, kept as JSON and as a picture.

    Arguments
    ---------
    folder : str
        Output folder of the run.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / "learning_curves.json"
        self.picture = Path(folder) / "learning_curves.png"
        self.drawn = time.monotonic()

    def add(self, epoch: int, train: dict, valid: dict) -> None:
        """Adds an epoch; a resumed run replaces the epochs it repeats.

        Arguments
        ---------
        epoch : int
            The epoch that ended.
        train : dict
            Training losses by name.
        valid : dict
            Validation losses and scores by name.
        """
        kept = self._kept() if epoch > 1 else []
        kept = [entry for entry in kept if entry["epoch"] < epoch]
        kept.append({"epoch": epoch, "train": train, "valid": valid})
        write_json(self.path, kept)
        if time.monotonic() - self.drawn > SECONDS_BETWEEN_PICTURES:
            self.draw()

    def draw(self) -> None:
        """Draws all epochs so far, where there is one."""
        kept = self._kept()
        if kept:
            plots.learning_curves(kept, self.picture)
        self.drawn = time.monotonic()

    def _kept(self):
        """The epochs so far; none, with a warning, of a damaged file."""
        try:
            kept = read_json(self.path)
            if all(set(e) == {"epoch", "train", "valid"} for e in kept):
                return kept
            reason = "not a list of epochs"
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            reason = error
        logger.warning(
            "%s: damaged (%s); the curves start anew", self.path, reason
        )
        return []
