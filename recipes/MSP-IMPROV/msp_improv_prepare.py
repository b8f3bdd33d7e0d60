"""Prepares MSP-IMPROV: manifests for training, validation and test.

The corpus is given out by its authors on request:
https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html. Needed
of it are ``Evalution.txt`` and ``session1/`` to ``session6/`` with
``S01A/{P,R,S,T}/MSP-IMPROV-S01A-F01-P-FM01.wav`` and ``.avi``; or the same
sessions in ``Audio/`` and in ``Video/``.

Busso C., Parthasarathy S., Burmania A., AbdelWahab M., Sadoughi N., Mower
Provost E., "MSP-IMPROV: An Acted Corpus of Dyadic Interactions to Study
Emotion Perception", IEEE Transactions on Affective Computing 8(1), 2017.

From a train.py::

    run_on_main(
        prepare_msp_improv,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_json_train": hparams["train_annotation"],
            "save_json_valid": hparams["valid_annotation"],
            "save_json_test": hparams["test_annotation"],
            "partition": hparams["partition"],
        },
    )

Authors
 * The vavl_sb authors 2026
"""

import os
import re

from msp_improv_labels import (
    ATTRIBUTES,
    CLASSES,
    FAULTS,
    find_ratings,
    parse_name,
    read_ratings,
    read_released,
    subfolders,
)
from msp_improv_splits import (
    DEFAULT_PARTITION,
    SESSIONS,
    make_splitter,
    partition_file,
)

from vavl_sb.dataio.manifest import SPLITS, withhold
from vavl_sb.dataio.preparation import (
    REPORT,
    digest_files,
    fingerprint,
    is_prepared,
    make_entries,
    save_splits,
)
from vavl_sb.dataio.prepare_report import PrepareReport
from vavl_sb.utils.errors import CorpusError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

# Changes when the script makes other manifests from the same arguments.
VERSION = 1
KINDS = {".wav": "audio", ".avi": "video"}
SESSION_FOLDER = re.compile(r"session[ _-]?0?([1-6])", re.IGNORECASE)
MEDIA_FOLDER = re.compile(r"(audio|video)s?", re.IGNORECASE)
NO_SESSION = "session folder missing"


def prepare_msp_improv(
    data_folder,
    save_json_train,
    save_json_valid,
    save_json_test,
    partition=DEFAULT_PARTITION,
    label_csv=None,
    task="regression",
    csv_activation="flipped",
    withhold_audio=0.0,
    withhold_visual=0.0,
    seed=1234,
    num_workers=None,
    skip_prep=False,
):
    """Makes the manifests of MSP-IMPROV, and prepare_report.json beside them.

    Labels are `arousal`, `valence` and `dominance` from 1 to 5, and
    `emotion`. The corpus rates activation with 1 = very active; arousal is 6
    minus that. It is turned once, as the labels are read, and each entry with
    ratings says ``"activation_flipped": true``.

    Arguments
    ---------
    data_folder : str
        The corpus, with Evalution.txt and session1 to session6 in it, or the
        sessions in Audio and Video.
    save_json_train, save_json_valid, save_json_test : str
        Where to write the manifests.
    partition : int or str
        1 to 5: as released with VAVL (four sessions train, one validates, one
        tests). "session1" to "session6": that session tests, the next one
        validates. Or the path of a JSON file ``{"train": [speakers], "valid":
        [...], "test": [...]}`` of speakers F01 to F06 and M01 to M06.
    label_csv : str, optional
        A label CSV released with VAVL: its ratings hold, and its Split_Set if
        `partition` is a number. A partition of 2 to 5 must agree with the
        Split_Set; 1, the default, need not. It has no classes.
    task : str
        "regression": clips with all three ratings. "classification": clips
        rated angry, happy, neutral or sad.
    csv_activation : str
        "flipped": in the CSV, EmoAct 5 is very active, as in the released
        files. "raw": there, 1 is very active, and it is turned here.
    withhold_audio, withhold_visual : float
        Share, in [0, 1), of the training clips with that modality from which
        it is taken; see :func:`vavl_sb.dataio.manifest.withhold`.
    seed : int
        Chooses the clips that are withheld from.
    num_workers : int, optional
        Threads that look into the media files.
    skip_prep : bool
        If True, do nothing.
    """
    if skip_prep:
        return
    _check_choices(data_folder, task, label_csv, csv_activation)
    # Refuses bad shares now, not after a minute's look into the media.
    withhold({}, withhold_audio, withhold_visual, seed)
    label_csv = os.fspath(label_csv) if label_csv else None
    label_file = label_csv or find_ratings(data_folder)
    report = PrepareReport()
    media = find_media(data_folder, report)

    settings = {
        "version": VERSION,
        "partition": str(partition),
        "label_csv": label_csv,
        "task": task,
        "csv_activation": csv_activation,
        "withhold_audio": withhold_audio,
        "withhold_visual": withhold_visual,
        "seed": seed,
    }
    tables = digest_files([label_file, partition_file(partition)])
    files = [name for group in media.values() for name in group.values()]
    mark = fingerprint({**settings, "tables": tables}, data_folder, files)
    manifests = [save_json_train, save_json_valid, save_json_test]
    save_report = os.path.join(os.path.dirname(save_json_train), REPORT)
    if is_prepared(save_report, mark, manifests, data_folder):
        logger.info("Preparation completed in previous run, skipping.")
        return

    if label_csv is None:
        labels = read_ratings(label_file, report)
    else:
        labels = read_released(label_file, report, csv_activation)
    split_of = make_splitter(partition, label_csv, labels)
    clips = choose_clips(labels, media, split_of, task, report)
    entries = make_entries(clips, media, data_folder, report, num_workers)
    splits = {split: {} for split in SPLITS}
    for clip, entry in entries.items():
        splits[split_of(clip)][clip] = entry
    classes = task == "classification"
    save_splits(
        splits,
        manifests,
        report,
        save_report,
        settings,
        mark,
        data_folder,
        checks={"labels": CLASSES} if classes else {"attributes": ATTRIBUTES},
        speaker_split=split_of,
    )


def _check_choices(data_folder, task, label_csv, csv_activation):
    """Refuses arguments that cannot go together, and a missing corpus."""
    for name, value, allowed in (
        ("task", task, ("classification", "regression")),
        ("csv_activation", csv_activation, ("flipped", "raw")),
    ):
        if value not in allowed:
            raise CorpusError(
                f"{name}: must be {' or '.join(allowed)}, not {value!r}"
            )
    if label_csv and task == "classification":
        raise CorpusError(
            f"label_csv: {label_csv} has ratings, no classes: leave it out, so "
            "that the classes of Evalution.txt are taken, or take "
            "hparams/vavl_reg.yaml"
        )
    if not os.path.isdir(data_folder):
        raise CorpusError(
            f"{data_folder}: no such folder; data_folder must be MSP-IMPROV, "
            "with session1 to session6 in it, or Audio and Video"
        )


def find_media(data_folder, report):
    """Finds the media files of the corpus, in either layout.

    Arguments
    ---------
    data_folder : str
        The corpus.
    report : PrepareReport
        Is told of media files whose name is not that of a clip.

    Returns
    -------
    dict
        "audio" and "video", each a dict of clip id to the file's path below
        the corpus, with slashes.
    """
    media = {"audio": {}, "video": {}}
    for session, folder in session_folders(data_folder):
        for path in _files_below(folder):
            stem, extension = os.path.splitext(os.path.basename(path))
            kind = KINDS.get(extension.lower())
            if kind is None:
                continue
            file = os.path.relpath(path, data_folder).replace(os.sep, "/")
            try:
                clip, _, number = parse_name(stem)
            except CorpusError as reason:
                report.leave_out(file, str(reason), path)
                continue
            if clip in media[kind]:
                report.note(clip, f"two {kind} files", f"{file} is not used")
                continue
            media[kind][clip] = file
            if number != session:
                report.note(clip, "in the folder of another session", file)
    if not media["audio"] and not media["video"]:
        raise CorpusError(
            f"{data_folder}: no clip (MSP-IMPROV-*.wav or .avi) in session1 to "
            "session6, nor in those folders in Audio or Video (left out: "
            f"{report.reasons()}); data_folder must be MSP-IMPROV"
        )
    for kind, group in media.items():
        if not group:
            logger.warning("%s: all clips lack %s", data_folder, kind)
    return media


def session_folders(data_folder):
    """The session folders of the corpus, in a fixed order.

    Arguments
    ---------
    data_folder : str
        The corpus.

    Returns
    -------
    list of tuple
        ``(session, path)``: those at the top, then those in Audio and Video.
    """
    below = subfolders(data_folder)
    places = [data_folder, *filter(_is_media_folder, below)]
    return [
        (int(match.group(1)), path)
        for place in places
        for path in subfolders(place)
        if (match := SESSION_FOLDER.fullmatch(os.path.basename(path)))
    ]


def _is_media_folder(path):
    """Whether a folder is Audio or Video, in any spelling."""
    return MEDIA_FOLDER.fullmatch(os.path.basename(path))


def _files_below(folder, depth=2):
    """Files in a folder and `depth` levels below it, in a fixed order."""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not os.path.isdir(path):
            if not name.startswith("."):
                yield path
        elif depth > 0:
            yield from _files_below(path, depth - 1)


def choose_clips(labels, media, split_of, task, report):
    """Chooses the clips that have labels, a file and a split.

    Arguments
    ---------
    labels : dict
        Clip id to ClipLabels.
    media : dict
        As :func:`find_media` returns it.
    split_of : callable
        As :func:`make_splitter` returns it.
    task : str
        "classification" or "regression".
    report : PrepareReport
        Is told of all others, and of lines of which only a part can be used.

    Returns
    -------
    dict
        Clip id to the fields of its entry (`spk_id`, `session`, `emotion`,
        the ratings), sorted.
    """
    on_disk = {*media["audio"], *media["video"]}
    for clip in sorted(on_disk - set(labels)):
        files = [group[clip] for group in media.values() if clip in group]
        report.leave_out(clip, "on disk, not in the labels", ", ".join(files))
    absent = _absent_sessions(labels, on_disk)
    chosen = {}
    for clip in sorted(labels):
        found = labels[clip]
        _, speaker, session = parse_name(clip)
        if clip not in on_disk:
            reason = "in the labels, not on disk"
            reason = NO_SESSION if session in absent else reason
            report.leave_out(clip, reason, found.where)
        elif split_of(clip) is None:
            report.leave_out(clip, "speaker in no split", f"speaker {speaker}")
        elif task in found.unusable:
            report.leave_out(clip, *found.unusable[task])
        else:
            for reason, detail in found.unusable.values():
                if reason in FAULTS:
                    report.note(clip, reason, detail)
            chosen[clip] = {"spk_id": speaker, "session": session}
            if found.emotion is not None:
                chosen[clip]["emotion"] = found.emotion
            if found.ratings is not None:
                chosen[clip].update(found.ratings, activation_flipped=True)
    return chosen


def _absent_sessions(labels, on_disk):
    """Sessions that the labels have and the disk has not, with a warning."""
    rated = [parse_name(clip)[2] for clip in labels]
    present = {parse_name(clip)[2] for clip in on_disk}
    absent = [n for n in SESSIONS if n in rated and n not in present]
    for number in absent:
        logger.warning(
            "session%d: no such folder, or no clip in it; its %d rated clips "
            "are left out",
            number,
            rated.count(number),
        )
    return absent
