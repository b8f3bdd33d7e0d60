"""Weights as safetensors: nothing pickled, nothing executed on loading.

Authors
 * The vavl_sb authors 2026
"""

import os

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vavl_sb.utils.errors import EncoderError, VAVLError


def save_weights(module, path):
    """Writes a module's parameters and buffers.

    Arguments
    ---------
    module : nn.Module
        Whose ``state_dict`` is written, on the CPU.
    path : str or Path
        The .safetensors file.
    """
    save_tensors(module.state_dict(), path)


def save_tensors(tensors, path, metadata=None):
    """Writes tensors.

    A fault leaves a part of the file, since there may be too much to hold it
    twice: write into a folder that gets its name when all is in it.

    Arguments
    ---------
    tensors : dict
        Name to tensor, on any device.
    path : str or Path
        The .safetensors file; missing folders are made.
    metadata : dict
        Text by name, for the file's header.

    Raises
    ------
    VAVLError
        In one line: the disk is full, or the folder cannot be written.

    Example
    -------
    >>> import torch
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
        reason = " ".join(str(error).split())
        raise VAVLError(
            f"{path}: cannot be written ({reason}); free space or choose "
            "another folder, then run the same command again"
        ) from None


def load_weights(module, path):
    """Reads a module's parameters and buffers; all of them, or an error.

    Can be a ``custom_hooks`` entry of SpeechBrain's Pretrainer.

    Arguments
    ---------
    module : nn.Module
        Whose tensors are filled.
    path : str or Path
        The .safetensors file.

    Raises
    ------
    EncoderError
        The file is missing or damaged, or names or shapes do not fit.

    Example
    -------
    >>> import torch
    >>> path = getfixture("tmp_path") / "weights.safetensors"
    >>> first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> save_weights(first, path)
    >>> load_weights(second, path)
    >>> bool((first.weight == second.weight).all())
    True
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{path}: weights cannot be read ({error})")
    expected = module.state_dict()
    faults = sorted(set(expected) ^ set(tensors)) + [
        name
        for name in sorted(set(expected) & set(tensors))
        if expected[name].shape != tensors[name].shape
    ]
    if faults:
        raise EncoderError(
            f"{path}: weights do not fit the network ({len(faults)} tensors "
            f"missing, unknown or of another shape, first {faults[0]})"
        )
    module.load_state_dict(tensors)
