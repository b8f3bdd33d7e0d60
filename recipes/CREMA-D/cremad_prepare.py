"""Prepares CREMA-D: manifests for training, validation and test.

Download: https://github.com/CheyneyComputerScience/CREMA-D (with Git LFS:
``git lfs install`` before ``git clone``). Needed of it are
``AudioWAV/``, ``VideoFlash/`` and ``processedResults/tabulatedVotes.csv``.

Cao H., Cooper D. G., Keutmann M. K., Gur R. C., Nenkova A., Verma R.,
"CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE Transactions
on Affective Computing 5(4), 2014. Licence: ODbL 1.0.

From a train.py::

    run_on_main(
        prepare_cremad,
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

from cremad_labels import (
    CLASSES,
    ClipLabels,
    parse_name,
    read_released,
    read_votes,
)
from cremad_splits import DEFAULT_PARTITION, make_splitter, partition_file

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
VOTES = os.path.join("processedResults", "tabulatedVotes.csv")
VIDEO_FOLDER = "VideoFlash"
EXTENSIONS = {"AudioWAV": ".wav", "AudioMP3": ".mp3", VIDEO_FOLDER: ".flv"}


def prepare_cremad(
    data_folder,
    save_json_train,
    save_json_valid,
    save_json_test,
    partition=DEFAULT_PARTITION,
    label_csv=None,
    task="classification",
    label_source="votes",
    withhold_audio=0.0,
    withhold_visual=0.0,
    seed=1234,
    audio_folder="AudioWAV",
    num_workers=None,
    skip_prep=False,
):
    """Makes the manifests of CREMA-D, and prepare_report.json beside them.

    A clip with one sound file of the two is kept, with null for the other.
    Whatever is left out is counted, and named in the report.

    Arguments
    ---------
    data_folder : str
        The corpus, with AudioWAV, VideoFlash and processedResults in it.
    save_json_train, save_json_valid, save_json_test : str
        Where to write the manifests.
    partition : int or str
        1 to 5: the speaker lists released with VAVL (63 speakers to train, 14
        to validate, 14 to test). Or the path of a JSON file ``{"train":
        [speakers], "valid": [...], "test": [...]}``, for another split or a
        part of the corpus.
    label_csv : str, optional
        A label CSV released with VAVL. Its labels and its Split_Set hold; the
        split only unless `partition` is a file. A partition of 2 to 5 must
        agree with the Split_Set; 1, the default, need not.
    task : str
        "classification": clips that have a class. "regression": clips that
        have shares of votes, with or without a class.
    label_source : str
        "votes": the class is the one with more than half of the audio-visual
        votes. "acted": the emotion in the file's name, for every clip.
    withhold_audio, withhold_visual : float
        Share, in [0, 1), of the training clips with that modality from which
        it is taken; see :func:`vavl_sb.dataio.manifest.withhold`.
    seed : int
        Chooses the clips that are withheld from.
    audio_folder : str
        "AudioWAV", or "AudioMP3" to take the audio as the raters heard it.
        The one never stands in for the other clip by clip: the coding would
        then tell such clips from the rest.
    num_workers : int, optional
        Threads that look into the media files.
    skip_prep : bool
        If True, do nothing.
    """
    if skip_prep:
        return
    _check_choices(data_folder, task, label_source, label_csv, audio_folder)
    # Refuses bad shares now, not after a minute's look into the media.
    withhold({}, withhold_audio, withhold_visual, seed)
    label_csv = os.fspath(label_csv) if label_csv else None
    report = PrepareReport()
    media = find_media(data_folder, audio_folder, report)
    label_file = label_csv or os.path.join(data_folder, VOTES)

    settings = {
        "version": VERSION,
        "partition": str(partition),
        "label_csv": label_csv,
        "task": task,
        "label_source": label_source,
        "withhold_audio": withhold_audio,
        "withhold_visual": withhold_visual,
        "seed": seed,
        "audio_folder": audio_folder,
    }
    tables = digest_files([label_file, partition_file(partition)])
    files = [name for group in media.values() for name in group.values()]
    mark = fingerprint({**settings, "tables": tables}, data_folder, files)
    manifests = [save_json_train, save_json_valid, save_json_test]
    save_report = os.path.join(os.path.dirname(save_json_train), REPORT)
    if is_prepared(save_report, mark, manifests, data_folder):
        logger.info("Preparation completed in previous run, skipping.")
        return

    labels = read_labels(label_file, label_csv, label_source, media, report)
    split_of = make_splitter(partition, label_csv, labels)
    clips = choose_clips(labels, media, split_of, task, report)
    entries = make_entries(clips, media, data_folder, report, num_workers)
    splits = {split: {} for split in SPLITS}
    for clip, entry in entries.items():
        splits[split_of(clip)][clip] = entry
    field = "labels" if task == "classification" else "attributes"
    save_splits(
        splits,
        manifests,
        report,
        save_report,
        settings,
        mark,
        data_folder,
        checks={field: CLASSES},
        speaker_split=split_of,
    )


def _check_choices(data_folder, task, label_source, label_csv, audio_folder):
    """Refuses arguments that cannot go together, and a missing corpus."""
    for name, value, allowed in (
        ("task", task, ("classification", "regression")),
        ("label_source", label_source, ("votes", "acted")),
        ("audio_folder", audio_folder, ("AudioWAV", "AudioMP3")),
    ):
        if value not in allowed:
            raise CorpusError(
                f"{name}: must be {' or '.join(allowed)}, not {value!r}"
            )
    if label_source == "acted" and label_csv:
        raise CorpusError(
            "label_source=acted takes the labels from the files' names: leave "
            "label_csv out, or take label_source=votes"
        )
    if label_source == "acted" and task == "regression":
        raise CorpusError(
            "label_source=acted gives classes, no shares of votes: take "
            "label_source=votes for task=regression"
        )
    if not os.path.isdir(data_folder):
        raise CorpusError(
            f"{data_folder}: no such folder; data_folder must be CREMA-D, "
            f"with {audio_folder} and {VIDEO_FOLDER} in it"
        )


def find_media(data_folder, audio_folder, report):
    """Finds the media files of the corpus.

    Arguments
    ---------
    data_folder : str
        The corpus.
    audio_folder : str
        "AudioWAV" or "AudioMP3".
    report : PrepareReport
        Is told of files whose name is not that of a clip.

    Returns
    -------
    dict
        "audio" and "video", each a dict of clip id to the file's path below
        the corpus, with slashes.
    """
    media = {}
    for kind, folder in (("audio", audio_folder), ("video", VIDEO_FOLDER)):
        media[kind] = {}
        path = os.path.join(data_folder, folder)
        if not os.path.isdir(path):
            logger.warning("%s: no such folder; all clips lack %s", path, kind)
            continue
        # Sorted, so that nothing depends on the order on disk.
        for name in sorted(os.listdir(path)):
            stem, extension = os.path.splitext(name)
            file = f"{folder}/{name}"
            try:
                if extension.lower() != EXTENSIONS[folder]:
                    raise CorpusError(f"not a {EXTENSIONS[folder]} file")
                clip, _, _ = parse_name(stem)
            except CorpusError as reason:
                report.leave_out(file, str(reason), os.path.join(path, name))
                continue
            if clip in media[kind]:
                report.note(clip, f"two {kind} files", f"{file} is not used")
                continue
            media[kind][clip] = file
    if not media["audio"] and not media["video"]:
        raise CorpusError(
            f"{data_folder}: no clip in {audio_folder}/*"
            f"{EXTENSIONS[audio_folder]} nor in {VIDEO_FOLDER}/*"
            f"{EXTENSIONS[VIDEO_FOLDER]} (left out: {report.reasons()}); "
            "data_folder must be CREMA-D"
        )
    return media


def read_labels(label_file, label_csv, label_source, media, report):
    """Reads the labels that the arguments ask for.

    Arguments
    ---------
    label_file : str
        The label CSV, or the official vote table.
    label_csv : str or None
        Not None if `label_file` is a label CSV.
    label_source : str
        "votes" or "acted".
    media : dict
        As :func:`find_media` returns it.
    report : PrepareReport
        Is told of labels that cannot be used.

    Returns
    -------
    dict
        Clip id to ClipLabels.
    """
    if label_csv is not None:
        return read_released(label_file, report)
    if label_source == "votes":
        return read_votes(label_file, report)
    # Votes cannot decide which clips are kept here, so what is wrong with
    # them is not this report's business.
    votes = {}
    if os.path.exists(label_file):
        votes = read_votes(label_file, PrepareReport())
    labels = {}
    for clip in sorted({*media["audio"], *media["video"]}):
        _, _, emotion = parse_name(clip)
        shares = votes[clip].shares if clip in votes else None
        labels[clip] = ClipLabels(emotion, shares)
    return labels


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
        Is told of all others.

    Returns
    -------
    dict
        Clip id to the fields of its entry (`spk_id`, `emotion`, the shares of
        the votes), sorted.
    """
    on_disk = {*media["audio"], *media["video"]}
    named = {clip for group in report.left_out.values() for clip in group}
    for clip in sorted(on_disk - set(labels) - named):
        files = [group[clip] for group in media.values() if clip in group]
        report.leave_out(clip, "on disk, not in the labels", ", ".join(files))
    chosen = {}
    for clip in sorted(labels):
        if clip not in on_disk:
            report.leave_out(clip, "in the labels, not on disk")
        elif split_of(clip) is None:
            report.leave_out(clip, "speaker in no split", f"speaker {clip[:4]}")
        elif task == "classification" and labels[clip].emotion is None:
            report.leave_out(clip, "no majority", labels[clip].detail)
        else:
            chosen[clip] = {"spk_id": clip[:4]}
            if labels[clip].emotion is not None:
                chosen[clip]["emotion"] = labels[clip].emotion
            chosen[clip].update(labels[clip].shares or {})
    return chosen
