"""`vavl protocol`: many train.py runs, and what they come to.

Authors
 * The vavl_sb authors 2026
"""

from pathlib import Path

from vavl_sb.utils.errors import VAVLError, say_error
from vavl_sb.utils.signals import exit_status
from vavl_sb.utils.text import say


def add_parser(commands):
    """Adds the command to the command line.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        From ``add_subparsers`` of the program's parser.
    """
    parser = commands.add_parser(
        "protocol",
        help="train over partitions and seeds, and sum up",
        allow_abbrev=False,  # --seed must not pass for --seeds
    )
    add_options(parser, partitions="1-5", seeds="5")
    parser.set_defaults(run=run, passes_on=True)


def add_options(parser, partitions, seeds):
    """Options of a command that runs protocols.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of the command.
    partitions : str
        The default.
    seeds : str
        The default.
    """
    parser.epilog = (
        "All other options (--key value) go to each train.py; put -- before "
        "them where they could be taken for one of these."
    )
    parser.add_argument(
        "hparams", metavar="HPARAMS", help="recipes/X/hparams/Y.yaml"
    )
    parser.add_argument(
        "--partitions",
        default=partitions,
        help="1-5, or 1,3, or files (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        default=seeds,
        help="how many, from 1234 on; or a list 1,2,3 (default: %(default)s)",
    )
    parser.add_argument(
        "--output_folder",
        help="default: results/COMMAND/Y in the recipe's folder",
    )
    parser.add_argument(
        "--launcher",
        default="local",
        choices=["local", "slurm"],
        help="here, or as a Slurm array (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time (default: 1; with Slurm, what it allows)",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of submitit, such as timeout_min=240; repeatable",
    )


def read_plan(options, command):
    """What the options ask for.

    Arguments
    ---------
    options : argparse.Namespace
        What :func:`add_options` describes, and ``passed_on``.
    command : str
        For the default folder's name.

    Returns
    -------
    vavl_sb.evaluation.protocol.Plan

    Raises
    ------
    VAVLError
        In one line: an option that cannot be meant, of the protocol or of its
        train.py.
    """
    from vavl_sb.evaluation.folder import find_recipe
    from vavl_sb.evaluation.protocol import Plan
    from vavl_sb.evaluation.settings import (
        RESERVED,
        as_words,
        read_overrides,
        read_partitions,
        read_seeds,
    )
    from vavl_sb.training.arguments import parse_arguments

    hparams, train = find_recipe(options.hparams)
    default = train.parent / "results" / command / hparams.stem
    if options.jobs is not None and options.jobs < 1:
        raise VAVLError(f"--jobs: must be at least 1, not {options.jobs}")
    if options.slurm and options.launcher != "slurm":
        raise VAVLError("--slurm: only goes with --launcher slurm")
    slurm = {}
    for word in options.slurm:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise VAVLError(f"--slurm: must be KEY=VALUE, not {word!r}")
        slurm[key] = int(value) if value.isdigit() else value
    overrides = read_overrides(options.passed_on)
    # Before a folder is claimed, and before runs fail one after the other.
    parse_arguments([str(hparams), *as_words(overrides)], later=RESERVED)
    return Plan(
        hparams=str(hparams),
        partitions=read_partitions(options.partitions),
        seeds=read_seeds(options.seeds),
        overrides=overrides,
        folder=str(Path(options.output_folder or default).absolute()),
        launcher=options.launcher,
        jobs=options.jobs or (0 if options.launcher == "slurm" else 1),
        options=slurm,
    )


def run(options):
    """Runs the protocol and prints its table.

    Arguments
    ---------
    options : argparse.Namespace
        What :func:`add_parser` describes.

    Returns
    -------
    int
        Exit status: 1 where a run failed, 130 or 143 where it was stopped.
    """
    from vavl_sb.evaluation.protocol import run_protocol
    from vavl_sb.evaluation.summary import summary_lines

    plan = read_plan(options, "protocol")
    try:
        content = run_protocol(plan, say)
    except KeyboardInterrupt as stop:
        return interrupted(stop)
    say("", *summary_lines(content), "", f"In {plan.folder}/protocol.json")
    return 1 if content["partial"] else 0


def interrupted(stop):
    """Says how to go on.

    Arguments
    ---------
    stop : KeyboardInterrupt
        What was raised.

    Returns
    -------
    int
        Exit status: 130, or 143 after SIGTERM.
    """
    say_error("interrupted; the same command resumes it")
    return exit_status(stop)
