"""What the benchmarks share: interleaved timing and the machine's own rate.

Authors
 * The vavl_sb authors 2026
"""

import statistics
import time

import torch


def interleaved(sides, repeats=5, warm_up=1):
    """Times several things in turn, so that a busy machine hurts all alike.

    Arguments
    ---------
    sides : dict
        Name to a callable without arguments.
    repeats : int
        Timed rounds; in each, every side runs once.
    warm_up : int
        Rounds before that are not timed.

    Returns
    -------
    dict
        Name to the list of seconds.

    Example
    -------
    >>> sorted(interleaved({"a": int, "b": int}, repeats=2)["a"])[0] >= 0
    True
    """
    seconds = {name: [] for name in sides}
    for turn in range(warm_up + repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds):
    """Median of each side.

    Arguments
    ---------
    seconds : dict
        From :func:`interleaved`.

    Returns
    -------
    dict

    Example
    -------
    >>> medians({"a": [3.0, 1.0, 2.0]})
    {'a': 2.0}
    """
    return {name: statistics.median(found) for name, found in seconds.items()}


class MatrixProduct:
    """A matrix product of the size that the network's are, as a yardstick.

    Arguments
    ---------
    rows, inner, columns : int
        Of the two matrices, fp32.
    device : str
        Where.
    times : int
        Products in a call.

    Example
    -------
    >>> MatrixProduct(rows=2, inner=3, columns=5, times=4).flop
    240.0
    """

    def __init__(
        self, rows=2048, inner=2048, columns=2048, device="cpu", times=5
    ):
        self.a = torch.randn(rows, inner, device=device)
        self.b = torch.randn(inner, columns, device=device)
        self.times = times
        self.flop = 2.0 * rows * inner * columns * times

    def __call__(self):
        """Computes the products."""
        for _ in range(self.times):
            torch.mm(self.a, self.b)
