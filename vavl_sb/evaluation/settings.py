"""What a protocol is asked for: partitions, seeds and overrides.

Authors
 * The vavl_sb authors 2026
"""

import os
import re
from pathlib import Path

from vavl_sb.utils.errors import VAVLError

FIRST_SEED = 1234  # the seed of the hparams files
# What the protocol sets itself, for each run.
RESERVED = ("partition", "seed", "output_folder")
PATH_ENDINGS = ("_folder", "_csv", "_source", "_weights", "_from")


def read_partitions(text):
    """Reads the partitions of a command line.

    Arguments
    ---------
    text : str
        "1-5", "1,3", "session1,session2", or files, separated by commas.

    Returns
    -------
    dict
        Name (for folders) to what ``--partition`` gets: files by absolute
        path, named by their stem.

    Raises
    ------
    VAVLError
        In one line: there is none, or two have the same name.

    Example
    -------
    >>> read_partitions("1-3,session2")
    {'1': '1', '2': '2', '3': '3', 'session2': 'session2'}
    """
    partitions = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        span = re.fullmatch(r"(\d+)-(\d+)", part)
        if span and int(span[1]) <= int(span[2]):
            values = map(str, range(int(span[1]), int(span[2]) + 1))
        else:
            values = [part]
        for value in values:
            name = value
            if os.path.isfile(value):
                value, name = os.path.abspath(value), Path(value).stem
            if not re.fullmatch(r"[\w.+-]+", name):
                raise VAVLError(f"--partitions: no such file: {value}")
            if name in partitions:
                raise VAVLError(
                    f"--partitions: {name} stands twice in {text!r}; files "
                    "need different names"
                )
            partitions[name] = value
    if not partitions:
        raise VAVLError(
            "--partitions: must be like 1-5, 1,3 or files, separated by "
            f"commas, not {text!r}"
        )
    return partitions


def read_seeds(text):
    """Reads the seeds of a command line.

    Arguments
    ---------
    text : str
        A count n, for 1234, 1235, ... 1234 + n - 1; or a list with a comma in
        it: "7," is the one seed 7.

    Returns
    -------
    list of int

    Raises
    ------
    VAVLError
        In one line: it is neither, or a seed stands twice.

    Example
    -------
    >>> read_seeds("2"), read_seeds("1,5")
    ([1234, 1235], [1, 5])
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if "," not in text and numbers:
        numbers = [FIRST_SEED + i for i in range(numbers[0])]
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise VAVLError(
            "--seeds: must be a count of at least 1 or a list of different "
            f"seeds like 1,2,3, not {text!r}"
        )
    return numbers


def read_overrides(words):
    """Reads the options that each train.py is to get.

    A path is meant as seen from where the command stands, though train.py
    runs in the recipe's folder: values of path options (``*_folder``,
    ``*_csv``, ``*_source``, ``*_weights``, ``*_from``) and values with a slash
    in them are made absolute where they name something that exists;
    ``feature_folder`` is always made absolute.

    Arguments
    ---------
    words : list of str
        ``--key value``, ``--key=value`` or ``--flag``, as on a command line.

    Returns
    -------
    dict
        Key to value; None for a flag.

    Raises
    ------
    VAVLError
        In one line: a word belongs to no option, an option stands twice, or
        the protocol sets it itself.

    Example
    -------
    >>> read_overrides(["--lr", "0.001", "--d_model=64", "--debug"])
    {'lr': '0.001', 'd_model': '64', 'debug': None}
    """
    overrides, key = {}, None
    for word in words:
        if word == "--":
            continue
        if not word.startswith("--"):
            if key is None or overrides[key] is not None:
                raise VAVLError(
                    f"{word}: belongs to no option; give train.py's options "
                    "as --key value"
                )
            overrides[key] = _resolved(key, word)
            continue
        key, equals, value = word[2:].partition("=")
        if key in overrides:
            raise VAVLError(f"--{key}: stands twice; give it once")
        if key in RESERVED:
            raise VAVLError(
                f"--{key}: is set for each run; choose by --partitions, "
                "--seeds and, before any other option, --output_folder"
            )
        overrides[key] = _resolved(key, value) if equals else None
    return overrides


def _resolved(key, value):
    """A value, absolute if it is a path."""
    looks = key.endswith(PATH_ENDINGS) or "/" in value
    if key == "feature_folder" or (looks and os.path.exists(value)):
        return os.path.abspath(value)
    return value


def as_words(overrides):
    """Options as words of a command line.

    Arguments
    ---------
    overrides : dict
        From :func:`read_overrides`.

    Returns
    -------
    list of str

    Example
    -------
    >>> as_words({"lr": "0.1", "debug": None})
    ['--lr=0.1', '--debug']
    """
    return [
        f"--{key}" if value is None else f"--{key}={value}"
        for key, value in overrides.items()
    ]
