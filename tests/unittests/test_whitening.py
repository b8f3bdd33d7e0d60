"""Whitened features, and noise on them."""

import numpy as np
import pytest
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes

from vavl_sb.features.cache import FeatureCache
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.nnet import wccn as module
from vavl_sb.nnet.feature_noise import FeatureNoise
from vavl_sb.nnet.wccn import check_whitening, whiten, whitening
from vavl_sb.training.init_from_pretrained import set_input_statistics
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import write_json


def clips(count=60, size=5, seed=0):
    """Features that hang together, and class indices of different number."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 4, count) % 3
    means = random.normal(size=(3, size))
    mixing = random.normal(size=(size, size))
    features = 2 + means[classes] + random.normal(size=(count, size)) @ mixing
    return features, classes


def matrix_of(features, targets, shrinkage):
    """The matrix that features are multiplied by, with arrays."""
    parts = whitening(
        torch.from_numpy(features).float(), torch.as_tensor(targets), shrinkage
    )
    return whiten(torch.eye(features.shape[1]), *parts).double().numpy()


def within(features, classes):
    """Covariance about the means of the classes, clip by clip."""
    total = np.zeros((features.shape[1],) * 2)
    for row, kind in zip(features, classes):
        rest = row - features[classes == kind].mean(axis=0)
        total += np.outer(rest, rest)
    return total / len(features)


@pytest.mark.parametrize("shrinkage", [0.001, 0.3, 1.0])
def test_what_is_left_of_classes_has_the_same_spread_everywhere(shrinkage):
    features, classes = clips()
    covariance = within(features, classes)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.eye(
        5
    ) * np.trace(covariance) / 5
    matrix = matrix_of(features, classes, shrinkage)
    white = matrix.T @ covariance @ matrix
    assert np.allclose(white / white[0, 0], np.eye(5), atol=1e-4)
    assert np.allclose(matrix, matrix.T, atol=1e-5)


def test_features_keep_their_mean_square():
    features, classes = clips()
    centred = features - features.mean(axis=0)
    after = centred @ matrix_of(features, classes, 0.1)
    assert np.square(after).mean() == pytest.approx(np.square(centred).mean())


def test_of_attributes_a_linear_fit_is_taken_out():
    features, _ = clips()
    random = np.random.default_rng(1)
    attributes = random.uniform(1, 5, (len(features), 2)).astype(np.float32)
    features = features + 9 * attributes[:, :1]
    with_offset = np.column_stack([np.ones(len(features)), attributes])
    fit, *_ = np.linalg.lstsq(with_offset, features, rcond=None)
    covariance = np.cov((features - with_offset @ fit).T, bias=True)
    covariance = 0.99 * covariance + 0.01 * np.eye(5) * np.trace(covariance) / 5
    matrix = matrix_of(features, attributes, 0.01)
    white = matrix.T @ covariance @ matrix
    assert np.allclose(white / white[0, 0], np.eye(5), atol=1e-3)


def test_turned_features_have_a_turned_matrix():
    features, classes = clips()
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))
    matrix = matrix_of(features, classes, 0.2)
    turned = matrix_of(features @ turn, classes, 0.2)
    assert np.allclose(turned, turn.T @ matrix @ turn, atol=1e-4)


def test_order_of_clips_and_form_of_classes_do_not_matter():
    features, classes = clips()
    matrix = matrix_of(features, classes, 0.2)
    assert np.allclose(
        matrix_of(features[::-1].copy(), classes[::-1].copy(), 0.2),
        matrix,
        atol=1e-5,
    )
    assert np.allclose(matrix_of(features, classes[:, None], 0.2), matrix)


def test_fewer_clips_than_features():
    features, classes = clips(count=12, size=40)
    matrix = matrix_of(features, classes, 0.001)
    assert np.isfinite(matrix).all() and np.linalg.matrix_rank(matrix) == 40


@pytest.mark.parametrize("targets", [[0], [0, 1, 2]])
def test_nothing_to_whiten(targets):
    features, _ = clips(count=len(targets))
    assert (matrix_of(features, targets, 0.01) == np.eye(5)).all()


def test_of_very_many_clips_every_so_many_are_taken(monkeypatch):
    monkeypatch.setattr(module, "RANK", 20)
    features, classes = clips(count=59)
    thinned = matrix_of(features[::3], classes[::3], 0.1)
    assert np.allclose(matrix_of(features, classes, 0.1), thinned)


@pytest.mark.parametrize("value", [0, -1, 2, True, "0.5", float("nan"), [0.5]])
def test_no_shrinkage(value):
    with pytest.raises(VAVLError, match="feature_whitening: must be") as error:
        VAVL(audio_dim=2, visual_dim=2, d_model=8, feature_whitening=value)
    assert "\n" not in str(error.value)
    assert check_whitening(None) is None


@pytest.mark.parametrize(
    "name, value",
    [
        ("feature_noise", -0.1),
        ("feature_noise", "1"),
        ("feature_noise", float("nan")),
    ],
)
def test_no_noise(name, value):
    with pytest.raises(VAVLError, match=f"{name}: must be"):
        VAVL(audio_dim=2, visual_dim=2, d_model=8, **{name: value})


def test_noise_moves_each_clip_as_a_whole():
    torch.manual_seed(0)
    features = torch.randn(400, 3, 50)
    moved = FeatureNoise(noise=2.0)(features) - features
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-5)
    assert moved[:, 0].std().item() == pytest.approx(2, rel=0.02)
    assert abs(moved.mean().item()) < 0.05
    # Of each clip and each feature by itself.
    clips_alike = torch.corrcoef(moved[:, 0])[0, 1:].abs().mean()
    features_alike = torch.corrcoef(moved[:, 0].T)[0, 1:].abs().mean()
    assert clips_alike < 0.2 and features_alike < 0.1


def test_no_noise_in_evaluation_or_by_default():
    features = torch.randn(2, 3, 4)
    for noise in (FeatureNoise(2.0).eval(), FeatureNoise()):
        assert noise(features) is features


def networks(**settings):
    """A network with whitening, and the same without."""
    random = torch.Generator().manual_seed(3)
    means = torch.randn(20, 6, generator=random)
    targets = torch.arange(20) % 3
    made = []
    for shrinkage in (0.4, None):
        torch.manual_seed(0)
        net = VAVL(
            audio_dim=6,
            visual_dim=5,
            num_outputs=3,
            d_model=16,
            feature_whitening=shrinkage,
            **settings,
        )
        made.append(net)
    net = made[0].audio_branch["normalize"]
    net.set_statistics(means.mean(0), means.std(0))
    net.set_whitening(means, targets)
    return made


def matrix_in(parts):
    """The matrix of a network's standardization."""
    vectors = parts.directions
    unit = torch.eye(len(vectors))
    return parts.whitening_base * unit + vectors * parts.gains @ vectors.T


def test_whitening_is_a_matrix_before_the_network():
    net, plain = (net.eval() for net in networks())
    parts = net.audio_branch["normalize"]
    features, lens = torch.randn(2, 7, 6), torch.tensor([1.0, 3 / 7])
    matrix = matrix_in(parts)
    given = ((features - parts.mean) / parts.deviation) @ matrix
    assert not torch.allclose(matrix, torch.eye(6), atol=0.01)
    out, expected = net(features, lens), plain(given, lens)
    for field in ("audio", "audio_reconstruction", "audio_target"):
        found, wanted = getattr(out, field), getattr(expected, field)
        assert torch.allclose(found, wanted, atol=1e-5)
    alone = net(features[1:, :3]).audio
    assert torch.allclose(out.audio[1:], alone, atol=1e-5)


def test_what_is_reconstructed_has_no_noise():
    net, _ = networks(feature_noise=2.0)
    features = torch.randn(2, 7, 6)
    noisy, again = net(features), net(features)
    quiet = net.eval()(features)
    assert torch.equal(noisy.audio_target, quiet.audio_target)
    assert not torch.allclose(noisy.audio, again.audio, atol=1e-3)


def test_the_audiovisual_update_reads_features_without_noise():
    net, _ = networks(feature_noise=50.0, head_dropout=0.0)
    audio, visual = torch.randn(2, 3, 6), torch.randn(2, 4, 5)
    found = [
        net(audio, visual=visual, freeze_backbone=True).audiovisual
        for _ in range(2)
    ]
    assert torch.equal(*found)


@pytest.fixture
def cached(tmp_path):
    """Cached features of ten clips, and their classes."""
    cache, index = FeatureCache(tmp_path), {}
    random = np.random.default_rng(0)
    for k in range(10):
        path = cache.path("audio", "d", f"clip{k}")
        frames = random.normal(k % 2, size=(2 + k, 6)).astype(np.float16)
        cache.write(path, frames)
        index[f"clip{k}"] = {"audio": str(path), "visual": None}
    targets = {id: torch.tensor([int(id[-1]) // 4]) for id in index}
    return tmp_path, index, targets


def fit(net, folder, index, targets, **options):
    """Sets a network's statistics as a recipe does."""
    write_json(folder / "features.json", index)
    clips = {id: {"target": target} for id, target in targets.items()}

    @takes("target")
    @provides("label")
    def label(target):
        return target

    set_input_statistics(
        net,
        DynamicItemDataset(clips, [label], ["id", "label"]),
        folder / "features.json",
        folder,
        **options,
    )


def test_whitening_is_that_of_the_training_clips(cached):
    folder, index, targets = cached
    net, _ = networks()
    fit(net, folder, index, targets)
    parts = net.audio_branch["normalize"]
    frames = [np.load(row["audio"])["features"] for row in index.values()]
    every = np.concatenate(frames).astype(np.float64)
    assert np.allclose(parts.mean, every.mean(axis=0), atol=1e-4)
    means = np.stack([f.mean(axis=0, dtype=np.float64) for f in frames])
    means = (means - every.mean(axis=0)) / every.std(axis=0)
    expected = matrix_of(means, np.arange(10) // 4, 0.4)
    assert np.allclose(matrix_in(parts), expected, atol=1e-3)
    # No clip has a picture.
    visual = net.visual_branch["normalize"]
    assert torch.equal(matrix_in(visual), torch.eye(5))


def test_a_carried_modality_keeps_its_whitening(cached):
    folder, index, targets = cached
    net, _ = networks()
    before = matrix_in(net.audio_branch["normalize"])
    about = {"encoders": {"audio": "", "visual": ""}, "train_speakers": []}
    write_json(folder / "about.json", {**about, "trained_heads": ["audio"]})
    fit(net, folder, index, targets, pretrained_from=folder)
    assert torch.equal(matrix_in(net.audio_branch["normalize"]), before)


def test_fewer_clips_in_a_second_fit_leave_nothing_of_the_first(cached):
    folder, index, targets = cached
    net, _ = networks()
    few = {id: targets[id] for id in ("clip0", "clip4", "clip8")}
    fit(net, folder, index, few)
    matrix = matrix_in(net.audio_branch["normalize"])
    assert torch.equal(matrix, torch.eye(6))


def test_in_half_precision_it_is_as_exact_as_else():
    net, _ = networks()
    features = torch.randn(2, 3, 6)
    full = net.audio_branch["normalize"](features)
    with torch.autocast("cpu", torch.bfloat16):
        half = net.audio_branch["normalize"](features)
    assert torch.equal(full, half)


def test_a_speech_encoder_that_learns_has_nothing_to_whiten_by(cached):
    net, plain = networks()
    fit(plain, *cached, raw_audio=True)
    with pytest.raises(VAVLError, match="feature_whitening: .*learns") as error:
        fit(net, *cached, raw_audio=True)
    assert "\n" not in str(error.value)
