"""Published weights, imported: features as of the library they come from.

The truths are timm's and transformers' own models, which are run on the same
weights.
"""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from small_clips import pictures
from torch import nn

from vavl_sb import cli
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.import_weights import (
    _find_root,
    _make_network,
    import_audio,
    import_visual,
)
from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.utils.errors import EncoderError


@pytest.fixture(scope="module")
def efficientnet():
    """As HSEmotion's: timm's network, a classifier of eight in a Sequential;
    its statistics fit, so that no layer fades."""
    torch.manual_seed(3)
    net = timm.create_model("tf_efficientnet_b2", num_classes=8)
    net.classifier = nn.Sequential(nn.Linear(1408, 8))
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.bias, -0.2, 0.2)
    with torch.no_grad():
        net(normalized(pictures(8, 64)))
    return net.eval()


def normalized(crops):
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (crops.float() / 255 - mean) / std


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
    crops = pictures(8, 64)[:2]
    with torch.no_grad():
        maps = efficientnet.forward_features(normalized(crops))
        expected = maps.mean(dim=(2, 3))
    assert expected.std() > 0.1
    found = VisualEncoder(weights=out)(crops)
    assert torch.allclose(found, expected, atol=1e-4, rtol=0)


def test_visual_faults_are_listed_and_nothing_is_written(
    tmp_path, capsys, efficientnet
):
    state = dict(efficientnet.state_dict())
    del state["bn1.weight"]
    state["blocks.9.new"] = torch.ones(1)
    state["conv_stem.weight"] = torch.ones(32, 3, 5, 5)
    torch.save(state, tmp_path / "bad.pt")
    assert cli.main(["import-visual", str(tmp_path / "bad.pt")]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    for fault in (
        "1 missing (bn1.weight)",
        "1 unknown (blocks.9.new)",
        "conv_stem.weight is (32, 3, 5, 5), not (32, 3, 3, 3)",
    ):
        assert fault in told
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]


def test_what_stands_there_is_not_overwritten(tmp_path):
    there = tmp_path / "enet.safetensors"
    there.write_bytes(b"mine")
    with pytest.raises(EncoderError, match="exists"):
        import_visual(tmp_path / "enet.pt")
    assert there.read_bytes() == b"mine"


def wav2vec2(norm="layer", stable=True, layers=3, **sizes):
    """A small random wav2vec2, all of its tensors shaken."""
    import transformers

    config = transformers.Wav2Vec2Config(
        **{
            "hidden_size": 128,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "intermediate_size": 96,
            "conv_dim": (16,) * 7,
            "conv_bias": norm == "layer",
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "feat_extract_norm": norm,
            "do_stable_layer_norm": stable,
            **sizes,
        }
    )
    torch.manual_seed(0)
    model = transformers.Wav2Vec2Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


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
    model = wav2vec2(norm, norm == "layer", layers=4)
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


@pytest.mark.parametrize("number", [300_000, "\u00b2"])
def test_the_number_in_a_name_makes_no_layers(tmp_path, number):
    model = wav2vec2()
    state = dict(model.state_dict())
    state[f"encoder.layers.{number}.x"] = torch.ones(1)
    torch.save(state, tmp_path / "f.pt")
    model.config.save_pretrained(tmp_path / "config")
    with pytest.raises(EncoderError, match="1 unknown"):
        import_audio(tmp_path / "f.pt", config_folder=tmp_path / "config")
    with pytest.raises(EncoderError, match="give --config"):
        import_audio(tmp_path / "f.pt")
