"""What a protocol is asked for: partitions, seeds, overrides, and its folder.

Authors
 * The vavl_sb authors 2026
"""

import hashlib
import json
import os
import re
from pathlib import Path

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import write_json

FIRST_SEED = 1234  # the seed of the hparams files
SETTINGS = "protocol_settings.json"
# What the protocol sets itself, for each run.
RESERVED = ("partition", "seed", "output_folder")
# Keys that change where or how fast a run is computed, not what comes out.
NEUTRAL = ("feature_folder", "num_workers")
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
            raise VAVLError(f"--{key}: stands twice")
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


def find_recipe(hparams):
    """The train.py that belongs to an hparams file.

    Arguments
    ---------
    hparams : str or Path
        ``recipes/X/hparams/Y.yaml``.

    Returns
    -------
    hparams : Path
        The hparams file, absolute.
    train : Path
        The train.py beside the hparams folder, absolute.

    Raises
    ------
    VAVLError
        In one line: one of the two is not there.
    """
    hparams = Path(os.path.abspath(hparams))
    if not hparams.is_file() or hparams.suffix not in (".yaml", ".yml"):
        raise VAVLError(
            f"{hparams}: no such hparams file; give one like "
            "recipes/CREMA-D/hparams/vavl_cls.yaml"
        )
    train = hparams.parent.parent / "train.py"
    if not train.is_file():
        raise VAVLError(
            f"{train}: no such file; the hparams file must stand in a "
            "recipe's hparams folder, with train.py beside that"
        )
    return hparams, train


def claim_folder(folder, hparams, overrides, partitions):
    """Makes a protocol's folder, or checks that it is one of these settings.

    Partitions and seeds may be added later; what defines the runs may not
    change.

    Arguments
    ---------
    folder : str or Path
        The protocol's folder.
    hparams : Path
        The hparams file, whose content counts.
    overrides : dict
        From :func:`read_overrides`.
    partitions : dict
        From :func:`read_partitions`; the content of files counts.

    Returns
    -------
    str
        A digest of the settings, for the marks of finished runs.

    Raises
    ------
    VAVLError
        In one line: the folder holds runs of other settings.
    """
    path = Path(folder) / SETTINGS
    settings = {
        "hparams": f"{hparams.parent.parent.name}/{hparams.name}",
        "hparams_sha256": _sha256(hparams),
        "overrides": {
            key: value
            for key, value in sorted(overrides.items())
            if key not in NEUTRAL
        },
    }
    files = {
        name: _sha256(value) if os.path.isfile(value) else None
        for name, value in partitions.items()
    }
    known = _known_settings(path)
    if known is not None:
        split_files = known.pop("partitions")
        changed = _difference(known, settings) or next(
            (
                f"partition file {name}"
                for name, digest in files.items()
                if split_files.get(name, digest) != digest
            ),
            None,
        )
        if changed:
            raise VAVLError(
                f"{folder}: holds runs of other settings ({changed}); choose "
                "another --output_folder"
            )
        files = {**split_files, **files}
    write_json(path, {**settings, "partitions": files})
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _known_settings(path):
    """What a settings file holds, or None where there is none yet."""
    if not path.exists():
        # Runs that nobody wrote the settings of are not ours to go on with.
        if any(path.parent.glob("partition*_seed*")):
            raise VAVLError(
                f"{path.parent}: holds runs, but no {SETTINGS}; choose "
                "another --output_folder"
            )
        return None
    try:
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
        {**known["partitions"], **known["overrides"]}
        return known
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VAVLError(
            f"{path}: cannot be used ({error}); choose another --output_folder"
        ) from None


def _difference(known, wanted):
    """What differs between two settings, in words; None for nothing."""
    if known.get("hparams") != wanted["hparams"]:
        return f"hparams {known.get('hparams')}, not {wanted['hparams']}"
    if known.get("hparams_sha256") != wanted["hparams_sha256"]:
        return f"{wanted['hparams']} was changed since"
    before, now = known["overrides"], wanted["overrides"]
    for key in sorted({*before, *now}):
        if before.get(key, "default") != now.get(key, "default"):
            return (
                f"{key} {before.get(key, 'default')}, not "
                f"{now.get(key, 'default')}"
            )
    return None


def _sha256(path):
    """Hash of a small file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
