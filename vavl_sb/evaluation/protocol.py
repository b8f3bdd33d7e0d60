"""Runs train.py over partitions and seeds, locally or as a Slurm array."""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vavl_sb.dataio.manifest import SPLITS
from vavl_sb.evaluation.comparison import write_summary
from vavl_sb.evaluation.predictions import read_run
from vavl_sb.training.arguments import parse_arguments
from vavl_sb.training.report import STATS
from vavl_sb.training.run_fingerprint import read_settings
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, write_json
from vavl_sb.utils.lock import take_lock
from vavl_sb.utils.signals import sigterm_raises
from vavl_sb.utils.text import printable, say

SETTINGS = "protocol_settings.json"
MARK = "protocol_run.json"  # written when a run succeeds
FIRST_SEED = 1234  # as in the hparams files
RESERVED = ("partition", "seed", "output_folder")  # set for each run
NEUTRAL = ("feature_folder", "num_workers")  # do not change results
PATH_ENDINGS = tuple("_folder _csv _source _weights _from _features".split())

RUNNING = set()  # child processes


@dataclass
class Plan:
    """Settings of a protocol."""

    recipe_file: Path  # the hparams file, recipes/X/hparams/Y.yaml
    partitions: dict  # from read_partitions
    seeds: list  # for each partition
    overrides: dict  # options of train.py: key to value, None for a flag
    folder: str  # output folder
    launcher: str  # "local" or "slurm"
    jobs: int  # concurrent runs; for Slurm, 0 means no limit
    # Parameters of submitit's AutoExecutor; ``cluster="local"`` tests the
    # launcher without Slurm.
    slurm: dict
    title: str = ""  # prefix of progress lines


@dataclass(frozen=True)
class Run:
    """One run of train.py."""

    partition: str  # name of the partition
    seed: int
    folder: str  # output folder
    command: tuple  # command line
    recipe: Path  # working directory
    settings: str  # hash of the settings of the protocol
    title: str = ""  # prefix of progress lines


def read_plan(options: argparse.Namespace, command: str) -> Plan:
    """Creates the Plan for command-line options.

    ``options`` are those of :func:`vavl_sb.cli.protocol.add_options`, and
    ``passed_on``, the options of train.py; ``command`` names the default
    output folder. Raises VAVLError for an invalid option.
    """
    recipe_file = Path(os.path.abspath(options.recipe_file))
    train = recipe_file.parent.parent / "train.py"
    if not recipe_file.is_file() or recipe_file.suffix not in (".yaml", ".yml"):
        raise VAVLError(
            f"{recipe_file}: no such hparams file; give one like "
            "recipes/CREMA-D/hparams/vavl_cls.yaml"
        )
    if not train.is_file():
        raise VAVLError(
            f"{train}: no such file; the hparams file must be in the hparams "
            "folder of a recipe, beside train.py"
        )
    default = train.parent / "results" / command / recipe_file.stem
    on_slurm = options.launcher == "slurm"
    if options.jobs is not None and options.jobs < 1:
        raise VAVLError(f"--jobs: must be at least 1, not {options.jobs}")
    if options.slurm and not on_slurm:
        raise VAVLError("--slurm: needs --launcher slurm")
    slurm = {}
    for word in options.slurm:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise VAVLError(f"--slurm: must be KEY=VALUE, not {word!r}")
        slurm[key] = int(value) if value.isdigit() else value
    passed_on = [word for word in options.passed_on if word != "--"]
    # Check the options of train.py before creating a folder or starting runs.
    parse_arguments([str(recipe_file), *passed_on], later=RESERVED)
    plan = Plan(
        recipe_file=recipe_file,
        partitions=read_partitions(options.partitions),
        seeds=_read_seeds(options.seeds),
        overrides=_read_overrides(passed_on),
        folder=os.path.abspath(options.output_folder or default),
        launcher=options.launcher,
        jobs=options.jobs or (0 if on_slurm else 1),
        slurm=slurm,
    )
    if options.folds is not None:
        plan.partitions = fold_partitions(_divide(plan, options.folds))
    return plan


def _divide(plan, count):
    """Splits the sorted speakers of a corpus, read from manifests that train.py
    prepares, into folds."""
    folder = os.path.join(plan.folder, "prepared")
    os.makedirs(folder, exist_ok=True)
    say(f"Reading speakers of the corpus ({folder}/run.log)")
    command = _command(plan, folder, "--prepare_only=True")
    run = Run("", 0, folder, command, plan.recipe_file.parent.parent, "")
    with sigterm_raises():
        error = _train(run, None)
    speakers = set()
    try:
        if error is None:
            for split in SPLITS:
                entries = read_json(f"{folder}/{split}.json").values()
                speakers.update(entry["spk_id"] for entry in entries)
    except FileNotFoundError as missing:  # --skip_prep, --train_annotation
        error = f"{missing.filename} was not prepared"
    if error is not None:
        raise VAVLError(
            f"--folds: the speakers are not known ({error}); give --partitions "
            "a file of folds"
        )
    if not 2 <= count <= len(speakers):
        raise VAVLError(
            f"--folds: must be 2 to {len(speakers)}, the number of speakers, "
            f"not {count}"
        )
    parts = np.array_split(sorted(speakers), count)
    return [part.tolist() for part in parts]


def _command(plan, folder, *options):
    """Returns the command line of train.py, for the folder of the recipe."""
    return (
        sys.executable,
        "train.py",
        "/".join(plan.recipe_file.parts[-2:]),
        *options,
        f"--output_folder={folder}",
        *_as_words(plan.overrides),
    )


def run_protocols(plans: list) -> list[tuple[dict, list]]:
    """Runs all unfinished runs, and writes the summaries.

    Each plan has its own folder; runs of all plans are launched together, with
    ``jobs`` and ``launcher`` of the first plan. Returns for each plan the
    content of protocol.json (``partial`` if a run failed) and the lines of
    protocol.md.
    """
    runs_by_plan = [_make_runs(plan) for plan in plans]
    all_runs = [run for runs in runs_by_plan for run in runs]
    errors = launch(all_runs, plans[0]) if all_runs else {}
    return [
        write_summary(
            plan.folder,
            recipe_name(plan),
            plan.overrides,
            {run: errors[run] for run in runs},
        )
        for plan, runs in zip(plans, runs_by_plan)
    ]


def recipe_name(plan: Plan) -> str:
    """Returns the display name of the hparams file: recipe/hparams/name."""
    return "/".join(plan.recipe_file.parts[-3:])


def _make_runs(plan):
    """Claims the output folder and returns the runs of a plan."""
    settings, runs = _claim_folder(plan), []
    for name, value in plan.partitions.items():
        if isinstance(value, dict):  # a fold
            path = os.path.join(plan.folder, "splits", f"{name}.json")
            write_json(path, value)
            value = os.path.abspath(path)
        for seed in plan.seeds:
            folder = f"{plan.folder}/partition{name}_seed{seed}"
            folder = os.path.abspath(folder)
            options = f"--partition={value}", f"--seed={seed}"
            command = _command(plan, folder, *options)
            recipe = plan.recipe_file.parent.parent
            run = (name, seed, folder, command, recipe, settings, plan.title)
            runs.append(Run(*run))
    return runs


def _claim_folder(plan):
    """Creates the folder, or refuses one that contains runs of other settings.

    Partitions and seeds may be added later. Returns a hash of the settings.
    """
    path = Path(plan.folder) / SETTINGS
    words = [str(plan.recipe_file), *_as_words(plan.overrides)]
    _, _, overrides = parse_arguments(words, later=RESERVED)
    settings = read_settings(str(plan.recipe_file), overrides)
    # Overrides include SpeechBrain options, such as --precision.
    settings = {"hparams": recipe_name(plan), **plan.overrides, **settings}
    settings = {k: v for k, v in settings.items() if k not in NEUTRAL}
    partitions = {}
    for name, value in plan.partitions.items():
        if isinstance(value, dict):
            partitions[name] = value
        elif os.path.isfile(value):
            partitions[name] = Path(value).read_text("utf-8", "replace")
    changed, saved = [], {"settings": settings, "partitions": {}}
    if path.exists():
        saved = read_json(path)
        if not {"settings", "partitions"} <= saved.keys():
            changed = [f"{SETTINGS} is of another version"]
            saved = {"settings": settings, "partitions": {}}
    elif any(path.parent.glob("partition*_seed*")):
        # The settings of these runs are unknown.
        changed = [f"there is no {SETTINGS}"]
    old_settings = saved["settings"]
    for key in sorted({*old_settings, *settings}):
        old, new = (s.get(key, "default") for s in (old_settings, settings))
        if old != new:
            changed.append(f"{key} {old}, not {new}")
    for name, value in partitions.items():
        if saved["partitions"].get(name, value) != value:
            changed.append(f"partition {name} was changed since")
    if changed:
        raise VAVLError(
            f"{plan.folder}: contains runs of other settings "
            f"({', '.join(changed)}); choose another --output_folder"
        )
    partitions = {**saved["partitions"], **partitions}
    write_json(path, {"settings": settings, "partitions": partitions})
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_partitions(text: str) -> dict:
    """Parses the partitions of a command line.

    ``text`` is "1-5", "1,3", "session1,session2", or files, separated by
    commas. A file with lists of speakers, ``[[speakers], ...]`` or ``{"name":
    [[speakers], ...]}``, is a cross-validation: each list is the test set of
    networks trained on all others, without validation.

    Returns name (for folders) to the value of ``--partition``: absolute paths
    for files, named by their stem, and lists of speakers ``{"train": ...,
    "valid": [], "test": ...}`` for folds, named "fold1" and so on. Raises
    VAVLError if there is none, a name is repeated, or a speaker is in two
    folds.

    Example
    -------
    >>> read_partitions("1-3,session2")
    {'1': '1', '2': '2', '3': '3', 'session2': 'session2'}
    """
    partitions = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        span = re.fullmatch(r"(\d+)-(\d+)", part)
        if os.path.isfile(part):
            folds = _read_folds(part)
            if folds is None:
                partitions.append((Path(part).stem, os.path.abspath(part)))
            else:
                partitions += fold_partitions(folds).items()
        elif span and int(span[1]) <= int(span[2]):
            numbers = map(str, range(int(span[1]), int(span[2]) + 1))
            partitions += [(number, number) for number in numbers]
        else:
            partitions.append((part, part))
    names = [name for name, _ in partitions]
    for name in names:
        if not re.fullmatch(r"[\w.+-]+", name):
            raise VAVLError(f"--partitions: no such file: {name}")
        if names.count(name) > 1:
            raise VAVLError(
                f"--partitions: {name} is given twice in {text!r}; files need "
                "different names"
            )
    if not partitions:
        raise VAVLError(
            "--partitions: must be like 1-5, 1,3 or files, separated by "
            f"commas, not {text!r}"
        )
    return dict(partitions)


def _read_folds(path):
    """Reads folds from a file; None if it contains something else."""
    try:
        folds = read_json(path)
    except (OSError, ValueError):
        return None  # train.py reports the error
    if isinstance(folds, dict) and len(folds) == 1:
        folds = next(iter(folds.values()))
    lists = isinstance(folds, list) and all(isinstance(f, list) for f in folds)
    return folds if folds and lists else None


def fold_partitions(folds: list) -> dict:
    """Returns the partitions of a cross-validation, given speakers per fold.

    Raises VAVLError if a speaker is in two folds, or there are too few folds.

    Example
    -------
    >>> fold_partitions([["1", "2"], ["3"]])["fold2"]
    {'train': ['1', '2'], 'valid': [], 'test': ['3']}
    """
    speakers = [str(speaker) for fold in folds for speaker in fold]
    for speaker in speakers:
        if speakers.count(speaker) > 1:
            raise VAVLError(f"--partitions: speaker {speaker} is in two folds")
    if len(folds) < 2 or not all(folds):
        raise VAVLError("--partitions: two folds or more need a speaker each")
    return {
        f"fold{number}": {
            "train": [s for f in folds if f is not fold for s in f],
            "valid": [],
            "test": list(fold),
        }
        for number, fold in enumerate(folds, 1)
    }


def _read_seeds(text):
    """Parses seeds: a count, or a comma-separated list.

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
    """Parses the options of train.py: key to value, None for a flag.

    train.py runs in the folder of the recipe, so paths relative to the current
    directory are made absolute: values of path options (``PATH_ENDINGS``) and
    values with a slash, if they exist; ``feature_folder`` always.

    Example
    -------
    >>> _read_overrides(["--lr", "0.001", "--d_model=64", "--debug"])
    {'lr': '0.001', 'd_model': '64', 'debug': None}
    """
    overrides, key = {}, None
    for word in words:
        if not word.startswith("--"):
            overrides[key] = _resolved(key, word)
            continue
        key, equals, value = word[2:].partition("=")
        if key in RESERVED:
            raise VAVLError(
                f"--{key}: is set for each run; choose by --partitions, "
                "--seeds and, before any other option, --output_folder"
            )
        overrides[key] = _resolved(key, value) if equals else None
    return overrides


def _resolved(key, value):
    """Returns a value, made absolute if it is a path."""
    is_path = key.endswith(PATH_ENDINGS) or "/" in value
    if key == "feature_folder" or (is_path and os.path.exists(value)):
        return os.path.abspath(value)
    return value


def _as_words(overrides):
    """Converts options to words of a command line."""
    return [
        f"--{key}" if value is None else f"--{key}={value}"
        for key, value in overrides.items()
    ]


def launch(runs: list, plan: Plan) -> dict:
    """Runs all unfinished runs; returns the error of each run, or None.

    If several runs are allowed at once and none has finished, the first runs
    alone, since it computes the features that all share. A line is printed when
    a run starts (Slurm: is submitted) and ends. Raises VAVLError if submitit or
    Slurm is missing, or a parameter is unknown.
    """
    errors = dict.fromkeys(runs)

    def report(run, line="", error=None):
        errors[run], log = error, f"{run.folder}/run.log"
        if error:
            line = f"FAILED: {error} (see {log})"
        name = f"{run.title}partition {run.partition} seed {run.seed}"
        number = f"[{runs.index(run) + 1}/{len(runs)}]"
        say(f"{number} {name}: {line or f'started ({log})'}")

    waiting = []
    for run in runs:
        if _is_finished(run):
            report(run, *_finished(run, "finished before"))
        else:
            waiting.append(run)
    executor = None
    if waiting and plan.launcher == "slurm":
        slurm = {"folder": os.path.join(plan.folder, "slurm"), **plan.slurm}
        executor = _slurm_executor(plan.jobs, **slurm)
    several = executor is not None or plan.jobs > 1
    alone = len(waiting) == len(runs) and several
    for part in (waiting[:alone], waiting[alone:]):
        if part and executor:
            _run_on_slurm(executor, part, report)
        elif part:
            _run_locally(part, report, min(plan.jobs, len(part)))
    return errors


def _perform(run, threads=None):
    """Runs or resumes train.py; returns a progress line, and its error or None.

    Output is appended to run.log in the folder of the run. Any process on any
    machine with access to the folder can call this. ``threads`` sets
    OMP_NUM_THREADS if it is not set yet.
    """
    folder, start = Path(run.folder), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    lock = take_lock(folder / "run.lock")
    if lock is None:
        return "", "another process is running it; wait for that one"
    with lock:
        if _is_finished(run):
            return _finished(run, "finished before")
        error = _train(run, threads)
        if error:
            return "", error
        seconds = time.monotonic() - start
        mark = {"settings": run.settings, "seconds": round(seconds, 1)}
        write_json(folder / MARK, mark)
    return _finished(run, f"finished in {seconds:.0f} s")


def _is_finished(run):
    """Whether a run has succeeded with the same settings."""
    folder = Path(run.folder)
    try:
        mark = read_json(folder / MARK)["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    names = ("metrics.json", "predictions_test.csv", "test.json")
    return mark == run.settings and all((folder / n).is_file() for n in names)


def _finished(run, when):
    """Returns a line with the scores of a finished run, and an error or None."""
    try:
        result = read_run(run.folder)
    except VAVLError as error:
        return "", error.text
    key = STATS[result.task].main
    scores = ", ".join(f"{m} {s[key]:.3f}" for m, s in result.scores.items())
    return f"{when}: {key} {scores}", None


def _train(run, threads):
    """Runs the command; returns its error, the last line with "error: " or else
    the last line, or None."""
    environment = dict(os.environ)
    # Busy-waiting threads of concurrent runs slow each other down.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    with open(Path(run.folder) / "run.log", "a+b") as log:
        command = printable(f"$ {' '.join(run.command)}")
        log.write(f"\n{command}\n".encode())
        log.flush()
        start = log.tell()
        process = subprocess.Popen(
            run.command,
            cwd=run.recipe,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        RUNNING.add(process)
        try:
            code = process.wait()
        finally:
            RUNNING.discard(process)
            if process.poll() is None:
                process.terminate()
        log.seek(start)
        text = log.read().decode("utf-8", "replace")
    if code == 0:
        return None
    if code < 0:
        return f"killed by signal {-code}; the same command resumes it"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = lines[-1:] + [line for line in lines if "error: " in line]
    return lines[-1].split("error: ", 1)[-1] if lines else f"status {code}"


def _run_locally(runs, report, jobs):
    """Runs ``jobs`` at a time on this machine; terminates them on an
    exception."""
    # Concurrent runs share the cores.
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None

    def perform(run):
        report(run)
        return _perform(run, threads)

    # SIGTERM must end the runs too.
    with sigterm_raises():
        pool = ThreadPoolExecutor(jobs)
        try:
            futures = {pool.submit(perform, run): run for run in runs}
            for future in as_completed(futures):
                report(futures[future], *future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                process.terminate()
            raise
        pool.shutdown()


def _slurm_executor(jobs, folder, cluster="slurm", **parameters):
    """Creates a submitit executor; ``cluster="local"`` is for tests."""
    try:
        import submitit

        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        if jobs:
            parameters["slurm_array_parallelism"] = jobs
        executor.update_parameters(name="vavl", **parameters)
    except ImportError:
        raise VAVLError(
            "--launcher slurm: needs submitit; pip install 'vavl_sb[slurm]'"
        ) from None
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        line = " ".join(str(error).split())
        raise VAVLError(f"--launcher slurm: {line}") from None
    return executor


def _run_on_slurm(executor, runs, report):
    """Submits runs as one array, and waits for them."""
    import submitit

    with executor.batch():
        jobs = [executor.submit(_perform, run) for run in runs]
    run_of = {id(job): run for job, run in zip(jobs, runs)}
    for run in runs:
        report(run)
    pause = 10 if executor.cluster == "slurm" else 0.2
    for job in submitit.helpers.as_completed(jobs, poll_frequency=pause):
        try:
            outcome = job.result()
        except (submitit.core.utils.UncompletedJobError, OSError) as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[-1]
            outcome = ("", f"job {job.job_id}: {line} ({job.paths.stderr})")
        report(run_of[id(job)], *outcome)
