"""Ctrl-C and SIGTERM: a run that is stopped ends in one line.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import os
import signal
import sys
import threading

# Seconds until a stop that Python dropped is asked for again.
AGAIN = 0.05


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the program is, so that all is tidied up."""


@contextlib.contextmanager
def sigterm_raises():
    """Within it, SIGTERM raises :class:`Terminated` in the main thread.

    Python drops what is raised in a finalizer or in a hook around a fork, as
    data loaders do at each epoch; a stop that comes just then, Ctrl-C as well,
    is asked for again.

    Not in a process that torchrun has started: one that waits for another
    runs no Python, and would hear of the signal too late.

    Example
    -------
    >>> with sigterm_raises():
    ...     try:
    ...         signal.raise_signal(signal.SIGTERM)
    ...     except Terminated as stop:
    ...         exit_status(stop)
    143
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if "RANK" in os.environ or not in_main_thread:
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        with _asked_again():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _asked_again():
    """Within it, a stop that Python drops comes again, a moment later."""
    process, before, timers = os.getpid(), sys.unraisablehook, []

    def dropped(what):
        stops = issubclass(what.exc_type, KeyboardInterrupt)
        if not stops or os.getpid() != process:
            before(what)
            return
        number = _signal_of(what.exc_type)
        timer = threading.Timer(AGAIN, os.kill, (process, number))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()


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
    return 128 + _signal_of(type(stop))


def _signal_of(kind):
    """The signal that raises an exception of this class."""
    return signal.SIGTERM if issubclass(kind, Terminated) else signal.SIGINT


def _raise(number, frame):
    """The signal's handler."""
    raise Terminated
