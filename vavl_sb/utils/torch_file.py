"""The tensors of a file that torch.save wrote, without running the file.

Python's unpickler calls what a file names. torch's with ``weights_only`` calls
no more than a list of its own, but a key of nested tuples ends it in a crash or
without an end, and ``bytearray(n)`` fills the memory; nor does it read whole
modules. Here the few opcodes that ``torch.save`` writes are followed by code of
ours: a class is its name, an object its state, a call is noted and not made.
Tensors are then made of what stands under a state dict's or a module's names.
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
# The whole module of an EfficientNet-B2 takes 66,000 steps and 160 kB.
MOST_STEPS = 500_000
LARGEST_PICKLE = 2**26
MOST_DIMENSIONS = 16
# Tied weights are one storage under two or three names.
MOST_NAMES = 4

# The calls that files of weights ask for. None is made.
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
    """A file asks for more than tensors."""


class _Class(str):
    """The name of a class or a function; never looked up."""

    __slots__ = ()


class _Made:
    """What a file would have made: the name, its arguments and its state."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: Any):
        self.name, self.arguments = name, arguments
        self.state: dict = {}


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """All tensors of a file by name, as ``state_dict()`` would give them.

    The file is what ``torch.save`` wrote: a state dict, one in a checkpoint, or a
    whole pickled module, whose classes need not exist. Tensors are on the CPU and
    may share memory. EncoderError, in one line: the file cannot be read, or would
    have to run something.

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
            f"{path}: {error}, which no file of weights needs; nothing of it "
            "was run: get the weights elsewhere, or as safetensors"
        ) from None
    # Damaged bytes show as anything from EOFError to OverflowError.
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise EncoderError(
            f"{path}: is no whole file of torch.save, of PyTorch 1.6 or later "
            f"({type(error).__name__}: {reason}); get it again"
        ) from None


def _read(archive: zipfile.ZipFile, size: int) -> dict[str, torch.Tensor]:
    """Names and tensors of an archive of ``size`` bytes."""
    # torch compresses nothing: what is compressed may be a bomb.
    if any(i.compress_type != zipfile.ZIP_STORED for i in archive.filelist):
        raise ValueError("a compressed archive")
    (entry,) = [i for i in archive.filelist if i.filename.endswith("/data.pkl")]
    if entry.file_size > LARGEST_PICKLE:
        raise RefusedError("has a pickle of more than 64 MB")
    found = _weights_in(_follow(archive.read(entry)))
    storages = _Storages(archive, entry.filename.removesuffix(".pkl"), size)
    tensors = {}
    for name, value in found.items():
        if not _is_tensor(value):
            raise ValueError(f"holds more than tensors, at {name[:80]!r}")
        tensors[name] = storages.tensor(value)
    if sum(t.numel() for t in tensors.values()) > MOST_NAMES * size:
        raise RefusedError("has the same memory under too many names")
    return tensors


def _follow(pickled: bytes) -> Any:
    """The object in a pickle, of plain types, names and :class:`_Made`."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop(count: int | None = None) -> list:
        """So many values off the stack, or all since the last mark."""
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
                # The hash of a tuple is that of all it holds, and a file can
                # choose numbers whose hashes collide: texts alone are keys.
                pairs = zip(items[::2], items[1::2], strict=True)
                stack[-1].update((k, v) for k, v in pairs if type(k) is str)
        elif name == "GLOBAL":
            stack.append(_Class(argument.replace(" ", ".", 1)))
        elif name in ("NEWOBJ", "REDUCE"):
            stack.append(_made(name == "REDUCE", *pop(2)))
        elif name == "BUILD":
            (state,) = pop(1)
            # With slots the state is a pair.
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
    """What stands for an object of a class, or for what a call returns."""
    if not isinstance(name, _Class):
        raise RefusedError("calls what is no function")
    if called and name in DICTIONARIES:
        return {}
    if called and name not in TENSORS | PARAMETERS | OTHERS:
        raise RefusedError(f"calls {name[:80]!r}")
    return _Made(name if called else "object", arguments)


class _Storages:
    """Makes tensors of an archive's storages, each of which is read once."""

    def __init__(self, archive: zipfile.ZipFile, root: str, size: int):
        self.archive, self.root = archive, root
        self.left = size  # bytes that may be read: entries may share theirs
        self.raw: dict[str, bytearray] = {}

    def tensor(self, made: _Made) -> torch.Tensor:
        """A view of a storage, with all its numbers checked."""
        while made.name in PARAMETERS:
            made = made.arguments[0]
        storage, offset, size, stride = made.arguments[:4]
        flat = self._storage(*storage.arguments)
        numbers = [offset, *size, *stride]
        if any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
            raise RefusedError("makes a tensor of an impossible size")
        if len(size) > MOST_DIMENSIONS:
            raise RefusedError("makes a tensor of an impossible shape")
        # More elements than the storage has would be memory for nothing.
        if math.prod(size) > len(flat):
            raise RefusedError("makes a tensor that is larger than its storage")
        # It refuses what reaches beyond the storage.
        return flat.as_strided(size, stride, offset)

    def _storage(self, _, kind, key, device, count):
        """All elements of a storage, shape (count,)."""
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


def _weights_in(found: Any) -> dict[str, Any]:
    """What stands by name in a state dict, a checkpoint or a module."""
    for key in WRAPPERS:
        inner = found.get(key) if isinstance(found, dict) else None
        if isinstance(inner, dict) or _is_module(inner):
            found = inner
    if _is_module(found):
        return _module_tensors(found)
    if isinstance(found, dict) and found:
        return found
    raise ValueError("holds no weights by name")


def _is_module(found: Any) -> bool:
    """Whether it was a torch.nn.Module."""
    return isinstance(found, _Made) and isinstance(
        found.state.get("_modules"), dict
    )


def _is_tensor(found: Any) -> bool:
    """Whether it was a tensor or a parameter."""
    return isinstance(found, _Made) and found.name in TENSORS | PARAMETERS


def _module_tensors(root: _Made) -> dict[str, _Made]:
    """Tensors of a module and of those in it, without the buffers that are not
    kept."""
    tensors = {}
    waiting, left = [("", root)], MOST_STEPS
    for prefix, module in waiting:  # Grows as it is read.
        passing = module.state.get("_non_persistent_buffers_set")
        passing = passing.arguments[0] if isinstance(passing, _Made) else []
        left -= len(passing)
        passing = {name for name in passing if type(name) is str}
        for kind in ("_parameters", "_buffers", "_modules"):
            for name, value in (module.state.get(kind) or {}).items():
                path = f"{prefix}{name}"
                # A module that holds itself, or one twice, and so on.
                left -= 10 + len(path)
                if left < 0:
                    raise ValueError("modules without end")
                if kind == "_modules" and _is_module(value):
                    waiting.append((f"{path}.", value))
                elif _is_tensor(value) and name not in passing:
                    tensors[path] = value
    return tensors
