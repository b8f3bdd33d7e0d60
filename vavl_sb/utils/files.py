"""Atomic writing of files and folders, and strict JSON."""

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
    """Writes a file atomically: readers find the old or the new content.

    Creates missing folders. Raises a VAVLError if the disk is full or the
    folder is not writable.

    Example
    -------
    >>> path = getfixture("tmp_path") / "folder" / "file"
    >>> write_atomically(path, b"text")
    >>> path.read_bytes()
    b'text'
    """
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."
    # In the same folder, since os.replace is atomic only within a file system.
    # With a random part, since containers may have the same process ids.
    temporary = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        os.makedirs(folder, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        free = ""
        with contextlib.suppress(OSError):
            free = f", {shutil.disk_usage(folder).free / 1e6:.1f} MB free"
        raise unwritable(path, f"{error.strerror}{free}") from None
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def unwritable(path: str | Path, reason: object) -> VAVLError:
    """Creates the error for a file or folder that cannot be written."""
    return VAVLError(
        f"{path}: cannot be written ({reason}); free space or choose another "
        "folder, then run the same command again"
    )


def write_lines(path: str | Path, lines: list[str]) -> None:
    r"""Writes lines of printable text atomically.

    Example
    -------
    >>> path = getfixture("tmp_path") / "scores.txt"
    >>> write_lines(path, ["happy", "sad\x1b"])
    >>> path.read_text()
    'happy\nsad\\x1b\n'
    """
    write_atomically(path, printable_lines(lines).encode("utf-8"))


def strict(content: Any, text: Callable = str) -> Any:
    """Replaces NaN and infinity by None, for strict JSON.

    ``text`` is applied to each string.

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
    """Prints a JSON document in ASCII; see :func:`strict`.

    Raises a VAVLError if it is nested too deep.

    Example
    -------
    >>> say_json([float("inf"), "a name that is no UTF-8: \\udcff"])
    [
      null,
      "a name that is no UTF-8: \\\\udcff"
    ]
    """

    def text(value):
        # Python accepts lone surrogates; other JSON readers refuse them.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")

    try:
        document = json.dumps(strict(content, text), indent=2, allow_nan=False)
    except RecursionError:
        raise VAVLError("cannot be written as JSON: nested too deep") from None
    print(document, flush=True)  # noqa: T201


def write_json(path: str | Path, content: dict | list) -> None:
    """Writes JSON atomically; see :func:`strict`.

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

    Raises an OSError if it cannot be read, a ValueError if it is not JSON in
    UTF-8.
    """
    return parse_json(Path(path).read_text(encoding="utf-8"))


def parse_json(text: str, **options) -> Any:
    """Parses JSON with ``json.loads``; raises no errors but ValueError.

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
    """Writes a folder atomically: yields a temporary path, which then replaces
    ``folder``.

    The caller creates the temporary path. It is beside ``folder``, so that the
    last step is a rename. Removes temporary folders of programs that were
    killed. Raises a VAVLError if the disk is full or the folder is not
    writable.

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
        os.rename(old, folder)  # Killed between the two renames.
    _remove(part, old)
    try:
        yield part
        if folder.exists():
            os.rename(folder, old)
        os.rename(part, folder)
    except OSError as error:
        raise unwritable(folder, error.strerror or error) from None
    finally:
        if old.exists() and not folder.exists():  # Stopped between them.
            os.rename(old, folder)
        _remove(part, old)


def _remove(*paths: Path) -> None:
    """Removes folders, or files and links in their place."""
    for path in paths:
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
