"""Handles SIGTERM like Ctrl-C: a run cleans up and ends with one line."""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Context in which SIGTERM raises :class:`Terminated` in the main thread.

    Not in processes of torchrun: while one waits for another, it runs no Python
    code and would handle the signal too late.

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
    before = signal.signal(signal.SIGTERM, _raise), sys.unraisablehook
    sys.unraisablehook = functools.partial(_again, before[1])
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        sys.unraisablehook = before[1]


def exit_status(stop: KeyboardInterrupt) -> int:
    """Returns the exit status of a stop: 143 for SIGTERM, 130 for Ctrl-C."""
    terminated = isinstance(stop, Terminated)
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def _raise(number, frame):
    """Handler of SIGTERM."""
    raise Terminated


def _again(hook, dropped):
    """Sends the signal again if Python has dropped its exception, as it does
    with exceptions raised in a finalizer."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        hook(dropped)
        return
    terminated = issubclass(dropped.exc_type, Terminated)
    number = signal.SIGTERM if terminated else signal.SIGINT
    # Later and from another thread, when the finalizer has ended.
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
