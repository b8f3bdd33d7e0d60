"""`vavl ablate`: what each part of the network is worth."""

import argparse

from vavl_sb.cli.protocol import add_options, interrupted
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        From ``add_subparsers`` of the program's parser.
    """
    parser = commands.add_parser(
        "ablate",
        help="turn parts of the network off, one by one, and compare",
        allow_abbrev=False,
    )
    add_options(parser, partitions="1", seeds="3")
    parser.set_defaults(run=run, passes_on=True)


def run(options: argparse.Namespace) -> int:
    """Runs the four protocols and prints the table.

    Arguments
    ---------
    options : argparse.Namespace
        What :func:`add_parser` describes.

    Returns
    -------
    int
        Exit status: 1 where a run failed, 130 or 143 where it was stopped.
    """
    from vavl_sb.evaluation.protocol import read_plan, run_ablation

    plan = read_plan(options, "ablation")
    try:
        lines, partial = run_ablation(plan, say)
    except KeyboardInterrupt as stop:
        return interrupted(stop)
    say("", *lines, "", f"In {plan.folder}/ablation.json")
    return 1 if partial else 0
