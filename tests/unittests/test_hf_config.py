"""Configurations of speech encoders: what plain exports have and no more.

The truths are transformers' own classes, of which each plain export must pass,
and an audit hook that sees which files a load opens.
"""

import json
import math
import sys

import pytest
from safetensors.torch import load_file, save_file
from small_encoders import KINDS, save_encoder

from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.hf_config import CONFIGS, read_config
from vavl_sb.utils.errors import EncoderError


@pytest.fixture
def folder(tmp_path):
    return save_encoder(tmp_path / "encoder")


def change(folder, file="config.json", **keys):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def refused(folder, words):
    with pytest.raises(EncoderError, match=words) as error:
        AudioEncoder(folder)
    assert "\n" not in error.value.text and len(error.value.text) < 600


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_transformers_own_export_is_let_through(tmp_path, kind):
    made = KINDS[kind]()
    for content in (made.to_dict(), made.to_diff_dict()):
        content["model_type"] = kind
        (tmp_path / "config.json").write_text(json.dumps(content, default=str))
        found = read_config(tmp_path)
        # What is handed on gives the same configuration again.
        again = KINDS[kind](**found)
        for key in CONFIGS[kind]:
            value = getattr(made, key, None)
            value = list(value) if isinstance(value, tuple) else value
            assert getattr(again, key, None) == value, key


@pytest.mark.real
def test_pretrained_configurations_are_let_through(whisper_folder):
    for folder in whisper_folder.parent.glob("whisper-*"):
        assert read_config(folder)["model_type"] == "whisper"


FOREIGN = {
    "auto_map": {
        "AutoModel": "elsewhere/evil--modeling.Evil",
        "AutoFeatureExtractor": "evil.Evil",
    },
    "attn_implementation": "someone/kernel",
    "_attn_implementation": "someone/kernel",
    "_attn_implementation_internal": "someone/kernel",
    "quantization_config": {"quant_method": "bitsandbytes"},
    "transformers_weights": "../../elsewhere.bin",
    "trust_remote_code": True,
    "custom_pipelines": {},
    "sub_configs": {},
    "name\n\x1b[2J": 1,
}


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_keys_that_bring_in_other_things_bring_in_nothing(folder, file):
    expected = AudioEncoder(folder).fingerprint()
    change(folder, file, **FOREIGN)
    assert AudioEncoder(folder).fingerprint() == expected


BAD_VALUES = {
    "num_hidden_layers": (10**9, 0, True, 1.0, None),
    "layer_norm_eps": (math.nan,),
    "hidden_act": ("os.system",),
    "conv_stride": (5, [0] * 7),
}


@pytest.mark.parametrize(
    "key, value",
    [(k, value) for k, values in BAD_VALUES.items() for value in values],
)
def test_values_that_no_encoder_has(folder, key, value):
    change(folder, **{key: value})
    refused(folder, f"{key} is ")


@pytest.mark.parametrize(
    "keys, words",
    [
        # Within bounds alone, 400 GB together: on no device is it made.
        ({"num_hidden_layers": 128, "hidden_size": 8192}, "describes"),
        ({"conv_dim": [32768] * 7}, "describes"),
        ({"conv_stride": [1] * 7}, "a frame each 1 samples"),
        ({"conv_stride": [5] * 6}, "cannot be read"),
        ({"num_attention_heads": 3}, "cannot be read"),
    ],
)
def test_sizes_that_do_not_fit_the_weights(folder, keys, words):
    change(folder, **keys)
    refused(folder, words)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"n_fft": 10**9}, "n_fft is"),
        ({"chunk_length": 10**9}, "chunk_length is"),
        ({"feature_size": 40}, "different numbers of mel bins"),
        ({"feature_extractor_type": {"a": 1}}, "is not the"),
    ],
)
def test_a_preprocessor_that_does_not_fit(tmp_path, keys, words):
    folder = save_encoder(tmp_path / "encoder", "whisper")
    change(folder, "preprocessor_config.json", **keys)
    refused(folder, words)


@pytest.mark.parametrize(
    "kind, keys",
    [
        # 8 GB after the first convolution, and 5 GB of scores, of 30 s.
        (
            "wav2vec2",
            {"conv_dim": [4096] + [8] * 6, "conv_stride": [1, 5] + [2] * 5},
        ),
        (
            "wavlm",
            {"num_attention_heads": 16, "conv_stride": [5] + [2] * 5 + [1]},
        ),
        # An index beyond the table, once a clip is of some seconds.
        ("wavlm", {"num_buckets": 320, "max_bucket_distance": 80}),
        ("whisper", {"max_source_positions": 1, "preprocessor": 4096}),
    ],
)
def test_small_weights_that_no_clip_can_go_through(tmp_path, kind, keys):
    keys = dict(keys)
    n_fft = keys.pop("preprocessor", None)
    folder = save_encoder(tmp_path / "encoder", kind, **keys)
    if n_fft:
        change(folder, "preprocessor_config.json", n_fft=n_fft)
    refused(folder, "no encoder of this kind has|too short for spectra")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[" * 100_000,
        '{"model_type": ' + "1" * 5000 + "}",
        '{"model_type": "wavlm", "x": "' + "y" * 5_000_000 + '"}',
        "\ud800",
    ],
)
def test_a_configuration_that_is_none(folder, text):
    path = folder / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(folder, "is not the configuration of a model")


OPENED = []
WATCHED = []


def _watch(event, arguments):
    if WATCHED and event == "open" and str(arguments[0]).startswith(WATCHED[0]):
        OPENED.append(str(arguments[0])[len(WATCHED[0]) + 1 :])


sys.addaudithook(_watch)


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper"])
def test_of_a_folder_only_these_files_are_read(tmp_path, kind):
    folder = save_encoder(tmp_path / "encoder", kind)
    expected = AudioEncoder(folder).fingerprint()
    (folder / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "elsewhere", "peft_type": "LORA"}'
    )
    (folder / "modeling_evil.py").write_text("open('boom', 'w')")
    (folder / "generation_config.json").write_text("{")
    (folder / "tokenizer.json").write_text("{")
    (folder / "chat_template.jinja").write_text("{{")
    (folder / "processor_config.json").write_text('{"auto_map": {}}')
    (folder / "model.safetensors.index.json").write_text(
        '{"metadata": {}, "weight_map": {"a": "../../elsewhere.safetensors"}}'
    )
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    WATCHED.append(str(folder))
    try:
        assert AudioEncoder(folder).fingerprint() == expected
    finally:
        WATCHED.clear()
    # The weights are opened by safetensors itself, which no hook sees.
    assert {*OPENED} <= {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
    }
    assert "config.json" in OPENED
    OPENED.clear()


def test_shards_are_read_without_their_index(folder):
    expected = AudioEncoder(folder).fingerprint()
    state = list(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    save_file(dict(state[:9]), folder / "model-00001-of-00002.safetensors")
    with pytest.raises(EncoderError, match="lacks|describes"):
        AudioEncoder(folder)
    save_file(dict(state[9:]), folder / "model-00002-of-00002.safetensors")
    assert AudioEncoder(folder).fingerprint() == expected
