"""The command `vavl`: use a trained model from the shell.

Each module of :mod:`vavl_sb.cli` has ``add_parser``, which adds one subcommand
or a few that belong together, describes their options, and sets ``run``, what
does the work. One that also sets ``passes_on`` gets options that it does not
know in ``passed_on``.
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
    """Runs the command line without the program's name; None for ``sys.argv``.

    Gives the exit status: 0, 1 where a clip or the model failed or the output
    cannot be written, 130 where it was interrupted, or 141 where whoever reads
    the output has gone.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # Not where a caller replaced it.
            # A name that the terminal cannot show is written out.
            stream.reconfigure(errors="backslashreplace")
    try:
        with _whole_output():
            return _run(arguments)
    except VAVLError as error:
        say_error(error)
        return 1
    except KeyboardInterrupt as stop:
        say_error("interrupted")
        return exit_status(stop)
    except BrokenPipeError:  # Whoever reads has enough, as `head` has.
        return 128 + signal.SIGPIPE


def _run(arguments):
    """The exit status of the subcommand that a command line asks for."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    words = [word for word in rest if not word.startswith("-")]
    if words == rest and getattr(options, "clips", None) == []:
        # Clips that may be left out argparse does not take after an option.
        options.clips, rest = rest, []
    if rest and not getattr(options, "passes_on", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.passed_on = rest
    return options.run(options)


@contextlib.contextmanager
def _whole_output():
    """Sees that what is printed arrives, or says in one line why not."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        # What is left unwritten would fail again when Python ends.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        if error.errno == errno.EPIPE:
            raise
        raise VAVLError(
            f"standard output: cannot be written ({error.strerror})"
        ) from None


# Of a pipe that nobody reads, a full disk and a disk that fails.
UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)


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
