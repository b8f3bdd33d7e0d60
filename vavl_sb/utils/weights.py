"""Weights as safetensors: no pickles, no code that runs on loading."""

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

    Not atomic, since the file may be large: use
    :func:`vavl_sb.utils.files.write_folder`. Raises a VAVLError if the disk is
    full or the folder is not writable.

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
    """Converts tensors to float16 if that is lossless.

    Example
    -------
    >>> tensors = {"a": torch.tensor([0.5]), "b": torch.tensor([0.1])}
    >>> [tensor.dtype for tensor in halved(tensors).values()]
    [torch.float16, torch.float32]
    """
    return {
        name: tensor.half()
        if tensor.dtype == torch.float32
        and torch.equal(tensor.half().float(), tensor)
        else tensor
        for name, tensor in tensors.items()
    }


def load_weights(module: torch.nn.Module, path: str | Path) -> None:
    """Loads all parameters and buffers of a module.

    Can be a ``custom_hooks`` entry of SpeechBrain's Pretrainer. Raises an
    EncoderError if the file is missing or damaged, has non-finite values, or
    names or shapes do not fit.

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
    """Reads tensors by name from .safetensors or a file of ``torch.save``, to
    the CPU, without running code.

    With ``finite=False`` the caller must call :func:`check_finite` on the
    tensors that it uses. Raises an EncoderError if the file cannot be read, or
    has non-finite values.
    """
    path = Path(path)
    is_safe = path.suffix == ".safetensors"
    tensors = _read_safetensors(path) if is_safe else read_tensors(path)
    if finite:
        check_finite(tensors, path)
    return tensors


def _read_safetensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads safetensors by name, also from a file that SpeechBrain's Pretrainer
    has named .ckpt."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"{path}: weights cannot be read ({first_line(error)}); copy or "
            "download the file again"
        ) from None


def check_finite(tensors: dict[str, torch.Tensor], source: str | Path) -> None:
    """Raises an EncoderError with the name of the first tensor that has NaN or
    infinite values, also after conversion to float32.

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
    tensors: Tensors,
    wanted: Tensors,
    parts: set[str],
) -> list[str]:
    """Compares names and shapes of tensors with those of the network.

    ``parts`` are the first parts of names that features depend on; other
    tensors are ignored, and their names returned. Raises an EncoderError with
    all names that are missing, unknown, or of another shape.

    Example
    -------
    >>> one, two = torch.ones(1), torch.ones(2)
    >>> check_fit("f", "net", {"a.w": one, "b": one}, {"a.w": two}, {"a"})
    Traceback (most recent call last):
    vavl_sb.utils.errors.EncoderError: f: does not fit net: 1 of another shape (a.w is (1,), not (2,)); give weights of that network
    """
    unwanted = [name for name in tensors if name not in wanted]
    faults = {
        "missing": [
            name
            for name in wanted
            if name not in tensors and not name.endswith("num_batches_tracked")
        ],
        "unknown": [name for name in unwanted if name.split(".")[0] in parts],
        "of another shape": [
            f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
    }
    reasons = [
        f"{len(names)} {kind} "
        f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for kind, names in faults.items()
        if names
    ]
    if reasons:
        raise EncoderError(
            f"{source}: does not fit {model}: {', '.join(reasons)}; give "
            "weights of that network"
        )
    return sorted(unwanted)
