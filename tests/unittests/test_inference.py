"""A clip in, an emotion out: against the network's own outputs."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from light_model import LABELS, make_model
from small_clips import break_picture, sine, write

from vavl_sb.faces.detector import Detection
from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features import extractor
from vavl_sb.lobes.precomputed import Precomputed
from vavl_sb.media.reader import FrameBatch, decode, read_audio
from vavl_sb.utils.errors import EncoderError, MediaError, VAVLError

av = pytest.importorskip("av")

SECONDS, FPS, RATE = 10, 25, 16000


def colours(seconds, fps=FPS):
    """Pictures whose colour wanders, none like another."""
    time = np.arange(seconds * fps) / fps
    waves = [127 + 120 * np.sin(time * pace) for pace in (0.3, 0.7, 1.1)]
    rows = np.stack(waves, axis=-1).astype(np.uint8)
    return [np.broadcast_to(row, (48, 64, 3)).copy() for row in rows]


def sweep(seconds, rate=RATE):
    """A tone that rises, so that no two moments sound alike."""
    time = np.arange(seconds * rate) / rate
    level = 0.05 + 0.2 * time / seconds
    return (level * np.sin(2 * np.pi * (200 + 150 * time) * time)).astype("f4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clip(folder):
    """Ten seconds with sound and picture, both coded without loss."""
    return write(
        folder / "clip.mkv",
        colours(SECONDS),
        sweep(SECONDS),
        codecs=("ffv1", "flac"),
        rate=RATE,
    )


@pytest.fixture(scope="module")
def picture(folder):
    images = colours(SECONDS)
    return write(folder / "picture.mkv", images, codecs=("ffv1", None))


@pytest.fixture(scope="module")
def sound(folder):
    path = folder / "sound.wav"
    # Rounded as in the clip.
    samples = np.round(sweep(SECONDS) * 32767).astype(np.int16)
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture(scope="module")
def model():
    return make_model()


def in_chunks(monkeypatch, seconds):
    """Cuts the clips here as if they were long."""
    monkeypatch.setattr(extractor, "WHOLE", 5.0)
    monkeypatch.setattr(extractor, "CHUNK", seconds)


def softmax(logits):
    shares = np.exp(logits - logits.max())
    return dict(zip(LABELS, (shares / shares.sum()).tolist()))


def frames_by_time(path, model):
    """Features and times of all frames, straight from the decoder."""
    found = []
    for item in decode(path, frame_rate=5.0, audio=False):
        assert isinstance(item, FrameBatch)
        found.append(item)
    frames = np.concatenate([b.frames for b in found])
    times = np.concatenate([b.times for b in found])
    features = [
        np.float16(f.reshape(-1, 3).astype(np.float64).mean(0) / 64)
        for f in frames
    ]
    return np.stack(features), times


def heads(model, audio=None, visual=None):
    """The network's own outputs, as numpy."""
    inputs = {"audio": audio, "visual": visual}
    inputs = {
        k: torch.from_numpy(v).float()[None]
        for k, v in inputs.items()
        if v is not None
    }
    with torch.no_grad():
        out = model.mods.vavl(**inputs)
    return {
        name: getattr(out, name)[0].numpy()
        for name in ("audio", "visual", "audiovisual")
        if getattr(out, name) is not None
    }


def test_a_clip_below_the_limit_is_taken_whole(model, clip, sound, picture):
    for path, has in ((clip, "av"), (sound, "a"), (picture, "v")):
        features = model.hparams.feature_extractor.encode(str(path), str(path))
        expected = heads(model, features.audio, features.visual)
        answer = model.predict_file(path)
        assert set(answer.per_modality) == set(expected)
        assert len(expected) == {"av": 3, "a": 1, "v": 1}[has]
        for head, logits in expected.items():
            found = answer.per_modality[head]["probabilities"]
            assert found == pytest.approx(softmax(logits), abs=1e-6)
        assert answer.modality == list(expected)[-1]
        chosen = answer.per_modality[answer.modality]
        assert answer.probabilities == chosen["probabilities"]


def test_a_long_clip_is_the_mean_of_its_chunks(model, clip, monkeypatch):
    in_chunks(monkeypatch, 4.0)
    samples = read_audio(clip)
    visual, times = frames_by_time(clip, model)
    total, weights = {}, (4, 4, 2)
    for number, weight in enumerate(weights):
        first, last = number * 4, number * 4 + weight
        part = samples[first * RATE : last * RATE]
        audio = model.hparams.feature_extractor.encode_audio(part)
        rows = visual[(times >= first) & (times < last)]
        for head, logits in heads(model, audio, rows).items():
            total[head] = total.get(head, 0) + weight * logits / sum(weights)
    answer = model.predict_file(clip)
    for head, logits in total.items():
        found = answer.per_modality[head]["probabilities"]
        assert found == pytest.approx(softmax(logits), abs=1e-3)
    # The chunks do differ from the whole.
    monkeypatch.undo()
    whole = model.predict_file(clip).per_modality["audio"]["probabilities"]
    assert whole != pytest.approx(softmax(total["audio"]), abs=1e-2)


def test_windows_hold_the_frames_of_their_time(model, clip):
    visual, times = frames_by_time(clip, model)
    audio = model.hparams.feature_extractor.encode(wav=str(clip)).audio
    moments = np.arange(len(audio)) * 0.02
    found = model.timeline(clip, window=2.0, hop=1.5)
    assert [w.start for w in found] == pytest.approx(
        np.arange(0, 9.1, 1.5).tolist()
    )
    assert found[-1].end == pytest.approx(SECONDS, abs=0.05)
    for window in found[:-1]:
        assert window.end - window.start == pytest.approx(2.0)
        seen = (times >= window.start) & (times < window.end)
        heard = (moments >= window.start) & (moments < window.end)
        expected = heads(model, audio[heard], visual[seen])
        for head, logits in expected.items():
            said = window.emotion.per_modality[head]["probabilities"]
            assert said == pytest.approx(softmax(logits), abs=2e-2), head


@pytest.mark.parametrize("chunk", [None, 3.5])
def test_long_frames_let_each_window_be_encoded_by_itself(
    sound, tmp_path, monkeypatch, chunk
):
    """As in RAVDESS's recipe, whose clips are one frame."""
    long_frames = make_model(average=1000)
    samples = read_audio(sound)
    samples[6 * RATE : 9 * RATE] = 0
    path = tmp_path / "pause.wav"
    soundfile.write(path, samples.numpy(), RATE, subtype="FLOAT")
    if chunk is not None:
        in_chunks(monkeypatch, chunk)
    found = long_frames.timeline(path, window=2.0, hop=0.9)
    assert len(found) == 10 and found[-1].start == pytest.approx(8.1)
    encoder = long_frames.hparams.feature_extractor
    for window in found:
        first, last = round(window.start * RATE), round(window.end * RATE)
        audio = encoder.encode_audio(samples[first:last])
        if audio is None:
            assert window.emotion is None
            continue
        said = window.emotion.per_modality["audio"]["probabilities"]
        logits = heads(long_frames, audio, None)["audio"]
        assert said == pytest.approx(softmax(logits), abs=1e-4)
    assert [w.emotion is None for w in found].count(True) == 1
    monkeypatch.undo()
    (whole,) = long_frames.timeline(sound, window=30.0)
    assert whole.emotion == long_frames.predict_file(sound)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"window": 31.0}, "at most 30 s"),
        ({"window": float("nan")}, "window"),
        ({"hop": 0.0}, "hop"),
        ({"modality": "smell"}, "modality"),
    ],
)
def test_options_that_cannot_be(model, clip, options, words):
    with pytest.raises(VAVLError, match=words):
        model.timeline(clip, **options)


def test_silence_within_a_clip_is_no_sound(model, tmp_path):
    samples = sine(8, RATE)
    samples[3 * RATE : 7 * RATE] = 0
    path = tmp_path / "pause.wav"
    soundfile.write(path, samples, RATE)
    found = model.timeline(path, window=1.0, hop=1.0)
    said = [w.emotion is not None for w in found]
    assert said == [True] * 3 + [False] * 4 + [True]
    assert model.timeline(path, 1.0, 1.0, "audio")[4].emotion is None


def test_sound_and_picture_in_files_of_their_own(
    model, clip, sound, picture, monkeypatch
):
    one = model.predict_file(clip)
    two = model.predict_file(picture, audio_path=sound)
    assert two.modality == "audiovisual"
    assert one.probabilities == pytest.approx(two.probabilities, abs=1e-3)
    in_chunks(monkeypatch, 3.0)
    one = model.predict_file(clip)
    two = model.predict_file(picture, audio_path=sound)
    assert one.probabilities == pytest.approx(two.probabilities, abs=1e-3)


def test_a_fault_in_the_picture_leaves_the_sound(model, tmp_path, caplog):
    whole = write(
        tmp_path / "whole.mov",
        [
            np.random.default_rng(n).integers(0, 255, (48, 64, 3), np.uint8)
            for n in range(100)
        ],
        sweep(4),
        codecs=("png", "pcm_s16le"),
    )
    path = break_picture(whole, tmp_path / "broken.mov", range(50, 65))
    with pytest.raises(MediaError, match="video"):
        for _ in decode(path):
            pass
    with caplog.at_level(logging.WARNING):
        answer = model.predict_file(path)
    assert answer.modality == "audio" and set(answer.per_modality) == {"audio"}
    expected = model.predict_file(whole).per_modality["audio"]
    assert answer.probabilities == pytest.approx(expected["probabilities"])
    # PyAV logs what it meets as well, where something has switched that on.
    (said,) = [
        r.getMessage() for r in caplog.records if r.name.startswith("vavl_sb")
    ]
    assert "without its picture" in said and "\n" not in said
    assert model.predict_file(path, modality="audio") == answer
    for modality in ("visual", "audiovisual"):
        with pytest.raises(MediaError, match="video"):
            model.predict_file(path, modality=modality)


class NoDetector:
    """A face detector whose package is missing."""

    def detect(self, frames):
        raise EncoderError("face detector: not installed; pip install it")

    def settings(self):
        return {}


def test_sound_needs_no_face_detector(clip, sound, picture, caplog):
    model = make_model(tracker=FaceTracker(NoDetector()))
    for modality in ("auto", "audio"):
        assert model.predict_file(clip, modality).modality == "audio"
    assert "not installed" in caplog.text
    assert model.predict_file(sound).modality == "audio"
    for modality in ("visual", "audiovisual"):
        with pytest.raises(EncoderError, match="not installed"):
            model.predict_file(clip, modality)
    with pytest.raises(EncoderError, match="not installed"):
        model.predict_file(picture)


def test_a_clip_is_opened_and_decoded_once(model, clip, picture, monkeypatch):
    opened, open_clip = [], extractor.decode

    def watch(path, **options):
        opened.append(path)
        return open_clip(path, **options)

    monkeypatch.setattr(extractor, "decode", watch)
    monkeypatch.setattr("vavl_sb.media.reader.probe", None)
    for seconds in (None, 3.0):
        if seconds is not None:
            in_chunks(monkeypatch, seconds)
        model.analyze(clip)
        assert opened.pop() == str(clip) and not opened
    model.predict_file(picture, audio_path=clip)
    assert sorted(opened) == sorted([str(picture), str(clip)])


def test_logits_are_divided_by_their_heads_temperature(clip):
    plain = make_model().predict_file(clip)
    scaling = {"audio": 2.5, "audiovisual": 0.5}
    scaled = make_model(temperatures=scaling).predict_file(clip)
    for head, found in plain.per_modality.items():
        logits = np.log(list(found["probabilities"].values()))
        shares = np.exp(logits / scaling.get(head, 1.0))
        expected = pytest.approx(shares / shares.sum(), abs=1e-6)
        found = scaled.per_modality[head]
        assert list(found["probabilities"].values()) == expected
        assert found["label"] == plain.per_modality[head]["label"]
    assert scaled.probabilities == found["probabilities"]
    one, other = (m.per_modality["audio"] for m in (plain, scaled))
    same = pytest.approx(one["probabilities"], abs=0.01)
    assert other["probabilities"] != same


def test_what_no_head_has_learned_from_is_not_looked_at(
    clip, sound, picture, monkeypatch, caplog
):
    model = make_model(trained_heads=["audio"])
    expected = model.predict_file(sound)

    def look(*arguments):
        raise AssertionError("a face was looked for")

    monkeypatch.setattr(model.hparams.feature_extractor, "encode_faces", look)
    found = model.predict_file(clip)
    assert found.modality == "audio" and found.label == expected.label
    assert len(found.used) == 1
    (line,) = found.left_out
    assert line.startswith("video of") and line.endswith("not read")
    # An export has no encoder in its place: nothing asks for features.
    model.hparams.feature_extractor.visual_encoder = Precomputed(7)
    assert model.predict_file(clip) == found and caplog.messages == []
    for path, modality in ((clip, "visual"), (picture, "auto")):
        with pytest.raises(MediaError, match="never trained"):
            model.predict_file(path, modality)


def test_what_a_clip_lacks_is_told(model, sound, picture, tmp_path):
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(RATE), RATE)
    for path, modality, words in (
        (silent, "auto", "neither sound nor a face"),
        (silent, "audio", "neither sound nor a face"),
        (sound, "visual", "no face"),
        (sound, "audiovisual", "no face"),
        (picture, "audio", "no sound"),
        (tmp_path / "nowhere.mp4", "auto", "no such file"),
        (tmp_path, "auto", "not a file"),
    ):
        with pytest.raises(MediaError, match=words) as error:
            model.predict_file(path, modality)
        assert str(path) in str(error.value)


def test_tensors_give_what_files_give(model, clip, sound, picture):
    samples = read_audio(clip)
    crops = []
    for item in decode(picture, frame_rate=5.0, audio=False):
        crops.append(torch.from_numpy(item.frames[:, 8:40, 16:48]))
    crops = torch.cat(crops).permute(0, 3, 1, 2)
    short = samples[: 3 * RATE]
    wavs = torch.zeros(3, len(samples))
    wavs[0], wavs[1, : len(short)] = samples, short
    faces = torch.stack([crops, crops, crops])
    lens = torch.tensor([1.0, len(short) / len(samples), 0.0])
    found = model.predict_batch(
        wavs, lens, faces, torch.tensor([1.0, 0.0, 1.0])
    )
    assert [a.modality for a in found] == ["audiovisual", "audio", "visual"]
    expected = model.predict_file(clip)
    assert found[0].probabilities == pytest.approx(
        expected.probabilities, abs=1e-3
    )
    alone = model.predict_batch(wavs=short[None])[0]
    assert alone.probabilities == pytest.approx(
        found[1].probabilities, abs=1e-6
    )
    frames = model.predict_frames(crops)
    assert frames == found[2] == model.predict_frames(crops.numpy())
    turned = crops.permute(0, 2, 3, 1).numpy()
    assert model.predict_frames(turned, modality="auto") == frames
    twice = np.repeat(turned, 2, axis=0)
    assert model.predict_frames(twice, frame_rate=10.0) == frames
    assert model.predict_frames(twice) != frames


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"wavs": torch.zeros(5)},
        {"wavs": torch.rand(2, 900), "modality": "visual"},
        {"crops": torch.zeros(1, 2, 3, 8, 8)},
        {"wavs": torch.rand(2, 900), "wav_lens": torch.tensor([1.0])},
        {"crops": [[np.zeros((3, 8, 8), "u1"), np.zeros((3, 9, 8), "u1")]]},
    ],
)
def test_tensors_that_cannot_be(model, wrong):
    with pytest.raises(VAVLError):
        model.predict_batch(**wrong)
    for shape in ((0, 8, 8, 3), (2, 8, 8), (2, 8, 8, 4)):
        with pytest.raises(VAVLError, match="frames"):
            model.predict_frames(np.zeros(shape, np.uint8))
    uneven = [np.zeros((size, 8, 3), np.uint8) for size in (8, 9)]
    with pytest.raises(VAVLError, match="of one size"):
        model.predict_frames(uneven)
    with pytest.raises(VAVLError, match="frame_rate"):
        model.predict_frames(np.zeros((2, 8, 8, 3), np.uint8), frame_rate=0)


def test_samples_of_16_bits_are_scaled_or_refused(model):
    sound = sweep(2)
    samples = np.round(sound * 32768).astype(np.int16)
    (expected,) = model.predict_batch(torch.from_numpy(sound)[None])
    (found,) = model.predict_batch(samples[None])
    assert found.probabilities == pytest.approx(
        expected.probabilities, abs=1e-2
    )
    assert found == model.predict_batch(samples[None] / 32768)[0]
    assert found == model.predict_batch(samples[None].astype("i4") << 16)[0]
    for floats in (samples[None].astype("f4"), [samples / 1.0]):
        with pytest.raises(VAVLError, match="row 0 reaches .*32768"):
            model.predict_batch(floats)
    # Of a float file sound goes somewhat beyond full scale.
    assert model.predict_batch(sound[None] * 5)[0].label


def test_arrays_and_lists_are_taken_as_tensors_are(model):
    sounds = [sweep(2), sweep(1)[::-1]]
    sounds[0].flags.writeable = False
    wavs = torch.zeros(2, len(sounds[0]))
    for row, sound in zip(wavs, sounds):
        row[: len(sound)] = torch.from_numpy(sound.copy())
    faces = np.random.default_rng(0).integers(0, 255, (2, 4, 3, 32, 32), "u1")
    expected = model.predict_batch(
        wavs, torch.tensor([1, 0.5]), torch.from_numpy(faces)
    )
    assert expected[0] != expected[1]
    for given in (
        (sounds, None, faces),
        ([s.tolist() for s in sounds], [1, 1], faces.tolist()),
        (wavs.numpy(), np.array([1, 0.5]), [list(clip) for clip in faces]),
    ):
        assert model.predict_batch(*given) == expected
    frames = model.predict_frames(faces[0])
    for given in (faces[0].tolist(), list(torch.from_numpy(faces[0]))):
        assert model.predict_frames(given) == frames


def test_a_row_without_an_answer_leaves_the_others(model, caplog):
    sound = torch.from_numpy(sweep(2))
    wavs = torch.stack([sound, 0 * sound, sound * torch.nan, sound])
    lens = [1, 1, 1, 0.5]
    found = model.predict_batch(wavs, lens)
    assert [row is None for row in found] == [False, True, True, False]
    assert found[0] == model.predict_batch(sound[None])[0]
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 2 and all("\n" not in line for line in said)
    assert said[0].startswith("clip 1 of the batch: neither sound nor a face")
    assert "clip 2 of the batch: its audio has NaN or infinity" in said[1]
    frames = model.hparams.feature_extractor.encode_audio(sound)
    first, none = model.predict_features(
        np.stack([frames, frames]), audio_lens=[1, 0]
    )
    assert first == model.predict_features(frames) and none is None


def test_attributes_are_in_the_corpus_scale(clip):
    model = make_model("regression", attribute_range=[1.0, 5.0])
    features = model.hparams.feature_extractor.encode(str(clip), str(clip))
    raw = heads(model, features.audio, features.visual)["audiovisual"]
    answer = model.predict_file(clip)
    assert answer.label is None and answer.probabilities is None
    assert list(answer.attributes.values()) == pytest.approx(3 + 2 * raw)


LONG = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from light_model import make_model
model = make_model()
for path in sys.argv[2:]:
    found = model.analyze(path)
    # Not ru_maxrss, which begins with the peak of the process that starts this.
    status = Path("/proc/self/status").read_text()
    peak = status.split("VmHWM:")[1].split()[0]
    print(peak, len(found.timeline), found.duration)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(tmp_path):
    """Four minutes against three seconds, in a process of their own."""
    paths = []
    for seconds in (3, 240):
        image = np.random.default_rng(0).integers(0, 255, (240, 320, 3))
        images = [image.astype(np.uint8)] * (seconds * 5)
        options = dict(codecs=("mjpeg", "pcm_s16le"), fps=5)
        path = tmp_path / f"{seconds}.mkv"
        paths.append(write(path, images, sine(seconds, RATE), **options))
    here = str(make_model.__code__.co_filename).rsplit("/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", LONG, here, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in done.stdout.strip().splitlines()[-2:]]
    (short, one, _), (long, many, duration) = rows
    assert (int(one), int(many)) == (1, 238)
    assert float(duration) == pytest.approx(240, abs=0.5)
    # As RGB its pictures are 276 MB.
    assert int(long) - int(short) < 100 * 1024


class SlowFace:
    """A detector that finds the same face in every frame."""

    def detect(self, frames):
        box, eyes = np.array([8.0, 4.0, 48.0, 44.0]), [[20, 18], [36, 18]]
        return [[Detection(box, np.array(eyes, float))] for _ in frames]

    def settings(self):
        return {}


def test_a_chunk_waits_for_the_faces_that_belong_to_it(clip, monkeypatch):
    """A search of eight frames at 1 a second looks eight seconds ahead."""
    tracker = FaceTracker(SlowFace(), size=32, detection_rate=1.0)
    encoder = make_model(tracker=tracker).hparams.feature_extractor
    expected = encoder.encode(video=str(clip)).visual
    in_chunks(monkeypatch, 2.0)
    chunks = list(encoder.chunks(str(clip), str(clip)))
    assert [(c.start, round(c.end)) for c in chunks] == [
        (n, n + 2) for n in range(0, SECONDS, 2)
    ]
    found = np.concatenate([c.features.visual for c in chunks])
    assert np.array_equal(found, expected) and len(found) == 5 * SECONDS
    for chunk in chunks:
        for times in (chunk.visual_times, chunk.audio_times):
            assert times[0] >= chunk.start - 1e-3
            assert times[-1] < chunk.end + 1e-3
