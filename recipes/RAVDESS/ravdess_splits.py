"""Who trains, validates and tests: the speaker splits of RAVDESS.

RAVDESS comes without a split. Here four actors in turn, two men and two women
since odd numbers are men, test a partition; the four before them validate it,
and all others train. The three test sets do not overlap, nor do the three
validation sets, and all are among actors 01 to 20.

Authors
 * The vavl_sb authors 2026
"""

import os

from ravdess_names import SPEAKERS

from vavl_sb.dataio.manifest import SPLITS, refuse_overlap
from vavl_sb.dataio.preparation import read_speaker_lists
from vavl_sb.utils.errors import CorpusError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

# Partition to the numbers of the first actor that validates and tests it.
FIRST_ACTORS = {"1": (13, 17), "2": (9, 13), "3": (5, 9)}
DEFAULT_PARTITION = 1
GROUP = 4


def partition_file(partition):
    """The file that a partition's speakers stand in.

    Arguments
    ---------
    partition : int or str
        1 to 3, or a path.

    Returns
    -------
    str or None
        The path; None for 1 to 3. CorpusError, with what is allowed, if it is
        neither.
    """
    if str(partition) in FIRST_ACTORS:
        return None
    if isinstance(partition, str | os.PathLike) and os.path.isfile(partition):
        return os.fspath(partition)
    raise CorpusError(
        "partition: must be 1, 2, 3 or an existing JSON file of speaker "
        f"lists, not {partition!r}"
    )


def read_partition(partition):
    """The speakers of each split.

    Arguments
    ---------
    partition : int or str
        1 to 3, or the path of a JSON file of speaker lists; an actor may be
        called "Actor_01", "01" or 1 in it.

    Returns
    -------
    dict
        Split to set of speakers, "Actor_01" to "Actor_24". CorpusError, in one
        line, if the file cannot be used.

    Example
    -------
    >>> lists = read_partition(1)
    >>> len(lists["train"]), sorted(lists["test"])
    (16, ['Actor_17', 'Actor_18', 'Actor_19', 'Actor_20'])
    """
    path = partition_file(partition)
    if path is not None:
        lists = {
            split: {_speaker(name, path) for name in names}
            for split, names in read_speaker_lists(path).items()
        }
        # Again: what was "1" and "01" is now one actor.
        refuse_overlap(lists, "speaker", path)
        return lists
    valid, test = (
        set(SPEAKERS[first - 1 : first - 1 + GROUP])
        for first in FIRST_ACTORS[str(partition)]
    )
    train = set(SPEAKERS) - valid - test
    return {"train": train, "valid": valid, "test": test}


def _speaker(name, path):
    """The speaker that a list names."""
    number = name.removeprefix("Actor_")
    if number.isdecimal() and 1 <= int(number) <= len(SPEAKERS):
        return SPEAKERS[int(number) - 1]
    raise CorpusError(
        f"{path}: {name!r} is no actor of RAVDESS; they are {SPEAKERS[0]} to "
        f"{SPEAKERS[-1]}"
    )


def split_speakers(partition, on_disk):
    """The split of each speaker, checked against who is there.

    A corpus may be there in part. Missing actors make a split smaller, with a
    warning; a split that all of its actors are missing from is refused.

    Arguments
    ---------
    partition : int or str
        See :func:`read_partition`.
    on_disk : set of str
        Speakers with clips.

    Returns
    -------
    dict
        Speaker to split. CorpusError, in one line, if a split would be empty.
    """
    lists = read_partition(partition)
    for split in SPLITS:
        absent = sorted(lists[split] - on_disk)
        if absent and len(absent) == len(lists[split]):
            raise CorpusError(
                f"partition {partition}: the {split} split would be empty, "
                f"since none of its actors has a clip: {', '.join(absent)}; "
                f"those on disk are {', '.join(sorted(on_disk))}: take "
                "another partition, or a JSON file of speaker lists"
            )
        if absent:
            logger.warning(
                "partition %s: %d of the %d actors of %s have no clip: %s",
                partition,
                len(absent),
                len(lists[split]),
                split,
                ", ".join(absent),
            )
    return {who: split for split in SPLITS for who in lists[split]}
