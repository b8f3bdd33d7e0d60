"""What a network takes over from another model, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from light_model import write_model_file

from vavl_sb.lobes.vavl import VAVL
from vavl_sb.training.init_from_pretrained import (
    carried_modalities,
    init_from_pretrained,
    read_metadata,
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
    return SimpleNamespace(fingerprint={**DIGESTS, **digests}.get)


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
        branch["normalize"].set_statistics(
            torch.rand(branch["normalize"].mean.shape), torch.tensor(2.0)
        )
    before = set(net.state_dict()) - same(net, source)
    init_from_pretrained(model(source), net, encoder(), SPLITS)
    changed = before & same(net, source)
    assert any("normalize" in name for name in changed)
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
    init_from_pretrained(folder, net, encoder(visual="v2"), SPLITS)
    weights = {name for name in same(net, source) if "projection" in name}
    assert weights and all(name.startswith("audio") for name in weights)


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_other_encoders_of_the_same_size_are_refused(model, modality):
    folder = model(network(0))
    with pytest.raises(EncoderError, match=f"another {modality} encoder"):
        init_from_pretrained(
            folder, network(1), encoder(**{modality: "x"}), SPLITS
        )


@pytest.mark.parametrize("layers", [0, 2])
def test_other_shared_layers_are_refused(model, layers):
    folder = model(network(0))
    net = network(1, shared_layers=layers)
    with pytest.raises(EncoderError, match="shared layers"):
        init_from_pretrained(folder, net, encoder(), SPLITS)


@pytest.mark.parametrize("speaker", ["new1", "new2"])
def test_a_speaker_that_scores_this_run_is_refused(model, speaker):
    folder = model(network(0), speakers=["old", speaker])
    with pytest.raises(CorpusError) as error:
        init_from_pretrained(folder, network(1), encoder(), SPLITS)
    assert speaker in str(error.value)


def test_what_is_no_model_is_told_with_what_is_meant(tmp_path):
    for source, words in (
        (tmp_path / "nope", f"{tmp_path}/nope/model.json: is missing .*run's"),
        (tmp_path, f"{tmp_path}/model.json: is missing .*; give a run's"),
    ):
        with pytest.raises(EncoderError, match=f"pretrained_from: {words}"):
            read_metadata(source)
    (tmp_path / "inference").mkdir()
    write_model_file(tmp_path / "inference")
    with pytest.raises(EncoderError, match=f"give {tmp_path}/inference$"):
        read_metadata(tmp_path)
