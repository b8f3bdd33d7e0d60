"""Published weights of encoders, read safely and checked name by name."""

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
# torch's old names of a weight's norm and direction, and its new ones.
RENAMED = {
    f"{POSITIONS}weight_g": f"{POSITIONS}parametrizations.weight.original0",
    f"{POSITIONS}weight_v": f"{POSITIONS}parametrizations.weight.original1",
}
MOST_LAYERS = 128
# Of facebook/wav2vec2-large-robust, which VAVL fine-tuned.
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
    """Writes the weights of an EfficientNet-B2 as safetensors.

    The source is HSEmotion's ``enet_b2_8_best.pt`` or another pickled module or
    state dict of timm's ``tf_efficientnet_b2``, or safetensors; the target, for
    ``VisualEncoder(weights=target)``, is by default the source with the ending
    .safetensors. Gives it, and names in the source that features do not depend
    on: the classifier. EncoderError, in one line: what cannot be read, or which
    names and shapes do not fit. Then nothing is written.
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
    """Writes a Hugging Face folder of a wav2vec 2.0, such as VAVL's
    ``final_wav2vec.pt``.

    The source is a state dict of transformers' ``Wav2Vec2Model`` of any number
    of layers, alone or within a larger model, by ``torch.save`` or as
    safetensors; the target, for ``AudioEncoder(source=target)``, is by default
    the source without its ending. ``config_folder`` has the config.json of the
    model, or of one that differs in the number of layers only; None: that of
    wav2vec2-large-robust. Gives the target, and names in the source that
    features do not depend on. EncoderError, in one line: what cannot be read, or
    which names and shapes do not fit. Then nothing is written.
    """
    source = Path(source)
    target = _new_path(target or source.with_suffix(""))
    found, left_out = _find_root(source, load_tensors(source))
    config, wanted = _make_network(source, found, config_folder)
    model = "the wav2vec2 of --config"
    if config_folder is None:
        model = "wav2vec2-large-robust (for another give --config)"
    left_out += check_fit(source, model, found, wanted, PARTS)
    tensors = {key: found[key] for key in wanted if key in found}
    _write(target, config, _owned(tensors), config_folder)
    return target, sorted(left_out)


def _new_path(path: str | Path) -> Path:
    """A path to write to, at which nothing stands."""
    path = Path(path)
    if path.exists():
        raise EncoderError(f"{path}: exists; remove it, or give another OUT")
    return path


def _owned(tensors: Tensors) -> Tensors:
    """Tensors as they are written: float32 where they are floats, none of
    them sharing memory."""
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
    """The tensors of the wav2vec 2.0 by their own names, and other names."""
    roots = [name for name in state if f".{name}".endswith(f".{FIRST}")]
    if len(roots) != 1:
        raise EncoderError(
            f"{source}: has {len(roots)} tensors {FIRST}, not one; give the "
            "state dict of one wav2vec2"
        )
    root = roots[0].removesuffix(FIRST)
    found = {
        RENAMED.get(name.removeprefix(root), name.removeprefix(root)): tensor
        for name, tensor in state.items()
        if name.startswith(root)
    }
    # What features do not depend on, and what may be absent.
    found.pop("masked_spec_embed", None)
    return found, [name for name in state if not name.startswith(root)]


def _make_network(
    source: Path, found: Tensors, folder: str | Path | None
) -> tuple[Any, Tensors]:
    """transformers' configuration, and the network's tensors, without memory.

    No layer at all is left for :func:`check_fit` to tell.
    """
    try:
        from transformers import Wav2Vec2Config, Wav2Vec2Model
    except ImportError:
        raise EncoderError(
            "vavl import-audio needs the package transformers; "
            'pip install "vavl_sb[ssl]"'
        ) from None
    # Counted, since a name can hold any number; check_fit tells of a gap.
    layers = {
        name.split(".")[2]
        for name in found
        if name.startswith("encoder.layers.")
    }
    settings: dict[str, Any] = dict(LARGE_ROBUST)
    if folder is not None:
        settings = read_config(folder)
        if settings.pop("model_type") != "wav2vec2":
            raise EncoderError(f"{folder}: is not the config of a wav2vec2")
    settings["num_hidden_layers"] = min(max(1, len(layers)), MOST_LAYERS)
    settings.pop("vavl_sb", None)
    # transformers and torch refuse sizes with errors of many kinds.
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
    """Writes the folder, whole or not at all."""
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
