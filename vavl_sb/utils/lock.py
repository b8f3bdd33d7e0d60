"""Locks that allow one run at a time in a folder."""

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import unwritable

LOCK = "train.lock"
# Open lock files: a lock lasts until its file is closed.
_HELD: dict[str, TextIO] = {}


def take_lock(path: str | Path) -> TextIO | None:
    """Locks a file for this process until the file is closed.

    The operating system releases the lock however the process ends. Child
    processes do not inherit it (``lockf``, not ``flock``), since a data
    loader's workers outlive a killed run by seconds. Returns None if another
    process has the lock. Has no effect on file systems without locks.

    Example
    -------
    >>> with take_lock(getfixture("tmp_path") / "a.lock") as file:
    ...     file.writable()
    True
    """
    file = open(path, "a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        return None
    except OSError:
        pass  # A file system without locks.
    return file


def hold_folder(folder: str | Path) -> None:
    """Locks a folder for this process until the process ends.

    Creates the folder if missing. With torchrun only the main process locks it.
    Raises a VAVLError if another process has the lock.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "out"
    >>> hold_folder(folder)
    >>> (folder / LOCK).exists()
    True
    """
    # Imported here, so that `vavl --help` does not import torch.
    from speechbrain.utils.distributed import if_main_process

    path = os.path.realpath(os.path.join(folder, LOCK))
    if not if_main_process() or path in _HELD:
        return
    try:
        os.makedirs(folder, exist_ok=True)
        file = take_lock(path)
    except OSError as error:
        raise unwritable(folder, error.strerror) from None
    if file is None:
        with open(path, encoding="utf-8") as file:
            who = file.read().strip() or "unknown"
        raise VAVLError(
            f"{folder}: another run is at work there ({who}); wait until it "
            "has ended, or give another output_folder"
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _HELD[path] = file
