"""From an exported model's plain data to the objects that it names.

See :mod:`vavl_sb.training.model_file` for what an untrusted model may say. Nothing
is allocated before the sizes in ``model.json`` are those of the weights.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.training.model_file import (
    AUDIO_ENCODER,
    ENCODER_FILES,
    MODEL,
    SPEAKERS,
    WEIGHTS,
    check_file,
    check_parts,
    find_class,
    read_model,
)
from vavl_sb.utils.errors import EncoderError, VAVLError
from vavl_sb.utils.weights import load_weights


def load_parts(
    folder: str | Path, overrides: dict | None = None
) -> tuple[dict, dict]:
    """The modules of a model that nobody has to trust, and what it says.

    Gives ``vavl``, ``audio_encoder`` and ``visual_encoder``, and of a model
    that was trained with it ``speaker_normalizer``; and ``task``, ``labels``,
    ``corpus``, ``attribute_range``, ``trained_heads``, ``temperatures`` and
    ``feature_extractor``. Overrides are values in place of those in model.json,
    such as ``{"feature_extractor": {"arguments": {"frame_rate": 5.0}}}``.
    EncoderError, in one line: what is not let through, is missing, or does not
    fit.
    """
    folder = Path(folder)
    model = _overridden(read_model(folder), overrides or {})
    check_parts(model, folder / MODEL)
    _check_files(model, folder)
    kind = find_class(model["network"]["class"])
    network = model["network"]["arguments"]
    _check_sizes(kind, network, folder / WEIGHTS)
    net = kind(**network)
    load_weights(net, folder / WEIGHTS)
    audio_encoder = _make(model, "audio_encoder", folder)
    visual_encoder = _make(model, "visual_encoder", folder)
    extractor = find_class(model["feature_extractor"]["class"])(
        audio_encoder,
        visual_encoder,
        _make(model, "face_tracker", folder),
        **model["feature_extractor"]["arguments"],
    )
    check_dims(net, extractor)
    modules = {
        "vavl": net,
        "audio_encoder": audio_encoder,
        "visual_encoder": visual_encoder,
    }
    if "speaker_normalization" in model:
        modules["speaker_normalizer"] = _speaker_normalization(model, folder)
        check_dims(modules["speaker_normalizer"], extractor)
    plain = (
        *("task", "labels", "corpus", "attribute_range"),
        *("trained_heads", "temperatures"),
    )
    hparams = {key: model[key] for key in plain}
    return modules, {**hparams, "feature_extractor": extractor}


def check_dims(net: torch.nn.Module, extractor: FeatureExtractor) -> None:
    """Refuses a model whose encoders are not those of its network."""
    for modality in MODALITIES:
        given = extractor.dim(modality)
        wanted = net.settings[f"{modality}_dim"]
        if given != wanted:
            raise EncoderError(
                f"the model's {modality} encoder gives {given} "
                f"numbers a frame, but its network reads {wanted}; export it "
                "again"
            )


def read_weights(module: torch.nn.Module) -> None:
    """Reads all weights of a network or of encoders into memory.

    Loaders map files of weights, whose pages come from the disk when a clip
    first needs them: in the middle of the first answer.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        # Others (lazy, quantized) need not come from a file at all.
        if type(tensor.data) is torch.Tensor and tensor.is_floating_point():
            if tensor.device.type == "cpu" and tensor.element_size() > 1:
                tensor.detach().sum()


def _overridden(model, changes):
    """A model's data with other values; all names must be there already."""
    changed = dict(model)
    for key, value in changes.items():
        if key not in model:
            raise VAVLError(
                f"overrides: {key!r} is none of {', '.join(model)}; leave it "
                "out, or load a model that you trust with trust=True"
            )
        nested = isinstance(value, dict) and key != "arguments"
        if nested:
            value = _overridden(model[key], value)
        elif isinstance(value, dict):
            value = {**model[key], **value}
        changed[key] = value
    return changed


def _make(model, part, folder):
    """One part; what names a file gets it within the model's folder."""
    arguments = dict(model[part]["arguments"])
    for key in ("source", "weights"):
        if key in arguments:
            arguments[key] = str(folder / arguments[key])
    return find_class(model[part]["class"])(**arguments)


def _speaker_normalization(model, folder):
    """The speaker normalization, of a size that its file has."""
    made = model["speaker_normalization"]
    kind, settings = find_class(made["class"]), made["arguments"]
    _check_sizes(kind, settings, folder / SPEAKERS)
    normalization = kind(**settings)
    load_weights(normalization, folder / SPEAKERS)
    for name, values in normalization.named_buffers():
        least = values.min() if values.numel() else torch.tensor(1.0)
        if ("within" in name and least <= 0) or (
            "between" in name and least < 0
        ):
            raise EncoderError(
                f"{folder / SPEAKERS}: {name} is no variance; export the "
                "model again"
            )
    return normalization


def _check_files(model, folder):
    """Refuses files that are missing, are none, or that no export has."""
    check_file(folder / WEIGHTS)
    if "speaker_normalization" in model:
        check_file(folder / SPEAKERS)
    weights = model["visual_encoder"]["arguments"].get("weights")
    if weights is not None:
        check_file(folder / weights)
    if model["audio_encoder"]["class"] == "Precomputed":
        return
    encoder = folder / AUDIO_ENCODER
    if not encoder.is_dir():
        check_file(encoder)
        raise EncoderError(f"{encoder}: is not a folder; export it again")
    for path in sorted(encoder.iterdir()):
        check_file(path)
        if path.name not in ENCODER_FILES:
            raise EncoderError(
                f"{path}: no speech encoder that vavl_sb exports has such a "
                "file; export the model again"
            )


def _check_sizes(kind, settings, path):
    """Refuses settings that are not those of the weights."""
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
    for name in ("encoder_layers", "shared_layers"):
        if settings.get(name, 0) > len(found):
            raise EncoderError(
                f"{path.with_name(MODEL)}: {name} is {settings[name]}, which does "
                "not fit the weights; export the model again"
            )
    try:
        # On no device: shapes without memory.
        with torch.device("meta"):
            net = kind(**settings)
    except (VAVLError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{path.with_name(MODEL)}: no network has these settings ({reason}); "
            "export the model again"
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
            f"missing, unknown or of another shape, first {faults[0][:200]})"
        )
