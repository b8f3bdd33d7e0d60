"""The visual encoder: timm's network by its weights, or no network at all."""

import pytest
import torch
from safetensors.torch import save_file
from small_clips import pictures
from small_encoders import normalized, timm_network

from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.utils.errors import EncoderError


@pytest.fixture(scope="module")
def reference():
    return timm_network()


@pytest.fixture(scope="module")
def weights(tmp_path_factory, reference):
    path = tmp_path_factory.mktemp("weights") / "timm.pt"
    torch.save(reference.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def encoder(weights):
    return VisualEncoder(weights)


@pytest.mark.parametrize(
    "ending, prefix", [(".pt", "module."), (".safetensors", "")]
)
def test_a_file_of_timms_weights_gives_timms_features(
    tmp_path, reference, ending, prefix, caplog
):
    state = {prefix + k: v for k, v in reference.state_dict().items()}
    path = tmp_path / f"weights{ending}"
    save_file(state, path) if ending != ".pt" else torch.save(state, path)
    crops = pictures(size=224)
    with torch.no_grad():
        maps = reference.forward_features(normalized(crops))
        expected = reference.forward_head(maps, pre_logits=True)
    with caplog.at_level("INFO"):
        found = VisualEncoder(weights=path)(crops)
    assert found.shape == (3, 1408)
    assert expected.std() > 0.1
    assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max())
    assert "left out classifier.bias, classifier.weight" in caplog.text


@pytest.mark.parametrize("fixed", [True, False])
def test_a_crop_does_not_depend_on_its_batch_mates(weights, fixed):
    weights = None if fixed else weights
    encoder, crops = VisualEncoder(weights), pictures(5)
    whole = encoder(crops)
    small = VisualEncoder(weights, batch_size=2)(crops)
    assert torch.allclose(whole, small, atol=1e-4)
    for index in range(5):
        assert torch.allclose(
            encoder(crops[index : index + 1])[0], whole[index], atol=1e-4
        )
    assert encoder(crops[:0]).shape == (0, encoder.output_dim)


def test_folded_layers_give_what_the_backbone_gives_also_when_it_changes(
    weights,
):
    encoder, crops = VisualEncoder(weights), pictures()
    names = list(encoder.state_dict())
    seen = []
    for _ in range(2):
        with torch.no_grad():
            maps = encoder.backbone.forward_features(encoder.normalize(crops))
            folded = encoder._network().forward_features(
                encoder.normalize(crops)
            )
        scale = maps.abs().max()
        assert (folded - maps).abs().max() < 1e-4 * scale
        seen.append(encoder(crops))
        with torch.no_grad():
            encoder.backbone.conv_stem.weight.mul_(1.02)
            encoder.backbone.bn1.running_mean.add_(0.01)
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)
    assert list(encoder.state_dict()) == names
    norms = [m for m in encoder._network().modules() if "Norm" in str(type(m))]
    assert not norms


def test_frozen_stays_frozen(encoder):
    first = encoder(pictures())
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert torch.equal(encoder(pictures()), first)
    assert not first.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("fixed", [True, False])
def test_export_gives_the_same_features_and_digest(tmp_path, weights, fixed):
    encoder = VisualEncoder(None if fixed else weights)
    exported = VisualEncoder(**encoder.export(tmp_path))
    assert torch.equal(exported(pictures()), encoder(pictures()))
    assert exported.fingerprint() == encoder.fingerprint()
    assert exported.output_dim == encoder.output_dim
    assert len(list(tmp_path.iterdir())) == (0 if fixed else 1)


@pytest.mark.parametrize(
    "name", ["backbone.conv_stem.weight", "backbone.bn1.running_mean"]
)
def test_the_digest_follows_all_that_features_depend_on(weights, encoder, name):
    changed = VisualEncoder(weights)
    with torch.no_grad():
        changed.state_dict()[name][0] += 1e-3
    assert changed.fingerprint() != encoder.fingerprint()


def test_bad_weights_are_one_line(tmp_path, reference):
    state = reference.state_dict()
    shaped = {**state, "conv_head.weight": torch.zeros(2, 2)}
    torch.save(shaped, tmp_path / "shaped.pt")
    (tmp_path / "text.safetensors").write_text("no weights")
    for source, words in (
        (tmp_path / "shaped.pt", "conv_head.weight"),
        (tmp_path / "text.safetensors", "cannot be read"),
        (tmp_path / "none.pt", "no such file"),
        ("imagenet", "cannot be downloaded"),
    ):
        with pytest.raises(EncoderError, match=words) as error:
            VisualEncoder(weights=source)
        assert source == "imagenet" or str(source) in str(error.value)
