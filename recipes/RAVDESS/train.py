#!/usr/bin/env python3
"""Recipe for training VAVL on RAVDESS: one network that recognises emotion
from speech, from a face, or from both, on whatever part of it is on disk.

> python train.py hparams/vavl_cls.yaml --data_folder /path/to/RAVDESS

The first run turns every clip into features once and keeps them; later runs
start from those. A run leaves its scores (metrics.json), predictions, pictures
and the exported model (inference/) in the output folder. The same command
resumes a run that was stopped.

Authors
 * The vavl_sb authors 2026
"""

import sys

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml
from ravdess_prepare import prepare_ravdess
from speechbrain.utils.distributed import run_on_main

from vavl_sb.dataio.buckets import train_loader_opts
from vavl_sb.training.arguments import parse_arguments
from vavl_sb.training.distributed import join_processes
from vavl_sb.training.experiment import (
    dataio_prep,
    export,
    make_brain,
    standardize,
)
from vavl_sb.utils.errors import exit_on_error
from vavl_sb.utils.lock import hold_folder


def main(arguments):
    """Prepares, extracts, trains, tests and exports.

    Arguments
    ---------
    arguments : list
        Command line without the program's name.
    """
    # CLI:
    hparams_file, run_opts, overrides = parse_arguments(arguments)

    # Several processes, where torchrun started them
    join_processes(run_opts)

    # Load hyperparameters file with command-line overrides
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)

    # One run at a time in an output folder
    hold_folder(hparams["output_folder"])

    # Create experiment directory
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )

    # Manifests
    if not hparams["skip_prep"]:
        run_on_main(
            prepare_ravdess,
            kwargs={
                "data_folder": hparams["data_folder"],
                "save_json_train": hparams["train_annotation"],
                "save_json_valid": hparams["valid_annotation"],
                "save_json_test": hparams["test_annotation"],
                "partition": hparams["partition"],
                "label_csv": hparams["label_csv"],
                "labels": hparams["labels"],
                "withhold_audio": hparams["withhold_audio"],
                "withhold_visual": hparams["withhold_visual"],
                "seed": hparams["seed"],
            },
        )
    if hparams["prepare_only"]:
        return

    # Brain, features and datasets, and what the network starts from
    brain = make_brain(hparams, run_opts)
    datasets = dataio_prep(hparams, run_opts)
    standardize(hparams, datasets)
    brain.fit(
        epoch_counter=hparams["epoch_counter"],
        train_set=datasets["train"],
        valid_set=datasets["valid"],
        train_loader_kwargs=train_loader_opts(
            hparams["train_dataloader_opts"],
            datasets["train"],
            hparams["bucket_batches"],
            hparams["seed"],
        ),
        valid_loader_kwargs=hparams["test_dataloader_opts"],
    )
    brain.evaluate(
        test_set=datasets["test"],
        max_key="score",
        test_loader_kwargs=hparams["test_dataloader_opts"],
    )
    export(hparams, datasets)


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
