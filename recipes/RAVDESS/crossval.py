#!/usr/bin/env python3
"""Cross-validation over the actors, with all choices made inside each fold.

> python crossval.py hparams/vavl_cls.yaml --data_folder /path/to/RAVDESS

For each fold, every choice of crossval_choices.yaml is cross-validated over the
fold's training actors (see choose, below). The best one is then trained on all
training actors, once for each seed, and scored on the fold's own actors. What
the choices do not name stays as the hparams file has it for all folds. Each run
is a train.py run without validation clips: the last epoch is kept. Beside it, a
class-weighted logistic regression on time-averaged features (baseline.py) is
scored on the same folds.

What has finished is not run again, so the same command goes on after a stop.

Authors
 * The vavl_sb authors 2026
"""

import argparse
import csv
import json
import os
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import yaml
from baseline import check_sklearn
from crossval_report import report, score
from ravdess_prepare import find_utterances

from vavl_sb.dataio.preparation import PrepareReport
from vavl_sb.evaluation.protocol import Plan, run_protocol
from vavl_sb.evaluation.settings import (
    RESERVED,
    as_words,
    read_overrides,
    read_seeds,
)
from vavl_sb.training.arguments import parse_arguments
from vavl_sb.utils.errors import VAVLError, exit_on_error
from vavl_sb.utils.files import write_json, write_lines
from vavl_sb.utils.text import say

HERE = Path(__file__).resolve().parent


def read_options(words):
    """Reads the command line.

    Arguments
    ---------
    words : list
        Command line without the program's name.

    Returns
    -------
    argparse.Namespace
        ``rest`` holds the options that each train.py gets.
    """
    parser = argparse.ArgumentParser(
        description="Cross-validation over the actors of RAVDESS.",
        epilog="All other options (--key value) go to each train.py.",
        allow_abbrev=False,
    )
    parser.add_argument("hparams", help="hparams/vavl_cls.yaml")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", default="3", help="how many, or a list 1,2,")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--choices", default=HERE / "crossval_choices.yaml")
    parser.add_argument("--output_folder", default="results/crossval")
    options, options.rest = parser.parse_known_args(words)
    return options


def _check(options, overrides):
    """Refuses, before hours are spent, what cannot end well."""
    if not overrides.get("data_folder"):
        raise VAVLError("--data_folder: give the folder of RAVDESS")
    if options.jobs < 1:
        raise VAVLError(f"--jobs: must be at least 1, not {options.jobs}")
    if str(overrides.get("freeze_audio_encoder")).lower() == "false":
        raise VAVLError(
            "--freeze_audio_encoder: the logistic regression needs features "
            "of a frozen encoder; leave it out"
        )
    check_sklearn()


def read_choices(path):
    """Reads what is chosen between.

    Arguments
    ---------
    path : str or Path
        A YAML file: name to what it changes of the hparams file.

    Returns
    -------
    dict
        VAVLError, in one line, if the file is not like that.
    """
    try:
        with open(path, encoding="utf-8") as file:
            choices = yaml.safe_load(file)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:150]
        raise VAVLError(
            f"--choices: {path}: cannot be read ({reason})"
        ) from None
    if not isinstance(choices, dict) or not all(
        isinstance(changes, dict) for changes in choices.values()
    ):
        raise VAVLError(
            f"--choices: {path}: must name settings, each with what it "
            "changes ({} for nothing)"
        )
    # None would be an option without a value.
    return {
        name: {k: "null" if v is None else v for k, v in changes.items()}
        for name, changes in choices.items()
    }


def make_folds(data_folder, count):
    """Divides the actors on disk into folds.

    Arguments
    ---------
    data_folder : str
        The corpus.
    count : int
        How many folds; 3 at least, since a fold's training actors are divided
        once more.

    Returns
    -------
    list of list
        Speaker ids; neighbours by number, and so as many women as men where
        a fold's size is even. VAVLError if there are too few actors.
    """
    _, utterances = find_utterances(data_folder, PrepareReport())
    speakers = sorted({found.spk_id for found in utterances.values()})
    if not 3 <= count <= len(speakers):
        raise VAVLError(
            f"--folds: must be 3 to the number of actors ({len(speakers)}), "
            f"not {count}"
        )
    return [part.tolist() for part in np.array_split(speakers, count)]


def write_split(path, train, test):
    """Writes a partition without validation.

    Arguments
    ---------
    path : Path
        The JSON file.
    train, test : list of str
        Speaker ids.

    Returns
    -------
    str
        The path.
    """
    write_json(path, {"train": train, "valid": [], "test": test})
    return str(path)


def choose(options, folder, overrides, folds, choices):
    """Chooses the settings of each fold by its training actors.

    For each pair of folds and each choice, one network is trained on the
    actors of all other folds and scored on those of the pair. What it says of
    the one fold counts for the choice of the other, so that each fold's
    choice is made on all of its training actors, by networks that have seen
    neither them nor the fold's own.

    Arguments
    ---------
    options : argparse.Namespace
        From :func:`read_options`.
    folder : Path
        Where everything goes.
    overrides : dict
        For each train.py.
    folds : list of list
        From :func:`make_folds`.
    choices : dict
        Name to what it overrides.

    Returns
    -------
    list of dict
        For each fold the UAR of each choice on its training actors.
    """
    from sklearn.metrics import balanced_accuracy_score

    pairs = list(combinations(range(len(folds)), 2))
    splits = {}
    for i, j in pairs:
        test = [*folds[i], *folds[j]]
        train = [s for fold in folds for s in fold if s not in test]
        name = f"pair{i + 1}{j + 1}"
        path = folder / "splits" / f"{name}.json"
        splits[name] = write_split(path, train, test)
    found = [{} for _ in folds]
    for name, changes in choices.items():
        say(f"choice {name}: {changes or 'as in the hparams file'}")
        place = folder / "choices" / name
        seeds = read_seeds(options.seeds)[:1]
        _protocol(options, place, splits, seeds, {**overrides, **changes})
        answers = [[] for _ in folds]
        for i, j in pairs:
            run = place / f"partitionpair{i + 1}{j + 1}_seed{seeds[0]}"
            for truth, prediction, speaker in _answers(run):
                # A clip of one fold of the pair is the other's held-out one.
                other = j if speaker in folds[i] else i
                answers[other].append((truth, prediction))
        for scores, said in zip(found, answers):
            scores[name] = float(balanced_accuracy_score(*zip(*said)))
    return found


def _answers(run):
    """True class, the audio head's class, and speaker of a run's test clips."""
    entries = json.loads((run / "test.json").read_text("utf-8"))
    with open(run / "predictions_test.csv", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["modality"] == "audio"]
    if not rows:
        raise VAVLError(f"{run}: no test clip has sound; it cannot be scored")
    return [
        (r["label"], r["prediction"], entries[r["id"]]["spk_id"]) for r in rows
    ]


def test(options, folder, overrides, folds, chosen):
    """Trains what was chosen on all training actors, and tests it.

    Arguments
    ---------
    options : argparse.Namespace
        From :func:`read_options`.
    folder : Path
        Where everything goes.
    overrides : dict
        For each train.py.
    folds : list of list
        From :func:`make_folds`.
    chosen : list of dict
        For each fold what its choice overrides.

    Returns
    -------
    list of list of Path
        For each fold the folders of its runs, a seed each.
    """
    seeds, runs = read_seeds(options.seeds), []
    for k, (speakers, changes) in enumerate(zip(folds, chosen), 1):
        train = [s for f in folds for s in f if s not in speakers]
        path = folder / "splits" / f"fold{k}.json"
        split = {f"fold{k}": write_split(path, train, speakers)}
        place = folder / "folds"
        say(f"fold {k} of {len(folds)}: {changes or 'as in the hparams file'}")
        place = place / f"{k}"
        _protocol(options, place, split, seeds, {**overrides, **changes})
        runs.append([place / f"partitionfold{k}_seed{seed}" for seed in seeds])
    return runs


def _protocol(options, place, splits, seeds, overrides):
    """Runs a protocol; refuses to go on where a run failed."""
    words = {key: None if v is None else str(v) for key, v in overrides.items()}
    plan = Plan(
        hparams=options.hparams,
        partitions=splits,
        seeds=seeds,
        overrides=words,
        folder=str(place.absolute()),
        jobs=options.jobs,
    )
    if run_protocol(plan, say)["partial"]:
        raise VAVLError(f"{place}: a run failed, see above; run again")


def main(words):
    """Chooses, trains, tests and reports.

    Arguments
    ---------
    words : list
        Command line without the program's name.
    """
    options = read_options(words)
    overrides = read_overrides(options.rest)
    _check(options, overrides)
    # Absolute, since train.py runs in the recipe's folder.
    folder = Path(os.path.abspath(options.output_folder))
    cache = os.path.abspath(overrides.get("feature_folder", "results/features"))
    overrides["feature_folder"] = cache
    choices = read_choices(options.choices)
    for changes in choices.values():
        given = as_words({**overrides, **changes})
        parse_arguments([options.hparams, *given], later=RESERVED)
    folds = make_folds(overrides["data_folder"], options.folds)
    inner = choose(options, folder, overrides, folds, choices)
    names = [max(scores, key=scores.get) for scores in inner]
    chosen = [choices[name] for name in names]
    runs = test(options, folder, overrides, folds, chosen)
    found = score(runs, cache)
    write_json(
        folder / "crossval.json",
        {
            "command": " ".join(["python crossval.py", *words]),
            "folds": folds,
            "choices": choices,
            "inner_uar": inner,
            "chosen": names,
            "uar": found,
        },
    )
    lines = report(found, folds, inner, names)
    write_lines(folder / "crossval.md", lines)
    say("", *lines, "", f"In {folder}/crossval.json")


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
