"""Genuine CREMA-D clips, MTCNN, EfficientNet-B2 and a pretrained encoder.

Six clips of actor 1001 have picture and sound, six of actor 1002 sound only.
"""

import json
from fractions import Fraction

import pytest
from conftest import run_recipe

from vavl_sb.inference import EmotionRecognizer

av = pytest.importorskip("av")

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


def learn(tmp_path, *settings, epochs=60):
    """A run that has learned six clips by heart."""
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
    manifest = tmp_path / "six.json"
    manifest.write_text(json.dumps(clips))
    folder = tmp_path / "out"
    run_recipe(
        "CREMA-D",
        *(*settings, "--output_folder", folder),
        *("--skip_prep", "True", "--number_of_epochs", epochs),
        *("--allow_overlap", "True"),
        *("--train_annotation", manifest),
        *("--valid_annotation", manifest),
        *("--test_annotation", manifest),
    )
    return folder


@pytest.fixture(scope="module")
def learned(real_data, whisper_folder, tmp_path_factory, features):
    """That run of VAVL."""
    settings = options(real_data, whisper_folder, features)
    return learn(tmp_path_factory.mktemp("learned"), *settings)


def check_learned(folder):
    """Every head knows all six clips."""
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n_test"] == {"audio": 6, "visual": 6, "audiovisual": 6}
    accuracy = {m: s["f1_micro"] for m, s in metrics["test"].items()}
    assert accuracy == {"audio": 1.0, "visual": 1.0, "audiovisual": 1.0}


def test_six_clips_are_learned_by_heart_in_each_modality(learned):
    check_learned(learned)


@pytest.mark.parametrize("fusion", ["auxformer", "vavl_linear"])
def test_other_networks_learn_them_too(
    fusion, real_data, whisper_folder, tmp_path, features
):
    settings = options(real_data, whisper_folder, features)
    folder = learn(tmp_path, *settings, "--fusion", fusion, epochs=25)
    check_learned(folder)
    model = EmotionRecognizer.from_hparams(folder / "inference")
    clip = real_data / "crema_d_mini" / "VideoFlash" / "1001_DFA_SAD_XX.flv"
    found = model.predict_file(clip)
    assert found.label == "sad" and set(found.per_modality) == {
        "audio",
        "visual",
        "audiovisual",
    }


# Codecs of picture and sound that lose little, for each container.
CONTAINERS = {
    "clip.mp4": ("libx264", "aac", {"crf": "6"}),
    "clip.mkv": ("libx264", "flac", {"crf": "6"}),
    # Without loss: the container is asked about, not VP9's fastest preset.
    "clip.webm": ("libvpx-vp9", "libopus", {"lossless": "1", "cpu-used": "8"}),
}


def transcode(source, path, codecs, options, kinds=("video", "audio")):
    """The same clip in another container, or one of its two streams."""
    with av.open(str(source)) as clip, av.open(str(path), "w") as out:
        streams = {}
        if "video" in kinds:
            given = clip.streams.video[0]
            stream = out.add_stream(codecs[0], rate=30000, options=options)
            stream.width, stream.height = given.width, given.height
            stream.pix_fmt, stream.bit_rate = "yuv420p", 16_000_000
            stream.codec_context.time_base = Fraction(1, 30000)
            streams[given.index] = stream
        if "audio" in kinds:
            given = clip.streams.audio[0]
            rate = 48000 if codecs[1] == "libopus" else given.rate
            stream = out.add_stream(codecs[1], rate=rate, layout="mono")
            if codecs[1] not in ("flac", "pcm_s16le"):
                stream.bit_rate = 256_000
            streams[given.index] = stream
        resampler = None
        for frame in clip.decode(*(clip.streams[i] for i in streams)):
            video = isinstance(frame, av.VideoFrame)
            stream = streams[
                (clip.streams.video if video else clip.streams.audio)[0].index
            ]
            if video:
                frame = frame.reformat(format="yuv420p")
                frame.pict_type = 0
                out.mux(stream.encode(frame))
                continue
            if resampler is None:
                resampler = av.AudioResampler(
                    stream.format.name, "mono", stream.rate
                )
            for part in resampler.resample(frame):
                out.mux(stream.encode(part))
        for index, stream in streams.items():
            if clip.streams[index].type == "audio":
                for part in resampler.resample(None):
                    out.mux(stream.encode(part))
            out.mux(stream.encode(None))
    return path


def test_the_container_does_not_matter(learned, real_data, tmp_path):
    model = EmotionRecognizer.from_hparams(learned / "inference")
    folder = real_data / "crema_d_mini" / "VideoFlash"
    source = folder / "1001_DFA_HAP_XX.flv"
    expected = model.predict_file(source)
    assert expected.label == "happy"
    found = {}
    for name, (video, audio, options) in CONTAINERS.items():
        path = tmp_path / name
        transcode(source, path, (video, audio), options)
        found[name] = model.predict_file(path)
    picture, sound = tmp_path / "picture.mkv", tmp_path / "sound.wav"
    options = {"crf": "6"}
    transcode(source, picture, ("libx264", None), options, ("video",))
    transcode(source, sound, (None, "pcm_s16le"), {}, ("audio",))
    found["apart"] = model.predict_file(picture, audio_path=sound)
    for name, answer in found.items():
        assert answer.modality == "audiovisual", name
        assert answer.label == expected.label, name
        assert answer.probabilities == pytest.approx(
            expected.probabilities, abs=0.02
        ), name
