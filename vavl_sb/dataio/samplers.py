"""The batches of one process, shared out among several."""

from collections.abc import Sequence

from torch.utils.data import Sampler

from vavl_sb.utils.errors import VAVLError


class SharedBatches:
    """A process's share of every batch: row numbers, by batch.

    The batches are those of one process with ``batch_size`` times as many rows
    as there are processes (``count``); each (``rank``) takes an equal part of
    each, to within one row. No clip is left out or taken twice. Should the last
    batch have fewer rows than there are processes, its rows go to the one
    before; ``drop_last`` leaves out one that is not whole.

    The sampler gives the same row numbers, in the same order, to all processes.
    VAVLError: there are fewer rows than processes.

    Example
    -------
    >>> list(SharedBatches(range(7), batch_size=2, rank=0, count=2))
    [[0, 1], [4]]
    >>> list(SharedBatches(range(7), batch_size=2, rank=1, count=2))
    [[2, 3], [5, 6]]
    """

    def __init__(
        self,
        sampler: Sampler | Sequence[int],
        batch_size: int,
        rank: int,
        count: int,
        drop_last: bool = False,
    ):
        if len(sampler) < count:
            raise VAVLError(
                f"{count} processes cannot share {len(sampler)} training "
                "clips: start fewer processes"
            )
        self.sampler, self.rank, self.count = sampler, rank, count
        whole = batch_size * count
        starts = list(range(0, len(sampler), whole))
        rest = len(sampler) - starts[-1]
        if rest < (whole if drop_last else count):
            starts.pop()
        ends = [*starts[1:], len(sampler)]
        if drop_last:
            ends = [start + whole for start in starts]
        self.bounds = list(zip(starts, ends))

    def __len__(self):
        return len(self.bounds)

    def __iter__(self):
        order = list(self.sampler)
        for start, end in self.bounds:
            rows = end - start
            yield order[
                start + rows * self.rank // self.count : start
                + rows * (self.rank + 1) // self.count
            ]

    def set_epoch(self, epoch: int) -> None:
        """Makes the order that of an epoch."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
