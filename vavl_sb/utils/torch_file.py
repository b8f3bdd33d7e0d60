"""The tensors of a file that torch.save wrote, without running the file.

Python's unpickler calls what a file names. torch's with ``weights_only`` calls
no more than a list of its own, but a key of nested tuples ends it in a crash or
without an end, and ``bytearray(n)`` fills the memory; nor does it read whole
modules. Here the few opcodes that ``torch.save`` writes are followed by code of
ours: a class becomes a name, an object its state, the only calls are those of
:data:`CALLS`, keys are plain, and steps are counted.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

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


class RefusedError(ValueError):
    """A file asks for more than tensors."""


class _Class(str):
    """The name of a class or a function; never looked up."""

    __slots__ = ()


class _Object:
    """An object of such a class: its state, where that is a dictionary."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: dict = {}


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """All tensors of a file by name, as ``state_dict()`` would give them.

    Arguments
    ---------
    path : str or Path
        What ``torch.save`` wrote: a
        state dict, one in a checkpoint, or a whole pickled module, whose
        classes need not exist.

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
        return _state_of(_read_zip(path), path.stat().st_size)
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


def _read_zip(path: Path) -> Any:
    """The object in a file, of plain types, tensors and :class:`_Object`."""
    with zipfile.ZipFile(path) as archive:
        pickles = [
            i for i in archive.filelist if i.filename.endswith("/data.pkl")
        ]
        if len(pickles) != 1:
            raise ValueError("not one pickle in the archive")
        # torch compresses nothing: what is compressed may be a bomb.
        if any(i.compress_type != zipfile.ZIP_STORED for i in archive.filelist):
            raise ValueError("a compressed archive")
        if pickles[0].file_size > LARGEST_PICKLE:
            raise RefusedError("has a pickle of more than 64 MB")
        root = pickles[0].filename.rpartition("/")[0]
        order = f"{root}/byteorder"
        if order in archive.namelist() and b"big" in archive.read(order):
            raise ValueError("written by a big-endian machine")

        def read(key: str, count: int) -> torch.Tensor:
            if archive.getinfo(f"{root}/data/{key}").file_size < count:
                raise ValueError("a storage that is too short")
            # No more than was counted: entries may share their bytes.
            with archive.open(f"{root}/data/{key}") as file:
                data = bytearray(file.read(count))
            if not count:
                return torch.empty(0, dtype=torch.uint8)
            return torch.frombuffer(data, dtype=torch.uint8, count=count)

        storages = _Storages(path.stat().st_size, read)
        return _Pickle(io.BytesIO(archive.read(pickles[0])), storages).load()


class _Storages:
    """The storages of a file, each read once; ``size`` is that of the file,
    ``read`` gives some bytes (uint8, shape (n,)) by key and number."""

    def __init__(self, size: int, read: Callable[[str, int], torch.Tensor]):
        self.left, self.read = size, read
        self.raw: dict[str, torch.Tensor] = {}

    def find(self, pid: Any) -> torch.Tensor:
        """Elements of one storage, shape (n,), by what a pickle says of it."""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise RefusedError("refers to what is no storage")
        _, kind, key, _, numel = pid
        if not isinstance(kind, _Class) or kind not in STORAGES:
            raise RefusedError("has a storage of an unknown type")
        count = _whole(numel) * STORAGES[kind].itemsize
        if type(key) is not str:
            raise RefusedError("has a storage without a name")
        if key not in self.raw:
            if count > self.left:
                raise RefusedError("has more in its storages than it has bytes")
            self.left -= count
            self.raw[key] = self.read(key, count)
        return self.raw[key][:count].view(STORAGES[kind])


class _Pickle:
    """Follows one pickle and runs nothing of it."""

    def __init__(self, file: BinaryIO, storages: _Storages):
        self.file, self.storages = file, storages
        self.stack, self.marks, self.memo = [], [], {}
        self.steps = MOST_STEPS

    def load(self) -> Any:
        """The object, of plain types, tensors, names and :class:`_Object`."""
        for opcode, argument, _ in pickletools.genops(self.file):
            self.spend(1)
            if opcode.name in VALUES:
                self.stack.append(argument)
            elif opcode.name in OPCODES:
                OPCODES[opcode.name](self, argument)
            else:
                raise RefusedError(f"has the opcode {opcode.name}")
        return self.stack.pop()

    def spend(self, steps: int) -> None:
        """Counts what is done, so that no file takes long."""
        self.steps -= steps
        if self.steps < 0:
            raise RefusedError(f"takes more than {MOST_STEPS} steps to read")

    def pop(self, count: int | None = None) -> list:
        """Takes so many values off the stack, or all since the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if not 0 <= start <= len(self.stack):
            raise ValueError("too few values")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def extend(self, items: list) -> None:
        """Appends to a list; a class that is one forgets its items."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        elif not isinstance(self.stack[-1], _Object):
            raise RefusedError("appends to what is no list")

    def set(self, items: list) -> None:
        """Sets a dictionary's items; a class that is one forgets them."""
        found = self.stack[-1]
        if not isinstance(found, (dict, _Object)):
            raise RefusedError("sets an item of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _scalar(key)
            if isinstance(found, dict):
                found[key] = value

    def make(self, made: Any, arguments: Any) -> None:
        """Makes an object, whose arguments are not needed."""
        if not isinstance(made, _Class):
            raise RefusedError("makes an object of what is no class")
        self.push(_Object())

    def call(self, function: Any, arguments: Any) -> None:
        """Calls what stands for one of :data:`CALLS`."""
        if not isinstance(function, _Class) or not isinstance(arguments, tuple):
            raise RefusedError("calls what is no function")
        if function not in CALLS:
            raise RefusedError(f"calls {function[:80]!r}")
        if arguments and isinstance(arguments[0], (list, tuple)):
            self.spend(len(arguments[0]))
        self.push(CALLS[function](*arguments))

    def build(self, target: Any, state: Any) -> None:
        """Gives an object its state; an OrderedDict's attributes are lost."""
        if not isinstance(target, (_Object, dict)):
            raise RefusedError("gives a state to what has none")
        # With slots the state is a pair.
        part = state[0] if isinstance(state, tuple) and state else state
        if isinstance(target, _Object) and isinstance(part, dict):
            target.state = part
        self.push(target)


VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINSTRING", "BINSTRING"),
}
OPCODES = {
    "PROTO": lambda p, _: None,
    "STOP": lambda p, _: None,
    "NONE": lambda p, _: p.push(None),
    "NEWTRUE": lambda p, _: p.push(True),
    "NEWFALSE": lambda p, _: p.push(False),
    "EMPTY_TUPLE": lambda p, _: p.push(()),
    "EMPTY_LIST": lambda p, _: p.push([]),
    "EMPTY_DICT": lambda p, _: p.push({}),
    "MARK": lambda p, _: p.marks.append(len(p.stack)),
    "POP": lambda p, _: p.pop(1),
    "BINPUT": lambda p, index: p.memo.update({index: p.stack[-1]}),
    "LONG_BINPUT": lambda p, index: p.memo.update({index: p.stack[-1]}),
    "BINGET": lambda p, index: p.push(p.memo[index]),
    "LONG_BINGET": lambda p, index: p.push(p.memo[index]),
    "TUPLE": lambda p, _: p.push(tuple(p.pop())),
    "TUPLE1": lambda p, _: p.push(tuple(p.pop(1))),
    "TUPLE2": lambda p, _: p.push(tuple(p.pop(2))),
    "TUPLE3": lambda p, _: p.push(tuple(p.pop(3))),
    "APPEND": lambda p, _: p.extend(p.pop(1)),
    "APPENDS": lambda p, _: p.extend(p.pop()),
    "SETITEM": lambda p, _: p.set(p.pop(2)),
    "SETITEMS": lambda p, _: p.set(p.pop()),
    "GLOBAL": lambda p, name: p.push(_Class(name.replace(" ", ".", 1))),
    "NEWOBJ": lambda p, _: p.make(*p.pop(2)),
    "REDUCE": lambda p, _: p.call(*p.pop(2)),
    "BUILD": lambda p, _: p.build(*p.pop(2)),
    "BINPERSID": lambda p, _: p.push(p.storages.find(*p.pop(1))),
}


def _scalar(key):
    """What may be a key or an item of a set: nothing whose hash is that of
    what it holds, nor numbers that a file can choose to collide."""
    plain = key is None or type(key) in (str, bool, float)
    if plain or (type(key) is int and abs(key) < 2**31):
        return key
    raise RefusedError(f"has a {type(key).__name__} for a key")


def _whole(number):
    """A size or an offset."""
    if type(number) is not int or not 0 <= number < 2**48:
        raise RefusedError("has an impossible size")
    return number


def _tensor(storage, offset, size, stride, *unused):
    """A view of a storage, with all its numbers checked."""
    if not isinstance(storage, torch.Tensor) or storage.ndim != 1:
        raise RefusedError("makes a tensor of what is no storage")
    if not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise RefusedError("makes a tensor of no shape")
    if len(size) != len(stride) or len(size) > MOST_DIMENSIONS:
        raise RefusedError("makes a tensor of an impossible shape")
    count = math.prod(map(_whole, size))
    last = _whole(offset) + sum(
        (n - 1) * _whole(step) for n, step in zip(size, stride, strict=True)
    )
    if not count:
        return torch.empty(size, dtype=storage.dtype)
    # More elements than the storage has would be memory for nothing.
    if count > len(storage) or last >= len(storage):
        raise RefusedError("makes a tensor that is larger than its storage")
    return storage.as_strided(size, stride, storage.storage_offset() + offset)


def _parameter(tensor, *unused):
    """A parameter is its tensor."""
    if not isinstance(tensor, torch.Tensor):
        raise RefusedError("makes a parameter of what is no tensor")
    return tensor


def _dictionary(pairs=(), *unused):
    """An OrderedDict, which old files make from pairs."""
    found = {}
    for pair in pairs if isinstance(pairs, (list, tuple)) else ():
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise RefusedError("makes a dictionary of what are no pairs")
        found[_scalar(pair[0])] = pair[1]
    return found


def _set(items=(), *unused):
    """A set, frozen."""
    if not isinstance(items, (list, tuple)):
        raise RefusedError("makes a set of what is no list")
    return frozenset(map(_scalar, items))


def _nothing(*unused):
    """What no tensor depends on."""
    return _Object()


CALLS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": lambda items=(): items,
    "torch.device": _nothing,
    "functools.partial": _nothing,
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": lambda *unused: {},
    "__builtin__.set": _set,
    "builtins.set": _set,
    "builtins.frozenset": _set,
}


def _state_of(found: Any, size: int) -> dict[str, torch.Tensor]:
    """Names and tensors of a state dict, a checkpoint with one or a module."""
    for key in WRAPPERS:
        inner = found.get(key) if isinstance(found, dict) else None
        if isinstance(inner, dict) or _is_module(inner):
            found = inner
    if _is_module(found):
        state = dict(_module_tensors(found))
    elif isinstance(found, dict):
        state = {str(name): value for name, value in found.items()}
    else:
        raise ValueError("holds no weights by name")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"holds more than tensors, at {name[:80]!r}")
        size -= value.numel() / MOST_NAMES
    if size < 0:
        raise RefusedError("has the same memory under too many names")
    return state


def _is_module(found: Any) -> bool:
    """Whether it was a torch.nn.Module."""
    return isinstance(found, _Object) and isinstance(
        found.state.get("_modules"), dict
    )


def _module_tensors(root: _Object) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a module and of those in it, without the buffers
    that are not kept."""
    waiting, left = [("", root)], MOST_STEPS
    for prefix, module in waiting:  # Grows as it is read.
        passing = module.state.get("_non_persistent_buffers_set")
        if not isinstance(passing, frozenset):
            passing = ()
        for kind in ("_parameters", "_buffers", "_modules"):
            for name, value in (module.state.get(kind) or {}).items():
                path = f"{prefix}{name}"
                # A module that holds itself, or one twice, and so on.
                left -= 10 + len(path)
                if left < 0:
                    raise ValueError("modules without end")
                if kind == "_modules" and _is_module(value):
                    waiting.append((f"{path}.", value))
                elif isinstance(value, torch.Tensor) and name not in passing:
                    yield path, value
