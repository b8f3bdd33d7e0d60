"""Random states in checkpoints: a resumed run goes on as if never stopped.

Authors
 * The vavl_sb authors 2026
"""

import random
from functools import partial

import numpy as np
import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from vavl_sb.utils import distributed as processes


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
    def save(self, path):
        """Writes the states.

        Arguments
        ---------
        path : str or Path
            The checkpoint's file.
        """
        own, *others = processes.gather(_states())
        if processes.rank() == 0:
            torch.save({**own, "others": others}, path)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Sets the states; within an epoch, see :meth:`go_on` too.

        Arguments
        ---------
        path : str or Path
            The checkpoint's file.
        end_of_epoch : bool
            False where the epoch goes on.
        """
        states = torch.load(path, map_location="cpu", weights_only=True)
        everyone = [states, *states.get("others", [])]
        if processes.rank() >= len(everyone):
            return
        states = everyone[processes.rank()]
        self._set(states)
        self.pending = None if end_of_epoch else states

    def go_on(self):
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


def _states():
    """The states of this process, as ``torch.load`` reads them safely."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }
