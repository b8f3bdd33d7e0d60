"""Genuine CREMA-D clips, MTCNN, EfficientNet-B2 and a pretrained encoder.

Six clips of actor 1001 have picture and sound, six of actor 1002 sound only.
"""

import json

import numpy as np
import pytest
from conftest import run_recipe
from small_clips import write

from vavl_sb.inference import EmotionRecognizer
from vavl_sb.media.reader import decode, read_audio

pytestmark = pytest.mark.real

EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


def options(real_data, whisper_folder, features):
    """What all runs share; the default detector and frame rate stay on."""
    return [
        *("--data_folder", real_data / "crema_d_mini"),
        *("--feature_folder", features),
        *("--audio_encoder_source", whisper_folder),
        *("--visual_encoder_weights", "null"),
        *("--label_source", "acted"),
        *("--d_model", "64"),
        *("--lr", "0.001"),
        *("--batch_size", "6"),
    ]


def test_train_on_one_actor_test_on_one_without_a_face(
    real_data, whisper_folder, tmp_path, features
):
    split = tmp_path / "split.json"
    split.write_text('{"train": ["1001"], "valid": [], "test": ["1002"]}')
    folder = tmp_path / "out"
    run_recipe(
        "CREMA-D",
        *options(real_data, whisper_folder, features),
        *("--output_folder", folder),
        *("--partition", split, "--number_of_epochs", "3"),
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n_test"] == {"audio": 6, "visual": 0, "audiovisual": 0}
    assert list(metrics["test"]) == ["audio"]
    report = json.loads((folder / "feature_report.json").read_text())
    assert report["computed"] == {"audio": 12, "visual": 6}
    assert not report["failed"] and not report["no_face"]

    model = EmotionRecognizer.from_hparams(folder / "inference")
    clip = real_data / "crema_d_mini" / "AudioWAV" / "1002_DFA_HAP_XX.wav"
    assert model.predict_file(clip).modality == "audio"
    clip = real_data / "crema_d_mini" / "VideoFlash" / "1001_DFA_HAP_XX.flv"
    assert model.predict_file(clip).modality == "audiovisual"
    silent = real_data / "ravdess_clips" / "02-01-01-01-01-02-01.mp4"
    assert model.predict_file(silent).modality == "visual"


@pytest.fixture(scope="module")
def learned(real_data, whisper_folder, tmp_path_factory, features):
    """A run that has learned six clips by heart."""
    folder = tmp_path_factory.mktemp("learned")
    clips = {}
    for code, emotion in EMOTIONS.items():
        id = f"1001_DFA_{code}_XX"
        clips[id] = {
            "wav": f"{{data_root}}/AudioWAV/{id}.wav",
            "video": f"{{data_root}}/VideoFlash/{id}.flv",
            "duration": 2.0,
            "spk_id": "1001",
            "emotion": emotion,
        }
    manifest = folder / "six.json"
    manifest.write_text(json.dumps(clips))
    run_recipe(
        "CREMA-D",
        *options(real_data, whisper_folder, features),
        *("--output_folder", folder / "out"),
        *("--skip_prep", "True", "--number_of_epochs", 60),
        *("--allow_overlap", "True"),
        *("--train_annotation", manifest),
        *("--valid_annotation", manifest),
        *("--test_annotation", manifest),
    )
    return folder / "out"


def test_six_clips_are_learned_by_heart_in_each_modality(learned):
    metrics = json.loads((learned / "metrics.json").read_text())
    assert metrics["n_test"] == {"audio": 6, "visual": 6, "audiovisual": 6}
    accuracy = {m: s["f1_micro"] for m, s in metrics["test"].items()}
    assert accuracy == {"audio": 1.0, "visual": 1.0, "audiovisual": 1.0}


# Codecs of picture and sound that lose little, for each container.
CONTAINERS = {
    "clip.mp4": ("libx264", "aac", {"crf": "6"}),
    "clip.mkv": ("libx264", "flac", {"crf": "6"}),
    # Without loss: the container is asked about, not VP9's fastest preset.
    "clip.webm": ("libvpx-vp9", "libopus", {"lossless": "1", "cpu-used": "8"}),
}


def test_the_container_does_not_matter(learned, real_data, tmp_path):
    model = EmotionRecognizer.from_hparams(learned / "inference")
    folder = real_data / "crema_d_mini" / "VideoFlash"
    source = folder / "1001_DFA_HAP_XX.flv"
    expected = model.predict_file(source)
    assert expected.label == "happy"
    found = {}
    batches = list(decode(source, audio=False))
    frames = np.concatenate([batch.frames for batch in batches])
    times = np.concatenate([batch.times for batch in batches])
    sound = read_audio(source).numpy()
    for name, (*codecs, options) in CONTAINERS.items():

        def setup(stream, options=options):
            stream.options = options

        path = tmp_path / name
        write(path, frames, sound, times, codecs, setup=setup)
        found[name] = model.predict_file(path)
    picture = tmp_path / "picture.mkv"
    write(picture, frames, None, times, ("ffv1", None))
    voice = tmp_path / "sound.wav"
    write(voice, sound=sound, codecs=(None, "pcm_s16le"))
    found["apart"] = model.predict_file(picture, audio_path=voice)
    for name, answer in found.items():
        assert answer.modality == "audiovisual", name
        assert answer.label == expected.label, name
        assert answer.probabilities == pytest.approx(
            expected.probabilities, abs=0.02
        ), name
