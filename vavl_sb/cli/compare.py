"""`vavl compare`: a paired test between two protocols."""

import argparse
from pathlib import Path

from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        From ``add_subparsers`` of the program's parser.
    """
    parser = commands.add_parser(
        "compare", help="test two protocols against each other, by speaker"
    )
    parser.add_argument(
        "first", metavar="DIR_A", help="a folder that vavl protocol has filled"
    )
    parser.add_argument("second", metavar="DIR_B", help="another")
    parser.add_argument(
        "--output_folder",
        default=".",
        help="where comparison.json and .md go (default: here)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compares, writes and prints.

    Arguments
    ---------
    options : argparse.Namespace
        What :func:`add_parser` describes.

    Returns
    -------
    int
        Exit status.
    """
    from vavl_sb.evaluation.comparison import compare, write_comparison

    content = compare(options.first, options.second)
    lines = write_comparison(content, options.output_folder)
    path = Path(options.output_folder) / "comparison.json"
    say(*lines, "", f"In {path}")
    return 0
