#!/usr/bin/env python3
"""Recipe for training VAVL on CREMA-D: one network that recognises emotion
from speech, from a face, or from both.

> python train.py hparams/vavl_cls.yaml --data_folder /path/to/CREMA-D
> python train.py hparams/vavl_reg.yaml --data_folder /path/to/CREMA-D

The first run turns every clip into features once and keeps them; later runs
start from those. A run leaves its scores (metrics.json), predictions, pictures
and the exported model (inference/) in the output folder. The same command
resumes a run that was stopped.

Authors
 * The vavl_sb authors 2026
"""

import sys

import speechbrain as sb
from cremad_prepare import prepare_cremad
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import infer_device, run_on_main

from vavl_sb.dataio.datasets import emotion_datasets, read_entries
from vavl_sb.dataio.features import extract_features, read_index
from vavl_sb.training.brain import VAVLBrain
from vavl_sb.training.export import export_model
from vavl_sb.training.transfer import standardize_features, start_from
from vavl_sb.utils.errors import exit_on_error


def dataio_prep(hparams, run_opts):
    """Computes the features that are not cached yet, and makes the datasets.

    Arguments
    ---------
    hparams : dict
        The loaded hparams file.
    run_opts : dict
        Run options; the encoders run on its device.

    Returns
    -------
    dict
        A dataset each for "train", "valid" and "test".
    """
    annotations = {
        "train": hparams["train_annotation"],
        "valid": hparams["valid_annotation"],
        "test": hparams["test_annotation"],
    }
    task = {"task": hparams["task"], "labels": hparams["labels"]}
    clips = [
        read_entries(path, hparams["data_folder"], **task)
        for path in annotations.values()
    ]
    raw_audio = not hparams["audio_encoder"].freeze
    run_on_main(
        extract_features,
        kwargs={
            "manifests": clips,
            "clip_encoder": hparams["clip_encoder"].to(
                run_opts["device"] or infer_device()
            ),
            "folder": hparams["feature_folder"],
            "index": hparams["feature_index"],
            "report": hparams["feature_report"],
            "raw_audio": raw_audio,
        },
    )
    return emotion_datasets(
        annotations,
        data_folder=hparams["data_folder"],
        features=read_index(hparams["feature_index"]),
        dims={
            "audio": hparams["audio_encoder"].output_dim,
            "visual": hparams["visual_encoder"].output_dim,
        },
        cache=hparams["feature_folder"],
        raw_audio=raw_audio,
        **task,
    )


def main(arguments):
    """Prepares, extracts, trains, tests and exports.

    Arguments
    ---------
    arguments : list
        Command line without the program's name.
    """
    # CLI:
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)

    # Initialize ddp (useful only for multi-GPU DDP training)
    sb.utils.distributed.ddp_init_group(run_opts)

    # Load hyperparameters file with command-line overrides
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)

    # Create experiment directory
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    train_loggers = [hparams["train_logger"]]
    if hparams["use_tensorboard"]:
        from speechbrain.utils.train_logger import TensorboardLogger

        train_loggers.append(TensorboardLogger(hparams["tensorboard_folder"]))

    # Manifests, features, datasets
    if not hparams["skip_prep"]:
        run_on_main(
            prepare_cremad,
            kwargs={
                "data_folder": hparams["data_folder"],
                "save_json_train": hparams["train_annotation"],
                "save_json_valid": hparams["valid_annotation"],
                "save_json_test": hparams["test_annotation"],
                "partition": hparams["partition"],
                "label_csv": hparams["label_csv"],
                "task": hparams["task"],
                "label_source": hparams["label_source"],
                "withhold_audio": hparams["withhold_audio"],
                "withhold_visual": hparams["withhold_visual"],
                "seed": hparams["seed"],
            },
        )
    datasets = dataio_prep(hparams, run_opts)

    # Where to start from, and what learns besides the network
    if hparams["pretrained_from"] is not None:
        start_from(hparams["pretrained_from"], hparams["vavl"])
    elif hparams["standardize_features"]:
        standardize_features(
            hparams["vavl"],
            features=read_index(hparams["feature_index"]),
            clips=datasets["train"].data_ids,
            folder=hparams["feature_folder"],
            raw_audio=not hparams["audio_encoder"].freeze,
        )
    if not hparams["audio_encoder"].freeze:
        learning = {"audio_encoder": hparams["audio_encoder"]}
        hparams["modules"].update(learning)
        hparams["checkpointer"].add_recoverables(learning)

    brain = VAVLBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
        prediction_loss=hparams["prediction_loss"],
        reconstruction_weight=hparams["reconstruction_weight"],
        lr_audio_encoder=hparams["lr_audio_encoder"],
        select_by=hparams["select_by"],
        train_loggers=train_loggers,
    )
    brain.fit(
        epoch_counter=hparams["epoch_counter"],
        train_set=datasets["train"],
        valid_set=datasets["valid"],
        train_loader_kwargs=hparams["train_dataloader_opts"],
        valid_loader_kwargs=hparams["test_dataloader_opts"],
    )
    brain.evaluate(
        test_set=datasets["test"],
        max_key="score",
        test_loader_kwargs=hparams["test_dataloader_opts"],
    )
    export_model(
        hparams["inference_folder"],
        net=hparams["vavl"],
        clip_encoder=hparams["clip_encoder"],
        task=hparams["task"],
        labels=hparams["labels"],
        corpus=hparams["corpus"],
        attribute_range=hparams["attribute_range"],
    )


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
