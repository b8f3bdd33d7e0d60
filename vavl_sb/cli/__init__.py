"""The command `vavl`: use and evaluate models from the shell.

Each module of :mod:`vavl_sb.cli` has ``add_parser``, which adds one or more
subcommands and sets ``run``, the function to call. If a subcommand sets
``passes_on``, unknown options are in ``passed_on`` instead of an error.
"""

import argparse
import contextlib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from vavl_sb.utils.errors import VAVLError, say_error
from vavl_sb.utils.signals import exit_status
from vavl_sb.utils.text import printable

# Modules of vavl_sb.cli, in the order of the help text.
MODULES = ("predict", "clips", "model", "evaluate", "protocol")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line without the program name; None for ``sys.argv``.

    Returns the exit status: 0; 1 if a clip or the model failed or the output
    cannot be written; 130 if interrupted; 141 if the reader of a pipe has
    closed it.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # Not if a caller replaced it
            # File names may contain characters that cannot be encoded.
            stream.reconfigure(errors="backslashreplace")
    try:
        with _checked_output():
            return _run(arguments)
    except VAVLError as error:
        say_error(error)
        return 1
    except KeyboardInterrupt as stop:
        say_error("interrupted")
        return exit_status(stop)
    except BrokenPipeError:  # As after `vavl ... | head`
        return 128 + signal.SIGPIPE


def _run(arguments):
    """Runs the subcommand of a command line; returns its exit status."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    words = [word for word in unknown if not word.startswith("-")]
    if words == unknown and getattr(options, "clips", None) == []:
        # argparse does not match nargs="*" after an option.
        options.clips, unknown = unknown, []
    if unknown and not getattr(options, "passes_on", False):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.passed_on = unknown
    return options.run(options)


@contextlib.contextmanager
def _checked_output():
    """Flushes stdout, and raises VAVLError if it cannot be written."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        # Buffered output would raise again when Python exits.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        if error.errno == errno.EPIPE:
            raise
        raise VAVLError(
            f"standard output: cannot be written ({error.strerror})"
        ) from None


# A closed pipe, a full disk, a full quota and an I/O error.
UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)


class _Parser(argparse.ArgumentParser):
    """Escapes control characters of file names in error messages."""

    def error(self, message):
        super().error(printable(message))


def _parser():
    """Creates the parser with all subcommands."""
    parser = _Parser(
        prog="vavl",
        description="Emotion from speech, from a face, or from both.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in MODULES:
        module = importlib.import_module(f"vavl_sb.cli.{name}")
        module.add_parser(commands)
    return parser
