"""A protocol: train.py over partitions and seeds, in one folder."""

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from vavl_sb.evaluation.comparison import ablation_report, write_summary
from vavl_sb.evaluation.runs import Run, launch
from vavl_sb.training.arguments import parse_arguments
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, write_json
from vavl_sb.utils.text import say

SETTINGS = "protocol_settings.json"
FIRST_SEED = 1234  # the seed of the hparams files
# What the protocol sets itself, for each run.
RESERVED = ("partition", "seed", "output_folder")
# Keys that change where or how fast a run is computed, not what comes out.
NEUTRAL = ("feature_folder", "num_workers")
PATH_ENDINGS = (
    *("_folder", "_csv", "_source", "_weights", "_from", "_features"),
)
# Of an ablation: each turns one thing off, by the hparams file's own keys.
VARIANTS = {
    "no_shared_layers": {"shared_layers": "0"},
    "no_residual": {"residual": "False"},
    "no_reconstruction": {"reconstruction_weight": "0"},
}


@dataclass
class Plan:
    """What a protocol is asked for.

    Arguments
    ---------
    recipe_file : str
        The hparams file, ``recipes/X/hparams/Y.yaml``.
    partitions : dict
        From :func:`read_partitions`.
    seeds : list of int
        Each partition is run with each.
    overrides : dict
        What each train.py gets: key to value, None for a flag.
    folder : str
        Where everything goes.
    launcher : str
        "local" or "slurm".
    jobs : int
        How many runs at a time; for Slurm 0 means as many as it allows.
    slurm : dict
        See :func:`~vavl_sb.evaluation.runs.launch`.
    """

    recipe_file: str
    partitions: dict
    seeds: list
    overrides: dict
    folder: str
    launcher: str = "local"
    jobs: int = 1
    slurm: dict = field(default_factory=dict)


def read_plan(options: argparse.Namespace, command: str) -> Plan:
    """What the options of a command ask for.

    Arguments
    ---------
    options : argparse.Namespace
        What :func:`vavl_sb.cli.protocol.add_options` describes, and
        ``passed_on``: the words that each train.py gets.
    command : str
        For the default folder's name.

    Returns
    -------
    Plan

    Raises
    ------
    VAVLError
        In one line: a wrong option, of the protocol or of its train.py.
    """
    recipe_file, train = _find_recipe(options.recipe_file)
    default = train.parent / "results" / command / recipe_file.stem
    on_slurm = options.launcher == "slurm"
    if options.jobs is not None and options.jobs < 1:
        raise VAVLError(f"--jobs: must be at least 1, not {options.jobs}")
    if options.slurm and not on_slurm:
        raise VAVLError("--slurm: only goes with --launcher slurm")
    slurm = {}
    for word in options.slurm:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise VAVLError(f"--slurm: must be KEY=VALUE, not {word!r}")
        slurm[key] = int(value) if value.isdigit() else value
    overrides = _read_overrides(options.passed_on)
    # Before a folder is claimed, and before runs fail one after the other.
    words = [str(recipe_file), *_as_words(overrides)]
    parse_arguments(words, later=RESERVED)
    return Plan(
        recipe_file=str(recipe_file),
        partitions=read_partitions(options.partitions),
        seeds=_read_seeds(options.seeds),
        overrides=overrides,
        folder=os.path.abspath(options.output_folder or default),
        launcher=options.launcher,
        jobs=options.jobs or (0 if on_slurm else 1),
        slurm=slurm,
    )


def run_protocol(plan: Plan, say: Callable = say) -> dict:
    """Runs what has not finished yet, and writes the summary.

    Arguments
    ---------
    plan : Plan
        What to run.
    say : callable
        Gets a line of progress for each run that starts or ends.

    Returns
    -------
    dict
        What protocol.json holds; ``partial`` where a run failed.
    """
    recipe_file, train = _find_recipe(plan.recipe_file)
    settings = _claim_folder(plan, recipe_file)
    runs = []
    for name, value in plan.partitions.items():
        if isinstance(value, dict):  # a fold
            path = os.path.join(plan.folder, "splits", f"{name}.json")
            write_json(path, value)
            value = os.path.abspath(path)
        for seed in plan.seeds:
            folder = f"{plan.folder}/partition{name}_seed{seed}"
            folder = os.path.abspath(folder)
            command = (
                sys.executable,
                train.name,
                os.path.relpath(recipe_file, train.parent),
                f"--partition={value}",
                f"--seed={seed}",
                f"--output_folder={folder}",
                *_as_words(plan.overrides),
            )
            run = Run(name, seed, folder, command, str(train.parent), settings)
            runs.append(run)
    errors = {}

    def report(run, outcome):
        errors[run] = outcome.error if outcome else None
        log = f"{run.folder}/run.log"
        if outcome is None:
            line = f"started ({log})"
        elif outcome.error:
            line = f"FAILED: {outcome.error} (see {log})"
        else:
            line = outcome.line
        say(f"[{runs.index(run) + 1}/{len(runs)}] {run.name}: {line}")

    slurm = {"folder": os.path.join(plan.folder, "slurm"), **plan.slurm}
    launch(runs, report, plan.launcher, plan.jobs, slurm)
    name = f"{train.parent.name}/hparams/{recipe_file.name}"
    return write_summary(
        plan.folder, name, plan.overrides, {run: errors[run] for run in runs}
    )


def run_ablation(plan: Plan, say: Callable = say) -> tuple[list, bool]:
    """Runs a protocol in full and with each part of the network turned off.

    Arguments
    ---------
    plan : Plan
        The protocol; each variant goes into a folder of its own in its folder.
    say : callable
        Gets lines of progress.

    Returns
    -------
    lines : list of str
        The comparison with the full network, as lines of Markdown.
    partial : bool
        Whether a run failed.
    """
    partial = False
    for name, change in {"full": {}, **VARIANTS}.items():
        variant = replace(
            plan,
            overrides={**plan.overrides, **change},
            folder=os.path.join(plan.folder, name),
        )
        content = run_protocol(variant, lambda line: say(f"{name} {line}"))
        partial = partial or content["partial"]
    return ablation_report(plan.folder, list(VARIANTS), partial), partial


def _find_recipe(recipe_file):
    """An hparams file and the train.py that belongs to it, absolute."""
    path = Path(os.path.abspath(recipe_file))
    if not path.is_file() or path.suffix not in (".yaml", ".yml"):
        raise VAVLError(
            f"{path}: no such hparams file; give one like "
            "recipes/CREMA-D/hparams/vavl_cls.yaml"
        )
    train = path.parent.parent / "train.py"
    if not train.is_file():
        raise VAVLError(
            f"{train}: no such file; the hparams file must stand in a "
            "recipe's hparams folder, with train.py beside that"
        )
    return path, train


def _claim_folder(plan, recipe_file):
    """Makes the folder, or checks that its runs have the same settings.

    Partitions and seeds may be added later. Returns a hash of the settings.
    """
    path = Path(plan.folder) / SETTINGS
    overrides = {k: v for k, v in plan.overrides.items() if k not in NEUTRAL}
    recipe = f"{recipe_file.parent.parent.name}/{recipe_file.name}"
    settings = {"hparams": recipe, **overrides}
    files = {recipe_file.name: _hash(recipe_file.read_bytes())}
    for name in re.findall(r"!include:(\S+)", recipe_file.read_text("utf-8")):
        files[name] = _hash((recipe_file.parent / name).read_bytes())
    text = json.dumps([settings, files], sort_keys=True)
    for name, value in plan.partitions.items():
        if isinstance(value, dict):
            files[f"partition {name}"] = _hash(json.dumps(value).encode())
        elif os.path.isfile(value):
            files[f"partition {name}"] = _hash(Path(value).read_bytes())
    known_files, changed = {}, None
    if path.exists():
        try:
            known = read_json(path)
            known_files = {**known["files"]}
            changed = _difference({**known["settings"]}, settings)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VAVLError(
                f"{path}: cannot be used ({error}); choose another "
                "--output_folder"
            ) from None
    elif any(path.parent.glob("partition*_seed*")):
        # Nobody knows what they were trained with.
        changed = f"there is no {SETTINGS}"
    for name, value in files.items():
        if known_files.get(name, value) != value:
            changed = changed or f"{name} was changed since"
    if changed:
        raise VAVLError(
            f"{plan.folder}: holds runs of other settings ({changed}); choose "
            "another --output_folder"
        )
    files = {**known_files, **files}
    write_json(path, {"settings": settings, "files": files})
    return _hash(text.encode())


def _difference(before, now):
    """What differs between two settings, in words; None for nothing."""
    for key in sorted({*before, *now}):
        old, new = before.get(key, "default"), now.get(key, "default")
        if old != new:
            return f"{key} {old}, not {new}"
    return None


def _hash(data):
    """SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def read_partitions(text: str) -> dict:
    """Reads the partitions of a command line.

    Arguments
    ---------
    text : str
        "1-5", "1,3", "session1,session2", or files, separated by commas. A
        file with lists of speakers, ``[[speakers], ...]`` or ``{"name":
        [[speakers], ...]}``, is a cross-validation: each list is tested by
        networks that are trained on all others, without validation.

    Returns
    -------
    dict
        Name (for folders) to what ``--partition`` gets: files by absolute
        path, named by their stem. Folds, "fold1" and so on, to lists of
        speakers, ``{"train": ..., "valid": [], "test": ...}``.

    Raises
    ------
    VAVLError
        In one line: there is none, two have the same name, or a speaker is in
        two folds.

    Example
    -------
    >>> read_partitions("1-3,session2")
    {'1': '1', '2': '2', '3': '3', 'session2': 'session2'}
    """
    found = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        span = re.fullmatch(r"(\d+)-(\d+)", part)
        if os.path.isfile(part):
            folds = _read_folds(part)
            if folds is None:
                found.append((Path(part).stem, os.path.abspath(part)))
            else:
                found += fold_partitions(folds).items()
        elif span and int(span[1]) <= int(span[2]):
            numbers = map(str, range(int(span[1]), int(span[2]) + 1))
            found += [(number, number) for number in numbers]
        else:
            found.append((part, part))
    names = [name for name, _ in found]
    for name in names:
        if not re.fullmatch(r"[\w.+-]+", name):
            raise VAVLError(f"--partitions: no such file: {name}")
        if names.count(name) > 1:
            raise VAVLError(
                f"--partitions: {name} is given twice in {text!r}; files need "
                "different names"
            )
    if not found:
        raise VAVLError(
            "--partitions: must be like 1-5, 1,3 or files, separated by "
            f"commas, not {text!r}"
        )
    return dict(found)


def _read_folds(path):
    """The folds in a file; None if it holds something else."""
    try:
        folds = read_json(path)
    except (OSError, ValueError):
        return None  # train.py says what is wrong with it.
    if isinstance(folds, dict) and len(folds) == 1:
        folds = next(iter(folds.values()))
    lists = isinstance(folds, list) and all(isinstance(f, list) for f in folds)
    return folds if folds and lists else None


def fold_partitions(folds: list) -> dict:
    """The partitions of a cross-validation, one for each fold.

    Arguments
    ---------
    folds : list of list
        The speakers of each fold.

    Returns
    -------
    dict
        "fold1", "fold2", ... to the speakers of ``train``, ``valid`` (none)
        and ``test``.

    Raises
    ------
    VAVLError
        In one line: a speaker is in two folds, or there are too few.

    Example
    -------
    >>> fold_partitions([["1", "2"], ["3"]])["fold2"]
    {'train': ['1', '2'], 'valid': [], 'test': ['3']}
    """
    speakers = [str(who) for fold in folds for who in fold]
    for who in speakers:
        if speakers.count(who) > 1:
            raise VAVLError(f"--partitions: speaker {who} is in two folds")
    if len(folds) < 2 or not all(folds):
        raise VAVLError("--partitions: two folds or more need a speaker each")
    return {
        f"fold{number}": {
            "train": [who for f in folds if f is not fold for who in f],
            "valid": [],
            "test": list(fold),
        }
        for number, fold in enumerate(folds, 1)
    }


def _read_seeds(text):
    """The seeds of a command line: a count, or a list with a comma in it.

    Example
    -------
    >>> _read_seeds("2"), _read_seeds("1,5"), _read_seeds("7,")
    ([1234, 1235], [1, 5], [7])
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if "," not in text and numbers:
        numbers = [FIRST_SEED + i for i in range(numbers[0])]
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise VAVLError(
            "--seeds: must be a count of at least 1 or a list of different "
            f"seeds like 1,2,3, not {text!r}"
        )
    return numbers


def _read_overrides(words):
    """The options that each train.py is to get: key to value, None for a flag.

    A path is meant as seen from where the command stands, though train.py
    runs in the recipe's folder: values of path options (``PATH_ENDINGS``) and
    values with a slash are made absolute where they name something that
    exists; ``feature_folder`` is always made absolute.

    Example
    -------
    >>> _read_overrides(["--lr", "0.001", "--d_model=64", "--debug"])
    {'lr': '0.001', 'd_model': '64', 'debug': None}
    """
    overrides, key = {}, None
    for word in words:
        if word == "--":
            continue
        if not word.startswith("--"):
            if key is None or overrides[key] is not None:
                raise VAVLError(
                    f"{word}: belongs to no option; give train.py's options "
                    "as --key value"
                )
            overrides[key] = _resolved(key, word)
            continue
        key, equals, value = word[2:].partition("=")
        if key in overrides:
            raise VAVLError(f"--{key}: is given twice; give it once")
        if key in RESERVED:
            raise VAVLError(
                f"--{key}: is set for each run; choose by --partitions, "
                "--seeds and, before any other option, --output_folder"
            )
        overrides[key] = _resolved(key, value) if equals else None
    return overrides


def _resolved(key, value):
    """A value, absolute if it is a path."""
    looks = key.endswith(PATH_ENDINGS) or "/" in value
    if key == "feature_folder" or (looks and os.path.exists(value)):
        return os.path.abspath(value)
    return value


def _as_words(overrides):
    """Options as words of a command line."""
    return [
        f"--{key}" if value is None else f"--{key}={value}"
        for key, value in overrides.items()
    ]
