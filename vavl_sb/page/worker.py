"""The model in a process of its own, which can be ended at any moment."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from vavl_sb.utils.errors import VAVLError


class Ended(VAVLError):
    """A clip on which the work was ended, or which ended the worker."""


class Worker:
    """Works on one clip after the other, on none of them for long.

    What decodes a clip is C code that no thread can stop, and that may take the
    process down with it. So the model lives in another process: one that works
    for too long or dies is replaced, and the page goes on.

    ``load_model`` gives the model and ``work``, from the model and the
    arguments of :meth:`ask`, an answer, within so many seconds; both are sent
    to the process, and so must be picklable. ``metadata`` is the model's own, if
    it has one; ``speakers``, whether it was trained with speaker normalization.
    VAVLError: the model cannot be loaded.
    """

    def __init__(self, load_model: Callable, work: Callable, seconds: float):
        self.seconds = seconds
        self._arguments = load_model, work
        # Gradio's threads wait here, should several come at once.
        self._lock = threading.Lock()
        self._closed = False
        self._start()
        try:
            self._wait_for_model()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def ask(self, *arguments) -> Any:
        """What the work gives for the arguments, first of them a clip's path.

        VAVLError from the work; Ended: it took too long, or the process died.
        """
        with self._lock:
            if not self._process.is_alive() and not self._closed:
                self._start()
            if not self._ready:
                self._wait_for_model()
            reason = "the analysis broke off; see the terminal"
            with contextlib.suppress(EOFError, OSError):
                self._pipe.send(arguments)
                if self._pipe.poll(self.seconds):
                    return self._receive()
                reason = (
                    f"took more than {self.seconds:g} s; give a shorter one"
                )
            self._process.kill()
            self._process.join()
            if not self._closed:
                self._start()
            raise Ended(f"{arguments[0]}: {reason}")

    def close(self) -> None:
        """Ends the process."""
        self._closed = True
        self._process.kill()
        self._process.join()

    def _start(self):
        """Starts a process, which begins to load the model."""
        # Not forked: PyTorch's threads would be missing in the copy.
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_run, args=(other, *self._arguments), daemon=True
        )
        self._process.start()
        other.close()
        self._ready = False

    def _wait_for_model(self):
        """Waits until the model is loaded, and tells what it is."""
        try:
            self.metadata, self.speakers = self._receive()
        except (EOFError, OSError):
            raise VAVLError("the model's process ended at loading") from None
        self._ready = True

    def _receive(self):
        """What the process sends, raised if it is an error."""
        answer = self._pipe.recv()
        if isinstance(answer, VAVLError):
            raise answer
        return answer


def _run(pipe, load_model, work):
    """What the process does."""
    # Ctrl+C in a terminal goes to both; the page's process ends this one, and
    # so does its death.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    model = _answer(pipe, load_model, told=_metadata)
    with contextlib.suppress(EOFError):
        while model is not None:
            _answer(pipe, work, model, *pipe.recv())


def _metadata(model):
    """What a model says of itself, and whether it can do with a speaker."""
    modules = getattr(model, "mods", ())
    return getattr(model, "metadata", None), "speaker_normalizer" in modules


def _answer(pipe, function, *arguments, told=None):
    """Sends what a function gives, or what ``told`` makes of it, or the line
    that it fails with."""
    found = None
    try:
        found = function(*arguments)
        pipe.send(told(found) if told else found)
    except VAVLError as error:
        # As plain text: its kind may take other arguments.
        pipe.send(VAVLError(str(error)))
    return found


def _end_with_parent():
    """Ends this process when the page's process is gone."""
    multiprocessing.parent_process().join()
    os._exit(1)
