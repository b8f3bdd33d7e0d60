"""Prepares MSP-IMPROV: manifests for training, validation and test.

The authors provide the corpus on request:
https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html. This
script uses ``Evalution.txt`` and the clips, in ``session1/`` to ``session6/``,
either directly or below ``Audio/`` and ``Video/``. A clip's name is
MSP-IMPROV-S01A-F01-P-FM01 (in the ratings UTD-IMPROV-...):

* S01A: the target sentence (1 to 20) and its intended emotion;
* F01: the speaker of the clip, the woman (F) or man (M) of session 1 to 6.
  Gender and SpkrID of the released CSVs agree with this field in every row;
* P: the scenario (R read, T improvised target sentence, S other turns of the
  improvisation, P natural speech in the breaks);
* FM01: whose improvisation it is, and the turn. It does not name the
  speaker: both speakers of a session have clips with FM and with MF.

The official activation scale has 1 = very active. This script converts it to
arousal (5 = very active) once, when it reads the official ratings. The CSVs
released with VAVL are converted already: for clip S01A-F02-R-FF01 they have
EmoAct 2.666667 and the official ratings A:3.333333, and clips acted as happy or
angry have the highest EmoAct.

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
# Keys in the official ratings and columns of a released CSV, as ATTRIBUTES
KEYS = ("A", "V", "D")
COLUMNS = ("EmoAct", "EmoVal", "EmoDom")
LOWEST, HIGHEST = 1.0, 5.0
# Descriptions of the labels for the reports, by task
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
    """Writes the manifests of MSP-IMPROV, and prepare_report.json beside them.

    Labels are `emotion`, and `arousal`, `valence` and `dominance` from 1 to 5
    (5: very active, very positive, very dominant). Entries with ratings contain
    ``"activation_flipped": true``.

    Arguments
    ---------
    data_folder : str
        The folder with Evalution.txt and session1 to session6, or with the
        sessions below Audio and Video.
    save_json_train, save_json_valid, save_json_test : str
        Where to write the manifests.
    partition : int or str
        1 to 5: as released with VAVL (four training sessions, one validation
        session, one test session). "session1" to "session6": that session is
        the test set, the next one the validation set. Or the path of a JSON
        file ``{"train": [speakers], "valid": [...], "test": [...]}`` with
        speakers F01 to F06 and M01 to M06.
    label_csv : str, optional
        A label CSV released with VAVL, whose ratings are used; it has no
        classes. Its Split_Set is used if `partition` is a number, and must
        agree with a `partition` of 2 to 5, but not with the default, 1.
    task : str
        "regression": clips with all three ratings. "classification": clips
        rated angry, happy, neutral or sad.
    **options
        Precomputed features, withheld modalities and the seed: see
        :func:`vavl_sb.dataio.preparation.prepare_corpus`.
    """
    if label_csv and task == "classification":
        raise CorpusError(
            f"label_csv: {label_csv} has ratings, no classes: leave it out to "
            "use the classes of Evalution.txt, or run hparams/vavl_reg.yaml"
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
    """Returns the partitions of MSP-IMPROV: name to the speakers of each split.

    Each actor is in one session only, so splits by session are disjoint in
    speakers. 1 to 5 were released with VAVL (arXiv 2305.07216). "session1" to
    "session6" use that session as the test set and the next one (1 follows 6)
    as the validation set.

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
    """Returns clip id, speaker and session from a clip's name, in any case.

    The id is the name in upper case, starting with MSP; the speaker is "F01" to
    "F06" or "M01" to "M06". Raises a CorpusError, whose text is the reason in
    the report, if the name has another form.

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
    """Returns kind and clip id of a file, for :func:`find_media`."""
    stem, extension = os.path.splitext(os.path.basename(path))
    kind = FILES.get(extension.lower())
    return (kind, parse_name(stem)[0]) if kind else None


def find_ratings(data_folder: str) -> str:
    """Returns the path of the official ratings.

    This is ``Evalution.txt`` (sic) or ``Evaluation.txt``, in any case, in the
    folder or one level below. Raises a CorpusError if there is none.
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
    """Reads the official ratings from the file of :func:`find_ratings`.

    A clip has a line ``NAME.avi; N; A:2.4; V:3.2 ; D:3.0 ; N:3.6;``; the lines
    of its individual raters follow and are not used. Yields each clip's id and
    labels: `session`, `emotion` if it is one of CLASSES, and the ratings. Lines
    with an invalid name are added to the report.
    """
    # Tolerate stray bytes in the raters' lines.
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
    """Returns the text of each of KEYS in a line's fields (``A:2.4``)."""
    pairs = [field.split(":", 1) for field in fields if ":" in field]
    values = {key.strip().upper(): text for key, text in pairs}
    return {key: values.get(key, "") for key in KEYS}


def read_ceiling(data_folder: str) -> dict | None:
    """Computes score ceilings from the lines of the individual raters.

    The key "audiovisual" (what the raters were shown) has the
    :func:`~vavl_sb.dataio.label_ceiling.rating_ceiling`, which does not depend
    on the direction of the scale. None if no clip has two raters.
    """
    clips: list[list] = []
    try:
        path = find_ratings(data_folder)
    except CorpusError:  # The file is optional with a label_csv.
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

    Yields each clip's id and labels: `session`, the ratings and the split. Rows
    with an invalid name are added to the report.
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
                    f"{row['Gender']}; in its name they are {', '.join(own)}"
                )
            labels.split = SPLIT_SETS[row["Split_Set"]]
            yield clip, labels


def _labels(stem, texts, flip, where, report, letter=None):
    """Yields a clip's id and labels; adds an invalid name to the report."""
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
            # Round like the files, so that 6 - 3.333333 is 2.666667.
            arousal = LOWEST + HIGHEST - ratings["arousal"]
            ratings["arousal"] = round(arousal, 6)
        fields.update(ratings, activation_flipped=True)
    yield clip, ClipLabels(speaker, fields, missing, where)
