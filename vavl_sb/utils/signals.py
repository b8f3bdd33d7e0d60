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
    if sys.unraisablehook is _again:
        yield  # What is around this one does it.
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _raise)}
    # Not where Ctrl-C is ignored, as in a shell's background jobs.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _raise)
    _again.process, _again.hook = os.getpid(), sys.unraisablehook
    sys.unraisablehook = _again
    try:
        yield
    finally:
        _cancel()
        sys.unraisablehook = _again.hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _again(what):
    """Hook for what Python drops: a stop comes again, a moment later."""
    kind = what.exc_type
    stops = isinstance(kind, type) and issubclass(kind, KeyboardInterrupt)
    if not stops or os.getpid() != _again.process:
        _again.hook(what)
        return
    _cancel()
    _again.timer = threading.Timer(
        AGAIN, os.kill, (_again.process, _signal_of(kind))
    )
    _again.timer.daemon = True
    _again.timer.start()


_again.timer = None


def _cancel():
    """A stop that is under way is not asked for again."""
    if _again.timer is not None:
        _again.timer.cancel()


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
    """The signals' handler."""
    _cancel()
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
