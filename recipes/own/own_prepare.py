"""Prepares your own corpus: manifests from a table of its files.

The table is a CSV file with the columns ``file`` (relative to the corpus
folder) and ``speaker``, and ``emotion`` for classes, or a column for each
attribute. A clip with separate audio and video files has two rows, whose file
names differ in the extension only.

In an hparams file: ``prepare: !name:own_prepare.prepare_own``.
"""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from vavl_sb.dataio.preparation import (
    ClipLabels,
    PrepareReport,
    prepare_corpus,
    read_table,
)
from vavl_sb.utils.errors import CorpusError
from vavl_sb.utils.seeding import shuffled

TABLE = "labels.csv"
# Extensions of audio files; a picture in them is cover art.
SOUND = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff")


def prepare_own(
    data_folder: str,
    save_json_train: str,
    save_json_valid: str,
    save_json_test: str,
    labels: Sequence[str],
    partition: int | str = 1,
    label_csv: str | None = None,
    task: str = "classification",
    **options: Any,
) -> None:
    """Writes the manifests of a corpus, and prepare_report.json beside them.

    Arguments
    ---------
    data_folder : str
        The folder of the corpus.
    save_json_train, save_json_valid, save_json_test : str
        Where to write the manifests.
    labels : sequence of str
        Classes, or attributes; clips of other classes are left out.
    partition : int or str
        See :func:`partitions`, or the path of a JSON file ``{"train":
        [speakers], "valid": [...], "test": [...]}``.
    label_csv : str
        The table (default: labels.csv in ``data_folder``).
    task : str
        "classification" or "regression".
    **options
        Precomputed features, withheld modalities and the seed: see
        :func:`vavl_sb.dataio.preparation.prepare_corpus`.
    """
    label_csv = label_csv or os.path.join(data_folder, TABLE)
    media, rows = _read_files(label_csv, task, labels)
    prepare_corpus(
        data_folder,
        (save_json_train, save_json_valid, save_json_test),
        media,
        partial(find_clip, _by_name(rows)),
        partitions({row.spk_id for row in rows.values()}),
        rows.items,
        labels,
        PrepareReport(),
        target="the labels of the corpus's table",
        label_file=label_csv,
        partition=partition,
        task=task,
        labels=list(labels),
        **options,
    )


def _by_name(clips):
    """Groups clip ids by the last part of their path."""
    by_name: dict = {}
    for clip in clips:
        by_name.setdefault(os.path.basename(clip), []).append(clip)
    return by_name


def find_clip(by_name: dict[str, list[str]], name: str) -> str:
    """Returns the clip of a feature file, by matching the ends of their paths.

    Raises a CorpusError unless exactly one clip matches.

    Example
    -------
    >>> clips = {"01": ["ann/01", "bob/01"], "02": ["ann/02"]}
    >>> find_clip(clips, "features/bob/01"), find_clip(clips, "02")
    ('bob/01', 'ann/02')
    """
    matches = []
    for clip in by_name.get(os.path.basename(name), []):
        if clip == name:
            return clip
        short, long = sorted((clip, name), key=len)
        if f"/{long}".endswith(f"/{short}"):
            matches.append(clip)
    if not matches:
        raise CorpusError("no clip of that name in the table")
    if len(matches) > 1:
        raise CorpusError(
            "several clips of that name in the table; put the features in "
            "subfolders as the clips are"
        )
    return matches[0]


def partitions(speakers: Iterable[str]) -> dict:
    """Divides the speakers into up to five partitions.

    A fifth of the speakers is the test set, another fifth the validation set,
    the others are the training set. Each speaker is in one of the test sets.

    Example
    -------
    >>> splits = partitions("abcdefghij")
    >>> [len(splits["1"][split]) for split in ("train", "valid", "test")]
    [6, 2, 2]
    >>> "".join(sorted(sum((splits[name]["test"] for name in splits), [])))
    'abcdefghij'
    """
    order = shuffled(sorted(speakers), 1234)
    if len(order) < 3:
        raise CorpusError(
            f"{len(order)} speakers: scores of new speakers need three at least"
        )
    parts = np.array_split(order, min(5, len(order)))
    parts = [part.tolist() for part in parts]
    splits = {}
    for number, test in enumerate(parts, 1):
        valid = parts[number % len(parts)]
        train = [who for who in order if who not in (*valid, *test)]
        splits[str(number)] = {"train": train, "valid": valid, "test": test}
    return splits


def _read_files(label_csv, task, labels):
    """Returns the files of the table, by "audio" and "video" and clip id (path
    without extension), and the ClipLabels of each clip."""
    if not os.path.isfile(label_csv):
        raise CorpusError(
            f"{label_csv}: no such file; write a table with the columns file, "
            "speaker and emotion, or name one by label_csv"
        )
    columns = ("emotion",) if task == "classification" else tuple(labels)
    media: dict = {"audio": {}, "video": {}}
    rows: dict = {}
    for where, row in read_table(label_csv, ("file", "speaker", *columns)):
        if not row["file"] or not row["speaker"]:
            raise CorpusError(f"{where}: file and speaker must be given")
        file = row["file"].replace(os.sep, "/")
        clip, ending = os.path.splitext(file)
        if ending.lower() in SOUND:
            media["audio"][clip] = file
        else:
            media["video"][clip] = file
            media["audio"].setdefault(clip, file)
        clip_labels = ClipLabels(
            row["speaker"], *_labels(row, task, labels), where
        )
        if rows.setdefault(clip, clip_labels) != clip_labels:
            raise CorpusError(
                f"{where}: {clip} appears twice with different labels, first "
                f"in {rows[clip].where}; remove one of the lines"
            )
    return media, rows


def _labels(row, task, labels):
    """Returns a row's labels, and the reason if it has none for the task."""
    if task == "classification":
        emotion = row["emotion"]
        missing = {}
        if emotion not in labels:
            missing[task] = ("class is not in labels", str(emotion))
        return {"emotion": emotion}, missing
    try:
        return {name: float(row[name]) for name in labels}, {}
    except (TypeError, ValueError):
        return {}, {task: ("no number for an attribute", "")}
