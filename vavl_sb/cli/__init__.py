"""The command `vavl`: use a trained model from the shell.

Each subcommand is a module of :mod:`vavl_sb.cli` with ``add_parser``,
which describes its options and sets ``run``, what does the work. One that also
sets ``passes_on`` gets options that it does not know in ``passed_on``.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from vavl_sb.utils.errors import VAVLError, say_error
from vavl_sb.utils.signals import exit_status
from vavl_sb.utils.text import printable

# Modules of vavl_sb.cli, in the order of the help text.
COMMANDS = (
    "predict",
    "demo",
    "info",
    "export",
    "check-media",
    "evaluate",
    "protocol",
    "compare",
    "ablate",
    "import-visual",
    "import-audio",
    "push",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Arguments
    ---------
    arguments : list
        Command line without the program's name; None for ``sys.argv``.

    Returns
    -------
    int
        Exit status: 0, 1 where a clip or the model failed, or 130 where it
        was interrupted.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    words = [word for word in rest if not word.startswith("-")]
    if words == rest and getattr(options, "clips", None) == []:
        # Clips that may be left out argparse does not take after an option.
        options.clips, rest = rest, []
    if rest and not getattr(options, "passes_on", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.passed_on = rest
    try:
        return options.run(options)
    except VAVLError as error:
        say_error(error)
        return 1
    except KeyboardInterrupt as stop:
        say_error("interrupted")
        return exit_status(stop)


class _Parser(argparse.ArgumentParser):
    """Shows control characters, which a shell's ``*`` brings in with names."""

    def error(self, message):
        super().error(printable(message))


def _parser():
    """The command line."""
    parser = _Parser(
        prog="vavl",
        description="Emotion from speech, from a face, or from both.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = name.replace("-", "_")
        module = importlib.import_module(f"vavl_sb.cli.{module}")
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
