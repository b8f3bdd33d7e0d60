"""What a prediction must not depend on: the state of whoever asks for it."""

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
_inside: list[torch.dtype] = []  # The caller's dtype, once for each call
_loaded: weakref.WeakSet = weakref.WeakSet()


@contextlib.contextmanager
def own_precision() -> Iterator[None]:
    """Within it, neither autocast nor another default dtype is the caller's.

    Autocast is of a thread; the default dtype is of the process, and comes back
    when the last of the calls that run at once is done.

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
        _inside.append(_inside[0] if _inside else torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
        ):
            yield
    finally:
        with _lock:
            before = _inside.pop()
            if not _inside:
                torch.set_default_dtype(before)


def refuse_after_fork(model: object) -> None:
    """Has a model refuse, from now on, to answer in a forked child."""
    _loaded.add(model)


def _in_child():
    """After a fork: PyTorch's threads are not in the child."""
    for model in _loaded:
        model.forked = True


if hasattr(os, "register_at_fork"):  # Windows has none.
    os.register_at_fork(after_in_child=_in_child)


def undisturbed(method: Method) -> Method:
    """A method of a model, in :func:`own_precision`.

    VAVLError in a child that was forked after the model was loaded: PyTorch
    would wait there forever for threads that only the parent has. With one
    thread it needs none.
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
