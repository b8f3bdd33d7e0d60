"""Weights as safetensors: nothing pickled, nothing executed on loading."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vavl_sb.utils.errors import EncoderError, first_line
from vavl_sb.utils.files import unwritable
from vavl_sb.utils.torch_file import read_tensors

Tensors = dict[str, torch.Tensor]


def save_weights(module: torch.nn.Module, path: str | Path) -> None:
    """Writes a module's parameters and buffers as .safetensors."""
    save_tensors(module.state_dict(), path)


def save_tensors(
    tensors: dict[str, torch.Tensor],
    path: str | Path,
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes tensors as .safetensors, with ``metadata`` in the file's header.

    A fault leaves a part of the file, since there may be too much to hold it
    twice: write into a folder that gets its name when all is in it. VAVLError,
    in one line: the disk is full, or the folder cannot be written.

    Example
    -------
    >>> path = getfixture("tmp_path") / "tensors.safetensors"
    >>> save_tensors({"a": torch.ones(2)}, path)
    >>> load_file(path)
    {'a': tensor([1., 1.])}
    """
    tensors = {k: t.detach().cpu().contiguous() for k, t in tensors.items()}
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        save_file(tensors, path, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, " ".join(str(error).split())) from None


def halved(tensors: Tensors) -> Tensors:
    """Tensors as float16 where that loses nothing: they came as such.

    Example
    -------
    >>> found = halved({"a": torch.tensor([0.5]), "b": torch.tensor([0.1])})
    >>> found["a"].dtype, found["b"].dtype
    (torch.float16, torch.float32)
    """
    return {
        name: tensor.half()
        if tensor.dtype == torch.float32
        and torch.equal(tensor.half().float(), tensor)
        else tensor
        for name, tensor in tensors.items()
    }


def load_weights(module: torch.nn.Module, path: str | Path) -> None:
    """Reads a module's parameters and buffers; all of them, or an error.

    Can be a ``custom_hooks`` entry of SpeechBrain's Pretrainer. EncoderError:
    the file is missing or damaged, a number in it is not finite, or names or
    shapes do not fit.

    Example
    -------
    >>> path = getfixture("tmp_path") / "weights.safetensors"
    >>> first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> save_weights(first, path)
    >>> load_weights(second, path)
    >>> bool((first.weight == second.weight).all())
    True
    """
    tensors = _read_safetensors(path)
    check_finite(tensors, path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise EncoderError(
            f"{path}: weights do not fit the network ({reason[:300]})"
        ) from None


def load_tensors(
    path: str | Path, finite: bool = True
) -> dict[str, torch.Tensor]:
    """Reads tensors, whatever wrote the file; nothing of it is run.

    Takes .safetensors, or what ``torch.save`` wrote, and gives names to tensors
    on the CPU. With ``finite=False`` :func:`check_finite` is to follow, on the
    few tensors that are used. EncoderError, in one line: it cannot be read, or
    has numbers that are not finite.
    """
    path = Path(path)
    is_safe = path.suffix == ".safetensors"
    tensors = _read_safetensors(path) if is_safe else read_tensors(path)
    if finite:
        check_finite(tensors, path)
    return tensors


def _read_safetensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Tensors by name; SpeechBrain's Pretrainer may name the file .ckpt."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"{path}: weights cannot be read ({first_line(error)}); copy or "
            "download the file again"
        ) from None


def check_finite(tensors: dict[str, torch.Tensor], source: str | Path) -> None:
    """Refuses weights that are NaN or infinite, as float32 at the latest.

    An EncoderError, in one line, has the name of the first such tensor.

    Example
    -------
    >>> check_finite({"w": torch.ones(2), "b": torch.tensor(torch.nan)}, "f")
    Traceback (most recent call last):
    vavl_sb.utils.errors.EncoderError: f: weight 'b' has NaN or infinite values; get the file again
    """
    for name, tensor in tensors.items():
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor)
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        try:
            low, high = torch.aminmax(tensor.detach().float())
        except NotImplementedError:  # Such as 4-bit floats.
            raise EncoderError(
                f"{source}: weight {name[:200]!r} is {tensor.dtype}, which "
                "cannot be read; save it as float32"
            ) from None
        if not (low.isfinite() and high.isfinite()):
            raise EncoderError(
                f"{source}: weight {name[:200]!r} has NaN or infinite values; "
                "get the file again"
            )


def check_fit(
    source: str | Path,
    model: str,
    found: Tensors,
    wanted: Tensors,
    parts: set[str],
) -> list[str]:
    """Compares names and shapes with those of the network.

    ``parts`` are first parts of names that features depend on: all in them must
    fit. Gives the names outside of them. EncoderError, in one line: all that is
    missing, unknown or of another shape.

    Example
    -------
    >>> one, two = torch.ones(1), torch.ones(2)
    >>> check_fit("f", "net", {"a.w": one, "b": one}, {"a.w": two}, {"a"})
    Traceback (most recent call last):
    vavl_sb.utils.errors.EncoderError: f: does not fit net: 1 of another shape (a.w is (1,), not (2,)); give weights of that network
    """
    others = [name for name in found if name not in wanted]
    faults = {
        "missing": [
            name
            for name in wanted
            if name not in found and not name.endswith("num_batches_tracked")
        ],
        "unknown": [name for name in others if name.split(".")[0] in parts],
        "of another shape": [
            f"{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }
    told = [
        f"{len(names)} {kind} "
        f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for kind, names in faults.items()
        if names
    ]
    if told:
        raise EncoderError(
            f"{source}: does not fit {model}: {', '.join(told)}; give "
            "weights of that network"
        )
    return sorted(others)
