"""A wav2vec 2.0 from a state dict alone, such as VAVL's final_wav2vec.pt.

The shapes tell most of the configuration; the rest is as in all published
wav2vec 2.0 models, or comes from the configuration of one.

Authors
 * The vavl_sb authors 2026
"""

from pathlib import Path

import torch

from vavl_sb.lobes.hf_config import read_config, read_preprocessor
from vavl_sb.lobes.import_weights import check_fit, new_path, owned
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import write_folder
from vavl_sb.utils.weights import load_tensors, save_tensors

FIRST = "feature_extractor.conv_layers.0.conv.weight"
PARTS = {"feature_extractor", "feature_projection", "encoder"}
POSITIONS = "encoder.pos_conv_embed.conv."
# torch's old names of a weight's norm and direction, and its new ones.
RENAMED = {
    f"{POSITIONS}weight_g": f"{POSITIONS}parametrizations.weight.original0",
    f"{POSITIONS}weight_v": f"{POSITIONS}parametrizations.weight.original1",
}
HEAD_SIZE = 64
STRIDES = (5, 2, 2, 2, 2, 2, 2)


def import_audio(source, target=None, config_folder=None):
    """Writes a Hugging Face folder of a wav2vec 2.0.

    Arguments
    ---------
    source : str or Path
        State dict of transformers' ``Wav2Vec2Model`` of any number of layers,
        alone or within a larger model, by ``torch.save`` or as safetensors.
    target : str or Path
        The folder to write; None: ``source`` without its ending.
    config_folder : str or Path
        Folder with the config.json of the model, or of one that differs in
        the number of layers only; None: it is told from the shapes.

    Returns
    -------
    target : Path
        The folder, for ``AudioEncoder(source=target)``.
    left_out : list of str
        Names in the source that features do not depend on.

    Raises
    ------
    EncoderError
        In one line: what cannot be read, or which names and shapes do not
        fit. Then nothing is written.
    """
    source = Path(source)
    target = new_path(target or source.with_suffix(""))
    found, left_out = _find_root(source, load_tensors(source))
    config = _make_config(source, found, config_folder)
    wanted, name = _expected(config), "wav2vec2"
    left_out += check_fit(source, name, found, wanted, PARTS)
    tensors = {key: found[key] for key in wanted if key in found}
    _write(target, config, owned(tensors), config_folder)
    return target, sorted(left_out)


def _find_root(source, state):
    """The tensors of the wav2vec 2.0 by their own names, and other names."""
    roots = [name for name in state if f".{name}".endswith(f".{FIRST}")]
    if len(roots) != 1:
        raise EncoderError(
            f"{source}: has {len(roots)} tensors {FIRST}, not one; give the "
            "state dict of one wav2vec2"
        )
    root = roots[0].removesuffix(FIRST)
    found, others = {}, []
    for name, tensor in state.items():
        if name.startswith(root):
            name = name.removeprefix(root)
            found[RENAMED.get(name, name)] = tensor
        else:
            others.append(name)
    # What features do not depend on, and what may be absent.
    found.pop("masked_spec_embed", None)
    return found, others


def _make_config(source, found, folder):
    """transformers' configuration of the network."""
    try:
        from transformers import Wav2Vec2Config
    except ImportError:
        raise EncoderError(
            "vavl import-audio needs the package transformers; "
            'pip install "vavl_sb[ssl]"'
        ) from None
    # No layer at all is left for check_fit to tell.
    layers = 1 + max(
        (
            int(name.split(".")[2])
            for name in found
            if name.startswith("encoder.layers.")
            and name.split(".")[2].isdigit()
        ),
        default=0,
    )
    if folder is None:
        settings = _settings(source, found)
    else:
        settings = read_config(folder)
        if settings.pop("model_type") != "wav2vec2":
            raise EncoderError(f"{folder}: is not the config of a wav2vec2")
    settings["num_hidden_layers"] = layers
    settings.pop("vavl_sb", None)
    try:
        return Wav2Vec2Config(**settings)
    # transformers refuses values with errors of many kinds.
    except Exception as error:
        raise EncoderError(
            f"{source}: no wav2vec2 has such sizes "
            f"({' '.join(str(error).split())[:150]}); give --config"
        ) from None


def _settings(source, found):
    """What the shapes tell.

    The strides, and whether the LayerNorms stand before or after the layers,
    cannot be told: they are as in the published models, of which those with a
    LayerNorm in each convolution (large-robust, lv60, XLSR) have them before.
    """
    try:
        width, _ = found["feature_projection.projection.weight"].shape
        positions = f"{POSITIONS}parametrizations.weight.original1"
        _, per_group, kernel = found[positions].shape
        inner = "encoder.layers.0.feed_forward.intermediate_dense.weight"
        convolutions = [
            found[f"feature_extractor.conv_layers.{index}.conv.weight"].shape
            for index in range(len(STRIDES))
        ]
        channels = [shape[0] for shape in convolutions]
        kernels = [shape[2] for shape in convolutions]
        intermediate_size = len(found[inner])
        groups = width // per_group
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise EncoderError(
            f"{source}: has no usable {error} to tell the network's sizes "
            "from; give --config FOLDER with its config.json"
        ) from None
    if width % HEAD_SIZE:
        raise EncoderError(
            f"{source}: {width} numbers are not heads of {HEAD_SIZE}; give "
            "--config FOLDER with its config.json"
        )
    each = "feature_extractor.conv_layers.1.layer_norm.weight" in found
    return {
        "hidden_size": width,
        "num_attention_heads": width // HEAD_SIZE,
        "intermediate_size": intermediate_size,
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": list(STRIDES),
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in found,
        "num_conv_pos_embeddings": kernel,
        "num_conv_pos_embedding_groups": groups,
        "feat_extract_norm": "layer" if each else "group",
        "do_stable_layer_norm": each,
    }


def _expected(config):
    """Names and shapes of the network's tensors."""
    from transformers import Wav2Vec2Model

    try:
        with torch.device("meta"):
            wanted = Wav2Vec2Model(config).state_dict()
    # Sizes that do not go together fail somewhere in torch.
    except Exception as error:
        raise EncoderError(
            "wav2vec2: no network has such sizes "
            f"({' '.join(str(error).split())[:150]}); give --config"
        ) from None
    return {
        name: tensor
        for name, tensor in wanted.items()
        if name.split(".")[0] in PARTS
    }


def _write(target, config, tensors, config_folder):
    """Writes the folder, whole or not at all."""
    from transformers import Wav2Vec2FeatureExtractor

    config.architectures = ["Wav2Vec2Model"]
    config.dtype = "float32"
    settings = {
        "do_normalize": True,
        "return_attention_mask": config.feat_extract_norm == "layer",
    }
    if (
        config_folder
        and Path(config_folder, "preprocessor_config.json").exists()
    ):
        settings = read_preprocessor(config_folder, "Wav2Vec2FeatureExtractor")
    extractor = Wav2Vec2FeatureExtractor(**settings)
    with write_folder(target) as part:
        part.mkdir(parents=True)
        config.save_pretrained(part)
        extractor.save_pretrained(part)
        save_tensors(tensors, part / "model.safetensors", {"format": "pt"})
