"""`vavl protocol`: train over partitions and seeds, and sum up."""

import argparse

from vavl_sb.utils.errors import say_error
from vavl_sb.utils.signals import exit_status
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
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


def add_options(
    parser: argparse.ArgumentParser, partitions: str, seeds: str
) -> None:
    """Options of a command that runs protocols.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of the command.
    partitions, seeds : str
        The defaults.
    """
    parser.epilog = (
        "All other options (--key value) go to each train.py; put -- before "
        "them where they could be taken for one of these."
    )
    parser.add_argument(
        "recipe_file", metavar="HPARAMS", help="recipes/X/hparams/Y.yaml"
    )
    parser.add_argument(
        "--partitions",
        default=partitions,
        help="1-5, or 1,3, or files: of a partition, or of the folds of a "
        "cross-validation (default: %(default)s)",
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


def run(options: argparse.Namespace) -> int:
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
    from vavl_sb.evaluation.comparison import summary_lines
    from vavl_sb.evaluation.protocol import read_plan, run_protocol

    plan = read_plan(options, "protocol")
    try:
        content = run_protocol(plan, say)
    except KeyboardInterrupt as stop:
        return interrupted(stop)
    say("", *summary_lines(content), "", f"In {plan.folder}/protocol.json")
    return 1 if content["partial"] else 0


def interrupted(stop: KeyboardInterrupt) -> int:
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
