"""Noise on features in training."""

import pytest
import torch
from test_brain import AUDIO_DIM, VISUAL_DIM, network

from vavl_sb.nnet.normalization import FeatureNoise
from vavl_sb.utils.errors import VAVLError


def test_no_noise():
    with pytest.raises(VAVLError, match="feature_noise: must be"):
        network(feature_noise=-0.1)


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


def test_what_is_reconstructed_has_no_noise():
    net = network(feature_noise=2.0)
    features = torch.randn(2, 7, AUDIO_DIM)
    noisy, again = net(features), net(features)
    quiet = net.eval()(features)
    assert torch.equal(noisy.audio_target, quiet.audio_target)
    assert not torch.allclose(noisy.audio, again.audio, atol=1e-3)


def test_the_audiovisual_update_reads_features_without_noise():
    net = network(feature_noise=50.0, head_dropout=0.0)
    audio, visual = torch.randn(2, 3, AUDIO_DIM), torch.randn(2, 4, VISUAL_DIM)
    found = [
        net(audio, visual=visual, freeze_backbone=True).audiovisual
        for _ in range(2)
    ]
    assert torch.equal(*found)
