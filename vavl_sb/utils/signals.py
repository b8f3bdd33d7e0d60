"""SIGTERM as Ctrl-C: a run that is stopped tidies up and ends in one line."""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the program is, so that all is tidied up."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within it, SIGTERM raises :class:`Terminated` in the main thread.

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
    before = signal.signal(signal.SIGTERM, _raise), sys.unraisablehook
    sys.unraisablehook = functools.partial(_again, before[1])
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        sys.unraisablehook = before[1]


def exit_status(stop: KeyboardInterrupt) -> int:
    """The shell's number for a stop: 143 for SIGTERM, 130 for Ctrl-C."""
    terminated = isinstance(stop, Terminated)
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def _raise(number, frame):
    """SIGTERM's handler."""
    raise Terminated


def _again(hook, dropped):
    """Sends a signal once more where Python has dropped its exception: one that
    is raised while an object is deleted goes nowhere."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        hook(dropped)
        return
    terminated = issubclass(dropped.exc_type, Terminated)
    number = signal.SIGTERM if terminated else signal.SIGINT
    # From another thread, once this one has left the deletion.
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
