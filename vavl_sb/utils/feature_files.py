"""Reads features that were computed by other tools.

A reference to a clip's features is a path: a .npy or .safetensors of shape
(T, D), or a .csv with one row per frame. Or it is ``table.csv#name``, a row of
a table with one row per clip, or ``all.safetensors#name``, the tensor of that
name.
"""

import csv
import functools
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from vavl_sb.utils.errors import MediaError, first_line

EXTENSIONS = (".npy", ".safetensors", ".csv")
# Columns with the names of a table's clips; by default the first column.
NAMES = ("name", "clip", "file", "filename", "id")
# Columns of OpenFace and openSMILE that are not features.
NO_FEATURES = (
    *("frame", "face_id", "timestamp", "confidence", "success"),
    *("start", "end", "frametime"),
)
# File extensions that are removed from names in a table.
MEDIA = re.compile(r"\.(wav|flac|mp3|mp4|avi|flv|mov|mkv|webm|npy|csv)$", re.I)
LOOKED_AT = 20  # Clips whose feature size is compared.


def split_reference(reference: str | Path) -> tuple[str, str | None]:
    """Splits a reference into its path, and the clip's name in a table or None.

    Example
    -------
    >>> split_reference("units.csv#01-01"), split_reference("a/clip#1.npy")
    (('units.csv', '01-01'), ('a/clip#1.npy', None))
    """
    text = os.fspath(reference)
    for extension in (".csv", ".safetensors"):
        path, mark, name = text.partition(f"{extension}#")
        if mark:
            return path + extension, name
    return text, None


def read_features(
    reference: str | Path, columns: Sequence[str] | None = None
) -> np.ndarray:
    """Reads the features of a clip as float32 (T, D), T at least 1; a single
    vector becomes one frame.

    From a .csv with a header, reads ``columns`` in this order, or by default
    all but those that are not features (frame, timestamp, ...). Rows of
    OpenFace without success are skipped. Raises a MediaError if the file or row
    cannot be read, has a wrong shape, no frames, or non-finite numbers.
    """
    path, name = split_reference(reference)
    kind = os.path.splitext(path)[1].lower()
    if kind not in EXTENSIONS:
        raise MediaError(
            f"{path}: is not a file of features; give a {', '.join(EXTENSIONS)}"
        )
    try:
        if kind == ".npy":
            frames = np.load(path, allow_pickle=False)
        elif kind == ".safetensors":
            frames = _read_tensor(path, name)
        else:
            frames = _read_rows(path, name, columns)
    except MediaError:
        raise
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise MediaError(f"{path}: cannot be read ({reason})") from None
    except (ValueError, EOFError, csv.Error, SafetensorError) as error:
        raise MediaError(
            f"{path}: no features can be read from it ({first_line(error)})"
        ) from None
    frames = frames[None] if frames.ndim == 1 else frames
    if frames.ndim != 2 or frames.dtype.kind not in "fiub":
        raise MediaError(
            f"{reference}: must be numbers of shape (T, D), not {frames.dtype} "
            f"{frames.shape}"
        )
    if frames.size == 0:
        raise MediaError(f"{reference}: has no frames")
    if not np.isfinite(frames).all():
        raise MediaError(
            f"{reference}: has NaN or infinity; remove those frames"
        )
    return frames.astype(np.float32)


def _read_tensor(path, name):
    """Reads a tensor of a .safetensors by name, or its only tensor."""
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        if name is None and len(names) != 1:
            raise MediaError(
                f"{path}: has {len(names)} tensors; select one by {path}#NAME"
            )
        if name is not None and name not in names:
            raise MediaError(f"{path}: has no {name}")
        return file.get_tensor(names[0] if name is None else name).numpy()


def _read_rows(path, name, columns):
    """Reads the frames of a .csv, or the row of a clip."""
    header, rows = _read_csv(path, os.stat(path).st_mtime_ns)
    if name is not None:
        place = _name_column(path, header)
        rows = [row for row in rows if row[1][place : place + 1] == [name]]
        if len(rows) != 1:
            times = f" {len(rows)} times" if rows else ""
            raise MediaError(
                f"{path}: has {name}{times or ' in no row'}; a table must have "
                "one row per clip"
            )
    elif "success" in [column.lower() for column in header or ()]:
        place = [column.lower() for column in header].index("success")
        rows = [row for row in rows if row[1][place : place + 1] != ["0"]]
    width = len(header or (rows and rows[0][1]) or ())
    kept = _feature_columns(path, header, name) if header else range(width)
    if header and columns is not None:
        lacks = [column for column in columns if column not in header]
        if lacks:
            raise MediaError(f"{path}: has no column {lacks[0]}")
        kept = [header.index(column) for column in columns]
    return np.array([_numbers(path, row, kept, width) for row in rows])


def _feature_columns(path, header, name):
    """Returns the indices of the columns that are features."""
    named = None if name is None else _name_column(path, header)
    return [
        place
        for place, column in enumerate(header)
        if column.lower() not in NO_FEATURES and place != named
    ]


def _numbers(path, row, kept, width):
    """Parses the features of a row."""
    line, cells = row
    if len(cells) != width:
        raise MediaError(
            f"{path}, line {line}: {len(cells)} cells, not {width}"
        )
    try:
        return [float(cells[i]) for i in kept]
    except ValueError as error:
        raise MediaError(
            f"{path}, line {line}: {first_line(error)}; if the table has one "
            f"row per clip, select one by {path}#NAME"
        ) from None


@functools.lru_cache(maxsize=4)
def _read_csv(path, changed):
    """Reads a .csv: column names or None, and (line, cells) of each row."""
    del changed  # Part of the cache key, so that a changed file is read again.
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(file, delimiter=delimiter)
        rows = [
            (reader.line_num, [cell.strip() for cell in row])
            for row in reader
            if row
        ]
    words = [not _is_number(cell) for cell in rows[0][1]] if rows else []
    if sum(words) > len(words) / 2:
        return rows[0][1], rows[1:]
    return None, rows


def _is_number(text):
    """Returns whether a cell contains a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _name_column(path, header):
    """Returns the index of the column with the names of a table's clips."""
    if not header:
        raise MediaError(f"{path}: has no names above its columns")
    lowered = [name.lower() for name in header]
    return next((lowered.index(name) for name in NAMES if name in lowered), 0)


def find_features(path: str | Path) -> dict[str, list[str]]:
    """Finds the clips that a folder of files or a table has features of.

    A folder has one .npy, .safetensors or .csv per clip, at any depth, with the
    clip's name. A table is a .csv with one row per clip, or a .safetensors with
    one tensor per clip. Returns clip name to absolute references, several if
    there are duplicates. Names include subfolders, with /, but no extension.
    Raises a MediaError if there are no features.
    """
    path, clips = os.path.abspath(path), {}
    if os.path.isdir(path):
        for file in sorted(Path(path).rglob("*")):
            if file.suffix.lower() in EXTENSIONS and file.is_file():
                clip = file.relative_to(path).with_suffix("").as_posix()
                clips.setdefault(clip, []).append(str(file))
    else:
        for name in _table_names(path):
            clip = MEDIA.sub("", name.replace("\\", "/"))
            clips.setdefault(clip, []).append(f"{path}#{name}")
    if not clips:
        raise MediaError(
            f"{path}: no features in it; give a folder with one .npy, "
            ".safetensors or .csv per clip, or a table"
        )
    return clips


def _table_names(path: str) -> Sequence[str]:
    """Returns the names of a table's clips."""
    try:
        if path.lower().endswith(".safetensors"):
            with safe_open(path, framework="pt") as file:
                return list(file.keys())
        if path.lower().endswith(".csv"):
            header, rows = _read_csv(path, os.stat(path).st_mtime_ns)
            column = _name_column(path, header)
            return [row[column] for _, row in rows if len(row) > column]
    except (OSError, UnicodeDecodeError, csv.Error, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise MediaError(f"{path}: cannot be read ({reason})") from None
    raise MediaError(
        f"{path}: is not a folder or table of features; give a folder, a .csv "
        "or a .safetensors"
    )


def describe_features(path: str | Path) -> tuple[int, list[str] | None]:
    """Returns the feature size of a folder or a table, and the features' names.

    The size is the most common one of the first clips; others will be left out.
    The names are the columns of .csv files with a header, else None. Raises a
    MediaError if no file can be read.
    """
    dims, names = Counter[int](), {}
    fault = MediaError(f"{path}: no features in it")
    for references in list(find_features(path).values())[:LOOKED_AT]:
        try:
            dim = read_features(references[0]).shape[1]
        except MediaError as error:
            fault = error
            continue
        dims[dim] += 1
        names.setdefault(dim, _column_names(references[0]))
    if not dims:
        raise fault
    dim = dims.most_common(1)[0][0]
    return dim, names[dim]


def _column_names(reference):
    """Returns the names of the features in a .csv; None without a header."""
    path, name = split_reference(reference)
    if not path.lower().endswith(".csv"):
        return None
    header, _ = _read_csv(path, os.stat(path).st_mtime_ns)
    if not header:
        return None
    return [header[place] for place in _feature_columns(path, header, name)]
