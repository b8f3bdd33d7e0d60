"""The visual encoder: timm's network, and random weights that are of use.

Authors
 * The vavl_sb authors 2026
"""

import pytest
import timm
import torch
from safetensors.torch import save_file

from vavl_sb.lobes import visual_encoder
from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.lobes.visual_init import draw_pictures
from vavl_sb.utils.errors import EncoderError


@pytest.fixture(scope="module")
def encoder():
    return VisualEncoder()


@pytest.fixture(scope="module")
def reference():
    """timm's model with its own random weights, some statistics set."""
    torch.manual_seed(3)
    net = timm.create_model("tf_efficientnet_b2", num_classes=8)
    net.train()
    # Statistics that fit, or the signal fades and a fault in what goes in
    # does not show in what comes out.
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net(normalized(pictures(8)))
    return net.eval()


def pictures(count=3, size=96, seed=5):
    return draw_pictures(count, size, seed)


def normalized(crops):
    """ImageNet's normalisation, written out a second time."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (crops.float() / 255 - mean) / std


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
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


def test_random_weights_are_the_same_whatever_the_seed(encoder):
    before = torch.random.get_rng_state()
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = VisualEncoder()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.random.set_rng_state(before)
    assert again.fingerprint() == encoder.fingerprint()
    assert torch.equal(again(pictures()), encoder(pictures()))
    other = VisualEncoder(init_seed=1)
    assert other.fingerprint() != encoder.fingerprint()


def test_random_weights_are_the_same_with_any_number_of_threads(encoder):
    threads = torch.get_num_threads()
    visual_encoder._random_state.cache_clear()
    torch.set_num_threads(threads + 1)
    try:
        assert VisualEncoder().fingerprint() == encoder.fingerprint()
    finally:
        torch.set_num_threads(threads)


def test_random_features_do_not_collapse(encoder):
    features = encoder(pictures(8, 224))
    assert 0.3 < features.std(0).mean() < 3  # About unit size.
    half = features.half().float()
    # Pictures stay far apart, also in the cache's half precision.
    distance = torch.pdist(half).min()
    assert distance > 0.3 * half.norm(dim=1).mean()
    assert torch.pdist(half - features).max() < 0.01 * distance


def test_random_statistics_are_those_of_pictures(encoder):
    """What enters the last BatchNorm has the mean and variance it holds."""
    entering = []
    norm = encoder.backbone.bn2
    hook = norm.register_forward_pre_hook(lambda _, x: entering.append(x[0]))
    encoder.backbone(encoder.normalize(pictures(16, 160)))
    hook.remove()
    found = (entering[0] - norm.running_mean.view(-1, 1, 1)).var((0, 2, 3))
    ratio = (found / norm.running_var).median()
    assert 0.5 < ratio < 2
    # Neither faded nor blown up on the way.
    assert 0.1 < norm.running_var.median() < 10


def test_random_features_are_pooled_by_place(encoder):
    crops = pictures(2, 224)
    with torch.no_grad():
        maps = encoder.backbone.forward_features(normalized(crops))
        pooled = torch.einsum("bdhw,dhw->bd", maps, encoder.pool) / 49
    expected = (pooled - encoder.shift) * encoder.scale
    assert torch.allclose(encoder(crops), expected, atol=1e-3)


def test_places_matter_to_random_features(encoder):
    crops = pictures(1, 224)
    moved = crops.roll(96, dims=3)
    a, b = encoder(torch.cat([crops, moved]))
    assert (a - b).norm() > 0.3 * a.norm()


def test_a_crop_does_not_depend_on_its_batch_mates(encoder):
    crops = pictures(5)
    whole = encoder(crops)
    small = VisualEncoder(batch_size=2)(crops)
    assert torch.allclose(whole, small, atol=1e-4)
    for index in range(5):
        assert torch.allclose(
            encoder(crops[index : index + 1])[0], whole[index], atol=1e-4
        )
    assert encoder(crops[:0]).shape == (0, 1408)


def test_folded_layers_give_what_the_backbone_gives_also_when_it_changes():
    encoder, crops = VisualEncoder(), pictures()
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
            encoder.backbone.conv_stem.weight.mul_(1.5)
            encoder.backbone.bn1.running_mean.add_(0.1)
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


def test_fine_tuning_has_gradients_and_keeps_statistics():
    encoder = VisualEncoder(freeze=False).train()
    statistics = {
        k: v.clone() for k, v in encoder.state_dict().items() if "running" in k
    }
    encoder(pictures()).sum().backward()
    assert encoder.backbone.conv_stem.weight.grad.abs().sum() > 0
    for name, value in statistics.items():
        assert torch.equal(encoder.state_dict()[name], value)


@pytest.mark.parametrize("kind", ["random", "file"])
def test_export_gives_the_same_features_and_digest(
    tmp_path, encoder, reference, kind
):
    if kind == "file":
        path = tmp_path / "timm.pt"
        torch.save(reference.state_dict(), path)
        encoder = VisualEncoder(weights=path)
    exported = VisualEncoder(**encoder.export(tmp_path / "model"))
    assert torch.equal(exported(pictures()), encoder(pictures()))
    assert exported.fingerprint() == encoder.fingerprint()


@pytest.mark.parametrize(
    "name",
    ["backbone.conv_stem.weight", "backbone.bn1.running_mean", "pool", "shift"],
)
def test_the_digest_follows_all_that_features_depend_on(encoder, name):
    changed = VisualEncoder()
    with torch.no_grad():
        changed.state_dict()[name][0] += 1e-3
    assert changed.fingerprint() != encoder.fingerprint()


def test_the_digest_follows_the_version_of_the_code(monkeypatch):
    before = VisualEncoder().fingerprint()
    monkeypatch.setattr(visual_encoder, "VERSION", 1)
    assert VisualEncoder().fingerprint() != before


def test_a_checkpoint_around_the_weights_is_opened(tmp_path, reference):
    torch.save(reference.state_dict(), tmp_path / "bare.pt")
    wrapped = {"state_dict": reference.state_dict(), "epoch": 3}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    bare, opened = (
        VisualEncoder(weights=tmp_path / f"{name}.pt").fingerprint()
        for name in ("bare", "wrapped")
    )
    assert opened == bare


def test_pictures_must_be_uint8(encoder):
    with pytest.raises(ValueError, match="uint8"):
        encoder(pictures().float())


def bad_files(folder, reference):
    """Files that must be refused, with a word of the reason."""
    state = reference.state_dict()
    less = {k: v for k, v in state.items() if k != "conv_head.weight"}
    shaped = {**state, "conv_head.weight": torch.zeros(2, 2)}
    torch.save(less, folder / "less.pt")
    torch.save(shaped, folder / "shaped.pt")
    torch.save([1, 2], folder / "list.pt")
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.safetensors").write_text("no weights")
    data = (folder / "less.pt").read_bytes()
    (folder / "cut.pt").write_bytes(data[: len(data) // 2])
    return {
        "less.pt": "conv_head.weight",
        "shaped.pt": "conv_head.weight",
        "list.pt": "no weights by name",
        "empty.pt": "no whole file",
        "text.safetensors": "cannot be read",
        "cut.pt": "no whole file",
        "none.pt": "no such file",
        "imagenet": "cannot be downloaded",
    }


def test_bad_weights_are_one_line(tmp_path, reference):
    for name, words in bad_files(tmp_path, reference).items():
        source = name if name == "imagenet" else tmp_path / name
        with pytest.raises(EncoderError) as error:
            VisualEncoder(weights=source)
        message = str(error.value)
        assert words in message, message
        assert "\n" not in message
        assert name == "imagenet" or name in message
