"""Errors that are written for the person who meets them.

Every error that a user can cause (a broken file, a wrong option, a missing
package) is a :class:`VAVLError` whose text is one line: what is wrong, where,
and what to do. Programs print that line and exit with status 1; see
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
    r"""Base of all errors whose one-line text is meant for the user.

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
        """What was said, as it is: for JSON, and within another error."""
        text = super().__str__().rstrip()
        lines = text.splitlines()
        # A loader's worker hands an error over as the text of its traceback.
        if any(line.startswith(LOADERS_MARK) for line in lines):
            return lines[-1].partition(": ")[2]
        return text


class MediaError(VAVLError):
    """A media file cannot be used (missing, empty, truncated, no streams)."""


class ManifestError(VAVLError):
    """A manifest lacks a field, or a field has a value it cannot have."""


class CorpusError(VAVLError):
    """A corpus on disk, its labels or its split cannot be used."""


class EncoderError(VAVLError):
    """An encoder or its weights cannot be had or do not fit."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, never empty.

    Example
    -------
    >>> first_line(OSError("no such file\\nTry again."))
    'no such file'
    """
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def say_error(error: "VAVLError | str") -> None:
    """Prints a command's error, in one line."""
    say(f"vavl: {getattr(error, 'text', error)}", file=sys.stderr)


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Turns a :class:`VAVLError` into one logged line and exit status 1.

    A full disk is told of in the same way. Ctrl-C and SIGTERM end in one line
    too, with exit status 130 and 143.

    Any other exception passes through with its traceback: that is a fault of
    the program, and its author needs the traceback. Of several processes that
    work on one run the first to fail writes the line; the others, which fail
    because that one is gone, end with status 1 and without a word.
    """
    process = os.getpid()
    try:
        with sigterm_raises():
            yield
    except VAVLError as error:
        _exit(error)
    except RuntimeError as error:
        # Here, so that `vavl --help` need not wait for torch.
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
            # A worker that is stopped as it is forked, with this stack.
            os._exit(exit_status(stop))
        _exit(
            "the same command goes on from where it was",
            "stopped; ",
            exit_status(stop),
        )


def _exit(reason: object, what: str = "error: ", status: int = 1) -> None:
    """Ends the program with one line, which one process alone writes."""
    from vavl_sb.utils.distributed import first_to_fail
    from vavl_sb.utils.logger import get_logger

    if first_to_fail():
        get_logger(__name__).error(what + "%s", reason, main_process_only=False)
    sys.exit(status)
