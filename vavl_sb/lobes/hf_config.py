"""Reads and checks configurations of pretrained speech encoders.

An untrusted config.json may name code, other folders and other base models, or
sizes that exhaust the memory. Only the keys listed here, within their bounds,
are passed to transformers; any other key has no effect.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vavl_sb.utils.errors import EncoderError

Check = Callable[[Any], bool]

# In bytes: Whisper's old preprocessor_config.json contains its mel filters.
LARGEST_FILE = 2**22


def whole(low: int, high: int) -> Check:
    """Checks for an integer within bounds."""
    return lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Check:
    """Checks for a number within bounds; refuses NaN."""
    return lambda value: type(value) in (int, float) and low <= value <= high


def one_of(*words: str) -> Check:
    """Checks for one of the given strings."""
    return lambda value: type(value) is str and value in words


def each(check: Check) -> Check:
    """Checks for a list of one to sixteen values."""
    return lambda value: (
        type(value) is list and 0 < len(value) <= 16 and all(map(check, value))
    )


def flag(value: Any) -> bool:
    """Checks for a boolean."""
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
# Settings that affect fine-tuning, but not the features.
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
# Keys passed to the configuration class of each model type.
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
# Without padding, which this package does itself, and without mel filters,
# which are computed from the sizes.
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
    """Reads and checks the configuration of a pretrained encoder.

    Returns ``model_type`` and the keys of that type in :data:`CONFIGS`, and
    ``vavl_sb`` if :meth:`AudioEncoder.export` wrote it. Raises an EncoderError
    if config.json is missing or invalid, or a value is out of bounds.

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
    config = _read_object(path)
    kind = config.get("model_type")
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
    checked = _checked(path, config, CONFIGS[kind])
    mark = {"vavl_sb": {}} if "vavl_sb" in config else {}
    return {"model_type": kind, **checked, **mark}


def read_preprocessor(folder: str | Path, name: str) -> dict[str, Any]:
    """Reads and checks the preprocessor settings of a pretrained encoder.

    Returns arguments of the class ``name``, a key of :data:`PREPROCESSORS`.
    Raises an EncoderError as :func:`read_config` does.
    """
    path = Path(folder) / "preprocessor_config.json"
    if not path.is_file():
        raise EncoderError(
            f"audio encoder {folder}: cannot be read (it has no "
            f"{path.name}); copy or download the folder again"
        )
    config = _read_object(path)
    if config.get("feature_extractor_type", name) != name:
        raise EncoderError(f"{path}: is not the configuration of a {name}")
    return _checked(path, config, PREPROCESSORS[name])


def _read_object(path: Path) -> dict[str, Any]:
    """Reads the JSON object in a file."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ValueError("too large")
        config = json.loads(data)
        if not isinstance(config, dict):
            raise ValueError("no object")
    except (OSError, ValueError, RecursionError):
        raise EncoderError(
            f"{path}: is not the configuration of a model (one JSON object of "
            "at most 4 MB); copy or download the folder again"
        ) from None
    return config


def _checked(
    path: Path, config: dict, checks: dict[str, Check]
) -> dict[str, Any]:
    """Returns the keys that have a check; raises an error if one fails."""
    checked = {key: config[key] for key in checks if key in config}
    for key, value in checked.items():
        if not checks[key](value):
            shown = type(value).__name__
            if not isinstance(value, (dict, list)):
                shown = repr(value)[:80]
            raise EncoderError(
                f"{path}: {key} is {shown}, which no encoder of this kind has; "
                "copy or download the folder again"
            )
    return checked
