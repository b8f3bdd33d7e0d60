"""`vavl protocol`: all runs of a protocol, then their summary.

Authors
 * The vavl_sb authors 2026
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from vavl_sb.evaluation.folder import claim_folder, find_recipe
from vavl_sb.evaluation.launchers import launch
from vavl_sb.evaluation.results import read_result
from vavl_sb.evaluation.runs import LOG, plan_runs
from vavl_sb.evaluation.summary import write_summary
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import say


@dataclass
class Plan:
    """What a protocol is asked for.

    Arguments
    ---------
    hparams : str
        The hparams file.
    partitions : dict
        From :func:`~vavl_sb.evaluation.settings.read_partitions`.
    seeds : list of int
        From :func:`~vavl_sb.evaluation.settings.read_seeds`.
    overrides : dict
        From :func:`~vavl_sb.evaluation.settings.read_overrides`.
    folder : str
        Where everything goes.
    launcher : str
        "local" or "slurm".
    jobs : int
        How many runs at a time.
    options : dict
        For Slurm; see :func:`~vavl_sb.evaluation.launchers.launch`.
    """

    hparams: str
    partitions: dict
    seeds: list
    overrides: dict
    folder: str
    launcher: str = "local"
    jobs: int = 1
    options: dict = field(default_factory=dict)


def run_protocol(plan, say=say):
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
    hparams, train = find_recipe(plan.hparams)
    digest = claim_folder(plan.folder, hparams, plan.overrides, plan.partitions)
    runs = plan_runs(
        plan.folder,
        hparams,
        train,
        plan.partitions,
        plan.seeds,
        plan.overrides,
        digest,
    )
    outcomes = {}
    number = {run: f"[{i}/{len(runs)}]" for i, run in enumerate(runs, 1)}

    def started(run):
        say(f"{number[run]} {run.name}: started ({_log(run)})")

    def ended(run, outcome):
        outcomes[run] = outcome
        say(f"{number[run]} {run.name}: {_told(run, outcome)}")

    options = {"folder": os.path.join(plan.folder, "slurm"), **plan.options}
    launch(runs, started, ended, plan.launcher, plan.jobs, options)
    name = f"{train.parent.name}/hparams/{hparams.name}"
    return write_summary(plan.folder, name, plan.overrides, runs, outcomes)


def _log(run):
    """Where a run's output is."""
    return Path(run.folder) / LOG


def _told(run, outcome):
    """How a run went, for a line."""
    if outcome.status == "failed":
        return f"FAILED: {outcome.error} (see {_log(run)})"
    head = f"finished in {outcome.seconds:.0f} s"
    if outcome.status == "skipped":
        head = "finished before"
    try:
        result = read_result(run.folder)
    except VAVLError as error:
        return f"FAILED: {error.text}"
    key = "f1_macro" if result.task == "classification" else "ccc_mean"
    scores = ", ".join(f"{m} {s[key]:.3f}" for m, s in result.scores.items())
    return f"{head}: {key} {scores}"
