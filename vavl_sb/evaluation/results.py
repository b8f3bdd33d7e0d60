"""What finished runs left, read for the statistics.

A run's predictions_test.csv has the predictions, its test.json says who
speaks in each clip, its metrics.json has the scores; the three must agree.

Authors
 * The vavl_sb authors 2026
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vavl_sb.evaluation.sufficient_statistics import (
    clip_confusions,
    clip_moments,
    score_function,
)
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json

MODALITIES = ("audio", "visual", "audiovisual")


@dataclass
class Head:
    """The test clips of one head, and what each adds to its scores.

    Arguments
    ---------
    clips : list
        Clip ids.
    speakers : list
        Who speaks in each.
    truths : np.ndarray
        Class indices, shape (N,), or attributes, shape (N, n).
    tables : np.ndarray
        Shape (N, ...), from :func:`~vavl_sb.evaluation.sufficient_statistics.clip_moments`
        or :func:`~vavl_sb.evaluation.sufficient_statistics.clip_confusions`.
    """

    clips: list
    speakers: list
    truths: np.ndarray
    tables: np.ndarray


@dataclass
class Result:
    """A finished run.

    Arguments
    ---------
    task : str
        "classification" or "regression".
    labels : list
        Names of classes or attributes.
    heads : dict
        Modality to :class:`Head`.
    scores : dict
        Modality to score name to value, as in metrics.json, with
        "ccc_<name>" for the CCC of an attribute.
    """

    task: str
    labels: list
    heads: dict
    scores: dict = field(default_factory=dict)


def read_result(folder):
    """Reads a finished run, and checks its files against each other.

    Arguments
    ---------
    folder : str or Path
        The output folder of a train.py.

    Returns
    -------
    Result

    Raises
    ------
    VAVLError
        In one line: a file is missing or broken, a clip has no speaker, or
        the predictions do not give the scores of metrics.json.
    """
    folder = Path(folder)
    metrics = _json(folder / "metrics.json")
    speakers = _json(folder / "test.json")
    path = folder / "predictions_test.csv"
    try:
        task, labels = metrics["task"], metrics["labels"]
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = {name: [] for name in MODALITIES}
        for row in rows:
            found[row["modality"]].append(row)
        result = Result(
            task,
            labels,
            {
                name: _head(rows, speakers, task, labels)
                for name, rows in found.items()
                if rows
            },
            {name: _flat(s) for name, s in metrics["test"].items()},
        )
        counts = {name: metrics["n_test"][name] for name in result.heads}
    except OSError as error:
        raise VAVLError(f"{path}: cannot be read ({error.strerror})") from None
    except KeyError as error:
        raise VAVLError(
            f"{folder}: {error} is missing in metrics.json, test.json or "
            "predictions_test.csv; remove the folder and run anew"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise VAVLError(f"{path}: cannot be used ({error})") from None
    _check(result, counts, folder)
    return result


def _json(path):
    """The object in a JSON file."""
    try:
        return read_json(path)
    except OSError as error:
        raise VAVLError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise VAVLError(f"{path}: not a JSON file ({error})") from None


def _head(rows, speakers, task, labels):
    """The clips of one head, from rows of predictions_test.csv."""
    clips = [row["id"] for row in rows]
    who = [speakers[clip]["spk_id"] for clip in clips]
    if task == "classification":
        truths = np.array([labels.index(row["label"]) for row in rows])
        guesses = np.array([labels.index(row["prediction"]) for row in rows])
        tables = clip_confusions(guesses, truths, len(labels))
    else:
        truths, guesses = (
            np.array(
                [[float(row[f"{kind}_{a}"]) for a in labels] for row in rows]
            )
            for kind in ("label", "prediction")
        )
        tables = clip_moments(guesses, truths)
    return Head(clips, who, truths, tables)


def _flat(scores):
    """Scores of one head, one name each."""
    flat = {k: v for k, v in scores.items() if k not in ("ccc", "confusion")}
    for name, value in scores.get("ccc", {}).items():
        flat[f"ccc_{name}"] = value
    return flat


def _check(result, counts, folder):
    """Refuses predictions that do not give the scores beside them."""
    score = score_function(result.task, result.labels)
    found = {name: len(head.clips) for name, head in result.heads.items()}
    if set(found) != set(result.scores) or found != counts:
        raise VAVLError(
            f"{folder}: metrics.json and predictions_test.csv are not of the "
            "same run; remove the folder and run anew"
        )
    for modality, head in result.heads.items():
        for name, value in score(head.tables.sum(axis=0)).items():
            told = result.scores[modality].get(name)
            # Predictions are written with seven digits.
            if told is None or abs(told - float(value)) > 1e-4:
                raise VAVLError(
                    f"{folder}: {modality} {name} is {told} in metrics.json, "
                    f"but {float(value):.6f} by predictions_test.csv; remove "
                    "the folder and run anew"
                )


def speaker_tables(heads, speakers=None):
    """Sums the clips' tables by run and speaker.

    Arguments
    ---------
    heads : list of Head
        One for each run.
    speakers : list, optional
        The order of the speakers; None for all, sorted.

    Returns
    -------
    tables : np.ndarray
        Shape (runs, speakers, ...).
    tested : np.ndarray
        Whether a run tests a speaker, bool, shape (runs, speakers).
    speakers : list
        Names, in the order of the tables.
    """
    if speakers is None:
        speakers = sorted({who for head in heads for who in head.speakers})
    place = {who: index for index, who in enumerate(speakers)}
    shape = (len(heads), len(speakers))
    tables = np.zeros((*shape, *heads[0].tables.shape[1:]))
    tested = np.zeros(shape, dtype=bool)
    for run, head in enumerate(heads):
        columns = np.array([place[who] for who in head.speakers])
        np.add.at(tables[run], columns, head.tables)
        tested[run, columns] = True
    return tables, tested, speakers
