"""The model in a process of its own, which can be ended at any moment."""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from vavl_sb.utils.errors import VAVLError


class Worker:
    """Analyses one clip after the other, none of them for long.

    Decoders are C code that no thread can stop, and that may take the process
    down with it. So the model lives in another process: one that works for too
    long or dies is replaced, and the page goes on.

    Arguments
    ---------
    load_model : Callable
        Gives the EmotionRecognizer; must be picklable.
    seconds : float
        How long the work on a clip may take.

    Attributes
    ----------
    about : dict
        The model's ``metadata``, ``trained_heads``, ``attribute_range``, and
        whether it ``takes_speakers``.
    """

    def __init__(self, load_model: Callable, seconds: float):
        self.load_model, self.seconds = load_model, seconds
        self._lock = threading.Lock()
        self._start()
        try:
            self.about: dict[str, Any] = self._loaded.result()
        except BaseException as error:
            self.close()
            if not isinstance(error, BrokenProcessPool):
                raise
            raise VAVLError("the model's process ended at loading") from None

    def analyze(
        self, path: str, modality: str = "auto", others: Sequence[str] = ()
    ) -> tuple[Any, list[str]]:
        """What ``EmotionRecognizer.analyze`` gives, with other clips of the
        person enrolled, and a line for each of these that was left out.

        VAVLError, in one line: the clip cannot be used, took too long, or
        ended the process.
        """
        with self._lock:
            try:
                self._loaded.result()
                arguments = path, modality, tuple(others)
                found = self._pool.submit(_analyze, *arguments)
                return found.result(self.seconds * (1 + len(others)))
            except TimeoutError:
                reason = (
                    f"took more than {self.seconds:g} s; give a shorter one"
                )
            except BrokenProcessPool:
                reason = "the analysis broke off; see the terminal"
            self.close()
            self._start()
        raise VAVLError(f"{path}: {reason}")

    def close(self) -> None:
        """Ends the process."""
        for process in multiprocessing.active_children():
            process.kill()
        self._pool.shutdown()

    def _start(self):
        """Starts a process, which begins to load the model."""
        # Not forked: PyTorch's threads would be missing in the copy.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context)
        self._loaded = self._pool.submit(_load, self.load_model)


def _load(load_model):
    """Loads the model of this process, and tells what it is."""
    global _model
    # Ctrl+C in a terminal goes to both processes; the page ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _model = load_model()
    return {
        "metadata": _model.metadata,
        "trained_heads": _model.trained_heads,
        "attribute_range": getattr(_model.hparams, "attribute_range", None),
        "takes_speakers": "speaker_normalizer" in _model.mods,
    }


def _analyze(path, modality, others):
    """See :meth:`Worker.analyze`."""
    speaker = _enrol(others) if others else None
    crops = 0 if modality == "audio" else 8
    found = _model.analyze(path, modality, crops=crops, speaker=speaker)
    return found, speaker.left_out if others else []


@functools.lru_cache(maxsize=1)
def _enrol(paths):
    """Other clips of a person, read once for all questions with them."""
    return _model.enrol(paths)


def _end_with_parent():
    """Ends this process when the page's process is gone."""
    multiprocessing.parent_process().join()
    os._exit(1)
