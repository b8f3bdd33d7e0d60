"""Errors that are written for the person who meets them.

Every error that a user can cause (a broken file, a wrong option, a missing
package) is a :class:`VAVLError` whose text is one line: what is wrong, where,
and what to do. Programs print that line and exit with status 1; see
:func:`exit_on_error`.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import errno
import sys

from vavl_sb.utils.stopping import exit_status, sigterm_raises

FULL = (errno.ENOSPC, errno.EDQUOT)


class VAVLError(Exception):
    """Base of all errors whose one-line text is meant for the user."""


class MediaError(VAVLError):
    """A media file cannot be used (missing, empty, truncated, no streams)."""


class ManifestError(VAVLError):
    """A manifest lacks a field, or a field has a value it cannot have."""


class CorpusError(VAVLError):
    """A corpus on disk, its labels or its split cannot be used."""


class EncoderError(VAVLError):
    """An encoder or its weights cannot be had or do not fit."""


@contextlib.contextmanager
def exit_on_error():
    """Turns a :class:`VAVLError` into one logged line and exit status 1.

    A full disk is told of in the same way. Ctrl-C and SIGTERM end in one line
    too, with exit status 130 and 143.

    Any other exception passes through with its traceback: that is a fault of
    the program, and its author needs the traceback.

    Example
    -------
    >>> with exit_on_error():
    ...     total = 1 + 1
    >>> total
    2
    """
    try:
        with sigterm_raises():
            yield
    except VAVLError as error:
        _exit(f"error: {error}")
    except OSError as error:
        if error.errno not in FULL:
            raise
        _exit(
            f"error: {error.filename or 'a file'}: cannot be written "
            f"({error.strerror}); free space, then run the same command again"
        )
    except KeyboardInterrupt as stop:
        _exit(
            "stopped; the same command goes on from where it was",
            exit_status(stop),
        )


def _exit(line, status=1):
    """Ends the program with one logged line."""
    # Here, so that `vavl --help` need not wait for torch.
    from speechbrain.utils.logger import get_logger

    get_logger(__name__).error("%s", line)
    sys.exit(status)
