"""What FFmpeg says is wrong with a file while it reads it.

Its decoders mend what they can: they hide damage rather than stop at it, and
tell of it only in log lines that name no file. Here these lines are kept, for one warning that names the file.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import logging
import re

# Comes with the next message of all, and may be of another file.
REPEATED = re.compile(r"\(repeated \d+ more times\)")


class Complaints:
    """Counts FFmpeg's messages of errors, and keeps the first.

    A message counts once :meth:`settle` says that sound or picture went on
    behind it. So what stands behind the end, such as a tag, does not count,
    nor do complaints about references that a stream lacks which was cut out
    of a longer one.

    Arguments
    ---------
    av : module
        PyAV.

    Example
    -------
    >>> import av
    >>> complaints = Complaints(av)
    >>> with complaints.heard():
    ...     av.logging.log(av.logging.ERROR, "flv", "Packet mismatch\\n")
    >>> complaints.settle(True, 1)
    >>> complaints.count, complaints.first
    (1, 'Packet mismatch')
    """

    def __init__(self, av):
        self.logging = av.logging
        # PyAV hands messages on only where a level is set. It holds for the
        # whole process, which is to stay as silent as it was; a program that
        # has set a level of its own keeps it.
        if self.logging.get_level() is None:
            libav = logging.getLogger("libav")
            libav.addHandler(logging.NullHandler())
            libav.propagate = False
            self.logging.set_level(self.logging.ERROR)
        self.count, self.first = 0, None
        self.open = []

    @contextlib.contextmanager
    def heard(self):
        """Within it, what FFmpeg says in this thread is kept here."""
        with self.logging.Capture() as lines:
            try:
                yield
            finally:
                self.open += [
                    " ".join(text.split())
                    for level, _, text in lines
                    if level <= self.logging.ERROR
                    and text.strip()
                    and not REPEATED.search(text)
                ]

    def settle(self, counts, number):
        """A good frame came: what was said before it counts, or does not.

        Arguments
        ---------
        counts : bool
            Whether it counts.
        number : int
            How many of the messages that are open were before it.
        """
        if counts and number:
            self.count += number
            self.first = self.first or self.open[0]
        del self.open[:number]
