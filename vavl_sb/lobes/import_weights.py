"""Published weights of encoders, read safely and checked name by name.

Authors
 * The vavl_sb authors 2026
"""

from pathlib import Path

import torch
from safetensors.torch import save

from vavl_sb.lobes.visual_encoder import MODEL, PREFIXES, create_backbone
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import write_atomically
from vavl_sb.utils.weights import load_tensors

# So many names of each fault are told.
TOLD = 5


def import_visual(source, target=None):
    """Writes the weights of an EfficientNet-B2 as safetensors.

    Arguments
    ---------
    source : str or Path
        HSEmotion's ``enet_b2_8_best.pt`` or another pickled module or state
        dict of timm's ``tf_efficientnet_b2``, or safetensors.
    target : str or Path
        The file to write; None: ``source`` with the ending .safetensors.

    Returns
    -------
    target : Path
        The file, for ``VisualEncoder(weights=target)``.
    left_out : list of str
        Names in the source that features do not depend on: the classifier.

    Raises
    ------
    EncoderError
        In one line: what cannot be read, or which names and shapes do not
        fit. Then nothing is written.
    """
    source = Path(source)
    if target is None and source.suffix == ".safetensors":
        raise EncoderError(
            f"{source}: give OUT, another file to write the weights to"
        )
    target = new_path(target or source.with_suffix(".safetensors"))
    found = {}
    for name, tensor in load_tensors(source).items():
        while name.startswith(PREFIXES):
            name = name.split(".", 1)[1]
        found[name] = tensor
    if "shift" in found:
        raise EncoderError(
            f"{source}: is an encoder that vavl_sb exported; it needs no "
            "import: give it to a recipe as it is"
        )
    with torch.device("meta"):
        wanted = create_backbone().state_dict()
    parts = {name.split(".")[0] for name in wanted}
    left_out = check_fit(source, MODEL, found, wanted, parts)
    tensors = {name: found[name] for name in wanted if name in found}
    write_atomically(
        target,
        save(owned(tensors), {"format": "pt", "model": MODEL}),
    )
    return target, left_out


def new_path(path):
    """A path to write to, at which nothing stands.

    Arguments
    ---------
    path : str or Path
        File or folder.

    Returns
    -------
    Path
    """
    path = Path(path)
    if path.exists():
        raise EncoderError(f"{path}: exists; remove it, or give another OUT")
    return path


def check_fit(source, model, found, wanted, parts):
    """Compares names and shapes with those of the network.

    Arguments
    ---------
    source : str or Path
        Where the tensors are from, for messages.
    model : str
        Name of the network, for messages.
    found : dict
        Names to tensors.
    wanted : dict
        Names to tensors of the network, which may be without memory.
    parts : set of str
        First parts of names that features depend on: all in them must fit.

    Returns
    -------
    list of str
        Names outside of these parts.

    Raises
    ------
    EncoderError
        In one line: all that is missing, unknown or of another shape.

    Example
    -------
    >>> one, two = torch.ones(1), torch.ones(2)
    >>> check_fit("f", "net", {"a.w": one, "b": one}, {"a.w": two}, {"a"})
    Traceback (most recent call last):
    vavl_sb.utils.errors.EncoderError: f: does not fit net: 1 of another shape (a.w is (1,), not (2,)); give weights of that network
    """
    missing = [
        name
        for name in wanted
        if name not in found and not name.endswith("num_batches_tracked")
    ]
    others = [name for name in found if name not in wanted]
    unknown = [name for name in others if name.split(".")[0] in parts]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    faults = [
        f"{len(names)} {kind} ({_some(names)})"
        for kind, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", shapes),
        )
        if names
    ]
    if faults:
        raise EncoderError(
            f"{source}: does not fit {model}: {', '.join(faults)}; give "
            "weights of that network"
        )
    return sorted(others)


def owned(tensors):
    """Tensors as they are written: float32 where they are floats, none of
    them sharing memory.

    Arguments
    ---------
    tensors : dict
        Names to tensors.

    Returns
    -------
    dict
        Names to tensors.
    """
    ready, seen = {}, set()
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensor = tensor.float()
        tensor = tensor.contiguous()
        place = tensor.untyped_storage().data_ptr()
        ready[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return ready


def _some(names):
    """The first few of some names."""
    more = ["..."] if len(names) > TOLD else []
    return ", ".join([*names[:TOLD], *more])
