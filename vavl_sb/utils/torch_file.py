"""Reads the tensors of files from torch.save without running code in them.

Python's unpickler calls any function that a file names. torch's with
``weights_only`` calls only allowed functions, but a dict key of nested tuples
makes it crash or hang, ``bytearray(n)`` exhausts the memory, and it cannot read
whole modules. This module interprets the few opcodes that ``torch.save`` writes
itself: a class is represented by its name, an object by its state, and calls
are recorded, not made. Tensors are then created from the entries of the state
dict or module.
"""

import math
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vavl_sb.utils.errors import EncoderError

# Training scripts wrap the weights in a checkpoint.
WRAPPERS = ("state_dict", "model_state_dict", "model")
STORAGES = {
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.ShortStorage": torch.int16,
}
# A pickled module of an EfficientNet-B2 has 66,000 opcodes and 160 kB.
MOST_STEPS = 500_000
LARGEST_PICKLE = 2**26
MOST_DIMENSIONS = 16
# Tied weights share one storage under two or three names.
MOST_NAMES = 4

# Functions that weight files may name. None is called.
TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
PARAMETERS = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
}
DICTIONARIES = {"collections.OrderedDict", "collections.defaultdict"}
OTHERS = {
    *("torch.Size", "torch.device", "functools.partial"),
    *("__builtin__.set", "builtins.set", "builtins.frozenset"),
}


class RefusedError(ValueError):
    """A file contains more than tensors."""


class _Class(str):
    """The name of a class or a function; never looked up."""

    __slots__ = ()


class _Made:
    """Record of an object or call in a file: name, arguments and state."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: Any):
        self.name, self.arguments = name, arguments
        self.state: dict = {}


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads all tensors of a file by name, like those of ``state_dict()``.

    The file is from ``torch.save``: a state dict, a checkpoint with a state
    dict, or a pickled module, whose classes need not be importable. Tensors are
    on the CPU and may share memory. Raises an EncoderError if the file cannot
    be read, or its pickle calls other functions.

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
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path.stat().st_size)
    except RefusedError as error:
        raise EncoderError(
            f"{path}: {error}, which no file of weights needs; no code in it "
            "was run: get the weights elsewhere, or as safetensors"
        ) from None
    # Damaged files raise anything from EOFError to OverflowError.
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise EncoderError(
            f"{path}: is not a complete file of torch.save, PyTorch 1.6 or "
            f"later ({type(error).__name__}: {reason}); get it again"
        ) from None


def _read(archive: zipfile.ZipFile, size: int) -> dict[str, torch.Tensor]:
    """Reads the tensors of an archive of ``size`` bytes."""
    # torch.save does not compress: a compressed entry may be a zip bomb.
    if any(i.compress_type != zipfile.ZIP_STORED for i in archive.filelist):
        raise ValueError("a compressed archive")
    (entry,) = [i for i in archive.filelist if i.filename.endswith("/data.pkl")]
    if entry.file_size > LARGEST_PICKLE:
        raise RefusedError("has a pickle of more than 64 MB")
    weights = _weights_in(_interpret(archive.read(entry)))
    storages = _Storages(archive, entry.filename.removesuffix(".pkl"), size)
    tensors = {}
    for name, value in weights.items():
        if not _is_tensor(value):
            raise ValueError(f"{name[:80]!r} is not a tensor")
        tensors[name] = storages.tensor(value)
    if sum(t.numel() for t in tensors.values()) > MOST_NAMES * size:
        raise RefusedError("has the same memory under too many names")
    return tensors


def _interpret(pickled: bytes) -> Any:
    """Returns the object in a pickle, of plain types, class names and
    :class:`_Made`."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop(count: int | None = None) -> list:
        """Takes ``count`` values from the stack, or all since the last mark."""
        start = marks.pop() if count is None else len(stack) - count
        if not 0 <= start <= len(stack):
            raise ValueError("too few values")
        taken = stack[start:]
        del stack[start:]
        return taken

    argument: Any
    for step, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
        if step > MOST_STEPS:
            raise RefusedError(f"takes more than {MOST_STEPS} steps to read")
        name = opcode.name
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "POP":
            pop(1)
        elif name.startswith("TUPLE"):
            stack.append(tuple(pop(int(name[5:]) if name[5:] else None)))
        elif name in ("APPEND", "APPENDS"):
            items = pop(1 if name == "APPEND" else None)
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = pop(2 if name == "SETITEM" else None)
            if isinstance(stack[-1], dict):
                # Only string keys: hashing a nested tuple may take forever,
                # and a file can choose numbers whose hashes collide.
                pairs = zip(items[::2], items[1::2], strict=True)
                stack[-1].update((k, v) for k, v in pairs if type(k) is str)
        elif name == "GLOBAL":
            stack.append(_Class(argument.replace(" ", ".", 1)))
        elif name in ("NEWOBJ", "REDUCE"):
            stack.append(_made(name == "REDUCE", *pop(2)))
        elif name == "BUILD":
            (state,) = pop(1)
            # The state of a class with slots is a pair.
            state = state[0] if isinstance(state, tuple) and state else state
            if isinstance(stack[-1], _Made) and isinstance(state, dict):
                stack[-1].state = state
        elif name == "BINPERSID":
            stack.append(_Made("storage", *pop(1)))
        elif name not in ("PROTO", "STOP"):
            raise RefusedError(f"has the opcode {name}")
    return stack.pop()


VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINSTRING", "BINSTRING"),
}
CONSTANTS: dict[str, Callable] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}


def _made(called: bool, name: Any, arguments: Any) -> Any:
    """Records an object or a call; a dictionary is created empty."""
    if not isinstance(name, _Class):
        raise RefusedError("calls an object that is not a function")
    if called and name in DICTIONARIES:
        return {}
    if called and name not in TENSORS | PARAMETERS | OTHERS:
        raise RefusedError(f"calls {name[:80]!r}")
    return _Made(name if called else "object", arguments)


class _Storages:
    """Creates tensors from an archive's storages; reads each storage once."""

    def __init__(self, archive: zipfile.ZipFile, root: str, size: int):
        self.archive, self.root = archive, root
        self.left = size  # Bytes left to read, since entries may overlap.
        self.raw: dict[str, bytearray] = {}

    def tensor(self, made: _Made) -> torch.Tensor:
        """Returns a view of a storage, with checked size and strides."""
        while made.name in PARAMETERS:
            made = made.arguments[0]
        storage, offset, size, stride = made.arguments[:4]
        flat = self._storage(*storage.arguments)
        numbers = [offset, *size, *stride]
        if any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
            raise RefusedError("makes a tensor of an impossible size")
        if len(size) > MOST_DIMENSIONS:
            raise RefusedError("makes a tensor of an impossible shape")
        # Strides of 0 could make a small storage exhaust the memory.
        if math.prod(size) > len(flat):
            raise RefusedError("makes a tensor that is larger than its storage")
        # as_strided refuses views beyond the storage.
        return flat.as_strided(size, stride, offset)

    def _storage(self, _, kind, key, device, count):
        """Reads all elements of a storage, shape (count,)."""
        if not isinstance(kind, _Class) or kind not in STORAGES:
            raise RefusedError("has a storage of an unknown type")
        if type(key) is not str or type(count) is not int or count < 0:
            raise RefusedError("has a storage without a name or a size")
        dtype = STORAGES[kind]
        size = count * dtype.itemsize
        if key not in self.raw:
            self.left -= size
            if self.left < 0:
                raise RefusedError("has more in its storages than it has bytes")
            with self.archive.open(f"{self.root}/{key}") as file:
                self.raw[key] = bytearray(file.read(size))
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(self.raw[key], dtype=dtype, count=count)


def _weights_in(content: Any) -> dict[str, Any]:
    """Returns the entries of a state dict, a checkpoint or a module by name."""
    for key in WRAPPERS:
        inner = content.get(key) if isinstance(content, dict) else None
        if isinstance(inner, dict) or _is_module(inner):
            content = inner
    if _is_module(content):
        return _module_tensors(content)
    if isinstance(content, dict) and content:
        return content
    raise ValueError("has no named weights")


def _is_module(value: Any) -> bool:
    """Returns whether a value represents a torch.nn.Module."""
    return isinstance(value, _Made) and isinstance(
        value.state.get("_modules"), dict
    )


def _is_tensor(value: Any) -> bool:
    """Returns whether a value represents a tensor or a parameter."""
    return isinstance(value, _Made) and value.name in TENSORS | PARAMETERS


def _module_tensors(root: _Made) -> dict[str, _Made]:
    """Returns the tensors of a module and its submodules, without
    non-persistent buffers."""
    tensors = {}
    queue, left = [("", root)], MOST_STEPS
    for prefix, module in queue:  # Grows in the loop.
        ignored = module.state.get("_non_persistent_buffers_set")
        ignored = ignored.arguments[0] if isinstance(ignored, _Made) else []
        left -= len(ignored)
        ignored = {name for name in ignored if type(name) is str}
        for kind in ("_parameters", "_buffers", "_modules"):
            for name, value in (module.state.get(kind) or {}).items():
                path = f"{prefix}{name}"
                # A module may contain itself, or one submodule many times.
                left -= 10 + len(path)
                if left < 0:
                    raise ValueError("modules without end")
                if kind == "_modules" and _is_module(value):
                    queue.append((f"{path}.", value))
                elif _is_tensor(value) and name not in ignored:
                    tensors[path] = value
    return tensors
