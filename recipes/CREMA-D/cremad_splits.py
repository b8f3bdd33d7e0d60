"""Who trains, validates and tests: the speaker splits of CREMA-D.

``partitions.json`` holds the speakers of the five partitions released with
VAVL (arXiv 2305.07216): those that validate and those that test; the rest of
the 91 trains.

Authors
 * The vavl_sb authors 2026
"""

import json
import os

from vavl_sb.dataio.manifest import SPLITS, refuse_overlap
from vavl_sb.dataio.preparation import read_speaker_lists
from vavl_sb.utils.errors import CorpusError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

PARTITIONS = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "partitions.json"
)
DEFAULT_PARTITION = 1


def partition_file(partition):
    """The file that a partition's speakers stand in.

    Arguments
    ---------
    partition : int or str
        1 to 5, or a path.

    Returns
    -------
    str
        The path. CorpusError, with what is allowed, if it is neither.
    """
    if str(partition) in ("1", "2", "3", "4", "5"):
        return PARTITIONS
    if isinstance(partition, str | os.PathLike) and os.path.isfile(partition):
        return os.fspath(partition)
    raise CorpusError(
        f"partition: must be 1, 2, 3, 4, 5 or an existing JSON file of "
        f"speaker lists, not {partition!r}"
    )


def released_partition(number):
    """The speakers of a partition released with VAVL.

    Arguments
    ---------
    number : int or str
        1 to 5.

    Returns
    -------
    dict
        Speaker to "valid" or "test"; all other speakers train.

    Example
    -------
    >>> len(released_partition(1))
    28
    """
    with open(PARTITIONS, encoding="utf-8") as file:
        lists = json.load(file)[str(number)]
    return {speaker: split for split in lists for speaker in lists[split]}


def make_splitter(partition, label_csv, labels):
    """Decides which split each clip belongs to.

    Arguments
    ---------
    partition : int or str
        1 to 5, or the path of a JSON file.
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
        lists = read_speaker_lists(partition)
        clips_of = {clip[:4] for clip in labels}
        for split in SPLITS:
            absent = sorted(lists[split] - clips_of)
            if absent:
                logger.warning(
                    "%s: no labels for speakers: %d of %s (%s)",
                    partition,
                    len(absent),
                    split,
                    ", ".join(absent[:5]),
                )
        table = {who: split for split in SPLITS for who in lists[split]}
        default = None
    elif label_csv is not None:
        table = csv_speakers(label_csv, labels)
        _compare_with_partition(table, partition, label_csv)
        default = None
    else:
        table, default = released_partition(partition), "train"

    def split_of(clip):
        speaker = clip[:4]
        # What the report names need not be a clip's id.
        return table.get(speaker, default if speaker.isdigit() else None)

    return split_of


def csv_speakers(label_csv, labels):
    """The split of each speaker by a label CSV.

    Arguments
    ---------
    label_csv : str
        The file, for the error.
    labels : dict
        Clip id to ClipLabels, with splits.

    Returns
    -------
    dict
        Speaker to split. CorpusError if a speaker is in two.
    """
    sets = {split: set() for split in SPLITS}
    for clip, found in labels.items():
        sets[found.split].add(clip[:4])
    refuse_overlap(sets, "speaker", label_csv)
    return {who: split for split in SPLITS for who in sets[split]}


def _compare_with_partition(table, partition, label_csv):
    """Refuses a CSV that is not of the partition that was asked for.

    The default cannot be told from no choice at all, so it is no choice.
    """
    agreeing = []
    for number in range(1, 6):
        lists = released_partition(number)
        if all(lists.get(who, "train") == table[who] for who in table):
            agreeing.append(str(number))
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
