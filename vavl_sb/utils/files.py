"""Files and folders that are written whole or not at all.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import printable_lines


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
            f"{path}: cannot be written ({error.strerror}{_room(path)}); free "
            "space or choose another folder, then run the same command again"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def write_lines(path: str, lines: list) -> None:
    r"""Writes a text of printable lines, atomically.

    Arguments
    ---------
    path : str or Path
        Where to write.
    lines : list of str
        See :func:`vavl_sb.utils.text.printable_lines`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "scores.txt"
    >>> write_lines(path, ["happy", "sad\x1b"])
    >>> path.read_text()
    'happy\nsad\\x1b\n'
    """
    write_atomically(path, printable_lines(lines).encode("utf-8"))


def strict(content: object, text: Callable = str) -> object:
    """What JSON can say of a content: it has no NaN and no infinity.

    Arguments
    ---------
    content : dict or list
        What to write as JSON, or a part of it.
    text : callable
        From a string in it to what stands in its place.

    Returns
    -------
    dict or list
        The same, with None for NaN and infinity.

    Example
    -------
    >>> strict({"ccc": [0.5, float("nan")]})
    {'ccc': [0.5, None]}
    """
    if isinstance(content, dict):
        return {
            strict(key, text): strict(value, text)
            for key, value in content.items()
        }
    if isinstance(content, (list, tuple)):
        return [strict(item, text) for item in content]
    if isinstance(content, str):
        return text(content)
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def say_json(content: object) -> None:
    """Prints a command's one JSON document, in ASCII.

    Arguments
    ---------
    content : dict or list
        What to print, see :func:`strict`.

    Raises
    ------
    VAVLError
        It is nested too deep.

    Example
    -------
    >>> say_json([float("inf"), "a name that is no UTF-8: \\udcff"])
    [
      null,
      "a name that is no UTF-8: \\\\udcff"
    ]
    """

    def text(value):
        # Half a character is a letter to Python; other readers refuse it.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")

    try:
        said = json.dumps(strict(content, text), indent=2, allow_nan=False)
    except RecursionError:
        raise VAVLError("cannot be told as JSON: nested too deep") from None
    print(said, flush=True)  # noqa: T201


def write_json(path, content):
    """Writes JSON, atomically.

    Arguments
    ---------
    path : str or Path
        Where to write.
    content : dict or list
        What to write, see :func:`strict`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "file.json"
    >>> write_json(path, {"a": 1})
    >>> json.loads(path.read_text())
    {'a': 1}
    """
    text = json.dumps(strict(content), indent=2, allow_nan=False) + "\n"
    write_atomically(path, text.encode("utf-8"))


@contextlib.contextmanager
def write_folder(folder):
    """A folder to fill, which then takes the place of the one that is meant.

    It stands beside that one, so that the last step is a rename. What a
    program that was killed has left there is removed.

    Arguments
    ---------
    folder : str or Path
        The folder that is meant; one that is there is replaced.

    Yields
    ------
    Path
        The folder to fill, which is to be made.

    Raises
    ------
    VAVLError
        In one line: the disk is full, or the folder cannot be written.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "model"
    >>> with write_folder(folder) as part:
    ...     part.mkdir()
    ...     _ = (part / "weights").write_text("1")
    >>> os.listdir(folder.parent), os.listdir(folder)
    (['model'], ['weights'])
    """
    folder = Path(os.path.realpath(folder))
    part = folder.with_name(f".{folder.name}.part")
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        os.rename(old, folder)  # A kill came between the two renames.
    _remove(part, old)
    try:
        yield part
        _replace(folder, part, old)
    except OSError as error:
        raise VAVLError(
            f"{folder}: cannot be written ({error.strerror or error}); free "
            "space or choose another folder, then run the same command again"
        ) from None
    finally:
        _remove(part, old)


def _remove(*paths):
    """Removes folders, and what else stands in their place."""
    for path in paths:
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)


def _replace(folder, part, old):
    """Puts a folder in the place of one that may be there."""
    if not folder.exists():
        os.rename(part, folder)
        return
    try:
        os.rename(folder, old)
        os.rename(part, folder)
    except BaseException:  # Also of a stop that comes just now.
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        raise


def read_json(path):
    """Reads a JSON file.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    dict or list or str or float or int or bool or None
        What it holds. OSError if it cannot be read, ValueError if it is not
        JSON in UTF-8, whatever else stands in it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "file.json"
    >>> _ = path.write_text("[" * 100000)
    >>> read_json(path)
    Traceback (most recent call last):
    ...
    ValueError: nested too deep
    """
    with open(path, encoding="utf-8") as file:
        return parse_json(file.read())


def parse_json(text, **options):
    """Parses JSON; a ValueError is the only error.

    Arguments
    ---------
    text : str
        The JSON.
    **options
        For ``json.loads``.

    Returns
    -------
    object
        As :func:`read_json`.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _room(path):
    """What is left on the disk of a file, in words."""
    folder = os.path.dirname(path) or "."
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f", {free / 1e6:.1f} MB free"
