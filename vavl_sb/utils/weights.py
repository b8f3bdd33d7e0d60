"""Weights as safetensors: nothing pickled, nothing executed on loading.

Authors
 * The vavl_sb authors 2026
"""

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import write_atomically


def save_weights(module, path):
    """Writes a module's parameters and buffers.

    Arguments
    ---------
    module : nn.Module
        Whose ``state_dict`` is written, on the CPU.
    path : str or Path
        The .safetensors file.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in module.state_dict().items()
    }
    write_atomically(path, save(tensors))


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
