"""The names and labels of CREMA-D: vote table, released CSV, acted emotion.

Cao H., Cooper D. G., Keutmann M. K., Gur R. C., Nenkova A., Verma R.,
"CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE Transactions
on Affective Computing 5(4), 2014.

Authors
 * The vavl_sb authors 2026
"""

import csv
import dataclasses
import math
import re

from vavl_sb.utils.errors import CorpusError

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad")
# Columns of the vote table and emotion codes of the file names, in the order
# of CLASSES.
VOTE_COLUMNS = ("A", "D", "F", "H", "N", "S")
CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
# First digit of a row's number in the vote table: 1 voice, 2 face, 3 both.
AUDIOVISUAL = "3"
SPLIT_SETS = {"Train": "train", "Development": "valid", "Test": "test"}

NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})", re.ASCII)
# The official AudioWAV has one file whose name is not that of its clip.
ALIASES = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}

NOT_A_NAME = "name is not ACTOR_SENTENCE_EMOTION_LEVEL"
UNKNOWN_CODE = "unknown emotion code"
BAD_VOTES = "votes or shares cannot be used"
TWICE = "twice in the table"


@dataclasses.dataclass(frozen=True)
class ClipLabels:
    """The labels of one clip.

    Arguments
    ---------
    emotion : str or None
        One of CLASSES; None if there is no class that the rule gives.
    shares : dict or None
        Class to share of the votes, in [0, 1]; None if nobody voted.
    split : str or None
        "train", "valid" or "test", where the labels say.
    detail : str
        What speaks for the class or against one, in a few words.
    """

    emotion: str | None
    shares: dict | None = None
    split: str | None = None
    detail: str = ""


def parse_name(stem):
    """Takes a clip's name apart.

    Arguments
    ---------
    stem : str
        A file's name without its extension.

    Returns
    -------
    clip : str
        The clip's id, which is the stem but for one misnamed official file.
    actor : str
        Four digits.
    emotion : str
        The acted emotion, one of CLASSES. CorpusError, with the reason for
        the report as its text, if the name cannot be read.

    Example
    -------
    >>> parse_name("1001_DFA_ANG_XX")
    ('1001_DFA_ANG_XX', '1001', 'angry')
    """
    clip = ALIASES.get(stem, stem)
    parts = NAME.fullmatch(clip or "")
    if parts is None:
        raise CorpusError(NOT_A_NAME)
    actor, _, code, _ = parts.groups()
    if code not in CODES:
        raise CorpusError(UNKNOWN_CODE)
    return clip, actor, CLASSES[CODES.index(code)]


def majority(votes):
    """The class with more than half of the votes.

    This is the rule that the labels released with VAVL agree with: half of
    the votes are not enough.

    Arguments
    ---------
    votes : sequence of float
        Votes, or their shares, in the order of CLASSES.

    Returns
    -------
    str or None
        The class, or None if there is none.

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


def read_votes(path, report):
    """Reads the audio-visual votes of the official table.

    Arguments
    ---------
    path : str or Path
        ``processedResults/tabulatedVotes.csv``.
    report : PrepareReport
        Is told of rows that cannot be used and of clips that stand in two.

    Returns
    -------
    dict
        Clip id to :class:`ClipLabels`. CorpusError if the table as a whole
        cannot be used.
    """
    labels = {}
    for line, row in _rows(path, (*VOTE_COLUMNS, "fileName")):
        # The row number's column has no name in the official table.
        number = next(iter(row.values())) or ""
        if not number.startswith(AUDIOVISUAL):
            continue
        votes = [row[column] for column in VOTE_COLUMNS]
        parsed = _parse_row(row["fileName"], votes, path, line, report)
        if parsed is None:
            continue
        clip, votes = parsed
        shares = [vote / sum(votes) for vote in votes]
        detail = f"at most {max(votes):g} of {sum(votes):g} votes for a class"
        found = ClipLabels(
            majority(votes),
            dict(zip(CLASSES, shares, strict=True)),
            None,
            detail,
        )
        _add(labels, clip, found, path, line, report)
    if not labels:
        raise CorpusError(
            f"{path}: no usable row for audio-visual votes (row numbers that "
            f"start with {AUDIOVISUAL}); left out: {report.reasons()}"
        )
    return labels


def read_released(path, report):
    """Reads a label CSV as released with VAVL: soft labels and a split.

    Arguments
    ---------
    path : str or Path
        ``label_consensus_N.csv``.
    report : PrepareReport
        Is told of rows that cannot be used and of clips that stand in two.

    Returns
    -------
    dict
        Clip id to :class:`ClipLabels`, `shares` as the file gives them.
        CorpusError if the file as a whole cannot be used.
    """
    labels = {}
    columns = ("FileName", *CLASSES, "SpkrID", "Split_Set")
    for line, row in _rows(path, columns):
        stem = re.sub(r"\.(wav|flv|mp3|mp4)$", "", row["FileName"] or "")
        shares = [row[name] for name in CLASSES]
        parsed = _parse_row(stem, shares, path, line, report)
        if parsed is None:
            continue
        clip, shares = parsed
        if row["SpkrID"] != clip[:4]:
            raise CorpusError(
                f"{path}, line {line}: {clip} has SpkrID {row['SpkrID']!r}; "
                "the file's name says otherwise"
            )
        if row["Split_Set"] not in SPLIT_SETS:
            raise CorpusError(
                f"{path}, line {line}: {clip} has Split_Set "
                f"{row['Split_Set']!r}; it must be one of "
                f"{', '.join(SPLIT_SETS)}"
            )
        best = max(shares)
        first = CLASSES[shares.index(best)]
        found = ClipLabels(
            first if shares.count(best) == 1 else None,
            dict(zip(CLASSES, shares, strict=True)),
            SPLIT_SETS[row["Split_Set"]],
            f"the highest share is {best:g}, {shares.count(best)} times",
        )
        _add(labels, clip, found, path, line, report)
    if not labels:
        raise CorpusError(
            f"{path}: no usable row; left out: {report.reasons()}"
        )
    return labels


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


def _parse_row(stem, values, path, line, report):
    """The clip's id and its six numbers; None, reported, if unusable."""
    where = f"{path}, line {line}"
    try:
        clip, _, _ = parse_name(stem)
    except CorpusError as reason:
        report.leave_out(stem or f"line {line}", str(reason), where)
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = [math.nan]
    # NaN fails each comparison, so this also refuses what is no number.
    if not all(0 <= number < math.inf for number in numbers) or not any(
        numbers
    ):
        given = ", ".join(str(value) for value in values)
        report.leave_out(clip, BAD_VOTES, f"{where}: {given}")
        return None
    return clip, numbers


def _add(labels, clip, found, path, line, report):
    """Adds a clip's labels; refuses a second row that says otherwise."""
    if clip not in labels:
        labels[clip] = found
    elif labels[clip] == found:
        report.note(clip, TWICE, f"{path}, line {line}: same as before")
    else:
        raise CorpusError(
            f"{path}, line {line}: {clip} stands twice with different labels"
        )
