"""A protocol: train.py over partitions and seeds, in one folder, each run here
or in a Slurm array."""

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
MARK = "protocol_run.json"  # Of a run that has ended well.
FIRST_SEED = 1234  # the seed of the hparams files
# What the protocol sets itself, for each run.
RESERVED = ("partition", "seed", "output_folder")
# Keys that change where or how fast a run is computed, not what comes out.
NEUTRAL = ("feature_folder", "num_workers")
PATH_ENDINGS = (
    *("_folder", "_csv", "_source", "_weights", "_from", "_features"),
)

# Processes that this one has started and that have not ended.
RUNNING = set()


@dataclass
class Plan:
    """What a protocol is asked for."""

    recipe_file: Path  # the hparams file, recipes/X/hparams/Y.yaml
    partitions: dict  # from read_partitions
    seeds: list  # each partition is run with each
    overrides: dict  # what each train.py gets: key to value, None for a flag
    folder: str  # where everything goes
    launcher: str  # "local" or "slurm"
    jobs: int  # runs at a time; for Slurm 0 means as many as it allows
    # Of submitit's AutoExecutor.update_parameters; and ``cluster``: "local" to
    # try Slurm's launcher without it.
    slurm: dict
    title: str = ""  # before each line of progress


@dataclass(frozen=True)
class Run:
    """What one run is."""

    partition: str  # its name
    seed: int
    folder: str  # where its results go
    command: tuple  # the command line of train.py
    recipe: Path  # the folder to run it in
    settings: str  # a hash of the protocol's settings
    title: str = ""  # before each line of progress


def read_plan(options: argparse.Namespace, command: str) -> Plan:
    """What the options of a command, whose name the default folder has, ask for.

    They are those of :func:`vavl_sb.cli.protocol.add_options`, and
    ``passed_on``: the words that each train.py gets. VAVLError, in one line: a
    wrong option, of the protocol or of its train.py.
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
            f"{train}: no such file; the hparams file must stand in a "
            "recipe's hparams folder, with train.py beside that"
        )
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
    passed_on = [word for word in options.passed_on if word != "--"]
    # Before a folder is claimed, and before runs fail one after the other.
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
    """The speakers of a corpus in so many folds, neighbours by name in one.

    They are those of the manifests of its train.py, which prepares them.
    """
    folder = os.path.join(plan.folder, "prepared")
    os.makedirs(folder, exist_ok=True)
    say(f"Reading the speakers' names ({folder}/run.log)")
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
    """The command line of a train.py, for the recipe's folder."""
    return (
        sys.executable,
        "train.py",
        "/".join(plan.recipe_file.parts[-2:]),
        *options,
        f"--output_folder={folder}",
        *_as_words(plan.overrides),
    )


def run_protocols(plans: list) -> list[tuple[dict, list]]:
    """Runs what has not finished yet, and writes the summaries.

    Each plan has a folder of its own; the runs of all go side by side as the
    first one's ``jobs`` and ``launcher`` allow. Gives for each what
    protocol.json holds (``partial`` where a run failed) and the lines of
    protocol.md.
    """
    made = [_make_runs(plan) for plan in plans]
    every = [run for runs in made for run in runs]
    errors = launch(every, plans[0]) if every else {}
    return [
        write_summary(
            plan.folder,
            recipe_name(plan),
            plan.overrides,
            {run: errors[run] for run in runs},
        )
        for plan, runs in zip(plans, made)
    ]


def recipe_name(plan: Plan) -> str:
    """What readers call the hparams file: recipe, folder and name."""
    return "/".join(plan.recipe_file.parts[-3:])


def _make_runs(plan):
    """Claims the folder; gives the runs of a plan."""
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
            place = (folder, command, plan.recipe_file.parent.parent, settings)
            runs.append(Run(name, seed, *place, plan.title))
    return runs


def _claim_folder(plan):
    """Makes the folder, or refuses one that holds runs of other settings.

    Partitions and seeds may be added later. Returns a hash of the settings.
    """
    path = Path(plan.folder) / SETTINGS
    words = [str(plan.recipe_file), *_as_words(plan.overrides)]
    _, _, overrides = parse_arguments(words, later=RESERVED)
    settings = read_settings(str(plan.recipe_file), overrides)
    # Beside the file's keys, options of SpeechBrain's such as --precision.
    settings = {"hparams": recipe_name(plan), **plan.overrides, **settings}
    settings = {k: v for k, v in settings.items() if k not in NEUTRAL}
    partitions = {}
    for name, value in plan.partitions.items():
        if isinstance(value, dict):
            partitions[name] = value
        elif os.path.isfile(value):
            partitions[name] = Path(value).read_text("utf-8", "replace")
    changed, known = [], {"settings": settings, "partitions": {}}
    if path.exists():
        known = read_json(path)
        if not {"settings", "partitions"} <= known.keys():
            changed = [f"{SETTINGS} is of another version"]
            known = {"settings": settings, "partitions": {}}
    elif any(path.parent.glob("partition*_seed*")):
        # Nobody knows what they were trained with.
        changed = [f"there is no {SETTINGS}"]
    before = known["settings"]
    for key in sorted({*before, *settings}):
        old, new = (s.get(key, "default") for s in (before, settings))
        if old != new:
            changed.append(f"{key} {old}, not {new}")
    for name, value in partitions.items():
        if known["partitions"].get(name, value) != value:
            changed.append(f"partition {name} was changed since")
    if changed:
        raise VAVLError(
            f"{plan.folder}: holds runs of other settings "
            f"({', '.join(changed)}); choose another --output_folder"
        )
    partitions = {**known["partitions"], **partitions}
    write_json(path, {"settings": settings, "partitions": partitions})
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_partitions(text: str) -> dict:
    """Reads the partitions of a command line.

    They are "1-5", "1,3", "session1,session2", or files, separated by commas. A
    file with lists of speakers, ``[[speakers], ...]`` or ``{"name":
    [[speakers], ...]}``, is a cross-validation: each list is tested by networks
    that are trained on all others, without validation.

    Gives name (for folders) to what ``--partition`` gets: files by absolute
    path, named by their stem. Folds, "fold1" and so on, to lists of speakers,
    ``{"train": ..., "valid": [], "test": ...}``. VAVLError, in one line: there
    is none, two have the same name, or a speaker is in two folds.

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
    """The partitions of a cross-validation, from the speakers of each fold.

    VAVLError, in one line: a speaker is in two folds, or there are too few.

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


def launch(runs: list, plan: Plan) -> dict:
    """Performs runs, those that have finished before left out; gives each run
    to why it failed, or None.

    The plan says where, and how many at a time. Where that is more than one,
    the first goes alone, unless one has finished before: it computes the
    features that all share. A line is printed for each run that starts (Slurm:
    is submitted) and ends. VAVLError, in one line: submitit is missing, there
    is no Slurm here, or a parameter is unknown.
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
            _on_slurm(executor, part, report)
        elif part:
            _here(part, report, min(plan.jobs, len(part)))
    return errors


def _perform(run, threads=None):
    """Runs a train.py until it ends; resumes it where it was killed before.

    All that it prints goes to run.log in its folder. May be called in any
    process of any machine that sees the folder. ``threads`` is for
    OMP_NUM_THREADS, where the environment has none. Gives a line that says
    how it went, and why it failed or None.
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
    """Whether a run has ended well, with the same settings."""
    folder = Path(run.folder)
    try:
        mark = read_json(folder / MARK)["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    names = ("metrics.json", "predictions_test.csv", "test.json")
    return mark == run.settings and all((folder / n).is_file() for n in names)


def _finished(run, when):
    """Scores of a run that has ended well, or why its files are of no use."""
    try:
        result = read_run(run.folder)
    except VAVLError as error:
        return "", error.text
    key = STATS[result.task].main
    scores = ", ".join(f"{m} {s[key]:.3f}" for m, s in result.scores.items())
    return f"{when}: {key} {scores}", None


def _train(run, threads):
    """Runs the command, until this process is told to end; gives its error.

    That is the last line with "error: " in it, or else the last line.
    """
    environment = dict(os.environ)
    # Threads that spin while they wait slow a busy machine many times.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    with open(Path(run.folder) / "run.log", "a+b") as log:
        command = printable(f"$ {' '.join(run.command)}")
        log.write(f"\n{command}\n".encode())
        log.flush()
        begin = log.tell()
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
        log.seek(begin)
        text = log.read().decode("utf-8", "replace")
    if code == 0:
        return None
    if code < 0:
        return f"killed by signal {-code}; the same command resumes it"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = lines[-1:] + [line for line in lines if "error: " in line]
    return lines[-1].split("error: ", 1)[-1] if lines else f"status {code}"


def _here(runs, report, jobs):
    """Runs on this machine, some at a time; ends them when it is ended."""
    # Runs side by side share the cores, rather than each taking all.
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None

    def one(run):
        report(run)
        return _perform(run, threads)

    # Else SIGTERM would end this process alone, and leave its runs.
    with sigterm_raises():
        pool = ThreadPoolExecutor(jobs)
        try:
            futures = {pool.submit(one, run): run for run in runs}
            for future in as_completed(futures):
                report(futures[future], *future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                process.terminate()
            raise
        pool.shutdown()


def _slurm_executor(jobs, folder, cluster="slurm", **parameters):
    """A submitit executor; ``cluster="local"`` tries things out here."""
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


def _on_slurm(executor, runs, report):
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
