"""The names and labels of MSP-IMPROV: the official ratings, a released CSV.

Busso C., Parthasarathy S., Burmania A., AbdelWahab M., Sadoughi N., Mower
Provost E., "MSP-IMPROV: An Acted Corpus of Dyadic Interactions to Study
Emotion Perception", IEEE Transactions on Affective Computing 8(1), 2017.

A name is MSP-IMPROV-S01A-F01-P-FM01 (the ratings write UTD for MSP):

* S01A: the target sentence (1 to 20) and the emotion it was to be said with;
* F01: the speaker of the clip, a woman or a man of sessions 1 to 6. In the
  released CSVs, Gender and SpkrID are those of this field in every row;
* P: how it came about (R read, T the improvised target sentence, S the rest
  of the improvisation, P talk in the breaks);
* FM01: whose improvisation it is, and the turn. It does not name the speaker:
  both speakers of a session have clips with FM and with MF.

Activation is rated with 1 = very active. This module turns it into arousal
(5 = very active) as it reads the official ratings, and nobody does so again.
The CSVs released with VAVL have it turned already: in them clip S01A-F02-R-FF01
has EmoAct 2.666667 where the official ratings say A:3.333333, and clips meant
to be happy or angry are the highest in EmoAct.

Authors
 * The vavl_sb authors 2026
"""

import csv
import dataclasses
import math
import os
import re

from vavl_sb.utils.errors import CorpusError

CLASSES = ("angry", "happy", "neutral", "sad")
ATTRIBUTES = ("arousal", "valence", "dominance")
# Letters of the official ratings; None: the raters saw something else (O) or
# did not agree (X).
LETTERS = {
    "A": "angry",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
    "O": None,
    "X": None,
}
# Keys of an official line and columns of a released CSV, as ATTRIBUTES.
KEYS = ("A", "V", "D")
COLUMNS = ("EmoAct", "EmoVal", "EmoDom")
LOWEST, HIGHEST = 1.0, 5.0
SPLIT_SETS = {"Train": "train", "Development": "valid", "Test": "test"}
RATINGS_FILES = ("evalution.txt", "evaluation.txt")

NAME = re.compile(
    r"(?:MSP|UTD)-(IMPROV-S\d\d[AHNS]-([FM]0([1-6]))-[PRST]-[FM]{2}\d+)",
    re.IGNORECASE | re.ASCII,
)

NOT_A_NAME = "name is not MSP-IMPROV-SENTENCE-SPEAKER-SCENARIO-TURN"
UNKNOWN_LETTER = "unknown letter for the emotion"
BAD_RATING = "rating that is no number from 1 to 5"
NO_RATING = "no rating of an attribute"
NO_CLASS = "raters saw another emotion"
NO_AGREEMENT = "raters did not agree"
TWICE = "twice in the labels"
# What is wrong with a line, rather than with a clip.
FAULTS = (UNKNOWN_LETTER, BAD_RATING)


@dataclasses.dataclass(frozen=True)
class ClipLabels:
    """The labels of one clip.

    Arguments
    ---------
    emotion : str or None
        One of CLASSES.
    ratings : dict or None
        Each of ATTRIBUTES to a number from 1 to 5, 5 being very active, very
        positive and very dominant.
    unusable : dict
        "classification" and "regression", where the clip has no label for
        that task, to ``(reason, detail)``.
    split : str or None
        "train", "valid" or "test", where the labels say.
    where : str
        File and line.
    """

    emotion: str | None
    ratings: dict | None
    unusable: dict = dataclasses.field(default_factory=dict, compare=False)
    split: str | None = None
    where: str = dataclasses.field(default="", compare=False)


def parse_name(stem):
    """Takes a clip's name apart.

    Arguments
    ---------
    stem : str
        A file's name without its extension, in any case.

    Returns
    -------
    clip : str
        The clip's id: the name in upper case, starting with MSP.
    speaker : str
        "F01" to "F06" or "M01" to "M06".
    session : int
        1 to 6. CorpusError, with the reason for the report as its text, if
        the name cannot be read.

    Example
    -------
    >>> parse_name("UTD-IMPROV-S01A-F02-R-FF01")
    ('MSP-IMPROV-S01A-F02-R-FF01', 'F02', 2)
    """
    parts = NAME.fullmatch(stem or "")
    if parts is None:
        raise CorpusError(NOT_A_NAME)
    name, speaker, session = parts.groups()
    return f"MSP-{name}".upper(), speaker.upper(), int(session)


def find_ratings(data_folder):
    """Finds the file of the official ratings.

    Arguments
    ---------
    data_folder : str
        The corpus.

    Returns
    -------
    str
        ``Evalution.txt`` (the release spells it so) or ``Evaluation.txt``, in
        any case, at the top or one folder below. CorpusError if there is none.
    """
    for folder in (data_folder, *subfolders(data_folder)):
        names = {name.lower(): name for name in sorted(os.listdir(folder))}
        for name in RATINGS_FILES:
            if name in names:
                return os.path.join(folder, names[name])
    raise CorpusError(
        f"{data_folder}: no Evalution.txt or Evaluation.txt, at the top or "
        "one folder below; copy it there, or give a label_csv"
    )


def subfolders(folder):
    """The folders in a folder, but hidden ones, in order.

    Arguments
    ---------
    folder : str
        Where to look.

    Returns
    -------
    list of str
        Their paths.
    """
    paths = [
        os.path.join(folder, name)
        for name in sorted(os.listdir(folder))
        if not name.startswith(".")
    ]
    return [path for path in paths if os.path.isdir(path)]


def read_ratings(path, report):
    """Reads the official ratings.

    Arguments
    ---------
    path : str or Path
        As :func:`find_ratings` finds it. A clip has a line ``NAME.avi; N;
        A:2.4; V:3.2 ; D:3.0 ; N:3.6;``; lines of single raters follow it and
        are not used.
    report : PrepareReport
        Is told of lines that cannot be used and of clips that stand in two.

    Returns
    -------
    dict
        Clip id to :class:`ClipLabels`. CorpusError if the file as a whole
        cannot be used.
    """
    labels = {}
    for line, text in enumerate(_lines(path), 1):
        name, *fields = (field.strip() for field in text.split(";"))
        stem, extension = os.path.splitext(name)
        if extension.lower() not in (".avi", ".wav"):
            continue  # a rater's line, or an empty one
        where = f"{path}, line {line}"
        clip = _clip(stem, where, report)
        if clip is None:
            continue
        letter = fields[0].upper() if fields else ""
        values = dict(field.split(":", 1) for field in fields if ":" in field)
        values = {key.strip().upper(): value for key, value in values.items()}
        raw = [values.get(key, "") for key in KEYS]
        emotion, no_emotion = _emotion(letter, where)
        ratings, no_ratings = _ratings(raw, KEYS, where, activation_flip=True)
        unusable = {"classification": no_emotion, "regression": no_ratings}
        unusable = {task: why for task, why in unusable.items() if why}
        found = ClipLabels(emotion, ratings, unusable, None, where)
        _add(labels, clip, found, report)
    if not labels:
        raise CorpusError(
            f"{path}: no line of a clip in it, such as "
            "UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:2.4; V:3.2 ; D:3.0 ; N:3.6; "
            f"(left out: {report.reasons()})"
        )
    return labels


def read_released(path, report, csv_activation="flipped"):
    """Reads a label CSV as released with VAVL: ratings and a split.

    Arguments
    ---------
    path : str or Path
        ``labels_consensus_N.csv``.
    report : PrepareReport
        Is told of rows that cannot be used and of clips that stand in two.
    csv_activation : str
        "flipped": EmoAct is arousal, 5 being very active, as in the released
        files. "raw": 1 is very active, as in the official ratings.

    Returns
    -------
    dict
        Clip id to :class:`ClipLabels`, without emotions. CorpusError if the
        file as a whole cannot be used.
    """
    labels = {}
    columns = ("FileName", *COLUMNS, "SpkrID", "Gender", "Split_Set")
    for line, row in _rows(path, columns):
        where = f"{path}, line {line}"
        stem = re.sub(r"(?i)\.(wav|avi)$", "", row["FileName"] or "")
        clip = _clip(stem, where, report)
        if clip is None:
            continue
        _check_row(clip, row, where)
        raw = [row[column] or "" for column in COLUMNS]
        ratings, why = _ratings(
            raw, COLUMNS, where, activation_flip=csv_activation == "raw"
        )
        split = SPLIT_SETS[row["Split_Set"]]
        unusable = {"regression": why} if why else {}
        _add(
            labels,
            clip,
            ClipLabels(None, ratings, unusable, split, where),
            report,
        )
    if not labels:
        raise CorpusError(
            f"{path}: no usable row; left out: {report.reasons()}"
        )
    return labels


def _lines(path):
    """Lines of the ratings; a stray byte in a rater's line must not matter."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read().splitlines()
    except OSError as error:
        raise CorpusError(
            f"{path}: label file cannot be read ({error.strerror})"
        ) from None


def _rows(path, columns):
    """Yields (line number, row) of a CSV that must have some columns."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            missing = [name for name in columns if name not in names]
            if missing:
                raise CorpusError(
                    f"{path}: no column {', '.join(missing)} in it; found "
                    f"{', '.join(map(repr, names[:12])) or 'an empty file'}"
                )
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise CorpusError(
            f"{path}: label file cannot be read ({error.strerror})"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path}: not a CSV file ({error})") from None


def _check_row(clip, row, where):
    """Refuses a CSV that says another speaker than the name, or no split."""
    _, speaker, session = parse_name(clip)
    gender = {"F": "Female", "M": "Male"}[speaker[0]]
    given = (row["SpkrID"], row["Gender"])
    if given != (str(session), gender):
        raise CorpusError(
            f"{where}: {clip} has SpkrID and Gender {', '.join(map(str, given))}"
            f"; by its name they are {session}, {gender}"
        )
    if row["Split_Set"] not in SPLIT_SETS:
        raise CorpusError(
            f"{where}: {clip} has Split_Set {row['Split_Set']!r}; it must be "
            f"one of {', '.join(SPLIT_SETS)}"
        )


def _clip(stem, where, report):
    """The clip's id; None, reported, if the name cannot be read."""
    try:
        return parse_name(stem)[0]
    except CorpusError as reason:
        report.leave_out(stem or where, str(reason), where)
        return None


def _emotion(letter, where):
    """The class of a letter, and why there is none."""
    if letter not in LETTERS:
        detail = f"{where}: {letter!r}, not one of {', '.join(LETTERS)}"
        return None, (UNKNOWN_LETTER, detail)
    if LETTERS[letter] is None:
        reason = NO_CLASS if letter == "O" else NO_AGREEMENT
        return None, (reason, f"{where}: {letter}")
    return LETTERS[letter], None


def _ratings(raw, names, where, activation_flip):
    """The ratings by ATTRIBUTES, and why there are none."""
    values = []
    for name, text in zip(names, raw, strict=True):
        if text.strip().lower() in ("", "nan"):
            return None, (NO_RATING, f"{where}: {name}:{text or 'missing'}")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not LOWEST <= value <= HIGHEST:
            return None, (BAD_RATING, f"{where}: {name}:{text}")
        values.append(value)
    if activation_flip:
        # Rounded as the files are, so that 6 - 3.333333 is 2.666667.
        values[0] = round(LOWEST + HIGHEST - values[0], 6)
    return dict(zip(ATTRIBUTES, values, strict=True)), None


def _add(labels, clip, found, report):
    """Adds a clip's labels; refuses a second line that says otherwise."""
    if clip not in labels:
        labels[clip] = found
    elif labels[clip] == found:
        report.note(clip, TWICE, f"{found.where}: same as before")
    else:
        raise CorpusError(
            f"{found.where}: {clip} stands twice with different labels, "
            f"first in {labels[clip].where}; take one of the lines out"
        )
