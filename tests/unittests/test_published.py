"""Published weights, imported: features as of the library they come from.

The truths are timm's and transformers' own models, which are run on the same
weights.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_clips import pictures
from small_encoders import make_encoder, normalized, timm_network
from torch import nn

from vavl_sb import cli
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.import_weights import (
    _find_root,
    _make_network,
    import_visual,
)
from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.utils.errors import EncoderError


@pytest.fixture(scope="module")
def efficientnet():
    """As HSEmotion's: a classifier of eight in a Sequential."""
    net = timm_network()
    net.classifier = nn.Sequential(nn.Linear(1408, 8))
    return net


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".pt", lambda net: net),
        (".pth", lambda net: nn.DataParallel(net)),
        (".safetensors", lambda net: net.state_dict()),
    ],
    ids=["whole", "parallel", "safetensors"],
)
def test_visual_features_are_timms(
    tmp_path, capsys, efficientnet, ending, content
):
    source, out = tmp_path / f"enet{ending}", tmp_path / "out.safetensors"
    if ending == ".safetensors":
        save_file(content(efficientnet), source)
    else:
        torch.save(content(efficientnet), source)
    assert cli.main(["import-visual", str(source), str(out)]) == 0
    told = capsys.readouterr().out
    assert "classifier.0.bias, classifier.0.weight" in told
    assert f"--visual_encoder_weights {out}" in told
    assert not any("classifier" in name for name in load_file(out))
    crops = pictures(8)[:2]
    with torch.no_grad():
        maps = efficientnet.forward_features(normalized(crops))
        expected = maps.mean(dim=(2, 3))
    assert expected.std() > 0.1
    found = VisualEncoder(weights=out)(crops)
    assert torch.allclose(found, expected, atol=1e-4, rtol=0)


def test_what_stands_there_is_not_overwritten(tmp_path):
    there = tmp_path / "enet.safetensors"
    there.write_bytes(b"mine")
    with pytest.raises(EncoderError, match="exists"):
        import_visual(tmp_path / "enet.pt")
    assert there.read_bytes() == b"mine"


def wav2vec2(norm="layer", stable=True, **sizes):
    """A small random wav2vec2, all of its tensors shaken."""
    kind = {"conv_bias": norm == "layer", "feat_extract_norm": norm}
    sizes = {"hidden_size": 128, "num_hidden_layers": 3, **sizes}
    return make_encoder(
        shaken=0.2, do_stable_layer_norm=stable, **kind, **sizes
    ).eval()


def import_command(source, model):
    """The command for a model of any sizes; its configuration beside it."""
    model.config.save_pretrained(source.parent / "config")
    config = str(source.parent / "config")
    return ["import-audio", str(source), "--config", config]


def old_names(state):
    """As torch before 2.1, and so the released VAVL, names a weight norm."""
    parts = "parametrizations.weight.original"
    return {
        name.replace(f"{parts}0", "weight_g").replace(
            f"{parts}1", "weight_v"
        ): t
        for name, t in state.items()
    }


def truth(model, wav):
    """transformers' features of one clip."""
    import transformers

    extract = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    values = extract(wav.numpy(), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        return model(values.input_values).last_hidden_state


@pytest.mark.parametrize(
    "norm, prefix, rename",
    [
        ("layer", "", old_names),
        ("group", "module.", dict),
        ("layer", "model.wav2vec2.", dict),
    ],
)
def test_audio_features_are_transformers(tmp_path, norm, prefix, rename):
    # As VAVL cuts its model: the last layers are taken off after loading.
    model = wav2vec2(norm, norm == "layer", num_hidden_layers=4)
    del model.encoder.layers[2:]
    state = {prefix + k: v for k, v in rename(model.state_dict()).items()}
    state["lm_head.weight"] = torch.ones(5, 128)
    source = tmp_path / "final_wav2vec.pt"
    torch.save(state, source)
    assert cli.main(import_command(source, model)) == 0
    encoder = AudioEncoder(source=tmp_path / "final_wav2vec")
    assert encoder.output_dim == 128
    wav = 0.1 * torch.randn(6000, generator=torch.Generator().manual_seed(1))
    expected = truth(model, wav)
    assert expected.std() > 0.1
    found, _ = encoder(wav[None])
    assert torch.allclose(found, expected, atol=1e-4, rtol=0)


def test_without_a_config_it_is_wav2vec2_large_robust():
    """Of facebook/wav2vec2-large-robust, from its configuration."""
    import transformers

    large = {
        "hidden_size": 1024,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "conv_bias": True,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
    }
    config = transformers.Wav2Vec2Config(**large)
    with torch.device("meta"):
        model = transformers.Wav2Vec2Model(config)
    state = old_names(model.state_dict())
    found, left = _find_root("f.pt", state)
    assert left == []
    made = _make_network("f.pt", found, None)[0].to_dict()
    expected = config.to_dict()
    assert {k: made[k] for k in expected if made[k] != expected[k]} == {}


def test_audio_faults_are_listed_and_nothing_is_written(tmp_path, capsys):
    model = wav2vec2()
    state = dict(model.state_dict())
    del state["encoder.layers.1.layer_norm.weight"]
    state["encoder.layers.0.gru"] = torch.ones(1)
    state["encoder.layers.2.attention.k_proj.bias"] = torch.ones(7)
    torch.save(state, tmp_path / "bad.pt")
    assert cli.main(import_command(tmp_path / "bad.pt", model)) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    for fault in (
        "1 missing (encoder.layers.1.layer_norm.weight)",
        "1 unknown (encoder.layers.0.gru)",
        "encoder.layers.2.attention.k_proj.bias is (7,), not (128,)",
    ):
        assert fault in told
    assert {path.name for path in tmp_path.iterdir()} == {"bad.pt", "config"}
