"""The clips that visitors of the page have uploaded, and their removal.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import os
import threading
from pathlib import Path

from vavl_sb.utils.errors import VAVLError


class Clips:
    """One clip a visitor, in a folder of the page's own.

    A visitor's clip is deleted when the next one comes, when it turns out to
    be of no use, or when the visitor leaves.

    Arguments
    ---------
    folder : str or Path
        Where uploads lie; no file outside of it is ever taken or deleted.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> clips = Clips(folder)
    >>> for name in ("a.mp4", "b.mp4"):
    ...     _ = (folder / name).write_bytes(b"clip")
    ...     _ = clips.take("visitor", folder / name)
    >>> [path.name for path in folder.iterdir()]
    ['b.mp4']
    """

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self._held = {}
        # Visitors come and go in threads of their own.
        self._lock = threading.Lock()

    def take(self, visitor, path):
        """Holds a clip for a visitor, and deletes the one held before.

        Arguments
        ---------
        visitor : str
            Who uploaded it.
        path : str or Path
            The clip.

        Returns
        -------
        str
            The clip's path.

        Raises
        ------
        VAVLError
            It is not a file in the folder.
        """
        path = Path(path).resolve()
        if self.folder not in path.parents or not path.is_file():
            raise VAVLError("this clip is not there any more; upload it again")
        with self._lock:
            former = self._held.get(visitor)
            self._held[visitor] = path
            self._delete(former)
        return str(path)

    def held(self, visitor):
        """The clip that a visitor has.

        Arguments
        ---------
        visitor : str
            Who.

        Returns
        -------
        str
            Its path; None if there is none.
        """
        with self._lock:
            path = self._held.get(visitor)
        return None if path is None else str(path)

    def drop(self, visitor):
        """Deletes the clip that a visitor has, if any.

        Arguments
        ---------
        visitor : str
            Who.
        """
        with self._lock:
            self._delete(self._held.pop(visitor, None))

    def _delete(self, path):
        """Deletes a clip, unless another visitor uploaded the same."""
        if path is None or path in self._held.values():
            return
        with contextlib.suppress(OSError):
            os.remove(path)
        # Each upload lies in a folder of its own.
        if path.parent != self.folder:
            with contextlib.suppress(OSError):
                path.parent.rmdir()
