"""What FFmpeg says is wrong with a file while it reads it.

Its decoders mend what they can: they hide damage rather than stop at it, and
tell of it only in lines that name no file, on the terminal of whoever started
the program. Here these lines are kept, for one warning that names the file.

Authors
 * The vavl_sb authors 2026
"""

import contextlib


class Complaints:
    """Counts FFmpeg's messages of errors, and keeps the first.

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
    >>> complaints.count, complaints.first
    (1, 'Packet mismatch')
    """

    def __init__(self, av):
        self.logging = av.logging
        # Until a level is set, all goes to the terminal. It holds for the
        # process; a program that has set one of its own keeps it.
        if self.logging.get_level() is None:
            self.logging.set_level(self.logging.ERROR)
            # Else "repeated 3 times" comes when another file is read.
            self.logging.set_skip_repeated(False)
        self.count, self.first = 0, None

    @contextlib.contextmanager
    def heard(self):
        """Within it, what FFmpeg says in this thread is kept here."""
        with self.logging.Capture() as lines:
            try:
                yield
            finally:
                for level, _, text in lines:
                    if level <= self.logging.ERROR and text.strip():
                        self.count += 1
                        self.first = self.first or " ".join(text.split())
