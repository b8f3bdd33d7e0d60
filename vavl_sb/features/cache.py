"""Frozen features: cached on disk, checked when read.

A cached feature is named by what it depends on: the clip's bytes, and a fingerprint
of encoder, weights and settings. Nothing is ever overwritten in place, so
several processes may share a cache, and a killed run goes on where it was.
"""

import hashlib
import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from vavl_sb.utils.errors import MediaError, VAVLError, first_line
from vavl_sb.utils.feature_files import split_reference
from vavl_sb.utils.files import read_json, write_atomically, write_json
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

# All that zipfile and NumPy raise for a file that is not what was written.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)

# Which field of a manifest's entry holds a modality's media, and which one
# features in place of it.
MEDIA_FIELD = {"audio": "wav", "visual": "video"}
FEATURE_FIELD = {"audio": "audio_features", "visual": "visual_features"}


def find_source(entry: dict, modality: str) -> str | None:
    """The file, or the features, that a manifest's entry has of "audio" or
    "visual"; None where the clip lacks the modality.

    Example
    -------
    >>> entry = {"wav": "a.wav", "video": None, "visual_features": "a.npy"}
    >>> find_source(entry, "visual")
    'a.npy'
    """
    return entry.get(FEATURE_FIELD[modality]) or entry[MEDIA_FIELD[modality]]


class FeatureCache:
    """A folder of features, one file a clip and modality; made if missing, and
    may be shared between runs, recipes and processes.

    Files are ``<folder>/<modality>-<fingerprint>/<xx>/<sha256 of the
    clip>.npz``; the zip format's own checksums tell a damaged file from a sound
    one.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> cache = FeatureCache(folder)
    >>> path = cache.path("audio", "d1", "c0ffee")
    >>> cache.write(path, np.ones((3, 2), np.float16))
    >>> cache.read(path).shape
    (3, 2)
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VAVLError(
                f"{folder}: features cannot be kept there ({error.strerror}); "
                "give another feature_folder"
            ) from None

    def path(self, modality: str, fingerprint: str, content: str) -> Path:
        """Where a feature lives, whether or not it exists.

        The fingerprint is that of encoder, weights and settings, ``content``
        that of the clip's bytes.
        """
        folder = self.folder / f"{modality}-{fingerprint}" / content[:2]
        return folder / f"{content}.npz"

    def write(self, path: Path, features: np.ndarray) -> None:
        """Writes features (T, D) so that a reader sees all of them or no file.
        T = 0 says that the clip lacks the modality."""
        buffer = io.BytesIO()
        np.savez(buffer, features=features)
        write_atomically(path, buffer.getvalue())

    def read(self, path: str | Path) -> np.ndarray:
        """Reads features (T, D). VAVLError: the file is missing, cut short or
        damaged."""
        try:
            with zipfile.ZipFile(path) as archive:
                # As a whole: NumPy itself would read no further than the shape
                # that it finds, and so perhaps not up to the checksum.
                whole = archive.read("features.npy")
            return np.lib.format.read_array(
                io.BytesIO(whole), allow_pickle=False
            )
        except DAMAGE as error:
            raise VAVLError(
                f"cached feature {path} cannot be read ({first_line(error)}); "
                "run the same command again and it is computed anew"
            ) from None

    def find(self, path: Path) -> np.ndarray | None:
        """Reads features (T, D) if they are there and sound, or gives None. A
        damaged file is removed, with a warning."""
        if not path.exists():
            return None
        try:
            return self.read(path)
        except VAVLError:
            logger.warning("damaged feature file is computed anew: %s", path)
            path.unlink(missing_ok=True)
            return None


class ContentIndex:
    """Remembers clips' hashes, so that unchanged files are not read again.

    In a JSON file, ``{media path: [size, mtime in ns, sha256]}``.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.fresh = {}
        try:
            known = read_json(self.path)
            self.known = {k: v for k, v in known.items() if _is_entry(v)}
        except (OSError, ValueError, AttributeError):
            # New or damaged: the files are hashed again.
            self.known = {}

    def content(self, media: str) -> str:
        """SHA-256 of a media file. MediaError: it is gone and was never hashed,
        or cannot be read."""
        media = os.path.abspath(media)
        size, mtime, sha = self.known.get(media, (None, None, None))
        try:
            stat = os.stat(media)
            if (stat.st_size, stat.st_mtime_ns) == (size, mtime):
                return sha
            sha = _sha256(media)
        except OSError as error:
            if sha is not None and not os.path.exists(media):
                return sha  # Training goes on from the cache alone.
            raise MediaError(f"{media}: cannot be read ({error.strerror})")
        self.fresh[media] = [stat.st_size, stat.st_mtime_ns, sha]
        self.known[media] = self.fresh[media]
        return sha

    def of_features(self, reference: str) -> str:
        """As :meth:`content`, of a reference to features (see
        :mod:`vavl_sb.utils.feature_files`): of the file and of the clip's name
        in it."""
        path, name = split_reference(reference)
        sha = self.content(path)
        if name is None:
            return sha
        return hashlib.sha256(f"{sha}#{name}".encode()).hexdigest()

    def save(self) -> None:
        """Writes the index where it changed."""
        if self.fresh:
            write_json(self.path, {**self.known, **self.fresh})
            self.fresh = {}


def read_index(path: str | Path) -> dict:
    """Reads where each clip's features are, as
    :func:`vavl_sb.features.extraction.extract_features` wrote it.

    ``{id: {"audio": path or None, "visual": path or None}}``: of cached
    features, or of the sound itself where it is used raw. VAVLError, in one
    line: the file is missing or damaged.
    """
    try:
        index = read_json(path)
        if not all(_is_row(row) for row in index.values()):
            raise ValueError("not an index of features")
        return index
    except (OSError, ValueError, AttributeError) as error:
        raise VAVLError(
            f"{path}: cannot be used ({first_line(error)}); run the same "
            "command again and it is written anew"
        ) from None


def feature_statistics(
    paths: Iterable, folder: str | Path
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Mean and deviation, float32 (D,) each, of each feature over all frames of
    some clips; None and None without any frame.

    The paths are of cached features of one modality, the folder is the cache's.
    """
    cache = FeatureCache(folder)
    count, total, squares = 0, 0.0, 0.0
    for path in paths:
        frames = cache.read(path).astype(np.float64)
        count += len(frames)
        total = total + frames.sum(axis=0)
        squares = squares + np.square(frames).sum(axis=0)
    if count == 0:
        return None, None
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0)
    return (
        torch.from_numpy(mean).float(),
        torch.from_numpy(np.sqrt(variance)).float(),
    )


def _sha256(path):
    """Hash of a file's bytes, read in pieces."""
    fingerprint = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            fingerprint.update(piece)
    return fingerprint.hexdigest()


def _is_entry(value):
    """Whether a value is [size, mtime, hash]."""
    return (
        isinstance(value, list)
        and [type(item) for item in value] == [int, int, str]
        and re.fullmatch("[0-9a-f]{64}", value[2]) is not None
    )


def _is_row(value):
    """Whether a value is a path or None for each modality."""
    return (
        isinstance(value, dict)
        and set(value) == set(MEDIA_FIELD)
        and all(p is None or isinstance(p, str) for p in value.values())
    )
