"""Errors with one-line messages for the user.

Every error that a user can cause (a broken file, a wrong option, a missing
package) is a :class:`VAVLError`, whose text is one line: what is wrong, where,
and how to fix it. Programs print it and exit with status 1; see
:func:`exit_on_error`.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from vavl_sb.utils.signals import exit_status, sigterm_raises
from vavl_sb.utils.text import printable, say

LOADERS_MARK = "Original Traceback"
FULL = (errno.ENOSPC, errno.EDQUOT)


class VAVLError(Exception):
    r"""Base class of errors with a one-line message for the user.

    Example
    -------
    >>> error = VAVLError("a\nb.wav: no such file")
    >>> print(error)
    a\x0ab.wav: no such file
    """

    def __str__(self) -> str:
        return printable(self.text)

    @property
    def text(self) -> str:
        """The message without escapes, for JSON and other errors' messages."""
        text = super().__str__().rstrip()
        lines = text.splitlines()
        # A data loader's worker passes an error on as its traceback's text.
        if any(line.startswith(LOADERS_MARK) for line in lines):
            return lines[-1].partition(": ")[2]
        return text


class MediaError(VAVLError):
    """A media file cannot be used (missing, empty, truncated, no streams)."""


class ManifestError(VAVLError):
    """A manifest lacks a field, or has an invalid value."""


class CorpusError(VAVLError):
    """A corpus, its labels or its split cannot be used."""


class EncoderError(VAVLError):
    """An encoder or its weights cannot be loaded or do not fit."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its type if it is empty.

    Example
    -------
    >>> first_line(OSError("no such file\\nTry again."))
    'no such file'
    """
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def say_error(error: "VAVLError | str") -> None:
    """Prints a command's error in one line."""
    say(f"vavl: {getattr(error, 'text', error)}", file=sys.stderr)


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Logs a :class:`VAVLError` in one line and exits with status 1.

    The same applies to a full disk, and to Ctrl-C and SIGTERM with exit status
    130 and 143. Any other exception is a bug, and keeps its traceback. Of
    several processes of one run only the first to fail logs its error; the
    others exit with status 1 silently.
    """
    process = os.getpid()
    try:
        with sigterm_raises():
            yield
    except VAVLError as error:
        _exit(error)
    except RuntimeError as error:
        # Imported here, so that `vavl --help` does not import torch.
        from vavl_sb.utils.distributed import is_lost_peer

        if not is_lost_peer(error):
            raise
        _exit(
            "another process of this run has ended or cannot be reached "
            f"({str(error).splitlines()[0]}); run the same command again"
        )
    except OSError as error:
        if error.errno not in FULL:
            raise
        _exit(
            f"{error.filename or 'a file'}: cannot be written "
            f"({error.strerror}); free space, then run the same command again"
        )
    except KeyboardInterrupt as stop:
        if os.getpid() != process:
            # A worker process that was stopped while it was forked.
            os._exit(exit_status(stop))
        _exit(
            "the same command resumes from where it was",
            "stopped; ",
            exit_status(stop),
        )


def _exit(reason: object, what: str = "error: ", status: int = 1) -> None:
    """Logs one line, in the first process to fail, and exits."""
    from vavl_sb.utils.distributed import first_to_fail
    from vavl_sb.utils.logger import get_logger

    if first_to_fail():
        get_logger(__name__).error(what + "%s", reason, main_process_only=False)
    sys.exit(status)
