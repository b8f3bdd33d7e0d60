"""Ctrl-C and SIGTERM: a run that is stopped ends in one line.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import signal
import threading


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the program is, so that all is tidied up."""


@contextlib.contextmanager
def sigterm_raises():
    """Within it, SIGTERM raises :class:`Terminated` in the main thread.

    Example
    -------
    >>> with sigterm_raises():
    ...     try:
    ...         signal.raise_signal(signal.SIGTERM)
    ...     except Terminated as stop:
    ...         exit_status(stop)
    143
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_status(stop):
    """The shell's number for a program that a signal ended.

    Arguments
    ---------
    stop : KeyboardInterrupt
        What was raised.

    Returns
    -------
    int
        143 for SIGTERM, 130 for Ctrl-C.
    """
    number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
    return 128 + number


def _raise(number, frame):
    """The signal's handler."""
    raise Terminated
