"""Tests of the speech encoders.

The truths are transformers itself, run on one clip at a time without padding
and cut at the layer after the fact, and closed forms for log-mel.
"""

import functools
import json
import math
import pickle
import sys

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from small_encoders import Bomb, save_encoder

from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.utils.errors import EncoderError

# model_type, norm of the feature extractor, final LayerNorm, do_normalize
KINDS = [
    ("wav2vec2", "layer", True, True),
    ("wav2vec2", "group", False, True),
    ("hubert", "layer", True, True),
    ("wavlm", "layer", True, True),
    ("wavlm", "group", False, False),
]
CUT = 2


@pytest.fixture(scope="module")
def ssl_folder(tmp_path_factory):
    """Makes the folder of a small random model, once per kind."""

    @functools.cache
    def make(kind, norm="layer", stable=True, normalize=True):
        folder = save_encoder(
            *(tmp_path_factory.mktemp(f"{kind}-{norm}"), kind, 0.2, normalize),
            hidden_size=32,
            num_hidden_layers=3,
            feat_extract_norm=norm,
            do_stable_layer_norm=stable,
            layerdrop=0.5,
            mask_time_prob=0.5,
        )
        return str(folder)

    return make


@pytest.fixture(scope="module")
def small_whisper(tmp_path_factory):
    """A small random Whisper whose window is one second."""
    sizes = {"d_model": 32, "encoder_layers": 3}
    folder = tmp_path_factory.mktemp("whisper")
    return str(save_encoder(folder, "whisper", 0.2, **sizes))


def _clips(*lengths, seed=0):
    """Noise with a level and an offset of its own for each clip."""
    generator = torch.Generator().manual_seed(seed)
    return [
        0.03 * (i + 1) * torch.randn(n, generator=generator) + 0.02 * i
        for i, n in enumerate(lengths)
    ]


def _batch(clips, garbage=0.7):
    """Pads clips with garbage, which no feature may see."""
    longest = max(len(clip) for clip in clips)
    wavs = torch.full((len(clips), longest), garbage)
    for row, clip in zip(wavs, clips, strict=True):
        row[: len(clip)] = clip
    return wavs, torch.tensor([len(clip) / longest for clip in clips])


def _transformers_truth(folder, clip, kind, all_layers=False):
    """Hidden state at the cut (or up to it), by transformers, of one clip."""
    import transformers

    *_, stable, normalize = kind
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    values = extractor(
        clip.numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_values
    with torch.no_grad():
        states = model(values, output_hidden_states=True).hidden_states
        assert len(states) == 4
        found = list(states[1 : CUT + 1])
        if stable:
            found[-1] = model.encoder.layer_norm(found[-1])
        return torch.cat(found if all_layers else found[-1:], dim=-1)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers_alone_and_in_a_batch(ssl_folder, kind):
    folder = ssl_folder(*kind)
    encoder = AudioEncoder(folder, num_layers=CUT)
    assert encoder.output_dim == 32
    assert encoder.frame_rate == 50.0
    # 7999, 8000: either side of a frame's beginning (400 + 320 k).
    clips = _clips(16000, 7999, 8080, 8079, 401)
    features, lens = encoder(*_batch(clips))
    frames = (lens * features.shape[1]).round().long().tolist()
    assert frames == [49, 24, 25, 24, 1]
    for clip, padded, length in zip(clips, features, frames, strict=True):
        truth = _transformers_truth(folder, clip, kind)
        assert len(truth) == length
        assert torch.allclose(padded[:length], truth, atol=1e-5)
        assert not padded[length:].any()
        alone, full = encoder(clip[None])
        assert torch.allclose(alone[0], truth, atol=1e-5)
        assert full.tolist() == [1.0]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_all_layers_side_by_side(ssl_folder, tmp_path, kind):
    folder = ssl_folder(*kind)
    encoder = AudioEncoder(folder, num_layers=CUT, output_all_hiddens=True)
    assert encoder.output_dim == CUT * 32
    clips = _clips(16000, 8080)
    features, lens = encoder(*_batch(clips))
    for row, clip in enumerate(clips):
        truth = _transformers_truth(folder, clip, kind, True)
        assert torch.allclose(features[row, : len(truth)], truth, atol=1e-5)
    assert (
        encoder.fingerprint()
        != AudioEncoder(folder, num_layers=CUT).fingerprint()
    )
    encoder.export(tmp_path)
    again = AudioEncoder(
        tmp_path / "audio_encoder", num_layers=None, output_all_hiddens=True
    )
    assert again.fingerprint() == encoder.fingerprint()
    assert torch.equal(again(*_batch(clips))[0], features)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_clip_shorter_than_a_frame_gives_one_frame(ssl_folder, kind):
    encoder = AudioEncoder(ssl_folder(*kind))
    (clip,) = _clips(100)
    alone, _ = encoder(clip[None])
    batch, lens = encoder(*_batch([*_clips(4000), clip]))
    assert alone.shape == (1, 1, 32)
    assert torch.allclose(batch[1, :1], alone[0], atol=1e-5)
    assert round(float(lens[1]) * batch.shape[1]) == 1
    assert torch.isfinite(encoder(torch.zeros(2, 0))[0]).all()


def test_frozen_is_deterministic_in_train_mode(ssl_folder):
    encoder = AudioEncoder(ssl_folder("wav2vec2"))
    wavs, _ = _batch(_clips(8000, 8000))
    before, _ = encoder(wavs)
    # As a Brain does: train() on a container.
    torch.nn.ModuleDict({"audio": encoder}).train()
    assert not any(module.training for module in encoder.modules())
    after, _ = encoder(wavs)
    assert torch.equal(before, after)
    assert not encoder(wavs.clone().requires_grad_())[0].requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(before, encoder(wavs)[0])


@pytest.mark.parametrize("kind", KINDS[:2])
def test_fine_tuning_learns_the_transformer_only(ssl_folder, kind):
    folder = ssl_folder(*kind)
    encoder = AudioEncoder(folder, freeze=False)
    assert encoder.encoder.model.encoder.training
    features, _ = encoder(*_batch(_clips(8000, 5000)))
    features.square().sum().backward()
    model = encoder.encoder.model
    for name, parameter in model.named_parameters():
        learns = not name.startswith(("feature_extractor", "masked_spec"))
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None) == learns, name
    # Without dropout nothing random is left: no SpecAugment, no layer drop.
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in model.encoder.layers:
        layer.attention.dropout = 0.0
    wavs, _ = _batch(_clips(8000, 8000))
    frozen = AudioEncoder(folder)
    assert torch.allclose(encoder(wavs)[0], frozen(wavs)[0], atol=1e-5)
    whole = AudioEncoder(folder, freeze=False, freeze_feature_extractor=False)
    whole(wavs)[0].sum().backward()
    convolutions = whole.encoder.model.feature_extractor.parameters()
    assert all(p.grad is not None for p in convolutions)


@pytest.mark.parametrize("kind", KINDS[1::3])
def test_export_gives_the_same_features_and_digest(ssl_folder, tmp_path, kind):
    folder = ssl_folder(*kind)
    encoder = AudioEncoder(folder, num_layers=CUT)
    copy = AudioEncoder(**encoder.export(tmp_path))
    # What is cut already is taken whole.
    again = AudioEncoder(copy.source, num_layers=1)
    assert again.fingerprint() == copy.fingerprint()
    wavs, lens = _batch(_clips(9000, 5000))
    assert torch.equal(encoder(wavs, lens)[0], copy(wavs, lens)[0])
    assert encoder.fingerprint() == copy.fingerprint()
    assert encoder.settings() == copy.settings()
    config = json.loads(
        (tmp_path / "audio_encoder" / "config.json").read_text()
    )
    assert config["num_hidden_layers"] == CUT
    assert folder not in json.dumps(config)
    assert AudioEncoder(folder).fingerprint() != encoder.fingerprint()


def test_digest_follows_weights_and_settings(ssl_folder, tmp_path):
    folder = ssl_folder("wav2vec2")
    encoder = AudioEncoder(folder, freeze=False)
    first = encoder.fingerprint()
    assert len(bytes.fromhex(first)) == 32
    # How it is trained is no part of it.
    assert AudioEncoder(folder).fingerprint() == first
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(torch.rand(1, 4000))[0].sum().backward()
    optimizer.step()
    second = encoder.fingerprint()
    assert second != first
    encoder.load_state_dict(AudioEncoder(folder).state_dict())
    assert encoder.fingerprint() == first
    # do_normalize changes features and no weight.
    copy = encoder.export(tmp_path)["source"]
    path = tmp_path / "audio_encoder" / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "do_normalize": False}))
    assert AudioEncoder(copy).fingerprint() != first


def _whisper_truth(folder, clip, cut=None, window="clip"):
    """Encoder output by transformers alone, window by window, trimmed.

    For a window cut to its sound: by a model whose own configuration has so
    many positions, on the log-mel of 30 s cut to them.
    """
    import transformers

    extract = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    whole = transformers.WhisperModel.from_pretrained(folder)
    config, state = whole.config, whole.state_dict()
    positions, parts = state["encoder.embed_positions.weight"], []
    for piece in clip.split(extract.n_samples):
        frames = math.ceil(len(piece) / 320)
        if window == "clip":
            config.max_source_positions = frames
            state["encoder.embed_positions.weight"] = positions[:frames]
        model = transformers.WhisperModel(config).float().eval()
        model.load_state_dict(state)
        mel = extract(
            piece.numpy(), sampling_rate=16000, return_tensors="pt"
        ).input_features[..., : 2 * config.max_source_positions]
        with torch.no_grad():
            out = model.encoder(mel, output_hidden_states=True)
            found = out.last_hidden_state
            if cut is not None:
                found = model.encoder.layer_norm(out.hidden_states[cut])
        parts.append(found[0, :frames])
    return torch.cat(parts)


@pytest.mark.parametrize("window", ["clip", "30s"])
def test_whisper_equals_transformers_in_windows(small_whisper, window):
    encoder = AudioEncoder(small_whisper, CUT, whisper_window=window)
    # One, two and three windows; one ends with a window; 1 sample.
    clips = _clips(8000, 40001, 32000, 321, 1)
    features, lens = encoder(*_batch(clips))
    frames = (lens * features.shape[1]).round().long().tolist()
    assert frames == [25, 126, 100, 2, 1]
    for clip, padded, length in zip(clips, features, frames, strict=True):
        truth = _whisper_truth(small_whisper, clip, CUT, window)
        assert len(truth) == length
        assert torch.allclose(padded[:length], truth, atol=1e-4)
        assert not padded[length:].any()
        alone, _ = encoder(clip[None])
        assert torch.allclose(alone[0], truth, atol=1e-4)
        # Nor do batch-mates matter.
        assert torch.allclose(alone[0], padded[:length], atol=1e-5)


def test_whisper_window_is_exported_and_in_the_fingerprint(
    small_whisper, ssl_folder, tmp_path
):
    clip, whole = (
        AudioEncoder(small_whisper, whisper_window=window)
        for window in ("clip", "30s")
    )
    assert clip.fingerprint() != whole.fingerprint()
    wavs = torch.rand(1, 4000)
    assert not torch.allclose(clip(wavs)[0], whole(wavs)[0], atol=1e-2)
    copy = AudioEncoder(**whole.export(tmp_path))
    assert copy.fingerprint() == whole.fingerprint()
    assert torch.equal(copy(wavs)[0], whole(wavs)[0])
    # An encoder without windows is the same with either.
    assert (
        AudioEncoder(ssl_folder("wavlm"), whisper_window="30s").fingerprint()
        == AudioEncoder(ssl_folder("wavlm")).fingerprint()
    )


def test_whisper_fine_tuning_and_export(small_whisper, tmp_path):
    encoder = AudioEncoder(small_whisper, num_layers=CUT, freeze=False)
    encoder(torch.rand(1, 4000))[0].square().sum().backward()
    model = encoder.encoder.model
    assert model.decoder is None
    for name, parameter in model.named_parameters():
        fixed = ("encoder.conv", "encoder.embed_positions")
        assert (parameter.grad is not None) != name.startswith(fixed), name
    torch.optim.SGD(encoder.parameters(), lr=1e-3).step()
    encoder.eval()
    copy = AudioEncoder(**encoder.export(tmp_path))
    wavs, lens = _batch(_clips(9000, 20000))
    assert torch.equal(encoder(wavs, lens)[0], copy(wavs, lens)[0])
    assert encoder.fingerprint() == copy.fingerprint()
    # It is a Hugging Face folder like any other, and needs no decoder.
    truth = _whisper_truth(copy.source, _clips(9000)[0])
    assert torch.allclose(copy(wavs[:1, :9000])[0][0], truth, atol=1e-4)


@pytest.mark.real
def test_pretrained_whisper_on_real_clips(whisper_folder, real_data, tmp_path):
    encoder = AudioEncoder(whisper_folder)
    assert encoder.output_dim == 384
    paths = sorted((real_data / "crema_d_mini" / "AudioWAV").glob("*.wav"))
    clips = [
        torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        for path in paths[:2]
    ]
    clips.append(torch.cat(clips * 9)[: 35 * 16000])
    features, lens = encoder(*_batch(clips))
    frames = (lens * features.shape[1]).round().long().tolist()
    assert frames == [math.ceil(len(clip) / 320) for clip in clips]
    assert frames[-1] == 1750
    for clip, padded, length in zip(clips, features, frames, strict=True):
        truth = _whisper_truth(whisper_folder, clip)
        # float32 rounding of a deep network with large inner values.
        assert torch.allclose(padded[:length], truth, atol=2e-3)
        assert (padded[:length] - truth).abs().mean() < 1e-5
    copy = AudioEncoder(**encoder.export(tmp_path))
    assert torch.equal(copy(clips[0][None])[0], encoder(clips[0][None])[0])
    assert copy.fingerprint() == encoder.fingerprint()


@pytest.mark.parametrize("hop_ms", [10, 20])
def test_logmel_has_the_level_of_theory(hop_ms):
    """White noise of variance s: band power s * sum(w^2) * band / bin."""
    encoder = AudioEncoder("logmel", hop_ms=hop_ms)
    assert encoder.frame_rate == 1000 / hop_ms
    torch.manual_seed(0)
    features, _ = encoder(0.1 * torch.randn(1, 160000))
    assert features.shape == (1, 10000 // hop_ms + 1, 80)
    power = (10 ** ((features[0] * 20 - 35) / 10)).mean(0)
    mel = torch.linspace(0, 2595 * math.log10(1 + 8000 / 700), 82)
    edges = 700 * (10 ** (mel / 2595) - 1)
    band = (edges[1:] - edges[:-1])[:-1]
    window = torch.hamming_window(400).square().sum()
    theory = 0.01 * window * band / (16000 / 1024)
    error = 10 * (power / theory).log10()
    assert error.abs().max() < 1.0
    assert error.abs().mean() < 0.3


def test_logmel_is_local_and_bounded():
    encoder = AudioEncoder("logmel")
    silence = encoder(torch.zeros(1, 16000))[0]
    assert torch.allclose(silence, torch.tensor(-2.25))
    square = torch.ones(1, 16000)
    square[:, ::2] = -1
    for loud in (square, torch.ones(1, 16000)):
        assert encoder(loud)[0].max() < 4.1
    # A loud end leaves the quiet beginning as it is.
    quiet = 1e-3 * torch.randn(1, 16000)
    late = quiet.clone()
    late[:, 8000:] = 0.9 * torch.sign(torch.randn(1, 8000))
    assert torch.equal(encoder(quiet)[0][:, :24], encoder(late)[0][:, :24])
    clips = _clips(16000, 9001, 319, 1)
    features, lens = encoder(*_batch(clips))
    for clip, padded, length in zip(clips, features, lens, strict=True):
        alone, _ = encoder(clip[None])
        frames = round(float(length) * features.shape[1])
        assert frames == 1 + len(clip) // 320 == alone.shape[1]
        assert torch.allclose(padded[:frames], alone[0], atol=1e-5)
        assert not padded[frames:].any()


def test_logmel_is_frozen_and_exports(tmp_path):
    encoder = AudioEncoder("logmel", freeze=False, hop_ms=10)
    assert encoder.freeze
    copy = AudioEncoder(**encoder.export(tmp_path))
    wavs = torch.rand(2, 5000)
    assert torch.equal(copy(wavs)[0], encoder(wavs)[0])
    assert copy.fingerprint() == encoder.fingerprint()
    assert AudioEncoder("logmel").fingerprint() != encoder.fingerprint()


def _broken(folder, what):
    """Makes a copy of a folder that has one fault."""
    weights = folder / "model.safetensors"
    if what == "model_type":
        config = {"model_type": "llama"}
        (folder / "config.json").write_text(json.dumps(config))
    elif what == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif what == "rate":
        path = folder / "preprocessor_config.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "sampling_rate": 8000}))
    elif what == "missing":
        state = load_file(weights)
        state.pop("encoder.layers.1.attention.k_proj.weight")
        save_file(state, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "what,says",
    [
        (
            "model_type",
            "'llama' is not supported; give one of wav2vec2, hubert",
        ),
        ("truncated", "cannot be read"),
        ("rate", "8000 Hz"),
        ("missing", "encoder.layers.1.attention.k_proj.weight"),
    ],
)
def test_a_broken_folder_is_one_line(ssl_folder, tmp_path, what, says):
    folder = tmp_path / "audio_encoder"
    AudioEncoder(ssl_folder("wav2vec2")).export(tmp_path)
    _broken(folder, what)
    with pytest.raises(EncoderError) as error:
        AudioEncoder(folder)
    assert says in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    "source,says",
    [
        ("facebook/wav2vec2-large-robust", "cannot be downloaded"),
        ("../nowhere", "no such folder"),
        (__file__, "is a file"),
    ],
)
def test_a_source_that_is_not_here_is_one_line(tmp_path, source, says):
    with pytest.raises(EncoderError) as error:
        AudioEncoder(source, save_path=tmp_path)
    assert says in str(error.value)
    assert "logmel" in str(error.value) or says == "is a file"
    if says == "no such folder":
        # A path is not asked for on the hub.
        assert "downloaded" not in str(error.value)


def test_bad_settings_are_one_line():
    with pytest.raises(EncoderError, match="average is 0"):
        AudioEncoder("logmel", average=0)
    with pytest.raises(EncoderError, match="num_layers is 0"):
        AudioEncoder("facebook/wav2vec2-large-robust", num_layers=0)
    with pytest.raises(EncoderError, match="is 10s; give clip or 30s"):
        AudioEncoder("logmel", whisper_window="10s")
    with pytest.raises(EncoderError, match="hop of 5 ms"):
        AudioEncoder("logmel", hop_ms=5)


def test_hub_name_is_loaded_from_its_download(
    ssl_folder, tmp_path, monkeypatch
):
    import huggingface_hub

    folder, asked = ssl_folder("wavlm"), []

    def download(name, cache_dir, allow_patterns):
        asked.append((name, cache_dir, tuple(allow_patterns)))
        return folder

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    encoder = AudioEncoder("microsoft/wavlm-large", save_path=tmp_path)
    assert (
        encoder.fingerprint() == AudioEncoder(ssl_folder("wavlm")).fingerprint()
    )
    # The configuration first; pickled weights were not asked for.
    configs = ("config.json", "preprocessor_config.json")
    safe = ("model.safetensors", "model-*-of-*.safetensors")
    assert asked == [
        ("microsoft/wavlm-large", tmp_path, configs),
        ("microsoft/wavlm-large", tmp_path, configs + safe),
    ]
    # Of one whose configuration is refused no weights are asked for.
    folder = str(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(EncoderError, match="llama"):
        AudioEncoder("someone/model", save_path=tmp_path)
    assert asked[2:] == [("someone/model", tmp_path, configs)]


def test_pickled_weights_are_read_and_run_no_code(ssl_folder, tmp_path):
    folder, trace = tmp_path / "audio_encoder", tmp_path / "trace"
    encoder = AudioEncoder(ssl_folder("wav2vec2"))
    encoder.export(tmp_path)
    path = folder / "pytorch_model.bin"
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, path)
    assert AudioEncoder(folder).fingerprint() == encoder.fingerprint()
    torch.save({"a": Bomb(trace)}, path, pickle_module=pickle)
    with pytest.raises(EncoderError, match="calls 'io.open'"):
        AudioEncoder(folder)
    assert not trace.exists()


def test_without_transformers_is_one_line(ssl_folder, monkeypatch):
    folder = ssl_folder("wav2vec2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EncoderError, match=r"vavl_sb\[ssl\]"):
        AudioEncoder(folder)
    AudioEncoder("logmel")


@pytest.mark.parametrize("average", [1, 2, 7])
def test_average_of_consecutive_frames(average):
    wavs = torch.randn(3, 16000) * 0.1
    lens = torch.tensor([1.0, 0.43, 0.9])
    plain, _ = AudioEncoder("logmel")(wavs, lens)
    frames = AudioEncoder("logmel").encoder.frames(
        torch.tensor([16000, 6880, 14400])
    )
    encoder = AudioEncoder("logmel", average=average)
    found, lens = encoder(wavs, lens)
    counts = torch.round(lens * found.shape[1]).int().tolist()
    for row, length in enumerate(frames.tolist()):
        groups = plain[row, :length].split(average)
        wanted = torch.stack([group.mean(dim=0) for group in groups])
        assert counts[row] == len(wanted)
        torch.testing.assert_close(found[row, : len(wanted)], wanted)
        assert not found[row, len(wanted) :].any()
    assert encoder.frame_rate == 50 / average
    same = encoder.fingerprint() == AudioEncoder("logmel").fingerprint()
    assert same == (average == 1)
