#!/usr/bin/env python3
"""Cross-validation over the speakers, beside a logistic regression.

> python crossval.py hparams/vavl_cls.yaml --data_folder /path/to/RAVDESS

The speakers are divided into folds. For each, networks are trained on those of
all others, one for each seed, without validation clips: the last epoch is
kept. A logistic regression on the same features, averaged over a clip's frames,
is scored on the same folds. `vavl protocol` does the training, so what has finished is not
run again, and the same command goes on after a stop.
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np

from vavl_sb.cli.protocol import add_options
from vavl_sb.dataio.preparation import read_table
from vavl_sb.evaluation.protocol import fold_partitions, read_plan, run_protocol
from vavl_sb.features.cache import clip_means, read_index
from vavl_sb.lobes.vavl import HEADS
from vavl_sb.training.report import table
from vavl_sb.utils.errors import VAVLError, exit_on_error
from vavl_sb.utils.files import read_json, write_json, write_lines
from vavl_sb.utils.text import say


def read_options(words: list) -> argparse.Namespace:
    """Reads the command line (without the program's name).

    ``passed_on`` holds the options that each train.py gets.
    """
    parser = argparse.ArgumentParser(
        description="Cross-validation over the speakers of a corpus.",
        allow_abbrev=False,
    )
    add_options(parser, partitions=None, seeds="3")
    parser.add_argument(
        "--folds", type=int, default=5, help="how many (default: %(default)s)"
    )
    options, options.passed_on = parser.parse_known_args(words)
    return options


def divide_speakers(
    data_folder: str, count: int, label_csv: str | None = None
) -> list:
    """Divides the speakers of a corpus into folds of neighbours by name.

    They are those of the table of a corpus of one's own, or RAVDESS's actors
    on disk, whose numbers end the names of its files; of these there are as
    many women as men in each fold, where its size is even (odd numbers are
    men). VAVLError if there are too few.
    """
    label_csv = label_csv or os.path.join(data_folder, "labels.csv")
    if os.path.isfile(label_csv):
        rows = read_table(label_csv, ["speaker"])
        speakers = sorted({row["speaker"] for _, row in rows})
    else:
        paths = Path(data_folder).rglob("0[1-3]-01-*")
        speakers = sorted({path.stem[-2:] for path in paths})
    if not 2 <= count <= len(speakers):
        raise VAVLError(
            f"--folds: must be 2 to the number of speakers in {data_folder} "
            f"({len(speakers)}), not {count}"
        )
    return [part.tolist() for part in np.array_split(speakers, count)]


def regression_uar(run: Path, modality: str, cache: str) -> float:
    """UAR of a logistic regression on the test clips of a run, for "audio" or
    "visual".

    Class-weighted, on the standardized time means of the features, which are
    read from the feature folder ``cache``; its penalty is chosen by
    cross-validation over the speakers in training.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    index = read_index(run / "features.json")

    def read(split):
        entries = read_json(run / f"{split}.json")
        clips = [clip for clip in sorted(entries) if index[clip][modality]]
        paths = [Path(index[clip][modality]) for clip in clips]
        fields = [
            np.array([entries[clip][field] for clip in clips])
            for field in ("emotion", "spk_id")
        ]
        return clip_means(paths, cache).numpy(), *fields

    features, labels, speakers = read("train")
    model = LogisticRegression(class_weight="balanced", max_iter=3000)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model),
        {"logisticregression__C": [10.0**power for power in range(-4, 1)]},
        scoring="balanced_accuracy",
        cv=GroupKFold(min(4, len(set(speakers)))),
    ).fit(features, labels, groups=speakers)
    features, labels, _ = read("test")
    return float(balanced_accuracy_score(labels, search.predict(features)))


def score(runs: list, folder: Path, cache: str, network: str = "VAVL") -> dict:
    """The networks and the regressions on all folds: name to fold to the UAR of
    each seed (of a regression: the only one).

    ``runs`` are those of protocol.json, in the protocol's folder; ``cache`` is
    the feature folder.
    """
    heads = [h for h in HEADS if all(h in run["scores"] for run in runs)]
    if not heads:
        raise VAVLError(f"{folder}: no modality has test clips in all folds")
    found = {f"{network}, {head}": {} for head in heads}
    for run in runs:
        fold = run["partition"]
        for head in heads:
            uars = found[f"{network}, {head}"].setdefault(fold, [])
            uars.append(run["scores"][head]["uar"])
            # The features are the same with any seed.
            if head != "audiovisual" and len(uars) == 1:
                uar = regression_uar(folder / run["folder"], head, cache)
                name = f"logistic regression, {head}"
                found.setdefault(name, {})[fold] = [uar]
    return found


def report(found: dict) -> list:
    """The UAR of each fold, and the mean over folds, of what :func:`score`
    found, as lines of Markdown."""
    folds = list(next(iter(found.values())))
    rows = []
    for name, uars in found.items():
        cells = [f"{np.mean(uars[fold]):.3f}" for fold in folds]
        by_seed = np.mean(list(uars.values()), axis=0)
        spread = f" ± {by_seed.std(ddof=1):.3f}" if len(by_seed) > 1 else ""
        rows.append([name, *cells, f"{by_seed.mean():.3f}{spread}"])
    return table(["UAR", *folds, "mean ± SD over seeds"], rows)


def main(words: list):
    """Trains, scores and reports."""
    if importlib.util.find_spec("sklearn") is None:
        raise VAVLError(
            "the logistic regression needs scikit-learn; "
            "pip install scikit-learn"
        )
    options = read_options(words)
    given, options.partitions = options.partitions, options.partitions or "1"
    plan = read_plan(options, "crossval")
    if str(plan.overrides.get("freeze_audio_encoder")).lower() == "false":
        raise VAVLError(
            "--freeze_audio_encoder: the logistic regression needs features "
            "of a frozen encoder; leave it out"
        )
    if given is None:
        folds = divide_speakers(
            plan.overrides["data_folder"],
            options.folds,
            plan.overrides.get("label_csv"),
        )
        plan.partitions = fold_partitions(folds)
    # Absolute, since train.py runs in the recipe's folder.
    cache = os.path.abspath("results/features")
    cache = plan.overrides.setdefault("feature_folder", cache)
    content, _ = run_protocol(plan, say)
    if content["partial"]:
        raise VAVLError(f"{plan.folder}: a run failed, see above; run again")
    network = plan.overrides.get("fusion", "VAVL")
    found = score(content["runs"], Path(plan.folder), cache, network)
    command = " ".join(["python crossval.py", *words])
    content = {"command": command, "folds": plan.partitions, "uar": found}
    write_json(f"{plan.folder}/crossval.json", content)
    lines = report(found)
    write_lines(f"{plan.folder}/crossval.md", lines)
    say("", *lines, "", f"In {plan.folder}/crossval.json")


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
