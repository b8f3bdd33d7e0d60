"""Files and folders that are written whole or not at all, and strict JSON."""

import contextlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import printable_lines


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes a file so that readers see the old one or the new, never a part.

    Missing folders are made. A VAVLError, in one line, says that the disk is
    full or the folder cannot be written.

    Example
    -------
    >>> path = getfixture("tmp_path") / "folder" / "file"
    >>> write_atomically(path, b"text")
    >>> path.read_bytes()
    b'text'
    """
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."
    # In the same folder: os.replace is atomic within one file system only.
    # A name of its own, since containers that share a folder share numbers of
    # processes too.
    temporary = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        os.makedirs(folder, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        room = ""
        with contextlib.suppress(OSError):
            room = f", {shutil.disk_usage(folder).free / 1e6:.1f} MB free"
        raise unwritable(path, f"{error.strerror}{room}") from None
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def unwritable(path: str | Path, reason: object) -> VAVLError:
    """The one line for what cannot be written."""
    return VAVLError(
        f"{path}: cannot be written ({reason}); free space or choose another "
        "folder, then run the same command again"
    )


def write_lines(path: str | Path, lines: list[str]) -> None:
    r"""Writes a text of printable lines, atomically.

    Example
    -------
    >>> path = getfixture("tmp_path") / "scores.txt"
    >>> write_lines(path, ["happy", "sad\x1b"])
    >>> path.read_text()
    'happy\nsad\\x1b\n'
    """
    write_atomically(path, printable_lines(lines).encode("utf-8"))


def strict(content: Any, text: Callable = str) -> Any:
    """What JSON can say of a content: None stands for NaN and infinity.

    ``text`` is what to make of each string in it.

    Example
    -------
    >>> strict({"ccc": [0.5, float("nan")]})
    {'ccc': [0.5, None]}
    """
    if isinstance(content, dict):
        return {strict(k, text): strict(v, text) for k, v in content.items()}
    if isinstance(content, (list, tuple)):
        return [strict(item, text) for item in content]
    if isinstance(content, str):
        return text(content)
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def say_json(content: dict | list) -> None:
    """Prints a command's one JSON document, in ASCII; see :func:`strict`.

    VAVLError if it is nested too deep.

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


def write_json(path: str | Path, content: dict | list) -> None:
    """Writes JSON, atomically; see :func:`strict`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "file.json"
    >>> write_json(path, {"a": 1})
    >>> read_json(path)
    {'a': 1}
    """
    text = json.dumps(strict(content), indent=2, allow_nan=False) + "\n"
    write_atomically(path, text.encode("utf-8"))


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    OSError if it cannot be read, ValueError if it is not JSON in UTF-8, whatever
    else stands in it.
    """
    return parse_json(Path(path).read_text(encoding="utf-8"))


def parse_json(text: str, **options) -> Any:
    """Parses JSON with ``json.loads``; a ValueError is the only error.

    Example
    -------
    >>> parse_json("[" * 100000)
    Traceback (most recent call last):
    ...
    ValueError: nested too deep
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("nested too deep") from None


@contextlib.contextmanager
def write_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to fill, which then takes the place of the one that is meant.

    The path that it gives stands beside ``folder`` and is to be made, so that
    the last step is a rename. A ``folder`` that is there is replaced, and what a
    program that was killed has left is removed. VAVLError, in one line: the disk
    is full, or the folder cannot be written.

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
        if folder.exists():
            os.rename(folder, old)
        os.rename(part, folder)
    except OSError as error:
        raise unwritable(folder, error.strerror or error) from None
    finally:
        if old.exists() and not folder.exists():  # A stop came just then.
            os.rename(old, folder)
        _remove(part, old)


def _remove(*paths: Path) -> None:
    """Removes folders, and what else stands in their place."""
    for path in paths:
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
