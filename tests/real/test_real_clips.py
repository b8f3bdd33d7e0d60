"""Genuine clips, as they come and made into what users have.

Faces are looked for with MTCNN; encoders are light, so that what is tested is
the way from a file to an answer.
"""

import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from vavl_sb.cli import main
from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.media.reader import FrameBatch, decode, read_audio
from vavl_sb.utils.errors import MediaError

sys.path.insert(0, str(REPOSITORY / "tests" / "unittests"))
from light_model import make_model  # noqa: E402
from small_clips import write  # noqa: E402

av = pytest.importorskip("av")
pytest.importorskip("facenet_pytorch")
pytestmark = pytest.mark.real

FPS = 10


@pytest.fixture(scope="module")
def model():
    tracker = FaceTracker("mtcnn", detection_rate=2.5)
    return make_model(tracker=tracker, frame_rate=5.0)


@pytest.fixture(scope="module")
def material(real_data):
    """Two seconds each of two actors, and of speech: (actors, samples)."""
    actors = []
    for name in (
        "crema_d_mini/VideoFlash/1001_DFA_HAP_XX.flv",
        "ravdess_clips/01-01-01-01-01-01-01.mp4",
    ):
        batches = decode(real_data / name, frame_rate=FPS, audio=False)
        frames = [f for b in batches for f in b.frames if type(b) is FrameBatch]
        actors.append(frames[: 2 * FPS - 2])
    wav = real_data / "crema_d_mini/AudioWAV/1001_DFA_HAP_XX.wav"
    return actors, read_audio(wav).numpy()


def similar(one, other, within):
    """The same label, and probabilities that differ by little."""
    assert one.modality == other.modality
    assert one.probabilities == pytest.approx(other.probabilities, abs=within)


def test_the_clips_as_they_come(model, real_data):
    mini = real_data / "crema_d_mini"
    clips = sorted((mini / "VideoFlash").glob("*.flv"))
    assert len(clips) == 6
    for clip in clips:
        answer = model.predict_file(clip)
        assert answer.modality == "audiovisual"
        assert set(answer.per_modality) == {"audio", "visual", "audiovisual"}
        sound = model.predict_file(mini / "AudioMP3" / f"{clip.stem}.mp3")
        assert sound.modality == "audio"
        expected = answer.per_modality["audio"]["probabilities"]
        assert sound.probabilities == pytest.approx(expected, abs=0.02)
        wav = model.predict_file(mini / "AudioWAV" / f"{clip.stem}.wav")
        similar(wav, sound, 0.02)


def test_a_silent_track_is_no_sound(model, real_data, capsys):
    folder = real_data / "ravdess_clips"
    for name, modality in (
        ("01-01-01-01-01-01-01.mp4", "audiovisual"),
        ("01-01-08-01-01-02-01.mp4", "audiovisual"),
        ("02-01-01-01-01-02-01.mp4", "visual"),
    ):
        assert model.predict_file(folder / name).modality == modality
    silent = folder / "02-01-01-01-01-02-01.mp4"
    with pytest.raises(MediaError, match="no sound"):
        model.predict_file(silent, "audio")
    assert main(["check-media", str(silent)]) == 0
    said = capsys.readouterr().out
    assert "a silent track" in said and "faces: in 33 of 33 frames" in said


def test_a_face_in_half_of_the_frames(model, material, tmp_path):
    (frames, _), samples = material
    frames = [*frames, *[np.full_like(f, 128) for f in frames]]
    sound = np.concatenate([samples, samples])[: len(frames) * 1600]
    path = write(tmp_path / "half.mp4", frames, sound, fps=FPS)
    assert model.predict_file(path).modality == "audiovisual"
    found = model.timeline(path, window=0.8, hop=0.8)
    said = [w.emotion.modality for w in found]
    # The faces end after 1.8 s, within the third of five windows.
    assert said[:2] == ["audiovisual"] * 2 and len(said) == 5
    assert said[3:] == ["audio"] * 2
    faces = model.timeline(path, 0.8, 0.8, "visual")
    assert faces[0].emotion is not None and faces[-1].emotion is None
