"""Seconds by stage, of work that is nested and interleaved.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import time


class Stopwatch:
    """Adds up the time of each stage.

    A stage that starts inside another stops that one's clock until it ends, so
    that the stages' times never overlap.

    Arguments
    ---------
    stages : sequence of str
        Stages that are in ``seconds`` even if they never run.

    Attributes
    ----------
    seconds : dict
        Stage to seconds.

    Example
    -------
    >>> watch = Stopwatch(["decode"])
    >>> with watch("heads"):
    ...     list(watch.each("decode", iter("ab")))
    ['a', 'b']
    >>> sorted(watch.seconds)
    ['decode', 'heads']
    """

    def __init__(self, stages=()):
        self.seconds = dict.fromkeys(stages, 0.0)
        self._running = []
        self._since = 0.0

    @contextlib.contextmanager
    def __call__(self, stage):
        """Counts what happens inside of a ``with`` for a stage.

        Arguments
        ---------
        stage : str
            Its name.
        """
        self._count()
        self._running.append(stage)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def each(self, stage, items):
        """Counts the work of an iterator, not that of whoever uses its items.

        Arguments
        ---------
        stage : str
            Its name.
        items : iterable
            Whose items are made one by one.

        Yields
        ------
        object
            The items.
        """
        items = iter(items)
        end = object()
        while True:
            with self(stage):
                item = next(items, end)
            if item is end:
                return
            yield item

    def _count(self):
        """Adds the time since the last call to the stage that runs."""
        now = time.perf_counter()
        if self._running:
            stage = self._running[-1]
            spent = now - self._since
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        self._since = now
