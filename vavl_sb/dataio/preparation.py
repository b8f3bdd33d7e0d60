"""Data preparation shared by the prepare scripts of all corpora.

A prepare script identifies the files of its corpus and reads its labels. Then
:func:`prepare_corpus` checks each file, splits by speaker, withholds
modalities, and writes the manifests and ``prepare_report.json``, which lists
the clips that were left out.
"""

import csv
import dataclasses
import functools
import glob
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

import vavl_sb
from vavl_sb.dataio.manifest import SPLITS, refuse_overlap, write_manifest
from vavl_sb.features.cache import FEATURE_FIELD, MEDIA_FIELD, find_source
from vavl_sb.utils.errors import CorpusError, ManifestError, MediaError
from vavl_sb.utils.feature_files import find_features, split_reference
from vavl_sb.utils.files import read_json, write_json
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.seeding import shuffled

logger = get_logger(__name__)

REPORT = "prepare_report.json"
# Kind of file, or of precomputed features, to the field in a manifest entry.
KINDS = {
    "audio": "wav",
    "video": "video",
    **{field: field for field in FEATURE_FIELD.values()},
}
MEDIA_KINDS = ("audio", "video")
# Kind of file that is replaced by precomputed features.
REPLACED = {"audio_features": "audio", "visual_features": "video"}
# Names of the splits in the label CSVs released with VAVL.
SPLIT_SETS = {"Train": "train", "Development": "valid", "Test": "test"}
# Beginning of the files in a clone without Git LFS.
LFS_POINTER = b"version https://git-lfs"


@dataclasses.dataclass
class ClipLabels:
    """The labels of one clip.

    ``fields`` are the labels in the clip's manifest entry; ``missing`` maps a
    task without a label to (reason, detail); ``where`` is the file and line of
    the labels; ``split`` is "train", "valid" or "test", if the file defines it.
    """

    spk_id: str
    fields: dict
    missing: dict = dataclasses.field(default_factory=dict, compare=False)
    where: str = dataclasses.field(default="", compare=False)
    split: str | None = None


_groups = functools.partial(defaultdict, dict)


@dataclasses.dataclass
class PrepareReport:
    """The clips that a prepare script left out: reason to {clip: detail}.

    ``left_out`` are clips in no manifest, ``one_modality`` clips kept with one
    modality, ``noted`` remarks on other clips.

    Example
    -------
    >>> report = PrepareReport()
    >>> report.left_out["no majority"]["1001_DFA_FEA_XX"] = "5 of 10 votes"
    >>> dict(report.left_out)
    {'no majority': {'1001_DFA_FEA_XX': '5 of 10 votes'}}
    """

    left_out: dict = dataclasses.field(default_factory=_groups)
    one_modality: dict = dataclasses.field(default_factory=_groups)
    noted: dict = dataclasses.field(default_factory=_groups)


def _summary(group):
    """Lists the reasons of a group with counts, most frequent first."""
    order = sorted(group, key=lambda why: (-len(group[why]), why))
    return ", ".join(f"{len(group[why])} {why}" for why in order) or "nothing"


def _write(report, path, **more):
    """Writes a report and further keys as JSON, atomically."""
    for name, group in vars(report).items():
        more[name] = {
            why: {"count": len(group[why]), "clips": group[why]}
            for why in sorted(group)
        }
    write_json(path, more)


def find_media(
    data_folder: str, identify: Callable, report: PrepareReport, layout: str
) -> dict[str, dict[str, str]]:
    """Finds the media files of a corpus, at any depth; follows links.

    ``identify`` maps a path relative to the corpus to (kind, clip id), or to
    None if it is not a clip; for an invalid name it raises a CorpusError with
    the reason. ``layout`` describes the expected content, for the error.

    Returns kind ("audio" and "video" at least) to {clip id: relative path, with
    slashes}. Raises a CorpusError if there is no clip.
    """
    media = defaultdict(dict, {kind: {} for kind in MEDIA_KINDS})
    paths = glob.glob("**", root_dir=data_folder, recursive=True)
    # Sorted, so that results do not depend on the order on disk.
    for path in sorted(path.replace(os.sep, "/") for path in paths):
        try:
            identity = identify(path)
        except CorpusError as reason:
            report.left_out[str(reason)][path] = os.path.join(data_folder, path)
            continue
        if identity is None:
            continue
        kind, clip = identity
        if clip in media[kind]:
            report.noted[f"two {kind} files"][clip] = f"{path} is not used"
        else:
            media[kind][clip] = path
    if not any(media.values()):
        exists = os.path.isdir(data_folder)
        fault = "no clip in it" if exists else "no such folder"
        raise CorpusError(
            f"{data_folder}: {fault} (left out: "
            f"{_summary(report.left_out)}); data_folder must have {layout}"
        )
    return media


def _add_features(media, clip_of, report, paths):
    """Replaces files by precomputed features, in place."""
    for kind, path in paths.items():
        if path is None:
            continue
        by_clip = defaultdict(list)
        for name, references in find_features(path).items():
            try:
                by_clip[clip_of(name)] += references
            except CorpusError as reason:
                report.noted[f"{kind}: {reason}"][name] = references[0]
        media.pop(REPLACED[kind], None)
        media[kind] = {}
        for clip, references in by_clip.items():
            if len(references) > 1:
                detail = " and ".join(sorted(set(references)))
                report.noted[f"{kind} appear twice"][clip] = detail
            else:
                media[kind][clip] = references[0]


def read_table(path: str, columns: Iterable[str]) -> Iterator[tuple[str, dict]]:
    """Reads a CSV of labels with given columns, in any order.

    Yields "file, line n" and {column: text}, with None in rows that are too
    short. Raises a CorpusError if the file is no CSV, lacks a column, or has a
    `Split_Set` that is not one of SPLIT_SETS.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            missing = [name for name in columns if name not in names]
            if missing:
                raise CorpusError(
                    f"{path}: no column {', '.join(missing)} in it; its "
                    f"columns: {', '.join(map(repr, names[:12])) or 'none'}"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if row.get("Split_Set", "Test") not in SPLIT_SETS:
                    raise CorpusError(
                        f"{where}: Split_Set is {row['Split_Set']!r}; it must "
                        f"be one of {', '.join(SPLIT_SETS)}"
                    )
                yield where, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path}: not a CSV file ({error})") from None


def read_partition(
    partition: int | str, released: dict, speaker: Callable = str
) -> dict[str, set[str]]:
    """Returns the speakers of each split.

    ``partition`` is a name in ``released``, the corpus's own lists, or the path
    of a JSON file ``{"train": [speakers], "valid": [...], "test": [...]}``
    (`valid` may be empty), whose names ``speaker`` maps to speaker ids. Raises
    a CorpusError if it is neither, the file is invalid, or a speaker is in two
    lists.
    """
    if str(partition) in released:
        lists = released[str(partition)]
        return {split: set(lists[split]) for split in SPLITS}
    form = '{"train": [speakers], "valid": [...], "test": [...]}'
    path = partition if isinstance(partition, str | os.PathLike) else ""
    if not os.path.isfile(path):
        raise CorpusError(
            f"partition: must be {', '.join(released)} or an existing JSON "
            f"file {form}, not {partition!r}"
        )
    try:
        lists = read_json(path)
        usable = set(lists) == set(SPLITS) and all(
            isinstance(lists[split], list) for split in SPLITS
        )
    except (OSError, ValueError, TypeError):
        usable = False
    if not usable:
        raise CorpusError(f"{path}: must be a JSON file {form}")
    speakers = {
        split: {speaker(str(who)) for who in lists[split]} for split in SPLITS
    }
    refuse_overlap(speakers, "speaker", path)
    return speakers


def prepare_corpus(
    data_folder: str,
    manifests: Sequence[str],
    media: dict[str, dict[str, str]],
    clip_of: Callable[[str], str],
    released: dict,
    read_labels: Callable,
    outputs: Sequence[str],
    report: PrepareReport,
    target: str,
    speaker: Callable = str,
    label_file: str | None = None,
    ceiling: Callable | None = None,
    partition: int | str = 1,
    task: str = "classification",
    audio_features: str | None = None,
    visual_features: str | None = None,
    withhold_audio: float = 0.0,
    withhold_visual: float = 0.0,
    seed: int = 1234,
    **arguments,
) -> None:
    """Writes the manifests of a corpus, and prepare_report.json beside them.

    Does nothing if an earlier call has finished, and arguments, files, labels
    and manifests have not changed since. The report is written last, so that a
    killed run does not count as finished.

    Arguments
    ---------
    data_folder : str
        The folder of the corpus.
    manifests : sequence of str
        Where to write those of "train", "valid" and "test".
    media : dict
        From :func:`find_media`; files that are replaced by features are removed
        from it.
    clip_of : callable
        Maps the name of a feature file, or of a row in a table, to a clip id,
        or raises a CorpusError with the reason.
    released, speaker
        See :func:`read_partition`.
    read_labels : callable
        Returns pairs of clip id and :class:`ClipLabels`.
    outputs : sequence of str
        Classes, or attributes, of the task.
    report : PrepareReport
        Clips that are left out are added to it.
    target : str
        Description of the labels: acted or perceived, and by whom. It is
        reported with the scores.
    label_file : str, optional
        The file that `read_labels` reads.
    ceiling : callable, optional
        Returns the score ceilings of the labels, for the report: see
        :mod:`vavl_sb.dataio.label_ceiling`.
    partition : int or str
        See :func:`read_partition`.
    task : str
        "classification" or "regression".
    audio_features, visual_features : str, optional
        A folder with one feature file per clip, or a table of features, which
        replaces the audio or video; see :mod:`vavl_sb.utils.feature_files`.
    withhold_audio, withhold_visual, seed
        See :func:`withhold`; applied to the training clips.
    **arguments
        Further arguments of the corpus that affect the manifests, of JSON
        types. With a `label_csv` and a released partition, the Split_Set of
        the CSV is used.

    Raises
    ------
    CorpusError
        A split is empty, a speaker is in two splits, or an argument or label
        file is invalid.
    """
    if task not in ("classification", "regression"):
        raise CorpusError(
            f"task: must be classification or regression, not {task!r}"
        )
    speakers = read_partition(partition, released, speaker)
    shares = {
        "withhold_audio": withhold_audio,
        "withhold_visual": withhold_visual,
    }
    # Check the shares before the slow check of all files.
    withhold({}, withhold_audio, withhold_visual)
    features = {
        "audio_features": audio_features,
        "visual_features": visual_features,
    }
    _add_features(media, clip_of, report, features)
    arguments |= {"partition": str(partition), "task": task, **shares}
    arguments["seed"] = seed
    save_report = os.path.join(os.path.dirname(manifests[0]), REPORT)
    fingerprint = _fingerprint(
        data_folder, media, speakers, label_file, arguments
    )
    if _is_prepared(save_report, fingerprint, manifests):
        logger.info("Preparation completed in previous run, skipping.")
        return

    labels = _collect(read_labels(), label_file, report)
    if arguments.get("label_csv") and str(partition).isdigit():
        speakers = _csv_speakers(label_file, labels, speakers, partition)
    split_of = {who: split for split in SPLITS for who in speakers[split]}
    clips = _choose_clips(labels, media, split_of, task, report)
    entries = _make_entries(clips, media, data_folder, report)
    splits = {split: {} for split in SPLITS}
    for clip, entry in entries.items():
        splits[split_of[entry["spk_id"]]][clip] = entry
    _check_splits(splits, speakers, report, save_report)
    splits["train"] = withhold(splits["train"], **shares, seed=seed)
    for kind, field in KINDS.items():
        for clip, entry in splits["train"].items():
            if entry.get(field) != entries[clip].get(field):
                report.one_modality[f"{kind} withheld"][clip] = ""

    checks = {"labels" if task == "classification" else "attributes": outputs}
    for split, path in zip(SPLITS, manifests, strict=True):
        write_manifest(path, splits[split], **checks)
    kept = {split: _count(entries) for split, entries in splits.items()}
    for split, counts in kept.items():
        logger.info("%s: %s", split, counts)
    for name, group in vars(report).items():
        logger.info("%s: %s", name.replace("_", " "), _summary(group))
    _write(
        report,
        save_report,
        kept=kept,
        target=target,
        ceiling=ceiling() if ceiling is not None else None,
        arguments=arguments,
        data_folder=os.path.abspath(data_folder),
        fingerprint=fingerprint,
        manifests=digest_files(manifests),
    )


def _fingerprint(data_folder, media, speakers, label_file, arguments):
    """SHA-256 of everything that a preparation depends on.

    Of media files it includes name, size and modification time.
    """
    tables = digest_files([label_file] if label_file else [])
    if "missing" in tables:
        raise CorpusError(
            f"{label_file}: label file cannot be read; data_folder must be the "
            "whole corpus, and label_csv an existing file or null"
        )
    files = []
    for name in sorted(f for group in media.values() for f in group.values()):
        try:
            path, _ = split_reference(name)
            status = os.stat(os.path.join(data_folder, path))
            files.append((name, status.st_size, status.st_mtime_ns))
        except OSError:  # A dangling link, whose clip is left out.
            files.append(name)
    content = [
        vavl_sb.__version__,
        arguments,
        os.path.abspath(data_folder),
        [sorted(speakers[split]) for split in SPLITS],
        tables,
        files,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def digest_files(paths: Iterable[str]) -> list[str]:
    """Returns the SHA-256 of each file, "missing" if it cannot be read."""
    digests = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                digests.append(hashlib.sha256(file.read()).hexdigest())
        except OSError:
            digests.append("missing")
    return digests


def _is_prepared(save_report, fingerprint, manifests):
    """Whether the report is of this preparation and of these manifests."""
    try:
        report = read_json(save_report)
        same = report["fingerprint"] == fingerprint
        return same and report["manifests"] == digest_files(manifests)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def recorded_folder(folder: str) -> str:
    """Returns the corpus folder, ``{data_root}``, of a prepared folder.

    Raises a ManifestError if the folder has no valid prepare_report.json.
    """
    path = os.path.join(folder, REPORT)
    try:
        return str(read_json(path)["data_folder"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{path}: cannot be used ({error}); give a folder that a recipe "
            "prepared (train.py ... --prepare_only True writes one)"
        ) from None


def read_target(folder: str | Path) -> dict:
    """Reads ``target`` and ``ceiling`` from the report of a prepared folder.

    They are those of :func:`prepare_corpus`; None without a valid report.
    """
    try:
        report = read_json(os.path.join(folder, REPORT))
        return {key: report.get(key) for key in ("target", "ceiling")}
    except (OSError, ValueError, AttributeError):
        return {"target": None, "ceiling": None}


def _collect(rows, label_file, report):
    """Maps clip ids to labels; raises if a clip has conflicting labels."""
    labels = {}
    for clip, row in rows:
        if labels.setdefault(clip, row) is row:
            continue
        if labels[clip] != row:
            raise CorpusError(
                f"{row.where}: {clip} appears twice with different labels, "
                f"first in {labels[clip].where}; remove one of the lines"
            )
        report.noted["twice in the labels"][clip] = row.where
    if not labels:
        raise CorpusError(
            f"{label_file}: no usable label in it (left out: "
            f"{_summary(report.left_out)})"
        )
    return labels


def _csv_speakers(label_csv, labels, speakers, partition):
    """Returns the speakers of each split in a released label CSV.

    Raises if the CSV is of another partition than ``partition``, unless this is
    1, the default.
    """
    sets = {
        split: {row.spk_id for row in labels.values() if row.split == split}
        for split in SPLITS
    }
    refuse_overlap(sets, "speaker", label_csv)
    if not all(sets[split] <= speakers[split] for split in SPLITS):
        if str(partition) != "1":
            raise CorpusError(
                f"{label_csv}: its Split_Set is not that of partition "
                f"{partition}; leave partition out, or use the CSV of this "
                "partition"
            )
        logger.info("%s: its Split_Set is used, not partition 1", label_csv)
    return sets


def _choose_clips(labels, media, split_of, task, report):
    """Maps the ids of usable clips to `spk_id` and labels."""
    named = {clip for group in report.left_out.values() for clip in group}
    files = defaultdict(list)
    for group in media.values():
        for clip, path in group.items():
            files[clip].append(path)
    for clip in sorted(set(files) - set(labels) - named):
        paths = ", ".join(files[clip])
        report.left_out["on disk, not in the labels"][clip] = paths
    chosen = {}
    for clip, row in sorted(labels.items()):
        if clip not in files:
            report.left_out["in the labels, not on disk"][clip] = row.where
        elif row.spk_id not in split_of:
            report.left_out["speaker in no split"][clip] = row.spk_id
        elif task in row.missing:
            reason, detail = row.missing[task]
            report.left_out[reason][clip] = detail
        else:
            chosen[clip] = {"spk_id": row.spk_id, **row.fields}
    return chosen


def _make_entries(clips, media, data_folder, report):
    """Checks the files of clips, and returns their manifest entries.

    A clip without a usable file is left out. `duration` is the longer one of
    audio and video, None for a clip with features only.
    """
    from vavl_sb.media.demuxing import import_av

    import_av()  # If PyAV is missing, raise one error, not one for each file.
    wanted = [
        (clip, kind)
        for clip in clips
        for kind in MEDIA_KINDS
        if clip in media.get(kind, ())
    ]
    paths = [os.path.join(data_folder, media[kind][c]) for c, kind in wanted]
    # Threads suffice: reading and demuxing release the GIL.
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
        results = pool.map(_inspect, paths, [kind for _, kind in wanted])
        # disable=None: no progress bar unless in a terminal.
        bar = tqdm(results, "media", len(paths), unit="file", disable=None)
        checks = dict(zip(wanted, bar, strict=True))
    entries = {}
    for clip, fields in clips.items():
        entry, durations, faults = {"wav": None, "video": None}, [], {}
        for kind in (kind for kind in KINDS if kind in media):
            if kind in MEDIA_KINDS:
                result = checks.get((clip, kind), (f"no {kind} file", ""))
            elif clip in media[kind]:
                entry[kind] = media[kind][clip]
                continue
            else:
                result = f"no {kind}", ""
            if isinstance(result, tuple):
                faults[result[0]] = result[1]
            else:
                durations.append(result)
                entry[KINDS[kind]] = f"{{data_root}}/{media[kind][clip]}"
        if not any(entry.values()):
            detail = "; ".join(filter(None, faults.values()))
            report.left_out[" and ".join(faults)][clip] = detail
            continue
        for fault, detail in faults.items():
            report.one_modality[fault][clip] = detail
        longest = round(max(durations), 6) if durations else None
        entries[clip] = {**entry, "duration": longest, **fields}
    return entries


def _inspect(path, kind):
    """Returns the duration of a file's audio or video, s, or (fault, detail).

    The fault is the same text for all files with this fault.
    """
    from vavl_sb.media.reader import probe

    try:
        with open(path, "rb") as file:
            start = file.read(len(LFS_POINTER))
        if not start:
            return f"{kind} file is empty", f"{path}: 0 bytes"
        if start == LFS_POINTER:
            detail = f"{path}: run `git lfs pull` in the corpus"
            return f"{kind} file is a Git LFS pointer", detail
        info = probe(path)
    except (OSError, MediaError) as error:
        return f"{kind} file is unreadable", f"{path}: {error}"
    if not (info.has_audio if kind == "audio" else info.has_video):
        return f"{kind} file has no {kind} stream", path
    duration = info.audio_duration if kind == "audio" else info.video_duration
    if duration == 0:
        return f"{kind} file has no length", path
    if info.truncated:
        return f"{kind} file is truncated", f"{path}: ends at {duration:.2f} s"
    return duration


def _check_splits(splits, speakers, report, save_report):
    """Raises if a split has no clips; warns of speakers without clips."""
    for split, entries in splits.items():
        present = {entry["spk_id"] for entry in entries.values()}
        absent = sorted(speakers[split] - present)
        # Validation may be empty if no speakers are listed for it.
        if not entries and (absent or split != "valid"):
            _write(report, save_report)
            raise CorpusError(
                f"the {split} split is empty: no usable clip of its speakers "
                f"({', '.join(absent[:5]) or 'there are none'}); left out: "
                f"{_summary(report.left_out)}; {save_report} names the clips"
            )
        if absent:
            logger.warning(
                "%d of the %d speakers of %s have no usable clip: %s",
                len(absent),
                len(speakers[split]),
                split,
                ", ".join(absent[:5]),
            )


def withhold(
    entries: dict[str, dict],
    withhold_audio: float = 0.0,
    withhold_visual: float = 0.0,
    seed: int = 1234,
) -> dict[str, dict]:
    """Removes a modality from some of the clips, as if it were missing.

    Only clips with both modalities are chosen, so each clip keeps one. The
    choice depends on the seed and the ids only, not on the order of entries.
    With the same seed, a larger share contains the clips of a smaller one.

    Arguments
    ---------
    entries : dict
        Clip id to entry: the training clips. Not changed.
    withhold_audio, withhold_visual : float
        Share, in [0, 1), of the clips with audio (video) whose `wav` (`video`),
        or precomputed features, become null: ``round(share * count)`` clips.
    seed : int
        Chooses the clips.

    Returns
    -------
    dict
        Clip id to entry, in the same order.

    Raises
    ------
    CorpusError
        A share is out of range, or too few clips have both modalities.

    Example
    -------
    >>> clips = {str(i): {"wav": "a.wav", "video": "a.flv"} for i in range(4)}
    >>> half = withhold(clips, withhold_audio=0.5)
    >>> sum(entry["wav"] is None for entry in half.values())
    2
    """
    counts = {}
    for name, modality, share in (
        ("withhold_audio", "audio", withhold_audio),
        ("withhold_visual", "visual", withhold_visual),
    ):
        if type(share) not in (int, float) or not 0 <= share < 1:
            raise CorpusError(f"{name}: must be in [0, 1), not {share!r}")
        rows = entries.values()
        having = sum(find_source(row, modality) is not None for row in rows)
        counts[modality] = round(share * having)
    both = [
        clip
        for clip, row in entries.items()
        if all(find_source(row, modality) for modality in counts)
    ]
    if sum(counts.values()) > len(both):
        raise CorpusError(
            f"withhold_audio={withhold_audio} and withhold_visual="
            f"{withhold_visual} take {counts['audio']} and {counts['visual']} "
            f"clips, but only {len(both)} training clips have both modalities"
        )
    both = shuffled(both, seed)
    result = {clip: dict(entry) for clip, entry in entries.items()}
    # From the two ends, so that each choice is independent of the other share.
    for modality, chosen in (
        ("audio", both[: counts["audio"]]),
        ("visual", both[len(both) - counts["visual"] :]),
    ):
        for clip in chosen:
            for field in (MEDIA_FIELD[modality], FEATURE_FIELD[modality]):
                if field in result[clip]:
                    result[clip][field] = None
    return result


def _count(entries):
    """Counts of the clips of a split, for the report."""
    rows = list(entries.values())
    audio_only = sum(find_source(row, "visual") is None for row in rows)
    visual_only = sum(find_source(row, "audio") is None for row in rows)
    return {
        "clips": len(rows),
        "speakers": len({row["spk_id"] for row in rows}),
        "audiovisual": len(rows) - audio_only - visual_only,
        "audio_only": audio_only,
        "visual_only": visual_only,
        "hours": round(sum(row["duration"] or 0 for row in rows) / 3600, 4),
    }
