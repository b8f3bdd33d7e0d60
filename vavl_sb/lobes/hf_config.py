"""Configurations of pretrained speech encoders, as checked plain values.

A config.json can name code, other folders and other base models, and sizes
that no memory holds. What features or fine-tuning depend on is listed here with
its bounds, and alone is handed to transformers; any other key has no effect.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vavl_sb.utils.errors import EncoderError

Check = Callable[[Any], bool]

# Whisper's old preprocessor_config.json has its mel filters in it.
LARGEST_FILE = 2**22


def whole(low: int, high: int) -> Check:
    """A whole number within bounds."""
    return lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Check:
    """A number within bounds; NaN is in none."""
    return lambda value: type(value) in (int, float) and low <= value <= high


def one_of(*words: str) -> Check:
    """One of some words."""
    return lambda value: type(value) is str and value in words


def each(check: Check) -> Check:
    """A list of one to sixteen values."""
    return lambda value: (
        type(value) is list and 0 < len(value) <= 16 and all(map(check, value))
    )


def flag(value: Any) -> bool:
    """True or False."""
    return type(value) is bool


WIDTH, LAYERS, HEADS = whole(1, 2**15), whole(1, 128), whole(1, 32)
SHARE, EPSILON = number(0, 1), number(1e-12, 0.1)
ACTIVATION = one_of(
    *("gelu", "gelu_new", "gelu_fast", "gelu_python", "quick_gelu"),
    *("relu", "selu", "silu", "swish", "tanh"),
)
DROPOUTS = dict.fromkeys(
    ("activation_dropout", "attention_dropout", "dropout"), SHARE
)
# What fine-tuning depends on, and features do not.
FINE_TUNING = {
    **DROPOUTS,
    "hidden_dropout": SHARE,
    "feat_proj_dropout": SHARE,
    "mask_time_prob": SHARE,
    "mask_time_length": whole(1, 1000),
    "mask_time_min_masks": whole(0, 1000),
    "mask_feature_prob": SHARE,
    "mask_feature_length": whole(1, 1000),
    "mask_feature_min_masks": whole(0, 1000),
}
TRANSFORMER = {
    **FINE_TUNING,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": WIDTH,
    "hidden_act": ACTIVATION,
    "layer_norm_eps": EPSILON,
    "do_stable_layer_norm": flag,
    "feat_extract_norm": one_of("group", "layer"),
    "feat_extract_activation": ACTIVATION,
    "conv_dim": each(WIDTH),
    "conv_stride": each(whole(1, 100)),
    "conv_kernel": each(whole(1, 1000)),
    "conv_bias": flag,
    "num_conv_pos_embeddings": whole(1, 4096),
    "num_conv_pos_embedding_groups": HEADS,
}
# What each kind's constructor gets.
CONFIGS: dict[str, dict[str, Check]] = {
    "wav2vec2": {
        **TRANSFORMER,
        "adapter_attn_dim": lambda value: value is None or WIDTH(value),
    },
    "hubert": {
        **TRANSFORMER,
        "feat_proj_layer_norm": flag,
        "conv_pos_batch_norm": flag,
    },
    "wavlm": {
        **TRANSFORMER,
        "num_buckets": whole(4, 4096),
        "max_bucket_distance": whole(4, 2**16),
    },
    "whisper": {
        **DROPOUTS,
        "d_model": WIDTH,
        "encoder_layers": LAYERS,
        "encoder_attention_heads": HEADS,
        "encoder_ffn_dim": WIDTH,
        "activation_function": ACTIVATION,
        "num_mel_bins": whole(1, 512),
        "max_source_positions": whole(1, 1500),
        "scale_embedding": flag,
    },
    "vavl_logmel": {"hop_ms": whole(10, 20)},
}
# Padding is done here, and mel filters are made from the sizes.
COMMON = {"sampling_rate": whole(1000, 192000)}
PREPROCESSORS: dict[str, dict[str, Check]] = {
    "Wav2Vec2FeatureExtractor": {
        **COMMON,
        "do_normalize": flag,
        "return_attention_mask": flag,
    },
    "WhisperFeatureExtractor": {
        **COMMON,
        "feature_size": whole(1, 512),
        "n_fft": whole(64, 4096),
        "hop_length": whole(80, 1600),
        "chunk_length": whole(1, 60),
    },
}


def read_config(folder: str | Path) -> dict[str, Any]:
    """The checked configuration of a pretrained encoder.

    ``model_type`` and what its constructor gets; ``vavl_sb`` where
    :meth:`AudioEncoder.export` wrote it. EncoderError, in one line: there is
    none, it is not one, or it has a value that no encoder of its kind has.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> path = folder / "config.json"
    >>> _ = path.write_text('{"model_type": "wavlm", "hidden_size": 8}')
    >>> read_config(folder)
    {'model_type': 'wavlm', 'hidden_size': 8}
    >>> _ = path.write_text('{"model_type": "wavlm", "auto_map": {}}')
    >>> read_config(folder)
    {'model_type': 'wavlm'}
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise EncoderError(
            f"audio encoder {folder}: has no config.json; give a folder in "
            "the Hugging Face layout (config.json, model.safetensors)"
        )
    found = _read_object(path)
    kind = found.get("model_type")
    if type(kind) is not str:
        raise EncoderError(
            f"{path}: is not the configuration of a model (JSON with "
            "model_type); copy or download the folder again"
        )
    if kind not in CONFIGS:
        kinds = ", ".join(name for name in CONFIGS if name != "vavl_logmel")
        raise EncoderError(
            f"audio encoder {folder}: model_type {kind[:80]!r} is not "
            f"supported; give one of {kinds}, or use logmel"
        )
    checked = _checked(path, found, CONFIGS[kind])
    mark = {"vavl_sb": {}} if "vavl_sb" in found else {}
    return {"model_type": kind, **checked, **mark}


def read_preprocessor(folder: str | Path, name: str) -> dict[str, Any]:
    """The checked settings of what stands before a pretrained encoder.

    Arguments of the class ``name``, of :data:`PREPROCESSORS`. EncoderError, in
    one line, as in :func:`read_config`.
    """
    path = Path(folder) / "preprocessor_config.json"
    if not path.is_file():
        raise EncoderError(
            f"audio encoder {folder}: cannot be read (it has no "
            f"{path.name}); copy or download the folder again"
        )
    found = _read_object(path)
    if found.get("feature_extractor_type", name) != name:
        raise EncoderError(f"{path}: is not the configuration of a {name}")
    return _checked(path, found, PREPROCESSORS[name])


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ValueError("too large")
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError("no object")
    except (OSError, ValueError, RecursionError):
        raise EncoderError(
            f"{path}: is not the configuration of a model (one JSON object of "
            "at most 4 MB); copy or download the folder again"
        ) from None
    return found


def _checked(
    path: Path, found: dict, checks: dict[str, Check]
) -> dict[str, Any]:
    """The values that are handed on, each as its check wants it."""
    checked = {key: found[key] for key in checks if key in found}
    for key, value in checked.items():
        if not checks[key](value):
            told = type(value).__name__
            if not isinstance(value, (dict, list)):
                told = repr(value)[:80]
            raise EncoderError(
                f"{path}: {key} is {told}, which no encoder of this kind has; "
                "copy or download the folder again"
            )
    return checked
