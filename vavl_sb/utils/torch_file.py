"""The tensors of a file that torch.save wrote, without running the file.

Reads both formats of torch.save, the zip archive and the older row of
pickles, whether a state dict stands in them or a whole module.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import mmap
import zipfile
from pathlib import Path

import torch

from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.safe_pickle import (
    RefusedError,
    StandIn,
    Storage,
    StoredTensor,
    safe_load,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Training scripts wrap the weights in a checkpoint.
WRAPPERS = ("state_dict", "model_state_dict", "model")
MOST_MODULES = 10_000


def read_tensors(path):
    """All tensors of a file by name, as ``state_dict()`` would give them.

    Arguments
    ---------
    path : str or Path
        What ``torch.save`` wrote: a state dict, one in a checkpoint, or a
        whole pickled module.

    Returns
    -------
    dict
        Names to tensors on the CPU. Tensors may share memory.

    Raises
    ------
    EncoderError
        In one line: the file cannot be read, or would have to run something.

    Example
    -------
    >>> path = getfixture("tmp_path") / "whole.pt"
    >>> torch.save(torch.nn.Sequential(torch.nn.Linear(2, 1)), path)
    >>> {name: tuple(t.shape) for name, t in read_tensors(path).items()}
    {'0.weight': (1, 2), '0.bias': (1,)}
    """
    path = Path(path)
    if not path.is_file():
        raise EncoderError(f"{path}: no such file; give one from torch.save")
    try:
        with open(path, "rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        found = _read_zip(path) if is_zip else _read_legacy(path)
        return state_of(found)
    except RefusedError as error:
        raise EncoderError(
            f"{path}: {error}, which no file of weights needs; nothing of it "
            "was run: get the weights elsewhere, or as safetensors"
        ) from None
    # Damaged bytes show as anything from EOFError to OverflowError.
    except Exception as error:
        lines = str(error).split("\n")
        raise EncoderError(
            f"{path}: is no whole file of torch.save "
            f"({type(error).__name__}: {lines[0][:100]}); get it again"
        ) from None


class _Storages:
    """The storages of a file, each read once.

    Arguments
    ---------
    size : int
        Bytes of the file: the storages together have no more.
    read : callable
        From key and number of bytes to those bytes, uint8, shape (n,).
    """

    def __init__(self, size, read):
        self.left, self.read, self.raw = size, read, {}

    def find(self, kind, key, location, numel, view=None):
        """What :class:`SafeUnpickler` needs of a storage."""
        item = kind.dtype.itemsize
        if key not in self.raw:
            if type(numel) is not int or not 0 <= numel * item <= self.left:
                raise RefusedError("has more in its storages than it has bytes")
            self.left -= numel * item
            self.raw[key] = self.read(key, numel * item)
        raw = self.raw[key]
        if view is not None:
            _, offset, length = view
            raw = raw[offset * item : (offset + length) * item]
        return Storage(raw, kind.dtype)


def _read_zip(path):
    """The object in the newer format."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("not one pickle in the archive")
        root = names[0].rpartition("/")[0]
        # torch compresses nothing: what is compressed may be a bomb.
        if any(i.compress_type != zipfile.ZIP_STORED for i in archive.filelist):
            raise ValueError("a compressed archive")
        with contextlib.suppress(KeyError):
            if archive.read(f"{root}/byteorder").strip() != b"little":
                raise ValueError("written by a big-endian machine")

        def read(key, count):
            data = bytearray(archive.read(f"{root}/data/{key}"))
            if len(data) < count:
                raise ValueError("a storage that is too short")
            return _bytes(data, count)

        size = path.stat().st_size
        storages = _Storages(size, read)
        with archive.open(names[0]) as file:
            return safe_load(file, size, storages.find)


def _read_legacy(path):
    """The object in the older format: pickles, then bytes."""
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        size = len(data)
        if safe_load(data, size) != LEGACY_MAGIC:
            raise ValueError("an unknown format")
        # Version and machine.
        safe_load(data, size)
        safe_load(data, size)
        storages = _Storages(
            size, lambda key, count: torch.empty(count, dtype=torch.uint8)
        )
        found = safe_load(data, size, storages.find)
        for key in safe_load(data, size):
            raw = storages.raw[key]
            data.read(8)  # the number of elements, which is known
            raw[:] = _bytes(bytearray(data.read(len(raw))), len(raw))
        return found


def _bytes(data, count):
    """The first bytes of some, uint8."""
    if not count:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(data, dtype=torch.uint8, count=count)


def state_of(found):
    """Names and tensors of what was unpickled.

    Arguments
    ---------
    found : object
        A state dict, a checkpoint with one, or a module.

    Returns
    -------
    dict
        Names to tensors.
    """
    for key in WRAPPERS:
        inner = found.get(key) if isinstance(found, dict) else None
        if isinstance(inner, dict) or _is_module(inner):
            found = inner
    state = {}
    if _is_module(found):
        for prefix, module in _modules(found):
            state.update(_own_tensors(module, prefix))
        return state
    if not isinstance(found, dict):
        raise ValueError("holds no weights by name")
    for name, value in found.items():
        if not isinstance(value, StoredTensor):
            raise ValueError(f"holds more than tensors, at {name!r}")
        state[str(name)] = value.tensor
    return state


def _is_module(found):
    """Whether a stand-in stands for a torch.nn.Module."""
    return isinstance(found, StandIn) and isinstance(
        found.state.get("_modules"), dict
    )


def _modules(root):
    """A module and those in it, each with what stands before its names."""
    found = [("", root)]
    # Grows as it is read.
    for prefix, module in found:
        found += [
            (f"{prefix}{name}.", inner)
            for name, inner in module.state["_modules"].items()
            if _is_module(inner)
        ]
        # A module that holds itself, or one twice, and that one twice, ...
        if len(found) > MOST_MODULES:
            raise ValueError("modules without end")
    return found


def _own_tensors(module, prefix):
    """A module's own parameters and buffers, those that are not kept left
    out."""
    passing = module.state.get("_non_persistent_buffers_set") or ()
    return {
        f"{prefix}{name}": value.tensor
        for kind in ("_parameters", "_buffers")
        for name, value in (module.state.get(kind) or {}).items()
        if isinstance(value, StoredTensor) and name not in passing
    }
