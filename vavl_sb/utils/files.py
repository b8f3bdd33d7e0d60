"""Files that are written whole or not at all.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import json
import os
import secrets

from vavl_sb.utils.errors import VAVLError


def write_atomically(path, data):
    """Writes a file so that readers see the old one or the new, never a part.

    Arguments
    ---------
    path : str or Path
        Where the file shall stand; missing folders are made.
    data : bytes
        What it shall hold.

    Raises
    ------
    VAVLError
        In one line: the disk is full, or the folder cannot be written.

    Example
    -------
    >>> path = getfixture("tmp_path") / "folder" / "file"
    >>> write_atomically(path, b"text")
    >>> path.read_bytes()
    b'text'
    """
    path = os.fspath(path)
    # In the same folder: os.replace is atomic within one file system only.
    # A name of its own, since containers that share a folder share numbers of
    # processes too.
    temporary = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise VAVLError(
            f"{path}: cannot be written ({error.strerror}); free space or "
            "choose another folder, then run the same command again"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def write_json(path, content):
    """Writes JSON, atomically.

    Arguments
    ---------
    path : str or Path
        Where to write.
    content : dict or list
        What to write; NaN and infinity are refused (ValueError).

    Example
    -------
    >>> path = getfixture("tmp_path") / "file.json"
    >>> write_json(path, {"a": 1})
    >>> json.loads(path.read_text())
    {'a': 1}
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, text.encode("utf-8"))
