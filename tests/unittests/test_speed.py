"""Speed perturbation: copies of training clips, and what they sound like."""

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.augment.time_domain import SpeedPerturb
from test_clip import make_encoder
from test_features import CountingEncoder, extract

from vavl_sb.dataio.datasets import emotion_datasets
from vavl_sb.dataio.speed import add_speeds, change_speed
from vavl_sb.utils.errors import VAVLError


def clip(**changes):
    return {
        "wav": "a.wav",
        "video": "a.mp4",
        "duration": 2.0,
        "spk_id": "1",
        "emotion": "sad",
        **changes,
    }


@pytest.mark.parametrize("speed", [80, 90, 110, 97.5])
def test_pitch_and_length_follow_the_speed(speed):
    time = torch.arange(32000) / 16000
    changed = change_speed(torch.sin(2 * torch.pi * 500 * time), speed)
    assert abs(len(changed) - 32000 * 100 / speed) <= 1
    power = np.abs(np.fft.rfft(changed.numpy() * np.hanning(len(changed))))
    peak = power.argmax() * 16000 / len(changed)
    assert peak == pytest.approx(500 * speed / 100, abs=1.0)


def test_it_is_speechbrains_speed_perturbation():
    sound = torch.randn(16000)
    theirs = SpeedPerturb(16000, speeds=[90])(sound[None])[0]
    ours = change_speed(sound, 90)
    n = min(len(ours), len(theirs))
    assert abs(len(ours) - len(theirs)) <= 1
    assert torch.allclose(ours[:n], theirs[:n], atol=1e-4)


def test_nothing_changes_at_its_own_speed_and_without_sound():
    sound = torch.rand(100)
    assert change_speed(sound, 100) is sound
    assert len(change_speed(sound[:0], 90)) == 0


def test_copies_stand_beside_the_clips():
    clips = {"a": clip(), "b": clip(video=None), "c": clip(wav=None)}
    found = add_speeds(clips, [80, 100, 125])
    assert list(found) == [
        *("a", "b", "c"),
        *("a_sp0.8", "b_sp0.8", "a_sp1.25", "b_sp1.25"),
    ]
    assert clips == {id: found[id] for id in clips}
    assert found["a_sp0.8"] == clip(duration=2.5, speed_change=80)
    assert found["b_sp1.25"]["duration"] == pytest.approx(1.6)


@pytest.mark.parametrize(
    "speeds, message",
    [
        (90, "must be a list of percentages"),
        ("90", "must be a list of percentages"),
        ([0.9], "0.9 is no speed; give percentages from 50 to 200"),
        ([201], "201 is no speed"),
        (["fast"], "'fast' is no speed"),
        ([True], "True is no speed"),
        ([90, 90], "stands twice"),
        ([float("nan")], "nan is no speed"),
    ],
)
def test_what_is_no_speed_is_refused(speeds, message):
    with pytest.raises(VAVLError, match=f"^speed_changes: .*{message}") as it:
        add_speeds({"a": clip()}, speeds)
    assert "\n" not in str(it.value)


def test_a_clip_with_the_name_of_a_copy_is_refused():
    with pytest.raises(VAVLError, match="a_sp0.9 is the id of a clip already"):
        add_speeds({"a": clip(), "a_sp0.9": clip()}, [90])


def test_features_of_a_copy_are_those_of_the_changed_sound(tmp_path):
    sound = 0.5 * torch.sin(torch.arange(16000) * 0.1)
    first, second = str(tmp_path / "a.wav"), str(tmp_path / "b.wav")
    soundfile.write(first, sound.numpy(), 16000, subtype="FLOAT")
    changed = change_speed(sound, 80).numpy()
    soundfile.write(second, changed, 16000, subtype="FLOAT")
    encoder = make_encoder()
    found = encoder.encode(wav=first, speed=80).audio
    assert (found == encoder.encode(wav=second).audio).all()
    assert len(found) == 63 and len(encoder.encode(wav=first).audio) == 51


def test_a_digest_names_the_speed():
    encoder = make_encoder()
    plain = encoder.digest("audio")
    assert encoder.digest("audio", speed=100) == plain
    assert encoder.digest("audio", speed=90) != plain


class SpeedEncoder(CountingEncoder):
    """Stands for ClipEncoder: an audio feature is a clip's speed."""

    def digest(self, modality, speed=100):
        return f"{super().digest(modality)}-{speed}"

    def encode(self, wav=None, video=None, speed=100):
        found = super().encode(wav, video)
        if wav is not None:
            found.audio = np.full((3, 2), speed, np.float16)
        return found


def test_a_copy_has_sound_of_its_own_and_its_clip_s_picture(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"sound")
    (tmp_path / "a.mp4").write_bytes(b"picture")
    media = {"wav": f"{tmp_path}/a.wav", "video": f"{tmp_path}/a.mp4"}
    train = add_speeds({"a": clip(**media)}, [90, 110])
    encoder = SpeedEncoder()
    index, report = extract(tmp_path, train, encoder)
    assert report["computed"] == {"audio": 3, "visual": 1}
    assert len({index[id]["audio"] for id in train}) == 3
    dataset = emotion_datasets(
        {"train": train},
        index,
        "classification",
        ["sad"],
        {"audio": 2, "visual": 2},
        tmp_path / "features",
    )["train"]
    items = {item["id"]: item for item in dataset}
    assert {id: item["audio"].max().item() for id, item in items.items()} == {
        "a": 100.0,
        "a_sp0.9": 90.0,
        "a_sp1.1": 110.0,
    }
    pictures = [item["visual"] for item in items.values()]
    assert all(torch.equal(picture, pictures[0]) for picture in pictures)


def test_an_encoder_that_learns_gets_the_changed_sound(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.sin(np.arange(16000) * 0.1) / 2, 16000)
    train = add_speeds({"a": clip(wav=path, video=None)}, [80])
    dataset = emotion_datasets(
        {"train": train},
        {id: {"audio": path, "visual": None} for id in train},
        "classification",
        ["sad"],
        {"audio": 1, "visual": 2},
        tmp_path / "features",
        raw_audio=True,
    )["train"]
    sounds = {item["id"]: item["audio"] for item in dataset}
    assert len(sounds["a"]) == 16000
    assert torch.equal(sounds["a_sp0.8"], change_speed(sounds["a"], 80))
