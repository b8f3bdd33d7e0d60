"""Where the runs of a protocol run: here, or as a Slurm array.

A launcher is a function of runs and a callback that is told how each ended.

Authors
 * The vavl_sb authors 2026
"""

import os
from concurrent.futures import ThreadPoolExecutor, as_completed

from vavl_sb.evaluation.runs import Outcome, is_finished, perform, stop_all
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.signals import sigterm_raises


def launch(runs, started, ended, launcher="local", jobs=1, options=None):
    """Performs runs, and tells of each as it starts and ends.

    Where more than one may run at a time, the first goes alone, unless one
    has finished before: it computes the features that all share.

    Arguments
    ---------
    runs : list of Run
        What to run.
    started : callable
        Called with a run when it starts (Slurm: when it is submitted).
    ended : callable
        Called with a run and its Outcome.
    launcher : str
        "local" or "slurm".
    jobs : int
        How many runs at a time; for Slurm 0 means as many as it will.
    options : dict, optional
        For "slurm": parameters of submitit's AutoExecutor, and ``cluster``
        and ``folder`` (where submitit keeps its files).
    """
    waiting = []
    for run in runs:
        if is_finished(run):
            ended(run, Outcome("skipped"))
        else:
            waiting.append(run)
    if not waiting:
        return
    warm = len(waiting) < len(runs)
    if launcher == "slurm":
        executor = slurm_executor(jobs, **(options or {}))

        def perform_all(some):
            _with_slurm(executor, some, started, ended)
    else:

        def perform_all(some):
            _here(some, started, ended, jobs)

    alone = 0 if warm or (launcher == "local" and jobs == 1) else 1
    for part in (waiting[:alone], waiting[alone:]):
        if part:
            perform_all(part)


def _here(runs, started, ended, jobs):
    """Runs on this machine, some at a time; ends them when it is ended."""
    jobs = min(jobs, len(runs))
    # Runs side by side share the cores, rather than each taking all.
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None

    def one(run):
        started(run)
        return perform(run, threads)

    # Else SIGTERM would end this process alone, and leave its runs.
    with sigterm_raises():
        pool = ThreadPoolExecutor(jobs)
        try:
            futures = {pool.submit(one, run): run for run in runs}
            for future in as_completed(futures):
                ended(futures[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop_all()
            raise
        pool.shutdown()


def slurm_executor(jobs=0, cluster="slurm", folder="slurm", **parameters):
    """A submitit executor.

    Arguments
    ---------
    jobs : int
        How many jobs of an array run at a time; 0 for as many as Slurm will.
    cluster : str
        "slurm"; or "local", submitit's own way to try things out.
    folder : str
        Where submitit keeps its files.
    **parameters
        Of ``AutoExecutor.update_parameters``: ``timeout_min``,
        ``gpus_per_node``, ``cpus_per_task``, ``mem_gb``, ``slurm_partition``.

    Returns
    -------
    submitit.AutoExecutor

    Raises
    ------
    VAVLError
        In one line: submitit is missing, there is no Slurm here, or a
        parameter is unknown.
    """
    try:
        import submitit
    except ImportError:
        raise VAVLError(
            "--launcher slurm: needs submitit; pip install 'vavl_sb[slurm]'"
        ) from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        if jobs:
            executor.update_parameters(slurm_array_parallelism=jobs)
        executor.update_parameters(name="vavl", **parameters)
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        line = " ".join(str(error).split())
        raise VAVLError(f"--launcher slurm: {line}") from None
    return executor


def _with_slurm(executor, runs, started, ended):
    """Submits runs as one array, and waits for them."""
    import submitit

    with executor.batch():
        jobs = [executor.submit(perform, run) for run in runs]
    of = {id(job): run for job, run in zip(jobs, runs)}
    for run in runs:
        started(run)
    pause = 10 if executor.cluster == "slurm" else 0.2
    for job in submitit.helpers.as_completed(jobs, poll_frequency=pause):
        run = of[id(job)]
        try:
            outcome = job.result()
        except (submitit.core.utils.UncompletedJobError, OSError) as error:
            lines = [x for x in str(error).splitlines() if x.strip()]
            line = lines[-1].strip() if lines else type(error).__name__
            outcome = Outcome(
                "failed", error=f"job {job.job_id}: {line} ({job.paths.stderr})"
            )
        ended(run, outcome)
