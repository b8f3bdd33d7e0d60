"""Random states in checkpoints: a resumed run goes on as if never stopped.

Authors
 * The vavl_sb authors 2026
"""

import random

import numpy as np
import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)


@register_checkpoint_hooks
class RandomState:
    """The global random states of Python, numpy and torch, as a recoverable.

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

    @mark_as_saver
    def save(self, path):
        """Writes the states.

        Arguments
        ---------
        path : str or Path
            The checkpoint's file.
        """
        name, keys, position, has_gauss, gauss = np.random.get_state()
        version, internal, gauss_next = random.getstate()
        torch.save(
            {
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all(),
                "numpy": [name, keys.tolist(), position, has_gauss, gauss],
                "python": [version, list(internal), gauss_next],
            },
            path,
        )

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Sets the states.

        Arguments
        ---------
        path : str or Path
            The checkpoint's file.
        end_of_epoch : bool
            Not used: the state is that of the moment in any case.
        """
        del end_of_epoch
        states = torch.load(path, map_location="cpu", weights_only=True)
        torch.set_rng_state(states["torch"])
        if len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, np.array(keys, np.uint32), *rest))
        version, internal, gauss_next = states["python"]
        random.setstate((version, tuple(internal), gauss_next))
