"""A protocol's recipe, and the folder that holds runs of one kind of settings.

Authors
 * The vavl_sb authors 2026
"""

import hashlib
import json
import os
from pathlib import Path

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, write_json

SETTINGS = "protocol_settings.json"
# Keys that change where or how fast a run is computed, not what comes out.
NEUTRAL = ("feature_folder", "num_workers")


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
        From :func:`~vavl_sb.evaluation.settings.read_overrides`.
    partitions : dict
        From :func:`~vavl_sb.evaluation.settings.read_partitions`; the content of files counts.

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
        known = read_json(path)
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
