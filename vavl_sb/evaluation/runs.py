"""The runs of a protocol, each a train.py: here, or as a Slurm array."""

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from vavl_sb.evaluation.predictions import read_run
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, write_json
from vavl_sb.utils.lock import take_lock
from vavl_sb.utils.signals import sigterm_raises
from vavl_sb.utils.text import printable

MARK = "protocol_run.json"
# Processes that this one has started and that have not ended.
RUNNING = set()


@dataclass(frozen=True)
class Run:
    """What one run is."""

    partition: str  # its name
    seed: int
    folder: str  # where its results go
    command: tuple  # the command line of train.py
    recipe: str  # the folder to run it in
    settings: str  # a hash of the protocol's settings
    title: str = ""  # before each line of progress


def launch(
    runs: list,
    say: Callable,
    launcher: str = "local",
    jobs: int = 1,
    slurm: dict | None = None,
) -> dict:
    """Performs runs, those that have finished before left out.

    Where more than one may run at a time, the first goes alone, unless one
    has finished before: it computes the features that all share.

    Arguments
    ---------
    runs : list of Run
        What to run.
    say : callable
        Gets a line for each run that starts (Slurm: is submitted) and ends.
    launcher : str
        "local" or "slurm".
    jobs : int
        How many runs at a time; for Slurm 0 means as many as it allows.
    slurm : dict, optional
        ``folder`` (where submitit keeps its files), ``cluster`` ("slurm", or
        "local" to try things out), and parameters of submitit's
        ``AutoExecutor.update_parameters``.

    Returns
    -------
    dict
        Run to why it failed, or None; in the order of ``runs``.

    Raises
    ------
    VAVLError
        In one line: submitit is missing, there is no Slurm here, or a
        parameter is unknown.
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
    if waiting and launcher == "slurm":
        executor = _slurm_executor(jobs, **(slurm or {}))
    alone = len(waiting) == len(runs) and (executor is not None or jobs > 1)
    for part in (waiting[:alone], waiting[alone:]):
        if part and executor:
            _on_slurm(executor, part, report)
        elif part:
            _here(part, report, min(jobs, len(part)))
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
    key = "f1_macro" if result.task == "classification" else "ccc_mean"
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


def _slurm_executor(jobs, cluster="slurm", folder="slurm", **parameters):
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
