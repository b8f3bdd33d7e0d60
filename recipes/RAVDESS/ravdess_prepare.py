"""Prepares RAVDESS: manifests for training, validation and test.

Download: https://zenodo.org/records/1188976. Any part of its speech will do:
``Audio_Speech_Actors_01-24.zip`` alone (215 MB), some or all of the
``Video_Speech_Actor_*.zip``, or both, unpacked anywhere below one folder.

Livingstone S. R., Russo F. A., "The Ryerson Audio-Visual Database of Emotional
Speech and Song (RAVDESS)", PLoS ONE 13(5):e0196391, 2018. Licence:
CC BY-NC-SA 4.0.

From a train.py::

    run_on_main(
        prepare_ravdess,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_json_train": hparams["train_annotation"],
            "save_json_valid": hparams["valid_annotation"],
            "save_json_test": hparams["test_annotation"],
            "partition": hparams["partition"],
            "labels": hparams["labels"],
        },
    )

Authors
 * The vavl_sb authors 2026
"""

import os

from ravdess_files import choose_sources, find_files
from ravdess_names import CLASSES, SIX_CLASSES
from ravdess_splits import DEFAULT_PARTITION, partition_file, split_speakers

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


def prepare_ravdess(
    data_folder,
    save_json_train,
    save_json_valid,
    save_json_test,
    partition=DEFAULT_PARTITION,
    label_csv=None,
    labels=SIX_CLASSES,
    withhold_audio=0.0,
    withhold_visual=0.0,
    seed=1234,
    num_workers=None,
    skip_prep=False,
):
    """Makes the manifests of RAVDESS, and prepare_report.json beside them.

    An utterance is one entry, whatever files of it there are; the modality
    that they lack is null. Whatever is left out, song included, is counted,
    and named in the report.

    Arguments
    ---------
    data_folder : str
        Any part of the release, at any depth.
    save_json_train, save_json_valid, save_json_test : str
        Where to write the manifests.
    partition : int or str
        1 to 3: speaker lists balanced by sex (16 to train, 4 to validate, 4 to
        test). Or the path of a JSON file ``{"train": [actors], "valid": [...],
        "test": [...]}``.
    label_csv : None
        RAVDESS has its labels in the files' names: anything else is refused.
    labels : sequence of str
        Classes, of the eight; clips of other classes are left out.
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
    _check_choices(data_folder, label_csv, labels)
    # Refuses bad shares now, not after a minute's look into the media.
    withhold({}, withhold_audio, withhold_visual, seed)
    report = PrepareReport()
    utterances, files = find_files(data_folder, report)
    settings = {
        "version": VERSION,
        "partition": str(partition),
        "labels": list(labels),
        "withhold_audio": withhold_audio,
        "withhold_visual": withhold_visual,
        "seed": seed,
    }
    speaker_file = partition_file(partition)
    tables = digest_files([speaker_file] if speaker_file else [])
    mark = fingerprint(
        {**settings, "tables": tables},
        data_folder,
        [name for group in files.values() for name in group.values()],
    )
    manifests = [save_json_train, save_json_valid, save_json_test]
    save_report = os.path.join(os.path.dirname(save_json_train), REPORT)
    if is_prepared(save_report, mark, manifests, data_folder):
        logger.info("Preparation completed in previous run, skipping.")
        return

    spoken = choose_spoken(utterances, labels, data_folder, report)
    on_disk = {utterances[clip].spk_id for clip in spoken}
    split_of_speaker = split_speakers(partition, on_disk)

    def split_of(clip):
        # What the report names need not be an utterance.
        known = utterances.get(clip)
        return split_of_speaker.get(known.spk_id) if known else None

    clips = {}
    for clip, fields in spoken.items():
        if split_of(clip) is None:
            report.leave_out(clip, "speaker in no split", fields["spk_id"])
        else:
            clips[clip] = fields
    media = choose_sources(clips, files, report)
    entries = make_entries(clips, media, data_folder, report, num_workers)
    splits = {split: {} for split in SPLITS}
    for clip, entry in entries.items():
        splits[split_of(clip)][clip] = entry
    save_splits(
        splits,
        manifests,
        report,
        save_report,
        settings,
        mark,
        data_folder,
        checks={"labels": labels},
        speaker_split=split_of,
    )


def _check_choices(data_folder, label_csv, labels):
    """Refuses what RAVDESS does not have, and a missing corpus."""
    if label_csv is not None:
        raise CorpusError(
            f"label_csv: must be null for RAVDESS, not {label_csv!r}: its "
            "labels are in the files' names"
        )
    several = isinstance(labels, list | tuple) and len(labels) > 1
    unknown = [name for name in labels if name not in CLASSES] if several else 0
    if not several or unknown or len(set(labels)) < len(labels):
        raise CorpusError(
            f"labels: must be two or more of {', '.join(CLASSES)}, each once, "
            f"not {labels!r}"
        )
    if not os.path.isdir(data_folder):
        raise CorpusError(
            f"{data_folder}: no such folder; data_folder must have files of "
            "RAVDESS in it, at any depth"
        )


def choose_spoken(utterances, labels, data_folder, report):
    """Chooses the utterances that are speech of the wanted classes.

    Arguments
    ---------
    utterances : dict
        As :func:`find_files` returns it.
    labels : sequence of str
        Classes.
    data_folder : str
        The corpus, for the error.
    report : PrepareReport
        Is told of all others.

    Returns
    -------
    dict
        Id to the fields of its entry (`spk_id`, `sex`, `emotion`, `intensity`,
        `statement`, `repetition`), sorted. CorpusError if there is none.
    """
    chosen = {}
    for clip in sorted(utterances):
        utterance = utterances[clip]
        if utterance.song:
            report.leave_out(clip, "song")
        elif utterance.emotion not in labels:
            report.leave_out(clip, f"{utterance.emotion} is not in labels")
        else:
            chosen[clip] = utterance.fields()
    if not chosen:
        raise CorpusError(
            f"{data_folder}: no speech of the classes {', '.join(labels)} in "
            f"it (left out: {report.reasons()})"
        )
    return chosen
