"""Random numbers that can be had again.

A choice that depends on a seed and a clip's id alone is the same in any order
of the clips; a random state in a checkpoint lets a resumed run go on as if it
had never stopped.
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
    """Ids in an order that depends on the seed and the ids alone.

    Example
    -------
    >>> shuffled(["a", "b", "c"], 1) == shuffled(["c", "a", "b"], 1)
    True
    """
    return sorted(clips, key=lambda clip: _digest(f"{seed}:{clip}"))


def clip_generator(clip: str, seed: int, purpose: str) -> np.random.Generator:
    """Random numbers for one clip.

    What they are for is the ``purpose``: two purposes have nothing in common.

    Example
    -------
    >>> first = clip_generator("a", 1, "noise").random()
    >>> first == clip_generator("a", 1, "noise").random()
    True
    """
    digest = _digest(f"{seed}:{purpose}:{clip}")
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _digest(text: str) -> bytes:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).digest()


@partial(register_checkpoint_hooks, save_on_main_only=False)
class RandomState:
    """The global random states of Python, numpy and torch, as a recoverable.

    Of several processes each gets its own back. A process that there was none
    of when they were saved keeps the state that it has.

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
        """Writes the states into a checkpoint's file."""
        name, keys, *rest = np.random.get_state()
        version, internal, gauss_next = random.getstate()
        # As `torch.load` reads them with weights_only.
        own = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
            "numpy": [name, np.asarray(keys).tolist(), *rest],
            "python": [version, list(internal), gauss_next],
        }
        everyone = processes.gather(own)
        if processes.rank() == 0:
            torch.save(everyone, path)

    @mark_as_loader
    def load(self, path: str | Path, end_of_epoch: bool) -> None:
        """Sets the states; within an epoch, see :meth:`go_on` too."""
        everyone = torch.load(path, map_location="cpu", weights_only=True)
        if processes.rank() < len(everyone):
            states = everyone[processes.rank()]
            self._set(states)
            self.pending = None if end_of_epoch else states

    def go_on(self) -> None:
        """Sets once more what was loaded within an epoch.

        To be called when the epoch goes on: until then the data loader has
        drawn a number that the epoch had drawn before the checkpoint. Does
        nothing the second time.
        """
        if self.pending is not None:
            self._set(self.pending)
            self.pending = None

    @staticmethod
    def _set(states):
        """Sets all states."""
        torch.set_rng_state(states["torch"])
        if len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, np.array(keys, np.uint32), *rest))
        version, internal, gauss_next = states["python"]
        random.setstate((version, tuple(internal), gauss_next))
