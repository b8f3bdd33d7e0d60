"""Prepares MSP-IMPROV: manifests for training, validation and test.

The corpus is given out by its authors on request:
https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html. Needed
of it are ``Evalution.txt`` and the clips, in ``session1/`` to ``session6/`` or
in these below ``Audio/`` and ``Video/``. A clip's name is
MSP-IMPROV-S01A-F01-P-FM01 (in the ratings UTD-IMPROV-...):

* S01A: the target sentence (1 to 20) and the emotion it was to be said with;
* F01: the speaker of the clip, a woman or a man of sessions 1 to 6. In the
  released CSVs, Gender and SpkrID are those of this field in every row;
* P: how it came about (R read, T the improvised target sentence, S the rest
  of the improvisation, P talk in the breaks);
* FM01: whose improvisation it is, and the turn. It does not name the speaker:
  both speakers of a session have clips with FM and with MF.

Activation is rated with 1 = very active. This script turns it into arousal
(5 = very active) as it reads the official ratings, and nobody does so again.
The CSVs released with VAVL have it turned already: in them clip S01A-F02-R-FF01
has EmoAct 2.666667 where the official ratings say A:3.333333, and clips meant
to be happy or angry are the highest in EmoAct.

Busso C., Parthasarathy S., Burmania A., AbdelWahab M., Sadoughi N., Mower
Provost E., "MSP-IMPROV: An Acted Corpus of Dyadic Interactions to Study
Emotion Perception", IEEE Transactions on Affective Computing 8(1), 2017.

In an hparams file: ``prepare: !name:msp_improv_prepare.prepare_msp_improv``.
"""

import glob
import json
import math
import os
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from vavl_sb.dataio.label_ceiling import rating_ceiling
from vavl_sb.dataio.manifest import SPLITS
from vavl_sb.dataio.preparation import (
    SPLIT_SETS,
    ClipLabels,
    PrepareReport,
    find_media,
    prepare_corpus,
    read_table,
)
from vavl_sb.utils.errors import CorpusError

CLASSES = ("angry", "happy", "neutral", "sad")
ATTRIBUTES = ("arousal", "valence", "dominance")
LETTERS = dict(zip("AHNS", CLASSES, strict=True))
NO_CLASS = {"O": "raters saw another emotion", "X": "raters did not agree"}
# Keys of an official line and columns of a released CSV, as ATTRIBUTES.
KEYS = ("A", "V", "D")
COLUMNS = ("EmoAct", "EmoVal", "EmoDom")
LOWEST, HIGHEST = 1.0, 5.0
# What the labels are, by task.
PERCEIVED = {
    "classification": "perceived: the emotion that most raters who saw and "
    "heard the clip chose",
    "regression": "perceived: the mean rating of people who saw and heard the "
    "clip",
}
FILES = {".wav": "audio", ".avi": "video"}
NAME = re.compile(
    r"(?:MSP|UTD)-(IMPROV-S\d\d[AHNS]-([FM]0([1-6]))-[PRST]-[FM]{2}\d+)",
    re.IGNORECASE | re.ASCII,
)


def prepare_msp_improv(
    data_folder: str,
    save_json_train: str,
    save_json_valid: str,
    save_json_test: str,
    partition: int | str = 1,
    label_csv: str | None = None,
    task: str = "regression",
    **options: Any,
) -> None:
    """Makes the manifests of MSP-IMPROV, and prepare_report.json beside them.

    Labels are `arousal`, `valence` and `dominance` from 1 to 5, 5 being very
    active, very positive and very dominant, and `emotion`. Entries with
    ratings say ``"activation_flipped": true``.

    Arguments
    ---------
    data_folder : str
        The corpus, with Evalution.txt and session1 to session6 in it, or the
        sessions in Audio and Video.
    save_json_train, save_json_valid, save_json_test : str
        Where to write the manifests.
    partition : int or str
        1 to 5: as released with VAVL (four sessions train, one validates, one
        tests). "session1" to "session6": that session tests, the next one
        validates. Or the path of a JSON file ``{"train": [speakers], "valid":
        [...], "test": [...]}`` of speakers F01 to F06 and M01 to M06.
    label_csv : str, optional
        A label CSV released with VAVL: its ratings hold, and its Split_Set if
        `partition` is a number. A partition of 2 to 5 must agree with the
        Split_Set; 1, the default, need not. It has no classes.
    task : str
        "regression": clips with all three ratings. "classification": clips
        rated angry, happy, neutral or sad.
    **options
        Features in place of files, modalities withheld, and seed: see
        :func:`vavl_sb.dataio.preparation.prepare_corpus`.
    """
    if label_csv and task == "classification":
        raise CorpusError(
            f"label_csv: {label_csv} has ratings, no classes: leave it out, so "
            "that the classes of Evalution.txt are taken, or take "
            "hparams/vavl_reg.yaml"
        )
    report = PrepareReport()
    media = find_media(
        data_folder, _identify, report, "MSP-IMPROV's session1 to session6"
    )
    label_file = str(label_csv or find_ratings(data_folder))
    read = read_released if label_csv else read_ratings
    rated = task == "regression"
    prepare_corpus(
        data_folder,
        (save_json_train, save_json_valid, save_json_test),
        media,
        lambda name: parse_name(os.path.basename(name))[0],
        partitions(),
        partial(read, label_file, report),
        ATTRIBUTES if rated else CLASSES,
        report,
        target=PERCEIVED.get(task, ""),
        ceiling=partial(read_ceiling, data_folder) if rated else None,
        label_file=label_file,
        partition=partition,
        task=task,
        label_csv=str(label_csv) if label_csv else None,
        **options,
    )


def partitions() -> dict:
    """The splits of MSP-IMPROV, by session: name to the speakers of each split.

    A session is the dialogue of one woman and one man who are in no other, so
    that no actor is in two sets. 1 to 5 were released with VAVL (arXiv
    2305.07216); "session1" to "session6" leave that session out to test, and
    validate on the next (1 follows 6).

    Example
    -------
    >>> partitions()["session6"]["valid"]
    ['F01', 'M01']
    """
    path = os.path.join(os.path.dirname(__file__), "partitions.json")
    with open(path, encoding="utf-8") as file:
        sessions = json.load(file)
    for test in range(1, 7):
        valid = test % 6 + 1
        train = [n for n in range(1, 7) if n not in (test, valid)]
        sessions[f"session{test}"] = dict(
            zip(SPLITS, (train, [valid], [test]), strict=True)
        )
    return {
        name: {
            split: [f"{sex}0{number}" for number in numbers for sex in "FM"]
            for split, numbers in lists.items()
        }
        for name, lists in sessions.items()
    }


def parse_name(stem: str) -> tuple[str, str, int]:
    """Takes a clip's name, in any case, apart: clip, speaker and session.

    The clip's id is the name in upper case, starting with MSP; the speaker "F01"
    to "F06" or "M01" to "M06". CorpusError, with the reason for the report as its
    text, if the name cannot be read.

    Example
    -------
    >>> parse_name("UTD-IMPROV-S01A-F02-R-FF01")
    ('MSP-IMPROV-S01A-F02-R-FF01', 'F02', 2)
    """
    parts = NAME.fullmatch(stem)
    if parts is None:
        raise CorpusError("name is not MSP-IMPROV-SENTENCE-SPEAKER-SCENE-TURN")
    name, speaker, session = parts.groups()
    return f"MSP-{name}".upper(), speaker.upper(), int(session)


def _identify(path):
    """Kind and clip of a file, for :func:`find_media`."""
    stem, extension = os.path.splitext(os.path.basename(path))
    kind = FILES.get(extension.lower())
    return (kind, parse_name(stem)[0]) if kind else None


def find_ratings(data_folder: str) -> str:
    """Finds the file of the official ratings.

    ``Evalution.txt`` (the release spells it so) or ``Evaluation.txt``, in any
    case, at the top or one folder below. CorpusError if there is none.
    """
    for place in ("*", "*/*"):
        for path in sorted(glob.glob(place, root_dir=data_folder)):
            name = os.path.basename(path).lower()
            if name in ("evalution.txt", "evaluation.txt"):
                return os.path.join(data_folder, path)
    raise CorpusError(
        f"{data_folder}: no Evalution.txt or Evaluation.txt, at the top or "
        "one folder below; copy it there, or give a label_csv"
    )


def read_ratings(
    path: str, report: PrepareReport
) -> Iterator[tuple[str, ClipLabels]]:
    """Reads the official ratings, as :func:`find_ratings` finds them.

    A clip has a line ``NAME.avi; N; A:2.4; V:3.2 ; D:3.0 ; N:3.6;``; lines of
    single raters follow it and are not used. Gives a clip's id and its labels:
    `session`, `emotion` where it is one of CLASSES, and the ratings. The report
    is told of lines whose name cannot be read.
    """
    # A stray byte in a rater's line must not matter.
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            name, *fields = (field.strip() for field in line.split(";"))
            stem, extension = os.path.splitext(name)
            if extension.lower() not in FILES:
                continue  # a rater's line, or an empty one
            where = f"{path}, line {number}"
            texts = _texts(fields)
            letter = fields[0].upper() if fields else ""
            yield from _labels(stem, texts, True, where, report, letter)


def _texts(fields):
    """What a line's fields say of each of KEYS, such as ``A:2.4``."""
    pairs = [field.split(":", 1) for field in fields if ":" in field]
    values = {key.strip().upper(): text for key, text in pairs}
    return {key: values.get(key, "") for key in KEYS}


def read_ceiling(data_folder: str) -> dict | None:
    """How high a score can be, by the lines of the single raters.

    Under "audiovisual", which is what the raters were shown, the
    :func:`~vavl_sb.dataio.label_ceiling.rating_ceiling`; None without ratings of
    two raters of any clip. Which end of the scale is very active does not
    matter to it.
    """
    clips: list[list] = []
    try:
        path = find_ratings(data_folder)
    except CorpusError:  # With a label_csv it need not be there.
        return None
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            name, *fields = (field.strip() for field in line.split(";"))
            if os.path.splitext(name)[1].lower() in FILES:
                clips.append([])
                continue
            try:
                rating = [float(text) for text in _texts(fields).values()]
            except ValueError:
                continue
            if clips and all(LOWEST <= value <= HIGHEST for value in rating):
                clips[-1].append(rating)
    most = max(map(len, clips), default=0)
    if most < 2:
        return None
    ratings = np.full((len(clips), most, len(KEYS)), np.nan)
    for clip, rows in zip(ratings, clips, strict=True):
        clip[: len(rows)] = np.reshape(rows, (-1, len(KEYS)))
    return {"audiovisual": rating_ceiling(ratings, ATTRIBUTES)}


def read_released(
    path: str, report: PrepareReport
) -> Iterator[tuple[str, ClipLabels]]:
    """Reads a label CSV as released with VAVL, ``labels_consensus_N.csv``.

    Gives a clip's id and its labels: `session`, the ratings, and the split. The
    report is told of rows whose name cannot be read.
    """
    columns = ("FileName", *COLUMNS, "SpkrID", "Gender", "Split_Set")
    for where, row in read_table(path, columns):
        stem = re.sub(r"(?i)\.(wav|avi)$", "", row["FileName"] or "")
        texts = {column: row[column] or "" for column in COLUMNS}
        for clip, labels in _labels(stem, texts, False, where, report):
            sex, session = labels.spk_id[0], labels.fields["session"]
            own = (str(session), {"F": "Female", "M": "Male"}[sex])
            if (row["SpkrID"], row["Gender"]) != own:
                raise CorpusError(
                    f"{where}: {clip} has SpkrID and Gender {row['SpkrID']}, "
                    f"{row['Gender']}; by its name they are {', '.join(own)}"
                )
            labels.split = SPLIT_SETS[row["Split_Set"]]
            yield clip, labels


def _labels(stem, texts, flip, where, report, letter=None):
    """Yields a clip's id and labels; nothing, reported, for a strange name."""
    try:
        clip, speaker, session = parse_name(stem)
    except CorpusError as reason:
        report.left_out[str(reason)][stem or where] = where
        return
    fields, missing = {"session": session}, {}
    if letter in LETTERS:
        fields["emotion"] = LETTERS[letter]
    else:
        unknown = "unknown letter for the emotion"
        reason = NO_CLASS.get(letter, unknown)
        missing["classification"] = (reason, f"{where}: {letter!r}")
    ratings = {}
    for name, (key, text) in zip(ATTRIBUTES, texts.items(), strict=True):
        try:
            rating = float(text or "nan")
        except ValueError:
            rating = math.inf
        if math.isnan(rating):
            reason = "no rating of an attribute"
        elif not LOWEST <= rating <= HIGHEST:
            reason = "rating that is no number from 1 to 5"
        else:
            ratings[name] = rating
            continue
        detail = f"{where}: {key}:{text or 'missing'}"
        missing.setdefault("regression", (reason, detail))
    if "regression" not in missing:
        if flip:
            # Rounded as the files are, so that 6 - 3.333333 is 2.666667.
            arousal = LOWEST + HIGHEST - ratings["arousal"]
            ratings["arousal"] = round(arousal, 6)
        fields.update(ratings, activation_flipped=True)
    yield clip, ClipLabels(speaker, fields, missing, where)
