"""What the train.py of all corpora share: a brain, datasets, and a start.

A train.py prepares its corpus, then calls :func:`make_brain` (which refuses
what cannot work, before hours are spent), :func:`dataio_prep` and
:func:`standardize`, fits and evaluates, and calls :func:`export`.

Authors
 * The vavl_sb authors 2026
"""

import os

from speechbrain.utils.distributed import infer_device, run_on_main

from vavl_sb.dataio.datasets import emotion_datasets, read_entries
from vavl_sb.dataio.manifest import SPLITS, check_disjoint, refuse_overlap
from vavl_sb.dataio.preparation import recorded_folder
from vavl_sb.features.cache import read_index
from vavl_sb.features.extraction import extract_features
from vavl_sb.features.speed import add_speeds, check_speeds
from vavl_sb.training.brain import VAVLBrain
from vavl_sb.training.export import export_model
from vavl_sb.training.init_from_pretrained import (
    carried_modalities,
    read_about,
    standardize_features,
    start_from,
)
from vavl_sb.training.run_fingerprint import (
    other_corpora,
    record_run,
    refuse_other_run,
)
from vavl_sb.training.run_metadata import run_record, trained_heads
from vavl_sb.utils import distributed as processes
from vavl_sb.utils.corpora import corpus_name
from vavl_sb.utils.errors import CorpusError, ManifestError, VAVLError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)


def read_splits(hparams):
    """Reads the manifests of a run, and the training clips of other corpora.

    Arguments
    ---------
    hparams : dict
        The loaded hparams file; of it ``train_annotation``,
        ``valid_annotation``, ``test_annotation``, ``data_folder``, ``task``,
        ``labels`` and ``also_train``: a folder with the manifests of
        another corpus, or a list of such folders, whose train.json is added to
        the training clips.

    Returns
    -------
    dict
        "train", "valid" and "test": clip id to entry, with real paths.

    Raises
    ------
    ManifestError
        In one line: a manifest cannot be used, its labels are not those of
        this run, or an id stands in two corpora.
    CorpusError
        A speaker of another corpus is in this run's valid or test. (Manifests
        of the user's own that share a speaker give a warning: a prepare
        script never writes such.)
    """
    task = (hparams["task"], hparams["labels"])
    splits = {
        split: read_entries(
            hparams[f"{split}_annotation"], hparams["data_folder"], *task
        )
        for split in SPLITS
    }
    try:
        check_disjoint(*(splits[split] for split in SPLITS))
    except CorpusError as error:
        # No prepare script makes these; whoever does may want to see whether
        # a few clips can be learned by heart.
        logger.warning("%s: the scores say nothing of new speakers", error)
    for folder in other_corpora(hparams["also_train"]):
        path = os.path.join(folder, "train.json")
        more = read_entries(path, recorded_folder(folder), *task)
        _refuse_shared(path, more, splits)
        splits["train"] = {**splits["train"], **more}
    return splits


def _refuse_shared(path, more, splits):
    """Refuses training clips that share an id, or a test speaker, with a run.

    Arguments
    ---------
    path : str
        The manifest that the clips are from.
    more : dict
        Clip id to entry: the clips.
    splits : dict
        "train", "valid" and "test" of the run.
    """
    for split, entries in splits.items():
        twice = sorted(set(more) & set(entries))
        if twice:
            others = f" (and {len(twice) - 1} more)" * (len(twice) > 1)
            raise ManifestError(
                f"{path}: {twice[0]}{others} is already a {split} clip of "
                "this run; ids must be unique over all corpora"
            )
    speakers = {
        split: {entry["spk_id"] for entry in entries.values()}
        for split, entries in {**splits, "train": more}.items()
    }
    refuse_overlap(speakers, "speaker", path)


def dataio_prep(hparams, run_opts):
    """Computes the features that are not cached yet, and makes the datasets.

    Arguments
    ---------
    hparams : dict
        The loaded hparams file; ``speed_changes``, if it is there, are the
        speeds at which training clips are copied
        (:func:`vavl_sb.features.speed.add_speeds`).
    run_opts : dict
        Run options; the encoders run on its device.

    Returns
    -------
    dict
        A ``DynamicItemDataset`` each for "train", "valid" (None if it is
        empty) and "test".
    """
    splits = read_splits(hparams)
    splits["train"] = add_speeds(
        splits["train"],
        hparams.get("speed_changes", []),
        taken={*splits["valid"], *splits["test"]},
    )
    raw_audio = not hparams["audio_encoder"].freeze
    device = run_opts["device"] or infer_device()
    # Every process takes its share of the clips.
    extract_features(
        manifests=list(splits.values()),
        feature_extractor=hparams["feature_extractor"].to(device),
        folder=hparams["feature_folder"],
        index=hparams["feature_index"],
        report=hparams["feature_report"],
        raw_audio=raw_audio,
    )
    return emotion_datasets(
        splits,
        features=read_index(hparams["feature_index"]),
        task=hparams["task"],
        labels=hparams["labels"],
        dims={
            "audio": hparams["audio_encoder"].output_dim,
            "visual": hparams["visual_encoder"].output_dim,
        },
        cache=hparams["feature_folder"],
        raw_audio=raw_audio,
    )


def make_brain(hparams, run_opts):
    """The brain of a run, from new weights or from those of another run.

    Arguments
    ---------
    hparams : dict
        The loaded hparams file.
    run_opts : dict
        Run options, from the command line.

    Returns
    -------
    vavl_sb.training.brain.VAVLBrain

    Raises
    ------
    VAVLError
        In one line: an option that cannot be meant, an output folder that
        holds another run, or a ``pretrained_from`` that does not fit.
    """
    _refuse_fp16(run_opts)
    if processes.count() > 1 and hparams.get("bucket_batches"):
        raise VAVLError(
            "bucket_batches: several processes cannot share such batches yet; "
            "leave it out, or start train.py with python"
        )
    check_speeds(hparams.get("speed_changes", []))
    _check_hearing(hparams)
    _check_features(hparams)
    identity = refuse_other_run(hparams, run_opts)
    audio_encoder = hparams["audio_encoder"]
    if hparams["pretrained_from"] is not None:
        start_from(
            hparams["pretrained_from"],
            hparams["vavl"],
            hparams["feature_extractor"],
            splits=read_splits(hparams),
        )
    if not audio_encoder.freeze:
        hparams["modules"]["audio_encoder"] = audio_encoder
        hparams["checkpointer"].add_recoverable("audio_encoder", audio_encoder)
    brain = VAVLBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
        prediction_loss=hparams["prediction_loss"],
        reconstruction_weight=hparams["reconstruction_weight"],
        lr_audio_encoder=hparams["lr_audio_encoder"],
        lr_annealing=hparams["lr_annealing"],
        schedule=hparams["schedule"],
        mixup=hparams.get("mixup", 0.0),
        select_by=hparams["select_by"],
        attribute_range=hparams["attribute_range"],
        train_loggers=_train_loggers(hparams),
    )
    # Not before: what was refused above must not claim the folder.
    record_run(hparams, identity)
    return brain


def _check_hearing(hparams):
    """Refuses several speeds for an encoder that hears training clips once."""
    if hparams["feature_extractor"].audio_speeds and not (
        hparams["audio_encoder"].freeze
    ):
        raise VAVLError(
            "audio_speeds: a speech encoder that learns hears a clip once; "
            "set it to [], or freeze_audio_encoder to True"
        )


def _check_features(hparams):
    """Refuses whitening and noise where features have no statistics."""
    audio_learns = not hparams["audio_encoder"].freeze
    carried = carried_modalities(hparams["pretrained_from"])
    for option in ("feature_whitening", "feature_noise"):
        if not hparams.get(option):
            continue
        if not hparams["standardize_features"]:
            raise VAVLError(
                f"{option}: needs standardized features; set it to null or 0, "
                "or standardize_features to True"
            )
        if audio_learns and "audio" not in carried:
            raise VAVLError(
                f"{option}: a speech encoder that learns has no statistics; "
                "set it to null or 0, or freeze_audio_encoder to True"
            )


def _refuse_fp16(run_opts):
    """fp16 is for GPUs: told in one line, before SpeechBrain raises."""
    device = str(run_opts.get("device") or infer_device())
    for option in ("precision", "eval_precision"):
        if run_opts.get(option) == "fp16" and not device.startswith("cuda"):
            raise VAVLError(
                f"{option}: fp16 needs a GPU, and this run is on {device}; "
                f"use --{option} bf16, or leave it out"
            )


def standardize(hparams, datasets):
    """Sets the statistics of the network's inputs, where the YAML says so.

    A run that starts from a model keeps its statistics.

    Arguments
    ---------
    hparams : dict
        The loaded hparams file.
    datasets : dict
        From :func:`dataio_prep`; the training clips give the statistics.
    """
    if not hparams["standardize_features"]:
        return
    train = datasets["train"]
    # Of labels alone: nothing is read from disk for them.
    with train.output_keys_as(["id", "label"]):
        targets = {clip["id"]: clip["label"] for clip in train}
    # The brain gives them to the other processes, as all it starts from.
    run_on_main(
        standardize_features,
        kwargs={
            "net": hparams["vavl"],
            "features": read_index(hparams["feature_index"]),
            "targets": targets,
            "folder": hparams["feature_folder"],
            "raw_audio": not hparams["audio_encoder"].freeze,
            "carried": carried_modalities(hparams["pretrained_from"]),
        },
    )


def export(hparams, datasets):
    """Writes the run's ``inference/`` folder.

    Arguments
    ---------
    hparams : dict
        The loaded hparams file.
    datasets : dict
        From :func:`dataio_prep`.
    """
    run_on_main(_export, [hparams, datasets])


def _export(hparams, datasets):
    """What :func:`export` does, in the main process."""
    clips = datasets["train"].data
    speakers = {clip["spk_id"] for clip in clips.values()}
    if hparams["pretrained_from"] is not None:
        # Whom the model behind this one has learned from, it knows as well.
        speakers |= read_about(hparams["pretrained_from"])["train_speakers"]
    export_model(
        hparams["inference_folder"],
        net=hparams["vavl"],
        feature_extractor=hparams["feature_extractor"],
        train_speakers=speakers,
        record=run_record(
            output_folder=hparams["output_folder"],
            audio_encoder=hparams["audio_encoder"],
            visual_encoder=hparams["visual_encoder"],
            audio_encoder_source=hparams["audio_encoder_source"],
            visual_encoder_weights=hparams["visual_encoder_weights"],
            feature_whitening=hparams["vavl"].settings["feature_whitening"],
            audio_speeds=hparams["feature_extractor"].audio_speeds,
            **{
                key: hparams[key]
                for key in ("seed", "partition", "also_train")
                + ("withhold_audio", "withhold_visual", "pretrained_from")
            },
        ),
        task=hparams["task"],
        labels=hparams["labels"],
        corpus=corpus_name(hparams["corpus"], hparams["data_folder"]),
        attribute_range=hparams["attribute_range"],
        trained_heads=trained_heads(
            read_index(hparams["feature_index"]), clips
        ),
    )


def _train_loggers(hparams):
    """The file logger, and TensorBoard's where it is switched on."""
    loggers = [hparams["train_logger"]]
    if hparams["use_tensorboard"]:
        from speechbrain.utils.train_logger import TensorboardLogger

        try:
            logger = TensorboardLogger(hparams["tensorboard_folder"])
        except ImportError:
            raise VAVLError(
                "use_tensorboard: the package tensorboard is not installed; "
                "pip install tensorboard, or leave use_tensorboard out"
            ) from None
        loggers.append(logger)
    return loggers
