"""A cache of frozen features on disk.

A feature file is named by the hash of the clip's bytes and a fingerprint of
encoder, weights and settings. Files are never changed in place, so several
processes can share a cache, and a killed run can resume.
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

# Exceptions of zipfile and NumPy for damaged files.
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

# Fields of a manifest entry with a modality's file, and with its precomputed
# features.
MEDIA_FIELD = {"audio": "wav", "visual": "video"}
FEATURE_FIELD = {"audio": "audio_features", "visual": "visual_features"}


def find_source(entry: dict, modality: str) -> str | None:
    """Returns a manifest entry's path of "audio" or "visual" features or media,
    or None for a missing modality.

    Example
    -------
    >>> entry = {"wav": "a.wav", "video": None, "visual_features": "a.npy"}
    >>> find_source(entry, "visual")
    'a.npy'
    """
    return entry.get(FEATURE_FIELD[modality]) or entry[MEDIA_FIELD[modality]]


class FeatureCache:
    """A folder of features, with one file per clip and modality.

    Runs, recipes and processes can share it; it is created if missing. Files
    are ``<folder>/<modality>-<fingerprint>/<xx>/<sha256 of the clip>.npz``; the
    checksums of the zip format reveal damage.

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
                f"{folder}: features cannot be stored there "
                f"({error.strerror}); give another feature_folder"
            ) from None

    def path(self, modality: str, fingerprint: str, content: str) -> Path:
        """Returns the path of a feature, which may not exist yet.

        ``fingerprint`` is that of encoder, weights and settings, ``content``
        the hash of the clip's bytes.
        """
        folder = self.folder / f"{modality}-{fingerprint}" / content[:2]
        return folder / f"{content}.npz"

    def write(self, path: Path, features: np.ndarray) -> None:
        """Writes features (T, D) atomically; T = 0 for a missing modality."""
        buffer = io.BytesIO()
        np.savez(buffer, features=features)
        write_atomically(path, buffer.getvalue())

    def read(self, path: str | Path) -> np.ndarray:
        """Reads features (T, D).

        Raises a VAVLError if the file is missing, truncated or damaged.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                # np.load would read only as many bytes as the stated shape
                # needs, and so might skip the checksum.
                content = archive.read("features.npy")
            return np.lib.format.read_array(
                io.BytesIO(content), allow_pickle=False
            )
        except DAMAGE as error:
            raise VAVLError(
                f"cached feature {path} cannot be read ({first_line(error)}); "
                "run the same command again to compute it again"
            ) from None

    def find(self, path: Path) -> np.ndarray | None:
        """Reads features (T, D), or returns None if they are not cached.

        A damaged file is removed, with a warning.
        """
        if not path.exists():
            return None
        try:
            return self.read(path)
        except VAVLError:
            logger.warning("recomputing a damaged feature file: %s", path)
            path.unlink(missing_ok=True)
            return None


class ContentIndex:
    """A JSON file with the hashes of clips, so that they are computed once.

    Its form is ``{media path: [size, mtime in ns, sha256]}``; a file with
    another size or time is hashed again.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.fresh = {}
        try:
            known = read_json(self.path)
            self.known = {k: v for k, v in known.items() if _is_entry(v)}
        except (OSError, ValueError, AttributeError):
            # Missing or damaged: all files are hashed again.
            self.known = {}

    def content(self, media: str) -> str:
        """Returns the SHA-256 of a media file.

        Raises a MediaError if the file cannot be read, or if it is missing and
        has never been hashed.
        """
        media = os.path.abspath(media)
        size, mtime, sha = self.known.get(media, (None, None, None))
        try:
            stat = os.stat(media)
            if (stat.st_size, stat.st_mtime_ns) == (size, mtime):
                return sha
            sha = _sha256(media)
        except OSError as error:
            if sha is not None and not os.path.exists(media):
                return sha  # Training needs only the cached features.
            raise MediaError(f"{media}: cannot be read ({error.strerror})")
        self.fresh[media] = [stat.st_size, stat.st_mtime_ns, sha]
        self.known[media] = self.fresh[media]
        return sha

    def of_features(self, reference: str) -> str:
        """Returns the SHA-256 of precomputed features: of their file, and of
        the clip's name if the file is a table (see
        :mod:`vavl_sb.utils.feature_files`)."""
        path, name = split_reference(reference)
        sha = self.content(path)
        if name is None:
            return sha
        return hashlib.sha256(f"{sha}#{name}".encode()).hexdigest()

    def save(self) -> None:
        """Writes the index if it has changed."""
        if self.fresh:
            write_json(self.path, {**self.known, **self.fresh})
            self.fresh = {}


def read_index(path: str | Path) -> dict:
    """Reads the index of features that
    :func:`vavl_sb.features.extraction.extract_features` has written.

    Returns ``{id: {"audio": path or None, "visual": path or None}}`` with paths
    of cached features, or of the audio file if it is used raw. Raises a
    one-line VAVLError if the index is missing or damaged.
    """
    try:
        index = read_json(path)
        if not all(_is_row(row) for row in index.values()):
            raise ValueError("not an index of features")
        return index
    except (OSError, ValueError, AttributeError) as error:
        raise VAVLError(
            f"{path}: cannot be used ({first_line(error)}); run the same "
            "command again to write a new one"
        ) from None


def feature_statistics(
    paths: Iterable, folder: str | Path
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Computes mean and standard deviation, float32 (D,) each, over all frames.

    ``paths`` are cached features of one modality, ``folder`` is that of the
    cache. Returns (None, None) if there is no frame.
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
    """SHA-256 of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
