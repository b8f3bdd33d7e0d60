"""Sound that is heard at several speeds: the mean of its features."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from test_clip import make_encoder
from test_features import extract

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.cache import FeatureCache
from vavl_sb.features.extraction import _own_share
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.features.speed import add_speeds
from vavl_sb.features.speed_averaging import (
    at_times,
    frame_centres,
    mean_over_speeds,
)
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.training.experiment import _check_hearing, make_brain
from vavl_sb.training.export import export_model
from vavl_sb.utils import distributed as processes
from vavl_sb.utils.errors import VAVLError

SPEEDS = [80, 90, 110, 125]


@pytest.fixture
def voice(tmp_path):
    """A tone that rises and pulses, of 2 s and a bit."""
    time = np.arange(33333) / 16000
    sound = np.sin(2 * np.pi * (200 + 150 * time) * time)
    sound *= 0.4 + 0.3 * np.sin(2 * np.pi * 3 * time)
    path = tmp_path / "voice.wav"
    soundfile.write(path, sound, 16000, subtype="FLOAT")
    return str(path)


def test_the_last_frame_may_hold_less():
    # Of 2.3 s in frames of a second; and frames that begin past the end.
    assert np.allclose(frame_centres(3, 1.0, 2.3), [0.5, 1.5, 2.15])
    assert np.allclose(frame_centres(3, 1.0, 1.9), [0.5, 1.45, 2.0])
    assert frame_centres(0, 50.0, 0.0).shape == (0,)


def test_between_frames_it_is_linear_and_beyond_them_constant():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.random(9) + 0.1)
    features = rng.normal(size=(9, 3)).astype(np.float32)
    wanted = np.linspace(-1, times[-1] + 2, 40)
    found = at_times(features, times, wanted)
    columns = [np.interp(wanted, times, column) for column in features.T]
    assert np.allclose(found, np.stack(columns, axis=1), atol=1e-6)
    assert found.dtype == np.float32
    one = at_times(np.array([[7.0]]), [1.0], [0.0, 5.0, 9.0])
    assert one.ravel().tolist() == [7.0, 7.0, 7.0]


@pytest.mark.parametrize("length", [0.7, 2.0, 2.1, 20.5])
@pytest.mark.parametrize("frame", [0.02, 0.5, 1.0])
def test_frames_stand_at_their_own_times(length, frame):
    """An encoder whose features are the time: the mean is that time."""
    rate = 1000
    samples = torch.arange(round(length * rate))

    def encode(changed):
        # Frames of equal length, and the mean of what is left.
        parts = changed.double().split(round(frame * rate))
        return np.array([[p.mean() + 0.5] for p in parts]) / rate

    def stretched(samples, speed):
        places = torch.arange(-(-100 * len(samples) // speed)) + 0.5
        return places * speed / 100 - 0.5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "vavl_sb.features.speed_averaging.change_speed", stretched
        )
        found = mean_over_speeds(
            encode, samples, (100, 90, 110), rate, 1 / frame
        ).ravel()
    own = encode(samples).ravel()
    # At the very ends there may be no frame of another speed to tell of it.
    assert np.allclose(found[1:-2], own[1:-2], atol=2e-3)
    assert np.abs(found[:-1] - own[:-1]).max(initial=0) < 0.05 * frame
    assert np.abs(found - own)[-1] < 0.4 * frame


def test_a_speed_at_which_there_is_no_frame_does_not_count():
    samples = torch.rand(100)

    def encode(changed):
        return changed.numpy()[: len(changed) // 95 * 95].reshape(-1, 95)

    found = mean_over_speeds(encode, samples, (100, 110), 100, 100 / 95)
    assert np.array_equal(found, encode(samples))


def test_features_are_the_mean_over_the_speeds(voice):
    plain = make_encoder()
    own = plain.encode(wav=voice).audio.astype(float)
    expected = [own]
    for speed in SPEEDS:
        frames = plain.encode(wav=voice, speed=speed).audio.astype(float)
        times = (np.arange(len(frames)) + 0.5) * speed / 100
        wanted = np.arange(len(own)) + 0.5
        columns = [np.interp(wanted, times, column) for column in frames.T]
        expected.append(np.stack(columns, axis=1))
    found = make_encoder(audio_speeds=SPEEDS).encode(wav=voice).audio
    assert found.dtype == np.float16 and found.shape == own.shape
    # But for the end, where a last frame holds less than the others.
    expected = np.mean(expected, axis=0)
    assert np.allclose(found[:-2], expected[:-2], atol=2e-2)
    assert np.allclose(found[-2:], expected[-2:], atol=0.3)
    # And that is something else than the sound at its own speed.
    assert np.abs(found - own).max() > 1


def test_the_mean_over_a_clip_is_that_of_the_means(voice):
    def encoder(speeds):
        return FeatureExtractor(
            AudioEncoder("logmel", average=1000),
            None,
            FaceTracker(None),
            audio_speeds=speeds,
        )

    plain = encoder([])
    means = [plain.encode(wav=voice, speed=s).audio for s in [100, *SPEEDS]]
    found = encoder(SPEEDS).encode(wav=voice).audio
    assert found.shape == (1, 80)
    assert np.allclose(found, np.mean(means, axis=0, dtype=float), atol=1e-2)


def test_a_copy_is_heard_once(voice):
    plain, many = make_encoder(), make_encoder(audio_speeds=SPEEDS)
    copy = many.encode(wav=voice, speed=90).audio
    assert np.array_equal(copy, plain.encode(wav=voice, speed=90).audio)
    assert many.fingerprint("audio", speed=90) == plain.fingerprint(
        "audio", speed=90
    )


def test_a_digest_names_the_speeds_in_any_order():
    plain = make_encoder().fingerprint("audio")
    assert make_encoder(audio_speeds=[]).fingerprint("audio") == plain
    assert make_encoder(audio_speeds=[100]).fingerprint("audio") == plain
    some = make_encoder(audio_speeds=[110, 90.0])
    assert some.fingerprint("audio") != plain
    assert some.fingerprint("audio") == make_encoder(
        audio_speeds=[90, 110]
    ).fingerprint("audio")
    assert some.fingerprint("visual") == make_encoder().fingerprint("visual")


def test_silence_has_no_features_at_any_speed(tmp_path):
    path = str(tmp_path / "silent.wav")
    soundfile.write(path, np.zeros(16000), 16000)
    assert make_encoder(audio_speeds=SPEEDS).encode(wav=path).audio is None


def test_the_shortest_sound_is_heard():
    encoder = make_encoder(audio_speeds=SPEEDS)
    assert encoder.encode_audio(torch.tensor([0.5, -0.5])).shape == (1, 80)


@pytest.mark.parametrize(
    "speeds", [90, [0.9], [90, 90], ["fast"], list(range(60, 71))]
)
def test_what_is_no_speed_is_refused(speeds):
    with pytest.raises(VAVLError, match="^audio_speeds: ") as error:
        make_encoder(audio_speeds=speeds)
    assert "\n" not in str(error.value)


def test_an_encoder_that_learns_is_refused():
    def hparams(speeds, freeze):
        return {
            "feature_extractor": make_encoder(audio_speeds=speeds),
            "audio_encoder": SimpleNamespace(freeze=freeze),
        }

    _check_hearing(hparams([], False))
    _check_hearing(hparams([90], True))
    with pytest.raises(VAVLError, match="^audio_speeds: .*freeze_audio"):
        make_brain(hparams([90], False), {"device": "cpu"})


def test_an_exported_model_hears_as_training_did(voice, tmp_path):
    torch.manual_seed(0)
    net = VAVL(80, 512, 2, d_model=16, encoder_layers=1, shared_layers=1)
    net.eval()
    encoder = FeatureExtractor(
        AudioEncoder("logmel"),
        VisualEncoder(None),
        FaceTracker(None),
        audio_speeds=[90, 110],
    )
    export_model(
        tmp_path / "model",
        net,
        encoder,
        task="classification",
        labels=["angry", "happy"],
        corpus="none",
        attribute_range=None,
        trained_heads=["audio"],
    )
    # Without trust: what an export has in it is let through.
    model = EmotionRecognizer.from_hparams(tmp_path / "model")
    assert model.hparams.feature_extractor.audio_speeds == [90, 110]
    with torch.no_grad():
        audio = torch.from_numpy(encoder.encode(wav=voice).audio).float()
        logits = net(audio=audio[None]).audio[0]
    expected = torch.softmax(logits, dim=-1)[1].item()
    answer = model.predict_file(voice).probabilities["happy"]
    assert answer == pytest.approx(expected, abs=1e-6)


def entry(wav):
    return {"wav": wav, "video": None, "duration": 2.0, "spk_id": "1"}


@pytest.mark.parametrize("kept", [2**26, 0])
def test_copies_share_what_was_heard(voice, tmp_path, monkeypatch, kept):
    monkeypatch.setattr("vavl_sb.features.speed_averaging.KEPT_BYTES", kept)
    other = str(tmp_path / "other.wav")
    soundfile.write(other, np.sin(np.arange(9000) * 0.3), 16000)
    encoder = make_encoder(audio_speeds=[90, 110])
    calls = []
    encoder.audio_encoder.register_forward_hook(lambda *_: calls.append(1))
    clips = add_speeds({"a": entry(voice), "b": entry(other)}, [80, 90, 110])
    index, _ = extract(tmp_path, clips, encoder)
    # At 100, 90, 110 for the mean, and the copies at 80, 90 and 110.
    assert len(calls) == 2 * (4 if kept else 6)
    cache = FeatureCache(tmp_path / "features")
    for id, clip in clips.items():
        alone = make_encoder(audio_speeds=[90, 110]).encode(
            wav=clip["wav"], speed=clip.get("speed_change", 100)
        )
        assert np.array_equal(cache.read(index[id]["audio"]), alone.audio)


def test_a_process_has_a_clip_with_all_its_copies(monkeypatch):
    clips = {name: entry(f"{name}.wav") for name in "bac"}
    clips["silent"] = {**entry(None), "video": "silent.mp4"}
    clips = add_speeds(clips, [90, 110])
    monkeypatch.setattr(processes, "count", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares.append(_own_share(clips))
    assert shares[0][:3] == ["a", "a_sp0.9", "a_sp1.1"]
    assert sorted(shares[0] + shares[1]) == sorted(clips)
    names = [{id.split("_")[0] for id in share} for share in shares]
    assert names == [{"a", "c"}, {"b", "silent"}]
