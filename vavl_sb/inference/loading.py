"""Creates the objects of an exported model from model.json and safetensors.

:mod:`vavl_sb.training.model_file` defines what an untrusted model may contain.
No memory is allocated before the sizes in ``model.json`` match the weights.
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

# Keys of model.json that are hparams of the recognizer.
HPARAMS = (
    "task",
    "labels",
    "corpus",
    "attribute_range",
    "trained_heads",
    "temperatures",
)


def load_parts(
    folder: str | Path, overrides: dict | None = None
) -> tuple[dict, dict]:
    """Loads the modules and hparams of an untrusted model.

    Modules are ``vavl``, ``audio_encoder``, ``visual_encoder`` and, if trained
    with speaker normalization, ``speaker_normalizer``. Hparams are ``task``,
    ``labels``, ``corpus``, ``attribute_range``, ``trained_heads``,
    ``temperatures`` and ``feature_extractor``. ``overrides`` replaces values of
    model.json, such as
    ``{"feature_extractor": {"arguments": {"frame_rate": 5.0}}}``. Raises
    EncoderError if anything is not allowed, missing, or does not fit.
    """
    folder = Path(folder)
    model = _overridden(read_model(folder), overrides or {})
    check_parts(model, folder / MODEL)
    _check_files(model, folder)
    cls = find_class(model["network"]["class"])
    settings = model["network"]["arguments"]
    _check_sizes(cls, settings, folder / WEIGHTS)
    net = cls(**settings)
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
    hparams = {key: model[key] for key in HPARAMS}
    return modules, {**hparams, "feature_extractor": extractor}


def check_dims(net: torch.nn.Module, extractor: FeatureExtractor) -> None:
    """Refuses a model whose feature sizes differ between encoder and
    network."""
    for modality in MODALITIES:
        size = extractor.dim(modality)
        expected = net.settings[f"{modality}_dim"]
        if size != expected:
            raise EncoderError(
                f"the model's {modality} encoder gives {size} "
                f"numbers a frame, but its network reads {expected}; export it "
                "again"
            )


def read_weights(module: torch.nn.Module) -> None:
    """Reads memory-mapped weights now, so that the first prediction does not
    wait for the disk."""
    for tensor in (*module.parameters(), *module.buffers()):
        # Lazy and quantized tensors may not be backed by a file.
        if type(tensor.data) is torch.Tensor and tensor.is_floating_point():
            if tensor.device.type == "cpu" and tensor.element_size() > 1:
                tensor.detach().sum()


def _overridden(model, changes):
    """Returns model data with values replaced; all keys must exist."""
    changed = dict(model)
    for key, value in changes.items():
        if key not in model:
            raise VAVLError(
                f"overrides: {key!r} is not one of {', '.join(model)}; leave "
                "it out, or load a model that you trust with trust=True"
            )
        nested = isinstance(value, dict) and key != "arguments"
        if nested:
            value = _overridden(model[key], value)
        elif isinstance(value, dict):
            value = {**model[key], **value}
        changed[key] = value
    return changed


def _make(model, part, folder):
    """Creates one part, with its files taken from the model's folder."""
    arguments = dict(model[part]["arguments"])
    for key in ("source", "weights"):
        if key in arguments:
            arguments[key] = str(folder / arguments[key])
    return find_class(model[part]["class"])(**arguments)


def _speaker_normalization(model, folder):
    """Loads the speaker normalization and checks its variances."""
    part = model["speaker_normalization"]
    cls, settings = find_class(part["class"]), part["arguments"]
    _check_sizes(cls, settings, folder / SPEAKERS)
    normalization = cls(**settings)
    load_weights(normalization, folder / SPEAKERS)
    for name, values in normalization.named_buffers():
        least = values.min() if values.numel() else torch.tensor(1.0)
        if ("within" in name and least <= 0) or (
            "between" in name and least < 0
        ):
            raise EncoderError(
                f"{folder / SPEAKERS}: {name} is not a variance; export the "
                "model again"
            )
    return normalization


def _check_files(model, folder):
    """Refuses missing files, and files that no export contains."""
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
                f"{path}: is not a file of an exported speech encoder; export "
                "the model again"
            )


def _check_sizes(cls, settings, path):
    """Refuses settings that do not match the shapes of the weights."""
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {
                name: list(file.get_slice(name).get_shape())
                for name in file.keys()
            }
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"{path}: weights cannot be read ({error})"
        ) from None
    for name in ("encoder_layers", "shared_layers"):
        if settings.get(name, 0) > len(shapes):
            raise EncoderError(
                f"{path.with_name(MODEL)}: {name} is {settings[name]}, which does "
                "not fit the weights; export the model again"
            )
    try:
        # The meta device has shapes without memory.
        with torch.device("meta"):
            net = cls(**settings)
    except (VAVLError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{path.with_name(MODEL)}: invalid settings of the network "
            f"({reason}); export the model again"
        ) from None
    expected = {name: list(t.shape) for name, t in net.state_dict().items()}
    faults = sorted(
        name
        for name in {*expected, *shapes}
        if expected.get(name) != shapes.get(name)
    )
    if faults:
        raise EncoderError(
            f"{path}: weights do not fit the network ({len(faults)} tensors "
            f"missing, unknown or of another shape, first {faults[0][:200]})"
        )
