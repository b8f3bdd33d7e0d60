"""Manifests: SpeechBrain JSON with one entry per clip, checked when read.

An entry looks like this::

    {"1001_DFA_ANG_XX": {
        "wav": "{data_root}/AudioWAV/1001_DFA_ANG_XX.wav",   or null
        "video": "{data_root}/VideoFlash/1001_DFA_ANG_XX.flv",   or null
        "duration": 2.29,   seconds
        "spk_id": "1001",
        "emotion": "angry", ...}}

A null path is a missing modality; an entry with two null paths is an error.
Instead of a file, ``audio_features`` or ``visual_features`` may be precomputed
features: a path, or ``table.csv#name`` (see
:mod:`vavl_sb.utils.feature_files`). The duration may be null if an entry has
only features. Speakers are disjoint between train, valid and test.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from reprlib import repr as short

from vavl_sb.features.cache import FEATURE_FIELD, MEDIA_FIELD, find_source
from vavl_sb.utils.errors import CorpusError, ManifestError
from vavl_sb.utils.files import parse_json, write_json

SPLITS = ("train", "valid", "test")
PATHS = (*MEDIA_FIELD.values(), *FEATURE_FIELD.values())


def write_manifest(
    path: str,
    entries: dict[str, dict],
    labels: Sequence[str] | None = None,
    attributes: Sequence[str] = (),
) -> None:
    """Checks entries and writes them to a manifest, sorted by id, atomically.

    For ``labels`` and ``attributes`` see :func:`check_entries`.
    """
    check_entries(entries, path, labels, attributes)
    write_json(path, {clip: entries[clip] for clip in sorted(entries)})


def read_manifest(
    path: str | Path,
    labels: Sequence[str] | None = None,
    attributes: Sequence[str] = (),
    data_root: str | Path | None = None,
) -> dict[str, dict]:
    """Reads and checks a manifest; returns clip id to entry, sorted by id.

    Arguments
    ---------
    path : str or Path
        The manifest.
    labels : sequence of str, optional
        Classes; each entry must have an `emotion` that is one of them. None:
        `emotion` is not checked.
    attributes : sequence of str
        Fields that must be finite numbers in each entry.
    data_root : str or Path, optional
        Replaces ``{data_root}`` in the paths.

    Raises
    ------
    ManifestError
        The file is missing, is not JSON, has a duplicate key or an invalid
        entry.
    """

    def unique(pairs):
        """Makes a dict, and raises if a key is not unique."""
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            duplicate = next(key for key in keys if keys.count(key) > 1)
            raise ManifestError(f"{path}: {duplicate} appears twice in it")
        return content

    try:
        with open(path, encoding="utf-8") as file:
            entries = parse_json(file.read(), object_pairs_hook=unique)
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror}); run the recipe's "
            "prepare script"
        ) from None
    except ValueError as error:
        raise ManifestError(
            f"{path}: not a JSON file ({error}); remove it and prepare again"
        ) from None
    if not isinstance(entries, dict):
        raise ManifestError(f"{path}: not a JSON object of clips")
    check_entries(entries, path, labels, attributes)
    if data_root is not None:
        for entry in entries.values():
            for field in PATHS:
                if entry.get(field) is not None:
                    entry[field] = entry[field].replace(
                        "{data_root}", os.fspath(data_root)
                    )
    return {clip: entries[clip] for clip in sorted(entries)}


def check_entries(
    entries: dict[str, dict],
    where: str | Path,
    labels: Sequence[str] | None = None,
    attributes: Sequence[str] = (),
) -> None:
    """Checks the fields of all entries.

    With ``labels`` each entry must have an `emotion` that is one of them; its
    ``attributes`` must be finite numbers. Raises a ManifestError that names
    ``where`` (the manifest), the clip and the field.

    Example
    -------
    >>> entry = {"wav": None, "video": None, "duration": 1.0, "spk_id": "1"}
    >>> check_entries({"clip": entry}, "train.json")
    Traceback (most recent call last):
    ...
    vavl_sb.utils.errors.ManifestError: train.json: clip: wav, video: both null
    """
    for clip, entry in entries.items():
        fault = _fault(entry, labels, attributes)
        if fault is not None:
            name = clip if clip and clip.isprintable() else short(clip)
            raise ManifestError(f"{where}: {name}: {fault}")


def _fault(entry, labels, attributes):
    """Returns the fault of an entry, "field: reason", or None."""
    if not isinstance(entry, dict):
        return "entry: must be an object with wav, video, duration, spk_id"
    numbers = ("duration", *attributes)
    emotion = () if labels is None else ("emotion",)
    for field in (*MEDIA_FIELD.values(), *numbers, "spk_id", *emotion):
        if field not in entry:
            return f"{field}: missing"
    for field in PATHS:
        value = entry.get(field)
        if value is not None and (not isinstance(value, str) or not value):
            return f"{field}: must be a path or null, not {short(value)}"
        # SpeechBrain calls str.format on manifests; its error for other braces
        # would not name the clip.
        if value and set("{}") & set(value.replace("{data_root}", "")):
            return f"{field}: braces other than {{data_root}} in {short(value)}"
    for modality, field in MEDIA_FIELD.items():
        features = FEATURE_FIELD[modality]
        if entry[field] is not None and entry.get(features) is not None:
            return f"{field}, {features}: both given; make one of them null"
    if not any(find_source(entry, modality) for modality in MEDIA_FIELD):
        return "wav, video: both null"
    only_features = entry["wav"] is None and entry["video"] is None
    for field in numbers:
        value = entry[field]
        if field == "duration" and value is None and only_features:
            continue
        real = isinstance(value, Real) and not isinstance(value, bool)
        # NaN fails this comparison, too.
        if not real or not abs(value) <= sys.float_info.max:
            return f"{field}: must be a finite number, not {short(value)}"
    if entry["duration"] is not None and entry["duration"] <= 0:
        return f"duration: must be above 0 s, not {entry['duration']}"
    if not isinstance(entry["spk_id"], str) or not entry["spk_id"]:
        return f"spk_id: must be a name, not {short(entry['spk_id'])}"
    if labels is not None and entry["emotion"] not in tuple(labels):
        # An unquoted number in the YAML or JSON looks like a name.
        known, given = ", ".join(labels), short(entry["emotion"])
        if isinstance(entry["emotion"], Real):
            return f"emotion: must be a string in quotes, not {given}"
        return f"emotion: must be one of {known}, not {given}"
    return None


def check_disjoint(train: dict, valid: dict, test: dict) -> None:
    """Raises a CorpusError if a clip or a speaker is in two of three sets."""
    splits = dict(zip(SPLITS, (train, valid, test)))
    refuse_overlap(splits, "clip")
    refuse_overlap(
        {
            split: {entry["spk_id"] for entry in entries.values()}
            for split, entries in splits.items()
        },
        "speaker",
    )


def refuse_overlap(
    sets: Mapping[str, Iterable[str]],
    what: str,
    where: str | Path = "the split",
) -> None:
    """Raises a CorpusError if two sets, one for each split, share a member.

    The error names ``where`` the sets are from, ``what`` the members are (in
    the singular), the first shared member and the two splits.

    Example
    -------
    >>> refuse_overlap({"train": {"1", "2"}, "test": {"2"}}, "speaker")
    Traceback (most recent call last):
    ...
    vavl_sb.utils.errors.CorpusError: the split: speaker 2 is in train and test
    """
    names = list(sets)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            shared = sorted(set(sets[first]) & set(sets[second]))
            if shared:
                more = f" (and {len(shared) - 1} more)" * (len(shared) > 1)
                raise CorpusError(
                    f"{where}: {what} {shared[0]}{more} is in {first} and "
                    f"{second}"
                )
