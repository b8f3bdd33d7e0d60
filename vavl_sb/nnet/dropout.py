"""Dropout whose random numbers take less time on a CPU.

PyTorch draws one number of 64 bits for each element, in one thread; for the
conformers of VAVL that is a tenth of a training step. Sixteen bits an element
are enough.

Authors
 * The vavl_sb authors 2026
"""

import torch
from torch import nn

STEPS = 2**16


class Dropout(nn.Dropout):
    """As ``torch.nn.Dropout``, at a rate that is a multiple of 2^-16.

    On a CPU in training, an element is dropped with the probability p rounded
    to sixteen bits (0.1 becomes 0.100006), and what is kept is divided by
    exactly the share that is kept, so that the mean stays. The numbers are
    those of PyTorch's global generator. Elsewhere it is PyTorch's dropout.

    Arguments
    ---------
    p : float
        Probability with which an element is dropped, in [0, 1).

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> dropped = Dropout(0.25)(torch.ones(1000))
    >>> dropped.unique()
    tensor([0.0000, 1.3333])
    """

    def forward(self, x):
        """Drops elements at random.

        Arguments
        ---------
        x : torch.Tensor
            Any shape.

        Returns
        -------
        torch.Tensor
            Same shape.
        """
        drop = round(self.p * STEPS)
        plain = x.device.type != "cpu" or torch.compiler.is_compiling()
        if plain or not self.training or not 0 < drop < STEPS:
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
        bits = bits.random_(-(2**63), None).view(torch.int16)[: x.numel()]
        kept = (bits >= drop - STEPS // 2).to(x.dtype)
        return x * kept.mul_(STEPS / (STEPS - drop)).view(x.shape)


def use_in(module):
    """Puts this dropout in the place of every ``torch.nn.Dropout``.

    Arguments
    ---------
    module : torch.nn.Module
        Changed in place; no weights are touched.

    Example
    -------
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))
    >>> use_in(net)
    >>> net[1]
    Dropout(p=0.1, inplace=False)
    """
    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child) is nn.Dropout:
                setattr(part, name, Dropout(child.p))
