"""The command `vavl`: use a trained model from the shell.

Each subcommand is a module of :mod:`vavl_sb.commands` with ``add_parser``,
which describes its options and sets ``run``, what does the work.

Authors
 * The vavl_sb authors 2026
"""

import argparse
import importlib
import sys

from vavl_sb.utils.errors import VAVLError

# Modules of vavl_sb.commands, in the order of the help text.
COMMANDS = ("predict", "evaluate")


def main(arguments=None):
    """Runs the command.

    Arguments
    ---------
    arguments : list
        Command line without the program's name; None for ``sys.argv``.

    Returns
    -------
    int
        Exit status: 0, or 1 where a clip or the model failed.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except VAVLError as error:
        print(f"vavl: {error}", file=sys.stderr)
        return 1


def _parser():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="vavl",
        description="Emotion from speech, from a face, or from both.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"vavl_sb.commands.{name}")
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
