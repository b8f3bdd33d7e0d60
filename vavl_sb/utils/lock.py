"""One run at a time in a folder.

Authors
 * The vavl_sb authors 2026
"""

import fcntl
import os
import socket

from vavl_sb.utils.errors import VAVLError

LOCK = "train.lock"
# Locks last as long as their files are open: until the process ends.
_HELD = {}


def hold_folder(folder):
    """Makes a folder this process's own, until the process ends.

    The lock is the operating system's: however the process ends, no lock is
    left behind. It is one that child processes do not inherit (``lockf``, not
    ``flock``), since a data loader's workers outlive a killed run by seconds.
    Under torchrun the main process takes it for all.

    Arguments
    ---------
    folder : str
        Made if missing.

    Raises
    ------
    VAVLError
        In one line: another process has it, or it cannot be written.

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
        file = open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise VAVLError(
            f"{folder}: cannot be written ({error.strerror}); give another "
            "output_folder"
        ) from None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        who = file.read().strip() or "unknown"
        file.close()
        raise VAVLError(
            f"{folder}: another run is at work there ({who}); wait until it "
            "has ended, or give another output_folder"
        ) from None
    except OSError:
        pass  # A file system without locks: go on without.
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _HELD[path] = file
