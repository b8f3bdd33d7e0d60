"""Reproducible random numbers.

Choices that depend only on a seed and a clip's id do not depend on the order of
the clips. Random states in a checkpoint make a resumed run equal to an
uninterrupted one.
"""

import hashlib
import random
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from vavl_sb.utils import distributed as processes


def shuffled(clips: Iterable[str], seed: int) -> list[str]:
    """Shuffles ids in an order that depends only on the seed and the ids.

    Example
    -------
    >>> shuffled(["a", "b", "c"], 1) == shuffled(["c", "a", "b"], 1)
    True
    """
    return sorted(clips, key=lambda clip: _digest(f"{seed}:{clip}"))


def clip_generator(clip: str, seed: int, purpose: str) -> np.random.Generator:
    """Creates a random generator for a clip; the numbers of different purposes
    are independent.

    Example
    -------
    >>> first = clip_generator("a", 1, "noise").random()
    >>> first == clip_generator("a", 1, "noise").random()
    True
    """
    digest = _digest(f"{seed}:{purpose}:{clip}")
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _digest(text: str) -> bytes:
    """Computes the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).digest()


@partial(register_checkpoint_hooks, save_on_main_only=False)
class RandomState:
    """Recoverable with the global random states of Python, NumPy and torch.

    Each of several processes restores its own. With more processes than at the
    time of saving, the additional ones keep their current state.

    Example
    -------
    >>> path = getfixture("tmp_path") / "state.ckpt"
    >>> state = RandomState()
    >>> state.save(path)
    >>> first = torch.rand(3)
    >>> state.load(path, end_of_epoch=True)
    >>> bool((torch.rand(3) == first).all())
    True
    """

    def __init__(self):
        self.pending = None

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Saves the states of all processes in a checkpoint."""
        name, keys, *position = np.random.get_state()
        version, internal, gauss_next = random.getstate()
        # Types that `torch.load` accepts with weights_only.
        states = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
            "numpy": [name, np.asarray(keys).tolist(), *position],
            "python": [version, list(internal), gauss_next],
        }
        all_states = processes.gather(states)
        if processes.rank() == 0:
            torch.save(all_states, path)

    @mark_as_loader
    def load(self, path: str | Path, end_of_epoch: bool) -> None:
        """Restores this process's states; see :meth:`restore_again` for
        checkpoints saved within an epoch."""
        all_states = torch.load(path, map_location="cpu", weights_only=True)
        if processes.rank() < len(all_states):
            states = all_states[processes.rank()]
            self._set(states)
            self.pending = None if end_of_epoch else states

    def restore_again(self) -> None:
        """Restores the states of a checkpoint saved within an epoch once more.

        Must be called at the first batch after resuming: before it, the data
        loader draws a number that the epoch drew before the checkpoint. Later
        calls have no effect.
        """
        if self.pending is not None:
            self._set(self.pending)
            self.pending = None

    @staticmethod
    def _set(states):
        """Sets the global random states."""
        torch.set_rng_state(states["torch"])
        if len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
        name, keys, *position = states["numpy"]
        np.random.set_state((name, np.array(keys, np.uint32), *position))
        version, internal, gauss_next = states["python"]
        random.setstate((version, tuple(internal), gauss_next))
