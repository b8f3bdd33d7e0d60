"""Unpickling that runs nothing: tensors come out, all else stays inert.

``pickle`` runs what a file names. Here each name of a file becomes one of
three things: a reader of this module, for the few names that tensors need; the
type of a storage; or a stand-in that can be made and given its state, as
classes of any version of any library can, but not called. A file that calls
anything else is refused. Nothing that belongs to torch or to Python's modules
is within the file's reach, so that it can neither be called nor changed.

Authors
 * The vavl_sb authors 2026
"""

import math
import pickle
import pickletools

import torch

# Names in `torch` and, in old files, `torch.cuda`.
STORAGE_TYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


class RefusedError(pickle.UnpicklingError):
    """A file asks for more than tensors."""


class Sealed:
    """Base of what a file can hold but not change."""

    __slots__ = ()

    def __setstate__(self, state):
        raise RefusedError("gives a state to what has none")


class StorageType(Sealed):
    """The type of a storage.

    Arguments
    ---------
    dtype : torch.dtype
        Of its elements.
    """

    __slots__ = ("dtype",)

    def __init__(self, dtype):
        self.dtype = dtype


class Storage(Sealed):
    """Elements in memory that tensors are views of.

    Arguments
    ---------
    raw : torch.Tensor
        Bytes, uint8, shape (n,).
    dtype : torch.dtype
        Of the elements.
    """

    __slots__ = ("raw", "dtype")

    def __init__(self, raw, dtype):
        self.raw, self.dtype = raw, dtype


class StoredTensor(Sealed):
    """A tensor, out of the file's reach.

    Arguments
    ---------
    tensor : torch.Tensor
        The tensor.
    """

    __slots__ = ("tensor",)

    def __init__(self, tensor):
        self.tensor = tensor


class Mapping(dict):
    """A dictionary, also for what was an OrderedDict; attributes are lost."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class _NeverCalled(type):
    """Type of the stand-ins: what calls one is refused."""

    def __call__(cls, *args, **kwargs):
        raise RefusedError(f"calls {cls.origin}")


class StandIn(metaclass=_NeverCalled):
    """What stands for an object of a class that a file names.

    It has the object's ``state``, which may be that of a module of any
    version of torch; ``origin`` is the name of the class.
    """

    __slots__ = ("state",)
    origin = "?"

    def __new__(cls, *args, **kwargs):
        made = object.__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state):
        # With slots the state is a pair.
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.state.update(part)

    # Of classes that are lists, sets or dictionaries too.
    def append(self, item):
        """Forgets an item.

        Arguments
        ---------
        item : object
            Any.
        """

    extend = add = update = append

    def __setitem__(self, key, value):
        pass


class Reader(Sealed):
    """A function of this module under a name that files call.

    Arguments
    ---------
    function : callable
        Called in place of what the file names.
    """

    __slots__ = ("function",)

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)


def _tensor(storage, offset, size, stride, *unused):
    """A view of a storage, with all its numbers checked."""
    if not isinstance(storage, Storage):
        raise RefusedError("makes a tensor of what is no storage")
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(
        type(number) is int and number >= 0 for number in numbers
    ):
        raise RefusedError("makes a tensor of an impossible shape")
    present = len(storage.raw) // storage.dtype.itemsize
    count = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    # More elements than the storage has would be memory for nothing.
    if count > present or (count and last >= present):
        raise RefusedError("makes a tensor that is larger than its storage")
    if not count:
        return StoredTensor(torch.empty(size, dtype=storage.dtype))
    values = storage.raw.view(storage.dtype)
    return StoredTensor(
        values.as_strided(size, stride, values.storage_offset() + offset)
    )


def _parameter(tensor, *unused):
    """A parameter is its tensor."""
    if not isinstance(tensor, StoredTensor):
        raise RefusedError("makes a parameter of what is no tensor")
    return tensor


def _mapping(items=(), *unused):
    """An OrderedDict, from pairs."""
    return Mapping(items if isinstance(items, (list, tuple)) else ())


def _unused(*args):
    """What no tensor depends on."""
    return StandIn.__new__(StandIn)


READERS = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": lambda items=(): tuple(items),
    "torch.device": _unused,
    "functools.partial": _unused,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda *unused: Mapping(),
    "__builtin__.set": lambda items=(): set(items),
    "builtins.set": lambda items=(): set(items),
    "builtins.frozenset": lambda items=(): frozenset(items),
}


class SafeUnpickler(pickle.Unpickler):
    """Reads one pickle, runs nothing of it.

    Arguments
    ---------
    file : file
        Opened for bytes.
    find_storage : callable
        From what a file tells of a storage, ``(type, key, location, numel,
        ...)``, to a :class:`Storage`; None where there can be none.

    Example
    -------
    >>> import io
    >>> SafeUnpickler(io.BytesIO(pickle.dumps({"a": [1, 2]}))).load()
    {'a': [1, 2]}
    >>> SafeUnpickler(io.BytesIO(pickle.dumps(pickle.loads))).load().origin
    '_pickle.loads'
    """

    def __init__(self, file, find_storage=None):
        # Strings that Python 2 wrote may be in any encoding.
        super().__init__(file, encoding="latin1")
        self.find_storage = find_storage

    def find_class(self, module, name):
        """What stands for a name; it is never looked up.

        Arguments
        ---------
        module : str
            Name of a module.
        name : str
            Name in it.

        Returns
        -------
        StorageType, Reader or type
        """
        if module in ("torch", "torch.cuda") and name in STORAGE_TYPES:
            return StorageType(STORAGE_TYPES[name])
        origin = f"{module}.{name}"
        if origin in READERS:
            return Reader(READERS[origin])
        return _NeverCalled(
            "StandIn", (StandIn,), {"origin": origin, "__slots__": ()}
        )

    def persistent_load(self, pid):
        """What the pickle refers to outside of it.

        Arguments
        ---------
        pid : tuple
            ``("storage", ...)``, or ``("module", class, ...)``.

        Returns
        -------
        Storage or type
        """
        kind = pid[0] if isinstance(pid, tuple) and len(pid) > 1 else None
        # Old files write a class together with its source.
        if kind == "module" and isinstance(pid[1], type):
            return pid[1]
        if kind != "storage" or self.find_storage is None:
            raise RefusedError("refers to what is no storage")
        if not isinstance(pid[1], StorageType):
            raise RefusedError("has a storage of an unknown type")
        return self.find_storage(*pid[1:])


def safe_load(file, size, find_storage=None):
    """Reads the pickle at a file's position, and leaves the file behind it.

    Arguments
    ---------
    file : file
        Opened for bytes; can seek.
    size : int
        Bytes of the file: no pickle in it has more entries.
    find_storage : callable
        As for :class:`SafeUnpickler`.

    Returns
    -------
    object
        Of Python's plain types and those of this module.
    """
    start = file.tell()
    for code, argument, _ in pickletools.genops(file):
        # The memo is an array: a large index alone would fill the memory.
        if code.name in ("PUT", "LONG_BINPUT") and argument > size:
            raise RefusedError("has an impossible memo")
        # Numbers for classes that a program has registered and may hold.
        if code.name.startswith("EXT"):
            raise RefusedError("names a class by its number")
    file.seek(start)
    return SafeUnpickler(file, find_storage).load()
