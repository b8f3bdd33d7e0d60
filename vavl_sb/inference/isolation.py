"""Keeps predictions independent of the caller's dtype, autocast and forks."""

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from vavl_sb.utils.errors import VAVLError

Method = TypeVar("Method", bound=Callable[..., Any])

_lock = threading.Lock()
_callers: list[torch.dtype] = []  # The caller's dtype, once per running call
_loaded: weakref.WeakSet = weakref.WeakSet()


@contextlib.contextmanager
def own_precision() -> Iterator[None]:
    """Disables autocast and sets the default dtype to float32.

    Autocast is per thread. The default dtype is per process: it is restored
    when the last of several concurrent calls ends.

    Example
    -------
    >>> torch.set_default_dtype(torch.float64)
    >>> with own_precision():
    ...     torch.ones(1).dtype
    torch.float32
    >>> torch.ones(1).dtype
    torch.float64
    >>> torch.set_default_dtype(torch.float32)
    """
    with _lock:
        _callers.append(_callers[0] if _callers else torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
        ):
            yield
    finally:
        with _lock:
            dtype = _callers.pop()
            if not _callers:
                torch.set_default_dtype(dtype)


def refuse_after_fork(model: object) -> None:
    """Makes the methods of a model raise in processes forked from now on."""
    _loaded.add(model)


def _in_child():
    """Marks models in a forked child, which lacks PyTorch's threads."""
    for model in _loaded:
        model.forked = True


if hasattr(os, "register_at_fork"):  # Not on Windows.
    os.register_at_fork(after_in_child=_in_child)


def inference_method(method: Method) -> Method:
    """Runs a method of a model in :func:`own_precision`.

    Raises VAVLError in a process that was forked after the model was loaded,
    where PyTorch would wait forever for threads of the parent. With one thread
    it is safe.
    """

    @functools.wraps(method)
    def call(self, *arguments, **options):
        if getattr(self, "forked", False) and torch.get_num_threads() > 1:
            raise VAVLError(
                "the model was loaded before this process was forked, and "
                "PyTorch hangs there: start processes by multiprocessing."
                'get_context("forkserver") and load the model in each'
            )
        with own_precision():
            return method(self, *arguments, **options)

    return call  # type: ignore[return-value]
