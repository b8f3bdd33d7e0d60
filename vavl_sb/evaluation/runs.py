"""One run of a protocol: a train.py in its own folder.

Authors
 * The vavl_sb authors 2026
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from vavl_sb.evaluation.settings import as_words
from vavl_sb.utils.files import read_json, write_json
from vavl_sb.utils.lock import take_lock
from vavl_sb.utils.text import printable

MARK = "protocol_run.json"
LOG = "run.log"
LOCK = "run.lock"


@dataclass(frozen=True)
class Run:
    """What one run is.

    Arguments
    ---------
    partition : str
        The partition's name.
    seed : int
        The seed.
    folder : str
        Where its results go.
    command : tuple of str
        The command line of train.py.
    recipe : str
        The folder to run it in.
    digest : str
        Of the settings, from
        :func:`vavl_sb.evaluation.folder.claim_folder`.
    """

    partition: str
    seed: int
    folder: str
    command: tuple
    recipe: str
    digest: str

    @property
    def name(self):
        """How lines for a reader name it."""
        return f"partition {self.partition} seed {self.seed}"


@dataclass
class Outcome:
    """How a run went.

    Arguments
    ---------
    status : str
        "finished", "skipped" (had finished before) or "failed".
    seconds : float
        How long it took this time.
    error : str
        The last line of its error, where it failed.
    """

    status: str
    seconds: float = 0.0
    error: str = ""


def plan_runs(folder, hparams, train, partitions, seeds, overrides, digest):
    """The runs of a protocol: partition by partition, seed by seed.

    Arguments
    ---------
    folder : str or Path
        The protocol's folder.
    hparams : Path
        The hparams file.
    train : Path
        The recipe's train.py.
    partitions : dict
        Name to value, from :func:`~vavl_sb.evaluation.settings.read_partitions`.
    seeds : list of int
        From :func:`~vavl_sb.evaluation.settings.read_seeds`.
    overrides : dict
        From :func:`~vavl_sb.evaluation.settings.read_overrides`.
    digest : str
        Of the settings.

    Returns
    -------
    list of Run
    """
    runs = []
    for partition, value in partitions.items():
        for seed in seeds:
            place = os.path.abspath(
                os.path.join(folder, f"partition{partition}_seed{seed}")
            )
            command = (
                sys.executable,
                train.name,
                os.path.relpath(hparams, train.parent),
                f"--partition={value}",
                f"--seed={seed}",
                f"--output_folder={place}",
                *as_words(overrides),
            )
            runs.append(
                Run(partition, seed, place, command, str(train.parent), digest)
            )
    return runs


def is_finished(run):
    """Whether a run has finished, with the same settings.

    Arguments
    ---------
    run : Run

    Returns
    -------
    bool
    """
    folder = Path(run.folder)
    try:
        mark = read_json(folder / MARK)
        return mark["settings"] == run.digest and all(
            (folder / name).is_file()
            for name in ("metrics.json", "predictions_test.csv", "test.json")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def perform(run, threads=None):
    """Runs a train.py until it ends; resumes it where it was killed before.

    All that it prints goes to run.log in its folder. May run in any process
    of any machine that sees the folder.

    Arguments
    ---------
    run : Run
        What to run.
    threads : int, optional
        For OMP_NUM_THREADS, where the environment has none.

    Returns
    -------
    Outcome
    """
    folder = Path(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    lock = take_lock(folder / LOCK)
    if lock is None:
        error = "another process is running it; wait for that one"
        return Outcome("failed", error=error)
    with lock:
        if is_finished(run):
            return Outcome("skipped")
        environment = dict(os.environ)
        # Threads that spin while they wait slow a busy machine many times.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if threads:
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        with open(folder / LOG, "ab") as log:
            command = printable(f"$ {' '.join(run.command)}")
            log.write(f"\n{command}\n".encode())
            log.flush()
            begin = log.tell()
            code = _wait(run, log, environment)
        seconds = time.monotonic() - start
        if code == 0 and not (folder / "metrics.json").is_file():
            error = "train.py ended well but left no metrics.json"
            return Outcome("failed", seconds, error)
        if code != 0:
            error = last_error(folder / LOG, begin, code)
            return Outcome("failed", seconds, error)
        write_json(
            folder / MARK,
            {
                "partition": run.partition,
                "seed": run.seed,
                "settings": run.digest,
                "seconds": round(seconds, 1),
            },
        )
    return Outcome("finished", seconds)


def _wait(run, log, environment):
    """Runs the command; it ends when this process is told to end."""
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
        return process.wait()
    finally:
        RUNNING.discard(process)
        if process.poll() is None:
            process.terminate()


# Processes that this one has started and that have not ended.
RUNNING = set()


def stop_all():
    """Ends the runs of this process; they resume with the same command."""
    for process in list(RUNNING):
        process.terminate()


def last_error(log, begin, code):
    """The line that says best why a run failed.

    Arguments
    ---------
    log : str or Path
        What the run printed.
    begin : int
        Where in it this attempt begins.
    code : int
        Exit status; negative for the signal that killed it.

    Returns
    -------
    str
        The last line with "error: ", or else the last line, or else the exit
        status.
    """
    if code < 0:
        return f"killed by signal {-code}; the same command resumes it"
    with open(log, "rb") as file:
        file.seek(begin)
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error: " in line]
    if errors:
        return errors[-1].split("error: ", 1)[1]
    return lines[-1] if lines else f"exit status {code}"
