"""Reading files of torch.save without running them.

The truths are torch.load on files that this test wrote, and a canary that any
file which ran something would have touched.
"""

import builtins
import functools
import os
import struct
import subprocess
import sys
import tracemalloc
import types
import zipfile

import pytest
import torch
from hypothesis import (
    given,
    settings,
    strategies as st,
)
from torch import nn

from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.torch_file import read_tensors


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def net():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    made[1].running_mean.uniform_()
    made[0].register_buffer("passing", torch.ones(2), persistent=False)
    made.note = functools.partial(print, "not run")
    made.device = torch.device("cpu")
    return made


def save(content, path):
    torch.save(content, path)
    return path


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[k], v) and found[k].dtype == v.dtype
        for k, v in expected.items()
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda n: n,
        lambda n: n.state_dict(),
        lambda n: {"epoch": 3, "state_dict": n.state_dict()},
        lambda n: {"best": 0.5, "model": n},
    ],
)
def test_gives_what_state_dict_gives(tmp_path, wrap):
    path = save(wrap(net()), tmp_path / "f.pt")
    assert same(read_tensors(path), net().state_dict())


def test_views_types_and_empty_tensors(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "base": base,
        "part": base[1:, ::2],
        "turned": base.t(),
        "half": base.half() / 7,
        "brain": base.bfloat16() / 7,
        "long": torch.arange(5),
        "bool": base > 3,
        "number": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
    }
    assert same(read_tensors(save(state, tmp_path / "f")), state)


def test_a_class_that_no_longer_exists_is_no_hindrance(tmp_path):
    module = types.ModuleType("gone_timm")
    exec(  # as an old library would have it
        "from torch import nn\n"
        "class Conv2dOld(nn.Conv2d):\n    pass\n"
        "class Config(dict):\n    pass\n"
        "class Names(list):\n    pass\n"
        "def swish(x):\n    return x\n",
        module.__dict__,
    )
    sys.modules["gone_timm"] = module
    try:
        inner = module.Conv2dOld(2, 2, 1)
        inner.act = module.swish
        inner.config = module.Config(a=1)
        inner.names = module.Names("ab")
        path = save(nn.Sequential(inner), tmp_path / "f.pt")
        expected = {f"0.{k}": v for k, v in inner.state_dict().items()}
    finally:
        del sys.modules["gone_timm"]
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)
    assert same(read_tensors(path), expected)


def _zip_with(pickled, path, source):
    """The archive of a saved file with another pickle in it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, pickled if name.endswith(".pkl") else data)
    return path


def attacks(canary):
    """Pickles that would make a file, or change this program."""
    make = f"open({str(canary)!r}, 'w').close()"
    return {
        "system": Calls(os.system, f"touch {canary}"),
        "eval": Calls(builtins.eval, make),
        "torch.load": Calls(torch.load, str(canary)),
        "in a dict": {"state_dict": {"w": Calls(os.system, "true")}},
        "partial, called": Calls(Calls, 1),
    }


NAMES = list(attacks("x"))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_calls_is_refused_and_calls_nothing(tmp_path, name):
    canary = tmp_path / "canary"
    path = save(attacks(canary)[name], tmp_path / "f.pt")
    with pytest.raises(
        EncoderError, match="calls .*; no code in it was run"
    ) as told:
        read_tensors(path)
    assert "\n" not in told.value.text and not canary.exists()


def test_a_call_within_a_module_is_refused(tmp_path):
    canary = tmp_path / "canary"
    whole = net()
    whole.extra = Calls(os.system, f"touch {canary}")
    path = save(whole, tmp_path / "f.pt")
    with pytest.raises(EncoderError, match="calls 'posix.system'"):
        read_tensors(path)
    assert not canary.exists()
    # The canary works: torch.load does run it.
    torch.load(path, weights_only=False)
    assert canary.exists()


# Each: opcodes after which the file would own something of the program.
RAW = {
    "a name that torch has not": b"ctorch._utils\n_rebuild_evil\n)R.",
    "a state for a function": b"ctorch._utils\n_rebuild_tensor_v2\n}b.",
    "defaults for a function": b"ctorch._utils\n_rebuild_tensor_v2\n"
    b"N}X\x0c\x00\x00\x00__defaults__)s\x86b.",
    "a state for a class": b"cposix\nsystem\n}b.",
    "instance by INST": b"(X\x04\x00\x00\x00trueiposix\nsystem\n.",
    "a class by its number": b"\x82\x01)R.",
    "a huge memo": b"Nr\xff\xff\xff\xff.",
    "a type that is no storage": b"(X\x07\x00\x00\x00storagecposix\nsystem\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_no_pickle_writes(tmp_path, name):
    saved = save({"w": torch.ones(1)}, tmp_path / "f.pt")
    path = _zip_with(b"\x80\x02" + RAW[name], tmp_path / "raw.pt", saved)
    before = torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(EncoderError):
        read_tensors(path)
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def tensor_pickle(numel=b"K\x04", offset=b"K\x00", size=b"K\x04", stride=1):
    """A tensor of a storage of four floats, with one number wrong."""
    return (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + numel
        + b"tQ"
        + offset
        + b"("
        + size
        + b"t(K"
        + bytes([stride])
        + b"t"
        b"\x89ccollections\nOrderedDict\n)RtRs."
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"numel": b"K\x05"},
        {"size": b"J\x00\x00\x00\x7f", "stride": 0},
        {"size": b"K\x03", "stride": 2},
    ],
)
def test_tensors_that_reach_beyond_their_storage(tmp_path, wrong):
    saved = save({"w": torch.arange(4.0)}, tmp_path / "f.pt")
    right = _zip_with(tensor_pickle(), tmp_path / "right.pt", saved)
    assert read_tensors(right)["w"].tolist() == [0, 1, 2, 3]
    path = _zip_with(tensor_pickle(**wrong), tmp_path / "wrong.pt", saved)
    with pytest.raises(EncoderError):
        read_tensors(path)


def test_one_storage_under_many_names(tmp_path):
    weight = torch.ones(10_000)
    tied = {f"w{i}": weight for i in range(8)}
    assert same(read_tensors(save(tied, tmp_path / "f.pt")), tied)
    many = {f"w{i}": weight for i in range(1000)}
    with pytest.raises(EncoderError, match="too many names"):
        read_tensors(save(many, tmp_path / "f.pt"))


def test_no_more_of_a_storage_is_read_than_is_used(tmp_path):
    """Entries may share their bytes: a thousand of 100 MB in 100 MB."""
    small = save({"w": torch.ones(1)}, tmp_path / "f.pt")
    with zipfile.ZipFile(small) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(tmp_path / "g.pt", "w") as target:
        for name, data in parts.items():
            more = bytes(50 * 2**20) if name.endswith("data/0") else b""
            target.writestr(name, data + more)
    tracemalloc.start()
    try:
        found = read_tensors(tmp_path / "g.pt")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert same(found, {"w": torch.ones(1)}) and peak < 2**20


def test_a_file_cut_at_any_byte_gives_one_line(tmp_path):
    whole = save(net(), tmp_path / "f.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for cut in range(0, len(whole) - 1, max(1, len(whole) // 50)):
        path.write_bytes(whole[:cut])
        with pytest.raises(EncoderError):
            read_tensors(path)


@pytest.mark.parametrize(
    "content, words",
    [
        ("text", "has no named weights"),
        ({"w": torch.ones(1), "n": 1}, "'n' is not a tensor"),
    ],
)
def test_no_weights_by_name(tmp_path, content, words):
    with pytest.raises(EncoderError, match=words):
        read_tensors(save(content, tmp_path / "f.pt"))


def test_a_compressed_archive_is_refused(tmp_path):
    source = save(net(), tmp_path / "f.pt")
    path = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(EncoderError, match="compressed"):
        read_tensors(path)


def text(word):
    """A string, as torch.save pickles it."""
    data = word.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def long(number):
    """A long integer."""
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


TENSOR = tensor_pickle()[3 + len(text("w")) : -2]  # without the dictionary


MODULE = b"cx\nNet\n)\x81"
SET = b"cbuiltins\nset\n"
LIST = b"](" + b"K\x01" * 100_000 + b"e"
# Each by its pickle. What is kept back stands in the memo, at 0 or 1, and what
# is not needed in a list below.
DEEP = b"])q\x00a" + b"h\x00h\x00\x86q\x00a" * 60
HOSTILE = {
    "three million tuples as a key": b"})" + b"\x85" * 3_000_000 + b"Ns.",
    "300 bytes without end": DEEP + b"}h\x00Ns.",
    "the same in a set": DEEP + SET + b"]h\x00a\x85R.",
    "the same as a storage's name": DEEP
    + b"("
    + text("storage")
    + b"ctorch\nFloatStorage\nh\x00"
    + text("cpu")
    + b"K\x04tQ.",
    "numbers of one hash": b"}("
    + b"".join(long(i * (2**61 - 1)) + b"N" for i in range(1, 100_000))
    + b"u.",
    "a dictionary made of many again and again": b"]"
    + LIST
    + b"q\x00a"
    + b"ccollections\nOrderedDict\nh\x00\x85Ra" * 20_000
    + b".",
    "memory without end": b"}"
    + text("w")
    + b"cbuiltins\nbytearray\n"
    + long(2**40)
    + b"\x85Rs.",
    "a string of four gigabytes": b"}X\xff\xff\xff\xff.",
    "modules that hold each other": MODULE
    + b"q\x00}"
    + text("_modules")
    + b"}("
    + b"".join(text(f"{i:0>2000}") + b"h\x00" for i in range(200))
    + b"usb.",
    "marks": b"(" * 100_000 + b".",
    "lists in lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "a dictionary that is its own checkpoint": b"}q\x00"
    + text("model")
    + b"h\x00s.",
}
CHILD = """
import resource, sys, time
from vavl_sb.utils.torch_file import read_tensors
from vavl_sb.utils.errors import EncoderError
resource.setrlimit(resource.RLIMIT_CPU, (40, 40))
resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        read_tensors(path)
        told = "read"
    except EncoderError as error:
        told = f"refused {str(error)!r}"
    print(f"{time.process_time() - start:.1f} {told}", flush=True)
"""


def test_files_that_crash_hang_or_fill_the_memory(tmp_path):
    """In a child process, with a limit of time and of memory."""
    saved = save({"w": torch.arange(4.0)}, tmp_path / "f.pt")
    paths = [
        _zip_with(b"\x80\x02" + raw, tmp_path / f"{i}.pt", saved)
        for i, raw in enumerate(HOSTILE.values())
    ]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = done.stdout.splitlines()
    for name, line in zip(HOSTILE, lines):
        seconds, told = line.split(" ", 1)
        assert told.startswith("refused"), f"{name}: {line}"
        assert "\\n" not in told and len(told) < 500, name
        assert float(seconds) < 20, f"{name}: {line}"
    assert len(lines) == len(HOSTILE), f"{done.returncode} {done.stderr[-500:]}"


PIECES = [
    *(b"(", b"0", b"N", b")", b"]", b"}", b"t", b"\x85", b"\x86", b"\x87"),
    *(b"a", b"e", b"s", b"u", b"R", b"b", b"\x81", b"Q", b".", b"\x93"),
    *(b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"K\x04"),
    *(b"cbuiltins\ngetattr\n", b"ctorch\nload\n", b"icos\nsystem\n", b"o"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"),
    *(b"ccollections\nOrderedDict\n", b"cbuiltins\nset\n"),
    *map(text, ["storage", "0", "cpu", "w", "_modules", "touch canary"]),
    *(long(2**70), TENSOR, MODULE),
    # Whole calls, objects and states, which chance alone seldom makes.
    *(
        name + rest
        for name in (b"cos\nsystem\n", b"cbuiltins\neval\n", b"cx\nNet\n")
        for rest in (text("1") + b"\x85R", b")R", b")\x81}b", b"}b")
    ),
]
OPENED = []


def _watch(event, arguments):
    if WATCHING and event in (
        *("exec", "compile", "os.system", "subprocess.Popen", "os.exec"),
        *("import", "open", "socket.__new__", "pickle.find_class"),
    ):
        OPENED.append((event, str(arguments[0])))


WATCHING = []
sys.addaudithook(_watch)


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40))
def test_no_pickle_imports_opens_or_calls(pieces, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    saved = save({"w": torch.arange(4.0)}, folder / "family.pt")
    path = _zip_with(tensor_pickle(), folder / "changed.pt", saved)
    read_tensors(path)  # What zipfile needs is imported by now.
    raw = b"".join([b"\x80\x02", *pieces, b"."])
    _zip_with(raw, path, saved)
    OPENED.clear()
    WATCHING.append(True)
    try:
        found = read_tensors(path)
    except EncoderError:
        pass
    else:
        assert all(type(t) is torch.Tensor for t in found.values())
    finally:
        WATCHING.clear()
    assert [seen for seen in OPENED if seen != ("open", str(path))] == []
