"""Converts published encoder weights to safetensors and checks their names and
shapes."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from vavl_sb.lobes.hf_config import read_config, read_preprocessor
from vavl_sb.lobes.visual_encoder import MODEL, read_backbone
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import write_atomically, write_folder
from vavl_sb.utils.weights import Tensors, check_fit, load_tensors, save_tensors

FIRST = "feature_extractor.conv_layers.0.conv.weight"
PARTS = {"feature_extractor", "feature_projection", "encoder"}
POSITIONS = "encoder.pos_conv_embed.conv."
# Names of torch.nn.utils.weight_norm, and of its parametrization.
RENAMED = {
    f"{POSITIONS}weight_g": f"{POSITIONS}parametrizations.weight.original0",
    f"{POSITIONS}weight_v": f"{POSITIONS}parametrizations.weight.original1",
}
MOST_LAYERS = 128
# Configuration of facebook/wav2vec2-large-robust, which VAVL fine-tuned.
LARGE_ROBUST = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}


def import_visual(
    source: str | Path, target: str | Path | None = None
) -> tuple[Path, list[str]]:
    """Converts the weights of an EfficientNet-B2 to safetensors.

    The source is HSEmotion's ``enet_b2_8_best.pt``, or another pickled module,
    state dict or safetensors file of timm's ``tf_efficientnet_b2``. The target,
    for ``VisualEncoder(weights=target)``, is by default the source with the
    suffix .safetensors. Returns it, and the names of the tensors not written:
    the classifier's. Raises an EncoderError, and writes nothing, if the source
    cannot be read, or names or shapes do not fit.
    """
    source = Path(source)
    target = _new_path(target or source.with_suffix(".safetensors"))
    tensors, left_out = read_backbone(source)
    content = save(_owned(tensors), {"format": "pt", "model": MODEL})
    write_atomically(target, content)
    return target, left_out


def import_audio(
    source: str | Path,
    target: str | Path | None = None,
    config_folder: str | Path | None = None,
) -> tuple[Path, list[str]]:
    """Converts the weights of a wav2vec 2.0, such as VAVL's
    ``final_wav2vec.pt``, to a Hugging Face folder.

    The source is a state dict of transformers' ``Wav2Vec2Model`` with any
    number of layers, alone or within a larger model, from ``torch.save`` or as
    safetensors. The target, for ``AudioEncoder(source=target)``, is by default
    the source without its suffix. ``config_folder`` has the model's
    config.json, in which the number of layers may differ; None: that of
    wav2vec2-large-robust. Returns the target, and the names of the tensors not
    written, which features do not depend on. Raises an EncoderError as
    :func:`import_visual` does.
    """
    source = Path(source)
    target = _new_path(target or source.with_suffix(""))
    tensors, left_out = _find_root(source, load_tensors(source))
    config, wanted = _make_network(source, tensors, config_folder)
    model = "the wav2vec2 of --config"
    if config_folder is None:
        model = "wav2vec2-large-robust (for another give --config)"
    left_out += check_fit(source, model, tensors, wanted, PARTS)
    tensors = {key: tensors[key] for key in wanted if key in tensors}
    _write(target, config, _owned(tensors), config_folder)
    return target, sorted(left_out)


def _new_path(path: str | Path) -> Path:
    """Raises an error if the output path exists."""
    path = Path(path)
    if path.exists():
        raise EncoderError(f"{path}: exists; remove it, or give another OUT")
    return path


def _owned(tensors: Tensors) -> Tensors:
    """Converts floats to float32 and copies tensors that share memory."""
    ready, seen = {}, set()
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensor = tensor.float()
        tensor = tensor.contiguous()
        place = tensor.untyped_storage().data_ptr()
        ready[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return ready


def _find_root(source: Path, state: Tensors) -> tuple[Tensors, list[str]]:
    """Returns the wav2vec 2.0's tensors without their prefix, and the names of
    all other tensors."""
    roots = [name for name in state if f".{name}".endswith(f".{FIRST}")]
    if len(roots) != 1:
        raise EncoderError(
            f"{source}: has {len(roots)} tensors {FIRST}, not one; give the "
            "state dict of one wav2vec2"
        )
    root = roots[0].removesuffix(FIRST)
    tensors = {
        RENAMED.get(name.removeprefix(root), name.removeprefix(root)): tensor
        for name, tensor in state.items()
        if name.startswith(root)
    }
    # Used in training only, and not in every checkpoint.
    tensors.pop("masked_spec_embed", None)
    return tensors, [name for name in state if not name.startswith(root)]


def _make_network(
    source: Path, tensors: Tensors, folder: str | Path | None
) -> tuple[Any, Tensors]:
    """Returns transformers' configuration and the network's tensors on the meta
    device; if ``tensors`` has no layers, :func:`check_fit` reports it later."""
    try:
        from transformers import Wav2Vec2Config, Wav2Vec2Model
    except ImportError:
        raise EncoderError(
            "vavl import-audio needs the package transformers; "
            'pip install "vavl_sb[ssl]"'
        ) from None
    # Counted, since a name may contain any number; check_fit reports gaps.
    layers = {
        name.split(".")[2]
        for name in tensors
        if name.startswith("encoder.layers.")
    }
    settings: dict[str, Any] = dict(LARGE_ROBUST)
    if folder is not None:
        settings = read_config(folder)
        if settings.pop("model_type") != "wav2vec2":
            raise EncoderError(f"{folder}: is not the config of a wav2vec2")
    settings["num_hidden_layers"] = min(max(1, len(layers)), MOST_LAYERS)
    settings.pop("vavl_sb", None)
    # transformers and torch raise many kinds of errors for invalid sizes.
    try:
        config = Wav2Vec2Config(**settings)
        with torch.device("meta"):
            wanted = Wav2Vec2Model(config).state_dict()
    except Exception as error:
        raise EncoderError(
            f"{source}: no wav2vec2 has such sizes "
            f"({' '.join(str(error).split())[:150]}); give --config"
        ) from None
    return config, {k: t for k, t in wanted.items() if k.split(".")[0] in PARTS}


def _write(
    target: Path, config: Any, tensors: Tensors, folder: str | Path | None
) -> None:
    """Writes the Hugging Face folder atomically."""
    from transformers import Wav2Vec2FeatureExtractor

    config.architectures = ["Wav2Vec2Model"]
    config.dtype = "float32"
    settings = {
        "do_normalize": True,
        "return_attention_mask": config.feat_extract_norm == "layer",
    }
    if folder and Path(folder, "preprocessor_config.json").exists():
        settings = read_preprocessor(folder, "Wav2Vec2FeatureExtractor")
    with write_folder(target) as part:
        part.mkdir(parents=True)
        config.save_pretrained(part)
        Wav2Vec2FeatureExtractor(**settings).save_pretrained(part)
        save_tensors(tensors, part / "model.safetensors", {"format": "pt"})
