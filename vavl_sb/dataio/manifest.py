"""Manifests: reading, checking and writing them, and reporting what is in them.

A manifest is SpeechBrain JSON with one entry a clip::

    {"1001_DFA_ANG_XX": {
        "wav": "{data_root}/AudioWAV/1001_DFA_ANG_XX.wav",   or null
        "video": "{data_root}/VideoFlash/1001_DFA_ANG_XX.flv",   or null
        "duration": 2.29,
        "spk_id": "1001",
        "emotion": "angry", ...}}

A null path is a missing modality, not an error; an entry with two null paths
is one. Speakers are disjoint between train, valid and test. All corpora share
this file; what only the making of manifests needs is in
:mod:`vavl_sb.dataio.preparation`.

Authors
 * The vavl_sb authors 2026
"""

import math
import os
from numbers import Real

from vavl_sb.utils.errors import CorpusError, ManifestError
from vavl_sb.utils.files import parse_json, write_json
from vavl_sb.utils.seeding import shuffled

SPLITS = ("train", "valid", "test")
WITHHELD = ("audio", "visual")


def write_manifest(path, entries, labels=None, attributes=()):
    """Checks entries and writes them, sorted by id, as a manifest.

    Arguments
    ---------
    path : str or Path
        Where to write.
    entries : dict
        Clip id to entry, in any order.
    labels : sequence of str, optional
        See :func:`check_entries`.
    attributes : sequence of str
        See :func:`check_entries`.
    """
    check_entries(entries, path, labels, attributes)
    write_json(path, {clip: entries[clip] for clip in sorted(entries)})


def read_manifest(path, labels=None, attributes=(), data_root=None):
    """Reads a manifest and checks it.

    Arguments
    ---------
    path : str or Path
        The manifest.
    labels : sequence of str, optional
        See :func:`check_entries`.
    attributes : sequence of str
        See :func:`check_entries`.
    data_root : str or Path, optional
        If given, it takes the place of ``{data_root}`` in the paths.

    Returns
    -------
    dict
        Clip id to entry, sorted by id. ManifestError, in one line, if the
        file is missing, is not JSON, or has an entry that cannot be used.
    """
    entries = _load(path)
    check_entries(entries, path, labels, attributes)
    if data_root is not None:
        for entry in entries.values():
            for field in ("wav", "video"):
                if entry[field] is not None:
                    entry[field] = entry[field].replace(
                        "{data_root}", os.fspath(data_root)
                    )
    return {clip: entries[clip] for clip in sorted(entries)}


def _load(path):
    """The JSON object in a file; refuses a key that stands twice in it."""

    def unique(pairs):
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ManifestError(f"{path}: {twice} stands twice in it")
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
            f"{path}: not a JSON file ({error}); remove it and prepare anew"
        ) from None
    if not isinstance(entries, dict):
        raise ManifestError(f"{path}: not a JSON object of clips")
    return entries


def check_entries(entries, where, labels=None, attributes=()):
    """Checks the fields of all entries.

    Arguments
    ---------
    entries : dict
        Clip id to entry.
    where : str or Path
        The manifest's path or name, for the error.
    labels : sequence of str, optional
        Classes; each entry must have an `emotion` that is one of them.
        None: `emotion` is not looked at.
    attributes : sequence of str
        Fields that must be finite numbers in each entry.

    Raises
    ------
    ManifestError
        In one line that names the manifest, the clip and the field.

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
            name = clip if clip.isprintable() and clip else _shown(clip)
            raise ManifestError(f"{where}: {name}: {fault}")


def _shown(value):
    """A value for an error: as Python writes it, but not at any length."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_finite(value):
    """Whether a value is a number that a float can hold."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _fault(entry, labels, attributes):
    """What is wrong with an entry ("field: what"), or None."""
    if not isinstance(entry, dict):
        return "entry: must be an object with wav, video, duration, spk_id"
    required = ["wav", "video", "duration", "spk_id", *attributes]
    if labels is not None:
        required.append("emotion")
    for field in required:
        if field not in entry:
            return f"{field}: missing"
    for field in ("wav", "video"):
        value = entry[field]
        if value is not None and (not isinstance(value, str) or not value):
            return f"{field}: must be a path or null, not {_shown(value)}"
        # SpeechBrain formats each string of a manifest: a stray brace fails
        # there, with an error that does not name the clip.
        if value and set("{}") & set(value.replace("{data_root}", "")):
            shown = _shown(value)
            return f"{field}: braces other than {{data_root}} in {shown}"
    if entry["wav"] is None and entry["video"] is None:
        return "wav, video: both null"
    for field in ("duration", *attributes):
        if not _is_finite(entry[field]):
            shown = _shown(entry[field])
            return f"{field}: must be a finite number, not {shown}"
    if entry["duration"] <= 0:
        return f"duration: must be above 0 s, not {_shown(entry['duration'])}"
    if not isinstance(entry["spk_id"], str) or not entry["spk_id"]:
        return f"spk_id: must be a name, not {_shown(entry['spk_id'])}"
    if labels is not None and entry["emotion"] not in tuple(labels):
        known = ", ".join(labels)
        shown = _shown(entry["emotion"])
        return f"emotion: must be one of {known}, not {shown}"
    if entry.get("withheld") not in (None, *WITHHELD):
        shown = _shown(entry["withheld"])
        return f"withheld: must be audio or visual, not {shown}"
    return None


def check_disjoint(train, valid, test):
    """Refuses a split in which a speaker or a clip is in two sets.

    Arguments
    ---------
    train, valid, test : dict
        Clip id to entry.

    Raises
    ------
    CorpusError
        In one line that names a speaker or clip, and the two sets.
    """
    splits = {"train": train, "valid": valid, "test": test}
    members = {
        "clip": {split: set(entries) for split, entries in splits.items()},
        "speaker": {
            split: {entry["spk_id"] for entry in entries.values()}
            for split, entries in splits.items()
        },
    }
    for what, sets in members.items():
        refuse_overlap(sets, what)


def refuse_overlap(sets, what, where="the split"):
    """Refuses sets, one for each split, that share a member.

    Arguments
    ---------
    sets : dict
        Split name to set of str.
    what : str
        What the members are, in the singular, for the error.
    where : str
        Where the split comes from, for the error.

    Raises
    ------
    CorpusError
        In one line that names the first member and the two splits.

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
            shared = sorted(sets[first] & sets[second])
            if shared:
                more = f" (and {len(shared) - 1} more)" * (len(shared) > 1)
                raise CorpusError(
                    f"{where}: {what} {shared[0]}{more} is in {first} and "
                    f"{second}"
                )


def withhold(entries, withhold_audio=0.0, withhold_visual=0.0, seed=1234):
    """Takes a modality from a part of the clips, as if it were not there.

    Only clips that have both are stripped, so none loses its last one. Which
    ones depends on the seed and the ids alone: not on the order of entries,
    nor on what other clips there are more than it must. With the same seed, a
    larger fraction takes what a smaller one takes, and more.

    Arguments
    ---------
    entries : dict
        Clip id to entry: the training clips. Not changed.
    withhold_audio : float
        Share, in [0, 1), of the clips that have audio whose `wav` becomes
        null: ``round(withhold_audio * count)`` clips.
    withhold_visual : float
        Likewise for `video`.
    seed : int
        Chooses the clips.

    Returns
    -------
    dict
        Clip id to entry, in the same order; each stripped entry has
        `withheld`, "audio" or "visual". CorpusError if a fraction is out of
        range or too few clips have both.

    Example
    -------
    >>> clips = {
    ...     str(i): {"wav": "a.wav", "video": "a.flv", "duration": 1.0}
    ...     for i in range(4)
    ... }
    >>> half = withhold(clips, withhold_audio=0.5)
    >>> sum(entry["wav"] is None for entry in half.values())
    2
    """
    counts = {}
    for name, field, share in (
        ("withhold_audio", "wav", withhold_audio),
        ("withhold_visual", "video", withhold_visual),
    ):
        number = isinstance(share, Real) and not isinstance(share, bool)
        if not number or not 0 <= share < 1:
            raise CorpusError(f"{name}: must be in [0, 1), not {share!r}")
        having = sum(entry[field] is not None for entry in entries.values())
        counts[field] = round(share * having)

    both = [clip for clip in entries if not is_unimodal(entries[clip])]
    if sum(counts.values()) > len(both):
        raise CorpusError(
            f"withhold_audio={withhold_audio} and withhold_visual="
            f"{withhold_visual} take {counts['wav']} and {counts['video']} "
            f"clips, but only {len(both)} training clips have both modalities"
        )
    both = shuffled(both, seed)
    # From the two ends, so that neither choice moves the other.
    stripped = dict.fromkeys(both[: counts["wav"]], ("wav", "audio"))
    last = both[len(both) - counts["video"] :]
    stripped.update(dict.fromkeys(last, ("video", "visual")))
    result = {}
    for clip, entry in entries.items():
        result[clip] = dict(entry)
        if clip in stripped:
            field, modality = stripped[clip]
            result[clip].update({field: None, "withheld": modality})
    return result


def is_unimodal(entry):
    """Whether an entry lacks one of its two modalities.

    Arguments
    ---------
    entry : dict
        An entry of a manifest.

    Returns
    -------
    bool
    """
    return entry["wav"] is None or entry["video"] is None
