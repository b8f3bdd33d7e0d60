"""A batch sampler for distributed training."""

from collections.abc import Sequence

from torch.utils.data import Sampler

from vavl_sb.utils.errors import VAVLError


class SharedBatches:
    """Yields the row numbers of one process's share of every batch.

    A global batch has ``batch_size * count`` rows, for ``count`` processes;
    process ``rank`` takes an equal part of it, to within one row. Each clip is
    used exactly once. A last batch with fewer rows than processes is added to
    the batch before it; ``drop_last`` drops an incomplete last batch.

    ``sampler`` must yield the same order in all processes. Raises a VAVLError
    if there are fewer rows than processes.

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
        full = batch_size * count
        starts = list(range(0, len(sampler), full))
        last_size = len(sampler) - starts[-1]
        if last_size < (full if drop_last else count):
            starts.pop()
        ends = [*starts[1:], len(sampler)]
        if drop_last:
            ends = [start + full for start in starts]
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
        """Sets the epoch, which determines the order."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
