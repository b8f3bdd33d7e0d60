"""What the prepare scripts of all corpora share, besides the manifests.

A prepare script finds files and labels in its own corpus, then calls
:func:`read_speaker_lists` (where the user's own split is allowed),
:func:`is_prepared`, :func:`make_entries` and :func:`save_splits` in this order.

Authors
 * The vavl_sb authors 2026
"""

import hashlib
import json
import os

from vavl_sb.dataio.inspection import inspect_all
from vavl_sb.dataio.manifest import (
    SPLITS,
    check_disjoint,
    refuse_overlap,
    withhold,
    write_manifest,
)
from vavl_sb.utils.errors import CorpusError, ManifestError
from vavl_sb.utils.files import read_json, write_json
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

REPORT = "prepare_report.json"
# Audio and video that differ by more are hardly of the same utterance.
LENGTH_TOLERANCE = 1.0


def fingerprint(arguments, folder, files):
    """A digest of all that a preparation depends on.

    Arguments
    ---------
    arguments : dict
        Arguments of the prepare script that change its manifests; JSON types.
    folder : str or Path
        The corpus. Its own name does not count, so that it may move.
    files : iterable of str
        Files below the folder, or elsewhere by absolute path, in any order.
        Their names, sizes and times of change count; a missing file counts as
        missing.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode())
    for name in sorted(files):
        try:
            status = os.stat(os.path.join(folder, name))
            state = f"{status.st_size}:{status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"\n{name}:{state}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def digest_files(paths):
    """The SHA-256 of each of some files.

    Arguments
    ---------
    paths : iterable of str

    Returns
    -------
    list of str
        One for each path; "missing" for a file that cannot be read.
    """
    digests = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                digests.append(hashlib.sha256(file.read()).hexdigest())
        except OSError:
            digests.append("missing")
    return digests


def is_prepared(report_path, mark, manifests, data_folder):
    """Whether a report says that these manifests are this preparation's.

    Arguments
    ---------
    report_path : str or Path
        A file that :meth:`PrepareReport.write` wrote with the keys
        `fingerprint` and `manifests` (the latter from :func:`digest_files`).
    mark : str
        The :func:`fingerprint` of the preparation that is wanted.
    manifests : list of str
        The manifests, in the order of the report.
    data_folder : str
        Where the corpus is now: a report that says otherwise is corrected.

    Returns
    -------
    bool
        False as well if the report is missing or broken, or if a manifest was
        changed since.
    """
    try:
        report = read_json(report_path)
        done = report["fingerprint"] == mark
        if not done or report["manifests"] != digest_files(manifests):
            return False
        folder = os.path.abspath(data_folder)
        if report["data_folder"] != folder:
            write_json(report_path, {**report, "data_folder": folder})
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def recorded_folder(folder):
    """Where the corpus of a prepared folder is, by its report.

    Arguments
    ---------
    folder : str or Path
        A run's output folder, with manifests and prepare_report.json in it.

    Returns
    -------
    str
        What ``{data_root}`` stands for in the manifests. ManifestError, in
        one line, if no report says so.
    """
    path = os.path.join(folder, REPORT)
    try:
        folder = read_json(path)["data_folder"]
        if isinstance(folder, str):
            return folder
        reason = "it does not say where the corpus is"
    except OSError as error:
        reason = error.strerror
    except (ValueError, KeyError, TypeError):
        reason = "it does not say where the corpus is"
    raise ManifestError(
        f"{path}: cannot be used ({reason}); give a folder that a recipe "
        "prepared (train.py ... --prepare_only True writes one)"
    )


def read_speaker_lists(path):
    """Reads a split by speakers: a JSON file of three lists.

    Arguments
    ---------
    path : str or Path
        ``{"train": ["1001", ...], "valid": [...], "test": [...]}``; `valid`
        may be empty.

    Returns
    -------
    dict
        Split to set of speaker ids (str). CorpusError, in one line, if the
        file cannot be used or a speaker is in two lists.
    """
    form = '{"train": [speakers], "valid": [...], "test": [...]}'
    try:
        lists = read_json(path)
    except OSError as error:
        raise CorpusError(
            f"{path}: cannot be read ({error.strerror}); partition must be a "
            f"JSON file {form}"
        ) from None
    except ValueError as error:
        raise CorpusError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(lists, dict) or set(lists) != set(SPLITS):
        raise CorpusError(f"{path}: must be {form}")
    speakers = {}
    for split in SPLITS:
        members = lists[split]
        if not isinstance(members, list) or not all(
            isinstance(member, str | int) and not isinstance(member, bool)
            for member in members
        ):
            raise CorpusError(f"{path}: {split} must be a list of speaker ids")
        speakers[split] = {str(member) for member in members}
    refuse_overlap(speakers, "speaker", path)
    return speakers


def make_entries(clips, media, data_folder, report, num_workers=None):
    """Looks into the files of clips and makes their manifest entries.

    Arguments
    ---------
    clips : dict
        Clip id to the fields of its entry other than `wav`, `video` and
        `duration`: `spk_id` and labels.
    media : dict
        "audio" and "video", each a dict of clip id to the file's path below
        `data_folder`, with slashes.
    data_folder : str
        The corpus.
    report : PrepareReport
        Is told of files that cannot be used or are not there.
    num_workers : int, optional
        See :func:`vavl_sb.dataio.inspection.inspect_all`.

    Returns
    -------
    dict
        Clip id to entry, for clips with at least one sound file; `duration`
        (seconds) is the longer of its audio's and its video's.
    """
    wanted = [
        (clip, kind)
        for clip in clips
        for kind in ("audio", "video")
        if clip in media[kind]
    ]
    files = [
        (os.path.join(data_folder, media[kind][clip]), kind)
        for clip, kind in wanted
    ]
    checks = dict(zip(wanted, inspect_all(files, num_workers), strict=True))
    entries = {}
    for clip, fields in clips.items():
        durations, faults = {}, {}
        for kind in ("audio", "video"):
            check = checks.get((clip, kind))
            if check is None:
                faults[f"no {kind} file"] = ""
            elif check.fault is not None:
                faults[check.fault] = check.detail
            else:
                durations[kind] = check.duration
        if not durations:
            detail = "; ".join(filter(None, faults.values()))
            report.leave_out(clip, " and ".join(faults), detail)
            continue
        for fault, detail in faults.items():
            report.lose_modality(clip, fault, detail)
        if max(durations.values()) - min(durations.values()) > LENGTH_TOLERANCE:
            report.note(
                clip,
                f"audio and video differ by more than {LENGTH_TOLERANCE:g} s",
                f"{durations['audio']:.2f} s and {durations['video']:.2f} s",
            )
        paths = {
            kind: f"{{data_root}}/{media[kind][clip]}" for kind in durations
        }
        entries[clip] = {
            "wav": paths.get("audio"),
            "video": paths.get("video"),
            "duration": round(max(durations.values()), 6),
            **fields,
        }
    return entries


def save_splits(
    splits,
    manifests,
    report,
    save_report,
    settings,
    mark,
    data_folder,
    checks,
    speaker_split=None,
):
    """Checks the splits, withholds, and writes manifests and report.

    Arguments
    ---------
    splits : dict
        "train", "valid" and "test": clip id to entry.
    manifests : list of str
        Where to write the three, in that order.
    report : PrepareReport
        Is told what is kept, logged, and written last of all.
    save_report : str
        Where to write the report.
    settings : dict
        The prepare script's arguments; `withhold_audio`, `withhold_visual`
        and `seed` are used here.
    mark : str
        The :func:`fingerprint`.
    data_folder : str
        The corpus; the report says where it is.
    checks : dict
        `labels` or `attributes`, for
        :func:`vavl_sb.dataio.manifest.check_entries`.
    speaker_split : callable, optional
        Clip id to its split, so that the error for an empty split can say
        what was left out of it.

    Raises
    ------
    CorpusError
        In one line: train or test is empty, or a speaker is in two splits.
    """
    for split, members in splits.items():
        if not members:
            _refuse_empty(split, report, save_report, settings, speaker_split)
    check_disjoint(*(splits[split] for split in SPLITS))
    train = withhold(
        splits["train"],
        settings["withhold_audio"],
        settings["withhold_visual"],
        settings["seed"],
    )
    splits = {**splits, "train": train}
    for split, path in zip(SPLITS, manifests, strict=True):
        write_manifest(path, splits[split], **checks)
        report.keep(split, splits[split])
    report.log(logger)
    # Last, since it says that all else is done.
    report.write(
        save_report,
        arguments=settings,
        fingerprint=mark,
        manifests=digest_files(manifests),
        data_folder=os.path.abspath(data_folder),
    )


def _refuse_empty(split, report, save_report, settings, speaker_split):
    """Refuses an empty train or test split; warns of an empty valid one."""

    def of_split(clip):
        return speaker_split is None or speaker_split(clip) == split

    reasons = report.reasons(of_split)
    why = f"the {split} split is empty (left out of it: {reasons})"
    if split == "valid":
        logger.warning("%s", why)
        return
    report.write(save_report, arguments=settings)
    raise CorpusError(f"{why}; the clips are named in {save_report}")
