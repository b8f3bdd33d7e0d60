"""Where a model comes from, and whether its parts fit each other.

Authors
 * The vavl_sb authors 2026
"""

import torch
import yaml
from safetensors import SafetensorError, safe_open

from vavl_sb.lobes.vavl import VAVL
from vavl_sb.utils.errors import EncoderError, VAVLError

HPARAMS = "hyperparams.yaml"
WEIGHTS = "vavl.safetensors"

# No width or number of classes comes near it.
LARGEST = 2**16


class _Plain(yaml.SafeLoader):
    """Reads every tagged node as what it would be without its tag."""


def _untagged(loader, suffix, node):
    """A tagged node's plain content."""
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


_Plain.add_multi_constructor("!", _untagged)


def read_plain(path):
    """A model's hyperparams.yaml as plain data: no object is made.

    Arguments
    ---------
    path : Path
        The file.

    Returns
    -------
    dict
        What is tagged (``!new:``, ``!ref``) stands there without its tag.

    Raises
    ------
    EncoderError
        In one line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "hyperparams.yaml"
    >>> _ = path.write_text("net: !new:torch.nn.Linear\\n  in_features: 2\\n")
    >>> read_plain(path)
    {'net': {'in_features': 2}}
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_Plain)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{path}: cannot be read ({reason}); export the model again"
        ) from None
    if not isinstance(found, dict):
        raise EncoderError(f"{path}: has no keys; export the model again")
    return found


def check_sizes(folder):
    """Refuses a model whose weights do not fit its YAML, before either is used.

    Arguments
    ---------
    folder : Path
        The model's.

    Raises
    ------
    EncoderError
        In one line.
    """
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            found = {
                name: list(file.get_slice(name).get_shape())
                for name in file.keys()
            }
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"{path}: weights cannot be read ({error})"
        ) from None
    plain = read_plain(folder / HPARAMS)
    settings, labels = plain.get("vavl"), plain.get("labels")
    if not isinstance(settings, dict) or not isinstance(labels, list):
        raise EncoderError(
            f"{folder / HPARAMS}: has no vavl or no labels; export it again"
        )
    _check_numbers(settings, len(found), folder / HPARAMS)
    if len(labels) != settings.get("num_outputs"):
        raise EncoderError(
            f"{folder / HPARAMS}: {len(labels)} labels, but "
            f"{settings.get('num_outputs')} outputs; export it again"
        )
    try:
        # On no device: shapes without memory.
        with torch.device("meta"):
            net = VAVL(**settings)
    except (VAVLError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{folder / HPARAMS}: no network has these settings ({reason}); "
            "export it again"
        ) from None
    wanted = {name: list(t.shape) for name, t in net.state_dict().items()}
    faults = sorted(
        name
        for name in {*wanted, *found}
        if wanted.get(name) != found.get(name)
    )
    if faults:
        raise EncoderError(
            f"{path}: weights do not fit the network ({len(faults)} tensors "
            f"missing, unknown or of another shape, first {faults[0]})"
        )


def _check_numbers(settings, tensors, path):
    """Refuses what would take forever to build."""
    for name, value in settings.items():
        if value is not None and not isinstance(value, (int, float)):
            raise EncoderError(
                f"{path}: {name} of the network is {value!r}, not a number"
            )
        limit = tensors if name.endswith("_layers") else LARGEST
        if value is not None and not 0 <= value <= limit:
            raise EncoderError(
                f"{path}: {name} of the network is {value}, which does not "
                "fit its weights"
            )


def check_dims(hparams):
    """Refuses a model whose encoders are not those of its network.

    Arguments
    ---------
    hparams : SimpleNamespace
        Of the loaded model.

    Raises
    ------
    EncoderError
        In one line.
    """
    if not isinstance(getattr(hparams, "vavl", None), VAVL):
        return  # Of a YAML that was trusted.
    for modality in ("audio", "visual"):
        encoder = getattr(hparams.feature_extractor, f"{modality}_encoder")
        wanted = hparams.vavl.settings[f"{modality}_dim"]
        if encoder.output_dim != wanted:
            raise EncoderError(
                f"the model's {modality} encoder gives {encoder.output_dim} "
                f"numbers a frame, but its network reads {wanted}; export it "
                "again"
            )


def read_weights(module):
    """Reads all weights into memory.

    Loaders map files of weights, whose pages come from the disk when a clip
    first needs them: in the middle of the first answer.

    Arguments
    ---------
    module : torch.nn.Module
        Network or encoders.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        # Others (lazy, quantized) need not come from a file at all.
        if type(tensor.data) is torch.Tensor and tensor.is_floating_point():
            if tensor.device.type == "cpu" and tensor.element_size() > 1:
                tensor.detach().sum()
