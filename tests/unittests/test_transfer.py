"""What a network takes over from another model, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from light_model import write_model_file
from test_clip import make_encoder

from vavl_sb.lobes.vavl import VAVL
from vavl_sb.training.init_from_pretrained import (
    carried_modalities,
    read_about,
    start_from,
)
from vavl_sb.utils.errors import CorpusError, EncoderError
from vavl_sb.utils.weights import save_weights

DIGESTS = {"audio": "a1", "visual": "v1"}
SPLITS = {
    "valid": {"clip1": {"spk_id": "new1"}},
    "test": {"clip2": {"spk_id": "new2"}},
}


def network(seed, **changes):
    torch.manual_seed(seed)
    settings = dict(audio_dim=6, visual_dim=5, num_outputs=3, d_model=8)
    return VAVL(**{**settings, "d_ffn": 8, "shared_layers": 1, **changes})


def encoder(**digests):
    return SimpleNamespace(
        fingerprint={**DIGESTS, **digests}.get,
        audio_speeds=[],
        audio_encoder=SimpleNamespace(freeze=True),
    )


def hearing(speeds, freeze=True):
    """A feature extractor with all its parts."""
    encoder = make_encoder(audio_speeds=speeds)
    encoder.audio_encoder.freeze = freeze
    return encoder


@pytest.fixture
def model(tmp_path):
    """Makes a model's folder."""

    def make(net, heads=None, speakers=("old",), **more):
        save_weights(net, tmp_path / "vavl.safetensors")
        about = {"encoders": DIGESTS, "train_speakers": list(speakers)}
        about.update(more)
        write_model_file(
            tmp_path, about, trained_heads=heads or ["audio", "visual"]
        )
        return str(tmp_path)

    return make


def same(net, other):
    """Names of the tensors that are equal in both."""
    theirs = other.state_dict()
    return {
        name
        for name, tensor in net.state_dict().items()
        if name in theirs and torch.equal(tensor, theirs[name])
    }


def test_branches_and_shared_layers_come_over_and_heads_stay_new(model):
    source, net = network(0, num_outputs=6), network(1)
    for branch in (source.audio_branch, source.visual_branch):
        branch["standardize"].set(
            torch.rand(branch["standardize"].mean.shape), torch.tensor(2.0)
        )
    before = set(net.state_dict()) - same(net, source)
    start_from(model(source), net, encoder(), SPLITS)
    changed = before & same(net, source)
    assert any("standardize" in name for name in changed)
    assert any("reconstruction_head" in name for name in changed)
    assert any(name.startswith("shared") for name in changed)
    assert not any("prediction_head" in name for name in same(net, source))
    assert not any(
        name.startswith("audiovisual_head") and name.endswith("weight")
        for name in same(net, source)
    )


def test_a_modality_that_was_never_trained_stays_new(model):
    source, net = network(0), network(1)
    folder = model(source, heads=["audio"])
    assert carried_modalities(folder) == ["audio"]
    # Its faces went through another encoder, which does not matter.
    start_from(folder, net, encoder(visual="v2"), SPLITS)
    weights = {name for name in same(net, source) if "projection" in name}
    assert weights and all(name.startswith("audio") for name in weights)


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_other_encoders_of_the_same_size_are_refused(model, modality):
    folder = model(network(0))
    with pytest.raises(EncoderError, match=f"another {modality} encoder"):
        start_from(folder, network(1), encoder(**{modality: "x"}), SPLITS)


@pytest.mark.parametrize("layers", [0, 2])
def test_other_shared_layers_are_refused(model, layers):
    folder = model(network(0))
    net = network(1, shared_layers=layers)
    with pytest.raises(EncoderError, match="shared layers"):
        start_from(folder, net, encoder(), SPLITS)


@pytest.mark.parametrize("theirs, own", [(0.5, None), (None, 0.5), (0.5, 0.7)])
def test_features_whitened_in_another_way_are_refused(model, theirs, own):
    run = {"feature_whitening": theirs}
    folder = model(network(0, feature_whitening=theirs), run=run)
    same_way = network(1, feature_whitening=theirs)
    start_from(folder, same_way, encoder(), SPLITS)
    net = network(1, feature_whitening=own)
    with pytest.raises(EncoderError, match="feature_whitening") as error:
        start_from(folder, net, encoder(), SPLITS)
    assert "\n" not in str(error.value)


def trained_with(model, speeds):
    """A model's folder, with what an export says of its speeds."""
    encoder = hearing(speeds)
    digests = {name: encoder.fingerprint(name) for name in DIGESTS}
    # Exports from before there were speeds say nothing of them.
    run = {"audio_speeds": speeds} if speeds else {}
    return model(network(0), encoders=digests, run=run)


@pytest.mark.parametrize(
    "theirs, own", [([90], []), ([], [90, 110]), ([90], [110])]
)
def test_features_heard_at_other_speeds_are_refused(model, theirs, own):
    folder = trained_with(model, theirs)
    start_from(folder, network(1), hearing(theirs), SPLITS)
    with pytest.raises(EncoderError) as error:
        start_from(folder, network(1), hearing(own), SPLITS)
    assert f"audio_speeds {theirs}, and this run has {own}" in str(error.value)
    assert "\n" not in str(error.value)


def test_speeds_are_the_same_in_any_order(model):
    folder = trained_with(model, [110, 100, 90])
    start_from(folder, network(1), hearing([90, 110]), SPLITS)


@pytest.mark.parametrize("theirs", [[], [90, 110]])
def test_a_speech_encoder_may_learn_from_features_at_many_speeds(model, theirs):
    folder = trained_with(model, theirs)
    net = network(1)
    encoder = hearing([], freeze=False)
    start_from(folder, net, encoder, SPLITS)
    assert any("projection" in name for name in same(net, network(0)))
    assert encoder.audio_speeds == []
    other = make_encoder()
    other.audio_encoder.average = 7
    other.audio_encoder.freeze = False
    with pytest.raises(EncoderError, match="another audio encoder"):
        start_from(folder, net, other, SPLITS)


@pytest.mark.parametrize("speaker", ["new1", "new2"])
def test_a_speaker_that_scores_this_run_is_refused(model, speaker):
    folder = model(network(0), speakers=["old", speaker])
    with pytest.raises(CorpusError) as error:
        start_from(folder, network(1), encoder(), SPLITS)
    assert speaker in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"encoders": {}, "train_speakers": []}']
)
def test_a_folder_that_is_no_model(model, tmp_path, text):
    folder = model(network(0))
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(EncoderError, match="inference folder"):
        start_from(folder, network(1), encoder(), SPLITS)


def test_what_is_no_model_is_told_with_what_is_meant(tmp_path):
    for source, words in (
        (tmp_path / "nope", f"{tmp_path}/nope/model.json: is missing .*run's"),
        (tmp_path, f"{tmp_path}/model.json: is missing .*; give a run's"),
    ):
        with pytest.raises(EncoderError, match=f"pretrained_from: {words}"):
            read_about(source)
    (tmp_path / "inference").mkdir()
    write_model_file(tmp_path / "inference")
    with pytest.raises(EncoderError, match=f"give {tmp_path}/inference$"):
        read_about(tmp_path)
