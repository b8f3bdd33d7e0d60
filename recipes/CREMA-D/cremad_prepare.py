"""Prepares CREMA-D: manifests for training, validation and test.

Download: https://github.com/CheyneyComputerScience/CREMA-D (with Git LFS:
``git lfs install`` before ``git clone``). This script uses ``AudioWAV/``,
``VideoFlash/`` and ``processedResults/tabulatedVotes.csv``.

Cao H., Cooper D. G., Keutmann M. K., Gur R. C., Nenkova A., Verma R.,
"CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE Transactions
on Affective Computing 5(4), 2014. Licence: ODbL 1.0.

In an hparams file: ``prepare: !name:cremad_prepare.prepare_cremad``.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from vavl_sb.dataio.label_ceiling import (
    rating_ceiling,
    vote_ceiling,
    votes_as_ratings,
)
from vavl_sb.dataio.preparation import (
    SPLIT_SETS,
    ClipLabels,
    PrepareReport,
    find_media,
    prepare_corpus,
    read_table,
)
from vavl_sb.utils.errors import CorpusError

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad")
# Columns of the vote table and codes in the file names, in the order of CLASSES
VOTE_COLUMNS = ("A", "D", "F", "H", "N", "S")
CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
# First digit of a row number in the vote table: what the raters were shown
CONDITIONS = {"1": "audio", "2": "visual", "3": "audiovisual"}
AUDIOVISUAL = "3"
# Descriptions of the labels for the reports, by label source and task
ACTED = "acted: the emotion that the actor was asked to show"
PERCEIVED = {
    "classification": "perceived: the emotion with more than half of the votes "
    "of people who saw and heard the clip",
    "regression": "perceived: the shares of the votes of people who saw and "
    "heard the clip",
}
VOTES = os.path.join("processedResults", "tabulatedVotes.csv")
FILES = {("AudioWAV", ".wav"): "audio", ("VideoFlash", ".flv"): "video"}
NAME = re.compile(r"\d{4}_[A-Z]{3}_([A-Z]{3})_[A-Z]{1,2}", re.ASCII)
# One file of the official AudioWAV is misnamed
ALIASES = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}
SPEAKERS = {str(number) for number in range(1001, 1092)}


def prepare_cremad(
    data_folder: str,
    save_json_train: str,
    save_json_valid: str,
    save_json_test: str,
    partition: int | str = 1,
    label_csv: str | None = None,
    task: str = "classification",
    label_source: str = "votes",
    **options: Any,
) -> None:
    """Writes the manifests of CREMA-D, and prepare_report.json beside them.

    A clip with only one usable file is kept, with null for the other. The
    report lists the clips that were left out.

    Arguments
    ---------
    data_folder : str
        The folder with AudioWAV, VideoFlash and processedResults.
    save_json_train, save_json_valid, save_json_test : str
        Where to write the manifests.
    partition : int or str
        1 to 5: the speaker lists released with VAVL (63 training, 14
        validation and 14 test speakers). Or the path of a JSON file ``{"train":
        [speakers], "valid": [...], "test": [...]}``, for another split or a
        part of the corpus.
    label_csv : str, optional
        A label CSV released with VAVL, which replaces the votes. Its Split_Set
        is used unless `partition` is a file, and must agree with a `partition`
        of 2 to 5, but not with the default, 1.
    task : str
        "classification": clips that have a class. "regression": clips that
        have shares of votes, with or without a class.
    label_source : str
        "votes": the class is the one with more than half of the audio-visual
        votes. "acted": the emotion in the file name, for every clip.
    **options
        Precomputed features, withheld modalities and the seed: see
        :func:`vavl_sb.dataio.preparation.prepare_corpus`.
    """
    acted = label_source == "acted"
    if label_source not in ("votes", "acted"):
        raise CorpusError(
            f"label_source: must be votes or acted, not {label_source!r}"
        )
    if acted and (label_csv or task == "regression"):
        raise CorpusError(
            "label_source=acted uses the classes in the file names: leave "
            "label_csv out and set task=classification, or label_source=votes"
        )
    report = PrepareReport()
    media = find_media(
        data_folder, _identify, report, "CREMA-D's AudioWAV and VideoFlash"
    )
    label_file = label_csv or os.path.join(data_folder, VOTES)
    read_labels: Callable = partial(read_votes, label_file, report)
    if label_csv:
        read_labels = partial(read_released, label_file, report)
    elif acted:
        read_labels = partial(_acted_labels, media)
    prepare_corpus(
        data_folder,
        (save_json_train, save_json_valid, save_json_test),
        media,
        lambda name: parse_name(os.path.basename(name))[0],
        released_partitions(),
        read_labels,
        CLASSES,
        report,
        target=ACTED if acted else PERCEIVED.get(task, ""),
        label_file=None if acted else str(label_file),
        # The released labels were computed from the same votes.
        ceiling=None if acted else lambda: read_ceiling(data_folder, task),
        partition=partition,
        task=task,
        label_csv=str(label_csv) if label_csv else None,
        label_source=label_source,
        **options,
    )


def _acted_labels(media):
    """Yields clip ids with the emotions in their names as labels."""
    for clip in sorted({clip for group in media.values() for clip in group}):
        yield clip, ClipLabels(clip[:4], {"emotion": parse_name(clip)[1]})


def released_partitions() -> dict:
    """Loads the speaker lists released with VAVL (arXiv 2305.07216), by name.

    All speakers who are in neither "valid" nor "test" are in "train".

    Example
    -------
    >>> [len(speakers) for speakers in released_partitions()["1"].values()]
    [14, 14, 63]
    """
    path = os.path.join(os.path.dirname(__file__), "partitions.json")
    with open(path, encoding="utf-8") as file:
        partitions = json.load(file)
    for lists in partitions.values():
        lists["train"] = SPEAKERS - {*lists["valid"], *lists["test"]}
    return partitions


def parse_name(stem: str) -> tuple[str, str]:
    """Returns a clip's id and its acted emotion (one of CLASSES).

    The id is the name without extension, ACTOR_SENTENCE_EMOTION_LEVEL, with one
    misnamed official file corrected; it starts with the actor's four digits.
    Raises a CorpusError, whose text is the reason in the report, if the name
    has another form.

    Example
    -------
    >>> parse_name("1001_DFA_ANG_XX")
    ('1001_DFA_ANG_XX', 'angry')
    """
    clip = ALIASES.get(stem, stem)
    parts = NAME.fullmatch(clip)
    if parts is None:
        raise CorpusError("name is not ACTOR_SENTENCE_EMOTION_LEVEL")
    if parts[1] not in CODES:
        raise CorpusError("unknown emotion code")
    return clip, CLASSES[CODES.index(parts[1])]


def _identify(path):
    """Returns kind and clip id of a file, for :func:`find_media`."""
    stem, extension = os.path.splitext(os.path.basename(path))
    kind = FILES.get((path.split("/")[0], extension.lower()))
    return (kind, parse_name(stem)[0]) if kind else None


def majority(votes: Sequence[float]) -> str | None:
    """Returns the class with more than half of the votes, or None.

    ``votes`` are counts or shares in the order of CLASSES. The labels released
    with VAVL follow the same rule: half of the votes are not enough.

    Example
    -------
    >>> majority([0, 0, 0, 6, 4, 0])
    'happy'
    >>> majority([5, 0, 0, 0, 5, 0])
    """
    for name, count in zip(CLASSES, votes, strict=True):
        if 2 * count > sum(votes):
            return name
    return None


def read_votes(
    path: str, report: PrepareReport
) -> Iterator[tuple[str, ClipLabels]]:
    """Reads the audio-visual votes of ``processedResults/tabulatedVotes.csv``.

    Yields each clip's id and labels: `emotion`, if a class has a majority, and
    the six shares of votes. Unusable rows are added to the report.
    """
    for where, row in read_table(path, (*VOTE_COLUMNS, "fileName")):
        # The official table has no name for the first column, the row number.
        number = next(iter(row.values())) or ""
        if not number.startswith(AUDIOVISUAL):
            continue
        votes = [row[column] for column in VOTE_COLUMNS]
        parsed = _parse_row(row["fileName"] or "", votes, where, report)
        if parsed is not None:
            clip, votes = parsed
            shares = [vote / sum(votes) for vote in votes]
            yield clip, _labels(clip, majority(votes), shares, where)


def read_released(
    path: str, report: PrepareReport
) -> Iterator[tuple[str, ClipLabels]]:
    """Reads a label CSV as released with VAVL, ``label_consensus_N.csv``.

    Yields each clip's id and labels: `emotion`, the class with the highest
    share, the six shares as in the file, and the split. Unusable rows are added
    to the report.
    """
    columns = ("FileName", *CLASSES, "SpkrID", "Split_Set")
    for where, row in read_table(path, columns):
        stem = re.sub(r"\.(wav|flv|mp3|mp4)$", "", row["FileName"] or "")
        shares = [row[name] for name in CLASSES]
        parsed = _parse_row(stem, shares, where, report)
        if parsed is None:
            continue
        clip, shares = parsed
        if row["SpkrID"] != clip[:4]:
            raise CorpusError(
                f"{where}: {clip} has SpkrID {row['SpkrID']!r}, which is not "
                "the speaker in the file name"
            )
        best = max(shares)
        first = CLASSES[shares.index(best)]
        emotion = first if shares.count(best) == 1 else None
        labels = _labels(clip, emotion, shares, where)
        labels.split = SPLIT_SETS[row["Split_Set"]]
        yield clip, labels


def read_ceiling(data_folder: str, task: str) -> dict | None:
    """Computes score ceilings from the votes of the official table.

    Maps what the raters were shown ("audio", "visual", "audiovisual") to the
    :func:`~vavl_sb.dataio.label_ceiling.vote_ceiling` of all clips in the
    table, or for regression to the ``rating_ceiling`` of the shares. None
    without a table of integer votes.
    """
    path = os.path.join(data_folder, VOTES)
    if not os.path.isfile(path):
        return None
    votes: dict = {shown: {} for shown in CONDITIONS.values()}
    report = PrepareReport()  # read_votes reports the unusable rows.
    for where, row in read_table(path, (*VOTE_COLUMNS, "fileName")):
        shown = CONDITIONS.get((next(iter(row.values())) or "")[:1])
        counts = [row[column] for column in VOTE_COLUMNS]
        parsed = _parse_row(row["fileName"] or "", counts, where, report)
        if shown and parsed and all(n.is_integer() for n in parsed[1]):
            votes[shown][parsed[0]] = parsed[1]
    ceiling = {}
    for shown, rows in votes.items():
        counts = np.array(list(rows.values()), dtype=int)
        acted = [CLASSES.index(parse_name(clip)[1]) for clip in rows]
        if len(rows) and task == "classification":
            ceiling[shown] = vote_ceiling(counts, acted)
        elif len(rows):
            ceiling[shown] = rating_ceiling(votes_as_ratings(counts), CLASSES)
    return ceiling or None


def _parse_row(stem, values, where, report):
    """Returns clip id and six numbers, or None for a row that it reports."""
    try:
        clip, _ = parse_name(stem)
    except CorpusError as reason:
        report.left_out[str(reason)][stem or where] = where
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = [math.nan]
    # NaN fails the comparison, so this also refuses text.
    if not all(n >= 0 for n in numbers) or not 0 < sum(numbers) < math.inf:
        detail = f"{where}: {', '.join(map(str, values))}"
        report.left_out["votes or shares cannot be used"][clip] = detail
        return None
    return clip, numbers


def _labels(clip, emotion, shares, where):
    """Returns a clip's ClipLabels."""
    fields = dict(zip(CLASSES, shares, strict=True))
    if emotion is not None:
        return ClipLabels(clip[:4], {"emotion": emotion, **fields}, {}, where)
    detail = f"{where}: at most {max(shares):g} for a class"
    missing = {"classification": ("no majority", detail)}
    return ClipLabels(clip[:4], fields, missing, where)
