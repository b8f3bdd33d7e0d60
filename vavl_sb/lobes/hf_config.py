"""Configurations of pretrained speech encoders, as checked plain values.

A config.json can name code, other folders and other base models, and sizes
that no memory holds. What features or fine-tuning depend on is listed here with
its bounds, and alone is handed to transformers; what stands in the hub's plain
configurations and matters to neither is left out; any other key is refused.
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
TRANSFORMER = {
    **DROPOUTS,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": WIDTH,
    "hidden_act": ACTIVATION,
    "hidden_dropout": SHARE,
    "feat_proj_dropout": SHARE,
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
    "mask_time_prob": SHARE,
    "mask_time_length": whole(1, 1000),
    "mask_time_min_masks": whole(0, 1000),
    "mask_feature_prob": SHARE,
    "mask_feature_length": whole(1, 1000),
    "mask_feature_min_masks": whole(0, 1000),
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
# In plain configurations of the hub, and of no effect on an encoder's
# features: names, heads, losses, decoders, and transformers' own defaults.
LEFT_OUT = set(
    """
    vavl_sb model_type _name_or_path architectures transformers_version dtype
    torch_dtype tokenizer_class processor_class finetuning_task problem_type
    id2label label2id num_labels return_dict use_return_dict torchscript
    output_attentions output_hidden_states use_bfloat16 tf_legacy_loss
    gradient_checkpointing chunk_size_feed_forward pruned_heads use_cache
    is_decoder is_encoder_decoder add_cross_attention tie_encoder_decoder
    cross_attention_hidden_size tie_word_embeddings task_specific_params prefix
    _attn_implementation_autoset
    pad_token_id bos_token_id eos_token_id sep_token_id decoder_start_token_id
    vocab_size forced_decoder_ids forced_bos_token_id forced_eos_token_id
    suppress_tokens begin_suppress_tokens bad_words_ids max_length min_length
    do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size num_return_sequences
    output_scores return_dict_in_generate remove_invalid_values
    exponential_decay_length_penalty
    init_std initializer_range layerdrop encoder_layerdrop decoder_layerdrop
    num_hidden_layers decoder_layers decoder_attention_heads decoder_ffn_dim
    max_target_positions
    mask_time_prob mask_time_length mask_time_min_masks mask_feature_prob
    mask_feature_length mask_feature_min_masks median_filter_width use_weighted_layer_sum classifier_proj_size
    classifier_dropout pooling_mode apply_spec_augment num_feat_extract_layers
    final_dropout hidden_dropout_prob feat_extract_dropout
    feat_quantizer_dropout freeze_feat_extract_train replace_prob
    mask_channel_length mask_channel_min_space mask_channel_other
    mask_channel_prob mask_channel_selection mask_time_min_space mask_time_other
    mask_time_selection mask_feature_min_space mask_feature_other
    mask_feature_selection no_mask_channel_overlap no_mask_time_overlap
    no_mask_feature_overlap
    codevector_dim proj_codevector_dim num_codevector_groups
    num_codevectors_per_group num_negatives contrastive_logits_temperature
    diversity_loss_weight ctc_loss_reduction ctc_zero_infinity num_ctc_classes
    tdnn_dim tdnn_kernel tdnn_dilation xvector_output_dim add_adapter
    adapter_kernel_size adapter_stride num_adapter_layers output_hidden_size
    """.split()
)
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
# Padding is done here, and mel filters are made from the sizes.
LEFT_OUT_OF_PREPROCESSORS = set(
    """
    feature_extractor_type processor_class padding_side padding_value
    return_attention_mask feature_size n_samples nb_max_frames mel_filters
    dither do_normalize tokenizer_class
    """.split()
)


def read_config(folder: str | Path) -> dict[str, Any]:
    """The checked configuration of a pretrained encoder.

    Arguments
    ---------
    folder : str or Path
        In the Hugging Face layout.

    Returns
    -------
    dict
        ``model_type`` and what its constructor gets; ``vavl_sb`` where
        :meth:`AudioEncoder.export` wrote it.

    Raises
    ------
    EncoderError
        In one line: there is none, it is not one, or it has a key or a value
        that no plain configuration of its kind has.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> path = folder / "config.json"
    >>> _ = path.write_text('{"model_type": "wavlm", "hidden_size": 8}')
    >>> read_config(folder)
    {'model_type': 'wavlm', 'hidden_size': 8}
    >>> _ = path.write_text('{"model_type": "wavlm", "auto_map": {}}')
    >>> read_config(folder)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vavl_sb.utils.errors.EncoderError: ...config.json: has the key 'auto_map'...
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
    checked = _checked(path, found, CONFIGS[kind], LEFT_OUT)
    mark = {"vavl_sb": {}} if "vavl_sb" in found else {}
    return {"model_type": kind, **checked, **mark}


def read_preprocessor(folder: str | Path, name: str) -> dict[str, Any]:
    """The checked settings of what stands before a pretrained encoder.

    Arguments
    ---------
    folder : str or Path
        In the Hugging Face layout.
    name : str
        The class, of :data:`PREPROCESSORS`.

    Returns
    -------
    dict
        Arguments of that class.

    Raises
    ------
    EncoderError
        In one line, as in :func:`read_config`.
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
    return _checked(path, found, PREPROCESSORS[name], LEFT_OUT_OF_PREPROCESSORS)


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
    path: Path, found: dict, checks: dict[str, Check], left_out: set[str]
) -> dict[str, Any]:
    """The values that are handed on, each as its check wants it."""
    for key, value in found.items():
        if key in checks:
            if not checks[key](value):
                told = type(value).__name__
                if not isinstance(value, (dict, list)):
                    told = repr(value)[:80]
                raise EncoderError(
                    f"{path}: {key} is {told}, which no encoder "
                    "of this kind has; copy or download the folder again"
                )
        elif key not in left_out:
            raise EncoderError(
                f"{path}: has the key {key[:80]!r}, which no plain encoder of "
                "this kind has and which could bring in other code or "
                "weights; take it out if you know that it is not needed"
            )
    return {key: value for key, value in found.items() if key in checks}
