"""Prepares a corpus of one's own: manifests from a table of its files.

The table is a CSV file with the columns ``file`` (a path below the corpus) and
``speaker``, and ``emotion`` for classes, or a column for each attribute. A clip
whose sound and picture are two files has two rows, which differ in the ending
of the name alone.

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
# Endings of files that have no picture, but perhaps that of a record's cover.
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
    """Makes the manifests of a corpus, and prepare_report.json beside them.

    Arguments
    ---------
    data_folder : str
        The corpus.
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
        Features in place of files, modalities withheld, and seed: see
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
        target="what the corpus's own table says",
        label_file=label_csv,
        partition=partition,
        task=task,
        labels=list(labels),
        **options,
    )


def _by_name(clips):
    """Clips by the last part of their path."""
    found: dict = {}
    for clip in clips:
        found.setdefault(os.path.basename(clip), []).append(clip)
    return found


def find_clip(by_name: dict[str, list[str]], name: str) -> str:
    """The clip that a file of features belongs to, by the end of their paths.

    CorpusError unless it is exactly one.

    Example
    -------
    >>> clips = {"01": ["ann/01", "bob/01"], "02": ["ann/02"]}
    >>> find_clip(clips, "features/bob/01"), find_clip(clips, "02")
    ('bob/01', 'ann/02')
    """
    found = []
    for clip in by_name.get(os.path.basename(name), []):
        if clip == name:
            return clip
        short, long = sorted((clip, name), key=len)
        if f"/{long}".endswith(f"/{short}"):
            found.append(clip)
    if not found:
        raise CorpusError("no clip of that name in the table")
    if len(found) > 1:
        raise CorpusError(
            "several clips of that name in the table; put the features in "
            "subfolders as the clips are"
        )
    return found[0]


def partitions(speakers: Iterable[str]) -> dict:
    """Up to five partitions, whose test speakers are all speakers.

    In each a fifth of the speakers tests, another fifth validates, and the
    others train, in an order that was shuffled once.

    Example
    -------
    >>> found = partitions("abcdefghij")
    >>> [len(found["1"][split]) for split in ("train", "valid", "test")]
    [6, 2, 2]
    >>> "".join(sorted(sum((found[name]["test"] for name in found), [])))
    'abcdefghij'
    """
    order = shuffled(sorted(speakers), 1234)
    if len(order) < 3:
        raise CorpusError(
            f"{len(order)} speakers: scores of new people need three at least"
        )
    parts = np.array_split(order, min(5, len(order)))
    parts = [part.tolist() for part in parts]
    found = {}
    for number, test in enumerate(parts):
        valid = parts[(number + 1) % len(parts)]
        train = [who for who in order if who not in (*valid, *test)]
        split = {"train": train, "valid": valid, "test": test}
        found[str(number + 1)] = split
    return found


def _read_files(label_csv, task, labels):
    """The media, by "audio" and "video", clip and file, and the ClipLabels of
    each clip, which is the file's name without its ending, of the table."""
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
        found = ClipLabels(row["speaker"], *_labels(row, task, labels), where)
        if rows.setdefault(clip, found) != found:
            raise CorpusError(
                f"{where}: {clip} stands twice with different labels, first "
                f"in {rows[clip].where}; take one of the lines out"
            )
    return media, rows


def _labels(row, task, labels):
    """A row's labels, and why it has none for the task."""
    if task == "classification":
        emotion = row["emotion"]
        missing = {}
        if emotion not in labels:
            missing[task] = ("class not asked for", str(emotion))
        return {"emotion": emotion}, missing
    try:
        return {name: float(row[name]) for name in labels}, {}
    except (TypeError, ValueError):
        return {}, {task: ("no number for an attribute", "")}
