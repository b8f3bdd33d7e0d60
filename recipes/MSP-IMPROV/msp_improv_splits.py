"""Who trains, validates and tests: the splits of MSP-IMPROV, by session.

A session is the dialogue of one woman and one man who are in no other, so a
split by session has no actor in two sets. ``partitions.json`` holds the
sessions of the five partitions released with VAVL (arXiv 2305.07216).

Authors
 * The vavl_sb authors 2026
"""

import json
import os

from msp_improv_labels import parse_name

from vavl_sb.dataio.manifest import SPLITS, refuse_overlap
from vavl_sb.dataio.preparation import read_speaker_lists
from vavl_sb.utils.errors import CorpusError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

PARTITIONS = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "partitions.json"
)
DEFAULT_PARTITION = 1
SESSIONS = (1, 2, 3, 4, 5, 6)
RELEASED = ("1", "2", "3", "4", "5")
LEFT_OUT = tuple(f"session{number}" for number in SESSIONS)


def partition_file(partition):
    """The file that a partition's sessions or speakers stand in.

    Arguments
    ---------
    partition : int or str
        1 to 5, "session1" to "session6", or a path.

    Returns
    -------
    str
        The path. CorpusError, with what is allowed, if it is none of them.
    """
    if str(partition) in (*RELEASED, *LEFT_OUT):
        return PARTITIONS
    if isinstance(partition, str | os.PathLike) and os.path.isfile(partition):
        return os.fspath(partition)
    raise CorpusError(
        "partition: must be 1, 2, 3, 4, 5, session1 to session6 or an "
        f"existing JSON file of speaker lists, not {partition!r}"
    )


def partition_sessions(partition):
    """The split of each session.

    Arguments
    ---------
    partition : int or str
        1 to 5: as released. "session1" to "session6": that session tests, the
        next validates (1 follows 6), and the other four train.

    Returns
    -------
    dict
        Session, 1 to 6, to "train", "valid" or "test".

    Example
    -------
    >>> from collections import Counter
    >>> sorted(Counter(partition_sessions("session6").values()).items())
    [('test', 1), ('train', 4), ('valid', 1)]
    >>> partition_sessions("session6")[1]
    'valid'
    """
    if str(partition) in LEFT_OUT:
        left_out = SESSIONS[LEFT_OUT.index(str(partition))]
        special = {left_out: "test", left_out % len(SESSIONS) + 1: "valid"}
        return {number: special.get(number, "train") for number in SESSIONS}
    with open(PARTITIONS, encoding="utf-8") as file:
        lists = json.load(file)[str(partition)]
    return {number: split for split in lists for number in lists[split]}


def make_splitter(partition, label_csv, labels):
    """Decides which split each clip belongs to.

    Arguments
    ---------
    partition : int or str
        1 to 5, "session1" to "session6", or the path of a JSON file.
    label_csv : str or None
        The label CSV that the labels are from, if any.
    labels : dict
        Clip id to ClipLabels.

    Returns
    -------
    callable
        Clip id to "train", "valid", "test" or, if its speaker is in none,
        None.
    """
    if partition_file(partition) != PARTITIONS:
        table = _listed_speakers(partition, labels)
    else:
        if label_csv is not None and str(partition) in RELEASED:
            sessions = csv_sessions(label_csv, labels)
            _compare_with_partition(sessions, partition, label_csv)
        else:
            sessions = partition_sessions(partition)
        table = {
            f"{sex}{number:02}": split
            for number, split in sessions.items()
            for sex in "FM"
        }

    def split_of(clip):
        try:
            return table.get(parse_name(clip)[1])
        except CorpusError:
            return None  # What the report names need not be a clip's id.

    return split_of


def csv_sessions(label_csv, labels):
    """The split of each session by a label CSV.

    Arguments
    ---------
    label_csv : str
        The file, for the error.
    labels : dict
        Clip id to ClipLabels, with splits.

    Returns
    -------
    dict
        Session to split. CorpusError if a session is in two.
    """
    sets = {split: set() for split in SPLITS}
    for clip, found in labels.items():
        sets[found.split].add(parse_name(clip)[2])
    refuse_overlap(sets, "session", label_csv)
    return {number: split for split in SPLITS for number in sets[split]}


def _listed_speakers(partition, labels):
    """Speaker to split by the user's own lists; warns of unknown speakers."""
    lists = read_speaker_lists(partition)
    known = {parse_name(clip)[1] for clip in labels}
    for split in SPLITS:
        absent = sorted(lists[split] - known)
        if absent:
            logger.warning(
                "%s: no labels for speakers: %d of %s (%s)",
                partition,
                len(absent),
                split,
                ", ".join(absent[:5]),
            )
    return {who: split for split in SPLITS for who in lists[split]}


def _compare_with_partition(sessions, partition, label_csv):
    """Refuses a CSV that is not of the partition that was asked for.

    The default cannot be told from no choice at all, so it is no choice.
    """
    agreeing = [
        number
        for number in RELEASED
        if sessions.items() <= partition_sessions(number).items()
    ]
    if str(partition) in agreeing:
        return
    own = f"that of partition {agreeing[0]}" if agreeing else "its own"
    if str(partition) != str(DEFAULT_PARTITION):
        raise CorpusError(
            f"{label_csv}: its split is {own}, not that of partition "
            f"{partition}; leave partition out, or take the CSV of partition "
            f"{partition}"
        )
    logger.info("%s: its split holds, which is %s", label_csv, own)
