"""One run at a time in a folder."""

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import unwritable

LOCK = "train.lock"
# Locks last as long as their files are open: until the process ends.
_HELD: dict[str, TextIO] = {}


def take_lock(path: str | Path) -> TextIO | None:
    """Locks a file for this process, until the file is closed.

    The lock is the operating system's: however the process ends, no lock is
    left behind. It is one that child processes do not inherit (``lockf``, not
    ``flock``), since a data loader's workers outlive a killed run by seconds.
    None where another process has the lock; on a file system without locks all
    get one.

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
        pass  # A file system without locks: go on without.
    return file


def hold_folder(folder: str | Path) -> None:
    """Makes a folder this process's own, until the process ends.

    It is made if missing. Under torchrun the main process takes it for all. A
    VAVLError, in one line, says that another process has it.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "out"
    >>> hold_folder(folder)
    >>> (folder / LOCK).exists()
    True
    """
    # Here, so that `vavl --help` need not wait for torch.
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
