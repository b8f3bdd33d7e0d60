"""Speed perturbation: copies of training clips, and what they sound like."""

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.augment.time_domain import SpeedPerturb
from test_clip import make_encoder
from test_features import CountingEncoder, extract

from vavl_sb.dataio.datasets import emotion_datasets
from vavl_sb.dataio.manifest import check_entries
from vavl_sb.features.cache import FeatureCache
from vavl_sb.features.speed import add_speeds, change_speed, check_speeds
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.training.init_from_pretrained import standardize_features
from vavl_sb.utils.errors import ManifestError, VAVLError


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
    # What has no sound is copied as it is: all clips train equally often.
    assert list(found) == [
        *("a", "b", "c"),
        *("a_sp0.8", "b_sp0.8", "c_sp0.8"),
        *("a_sp1.25", "b_sp1.25", "c_sp1.25"),
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
        ([97.55], "97.55 is no speed; .* in tenths at the finest"),
        ([90.00001, 90], "90.00001 is no speed"),
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


def test_features_are_named_by_whole_numbers_where_speeds_are():
    assert check_speeds([90.0, 97.5]) == [90, 97.5]
    assert type(check_speeds([90.0])[0]) is int


@pytest.mark.parametrize("taken", [(), ("a_sp0.9",)])
def test_a_clip_with_the_name_of_a_copy_is_refused(taken):
    clips = {"a": clip()} if taken else {"a": clip(), "a_sp0.9": clip()}
    with pytest.raises(VAVLError, match="a_sp0.9 is the id of a clip already"):
        add_speeds(clips, [90], taken)


def test_a_manifest_may_not_mark_copies():
    with pytest.raises(ManifestError, match="own.json: a: speed_change: is"):
        check_entries({"a": clip(speed_change=90)}, "own.json")


def test_a_broken_clip_is_told_of_once(tmp_path, caplog):
    (tmp_path / "a.wav").write_bytes(b"broken")
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    media = {"wav": f"{tmp_path}/a.wav", "video": f"{tmp_path}/a.mp4"}
    train = add_speeds({"a": clip(**media)}, [90, 110])
    index, report = extract(tmp_path, train, SpeedEncoder())
    assert list(report["failed"]) == ["a (audio)"]
    assert report["no_face"] == ["a"] and report["clips"] == 1
    assert not any(any(row.values()) for row in index.values())
    assert caplog.text.count("left out") == 1


def test_a_picture_counts_once_however_many_copies_share_it(tmp_path):
    net = VAVL(audio_dim=2, visual_dim=2, d_model=16)
    cache = FeatureCache(tmp_path)
    index, pictures = {}, {"a": 1.0, "b": 4.0}
    for id, value in pictures.items():
        path = cache.path("visual", "d", id)
        cache.write(path, np.full((2, 2), value, np.float16))
        index[id] = {"audio": None, "visual": str(path)}
    index["a_sp0.9"] = index["a"]
    standardize_features(net, index, dict.fromkeys(index), tmp_path)
    mean = net.get_submodule("visual_branch.standardize").mean
    assert mean.tolist() == [2.5, 2.5]


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
    plain = encoder.fingerprint("audio")
    assert encoder.fingerprint("audio", speed=100) == plain
    assert encoder.fingerprint("audio", speed=90) != plain


class SpeedEncoder(CountingEncoder):
    """Stands for FeatureExtractor: an audio feature is a clip's speed."""

    def fingerprint(self, modality, speed=100):
        return f"{super().fingerprint(modality)}-{speed}"

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
