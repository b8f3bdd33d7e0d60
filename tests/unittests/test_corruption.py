"""What clips lose, against closed forms and another library."""

import numpy as np
import pytest
import soundfile
import torch
from torchmetrics.functional.audio import signal_noise_ratio

from vavl_sb.evaluation.corruption import CONDITIONS, lose_modality, make_noise
from vavl_sb.utils.errors import MediaError

CLIPS = [f"clip{i}" for i in range(41)]


def corrupt(name, given, level, clip="a", seed=1, noise=None):
    """What a condition makes of samples or frames."""
    return CONDITIONS[name].corrupt(given, level, clip, seed, noise)


def speech(length=16000):
    """Something with pauses and a level far from 1."""
    t = torch.arange(length) / 16000
    return 0.03 * torch.sin(1400 * t) * torch.sin(9 * t).clamp(min=0)


@pytest.mark.parametrize("snr", CONDITIONS["noise"].levels[1:])
@pytest.mark.parametrize("kind", ["white", "file"])
def test_the_measured_ratio_is_the_one_asked_for(snr, kind, tmp_path):
    noise = make_noise(1)
    if kind == "file":
        hum = np.sin(np.arange(5000) / 9) ** 3 * 0.9
        soundfile.write(tmp_path / "hum.wav", hum, 16000)
        noise = make_noise(1, tmp_path / "hum.wav")
    clean = speech()
    noisy = corrupt("noise", clean, snr, noise=noise)
    # torchmetrics takes the difference from the clean sound as the noise: it
    # must be the sound as it was, not one turned down.
    assert float(signal_noise_ratio(noisy, clean)) == pytest.approx(
        snr, abs=0.1
    )


def test_white_noise_is_white_and_each_clips_own():
    noise = make_noise(3)
    first = noise("a", 64000)
    power = torch.fft.rfft(first).abs() ** 2
    for part in power[1:].chunk(8):
        assert float(part.mean() / power.mean()) == pytest.approx(1, abs=0.1)
    assert torch.equal(first, noise("a", 64000))
    for other in (noise("b", 64000), make_noise(4)("a", 64000)):
        assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < (
            0.02
        )


def test_noise_from_a_file_goes_round_and_round(tmp_path):
    ramp = np.arange(1, 1001) / 2000
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.concatenate([np.zeros(300), ramp]), 16000)
    noise = make_noise(1, path)
    found = noise("a", 2500) * 2000
    steps = found.diff().round()
    assert set(steps.tolist()) == {1.0, -999.0}  # The silent start is left out.
    assert float(noise("b", 9)[0]) != float(noise("a", 9)[0])
    assert torch.equal(noise("a", 9), noise("a", 2500)[:9])


def test_a_noise_file_without_sound_is_refused(tmp_path):
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(16000), 16000)
    with pytest.raises(MediaError, match="silent.wav.*noise file"):
        make_noise(1, path)
    with pytest.raises(MediaError, match="nowhere.wav"):
        make_noise(1, tmp_path / "nowhere.wav")


@pytest.mark.parametrize("length", [1, 2, 25])
def test_the_share_of_frames_is_dropped_in_order_and_nested(length):
    frames = np.arange(length)[:, None]
    before = set(range(length))
    for percent in CONDITIONS["face"].levels:
        kept = corrupt("face", frames, percent)[:, 0]
        dropped = min(round(length * percent / 100), length - 1)
        assert len(kept) == length - dropped
        assert (np.diff(kept) > 0).all()
        assert set(kept.tolist()) <= before  # More is dropped, none comes back.
        before = set(kept.tolist())


def test_clips_that_lose_a_modality_are_nested_and_balanced():
    before = {}
    for percent in CONDITIONS["missing"].levels:
        lost = lose_modality(CLIPS, percent, 1)
        assert len(lost) == round(len(CLIPS) * percent / 100)
        assert before.items() <= lost.items()
        kinds = list(lost.values())
        assert kinds.count("audio") - kinds.count("visual") in (0, 1)
        assert lose_modality(CLIPS[::-1], percent, 1) == lost
        before = lost
    assert lose_modality(CLIPS, 50, 2) != lose_modality(CLIPS, 50, 1)
