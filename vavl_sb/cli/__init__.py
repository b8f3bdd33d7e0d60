"""The command `vavl`: use a trained model from the shell.

Each module of :mod:`vavl_sb.cli` has ``add_parser``, which adds one subcommand
or a few that belong together, describes their options, and sets ``run``, what
does the work. One that also sets ``passes_on`` gets options that it does not
know in ``passed_on``.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from vavl_sb.utils.errors import VAVLError, say_error
from vavl_sb.utils.signals import exit_status
from vavl_sb.utils.text import printable

# Modules of vavl_sb.cli, in the order of the help text.
MODULES = (
    *("predict", "demo", "info", "export", "check_media", "evaluate"),
    *("protocol", "import_weights", "push"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line without the program's name; None for ``sys.argv``.

    Gives the exit status: 0, 1 where a clip or the model failed, or 130 where
    it was interrupted.
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
    for name in MODULES:
        module = importlib.import_module(f"vavl_sb.cli.{name}")
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
