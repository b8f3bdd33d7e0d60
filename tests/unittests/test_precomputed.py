"""Models on features that others computed, in place of sound or picture."""

import json

import numpy as np
import pytest
import soundfile
import torch
from small_clips import grays, sine, write
from small_models import export_small, light_extractor

from vavl_sb.cli import main
from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.cache import FeatureCache, read_index
from vavl_sb.features.extraction import extract_features
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.precomputed import Precomputed, choose_encoder
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.utils.errors import EncoderError, MediaError, VAVLError

LABELS = ["angry", "happy", "sad"]
FRAMES = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float16)


def extractor(rate=10.0, audio=None, **pooling):
    return light_extractor(audio, Precomputed(4, rate), **pooling)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sound of 4 s, a picture with it, features of 4 s, and two models."""
    folder = tmp_path_factory.mktemp("precomputed")
    sound = sine(4.0, 16000)
    soundfile.write(folder / "a.wav", sound, 16000)
    write(folder / "a.mp4", grays(range(0, 200, 5)), sound, fps=10)
    write(folder / "face.mp4", grays(range(0, 200, 5)), fps=10)
    np.save(folder / "a.npy", FRAMES)
    for name, rate in (("model", 10.0), ("no_rate", None)):
        pooling = {"visual_pooling": "statistics"} if rate is None else {}
        export_small(folder / name, LABELS, extractor(rate, **pooling))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return EmotionRecognizer.from_hparams(folder / "model")


def heads(model, audio=None, visual=None):
    """The network itself on frames (T, D)."""
    inputs = {"audio": audio, "visual": visual}
    inputs = {
        name: torch.from_numpy(np.asarray(x)).float()[None]
        for name, x in inputs.items()
        if x is not None
    }
    with torch.no_grad():
        return model.mods.vavl.eval()(**inputs)


def same(emotion, logits):
    """Whether a prediction is the softmax of logits (1, n)."""
    found = torch.tensor(list(emotion.probabilities.values()))
    return torch.allclose(found, logits[0].softmax(-1), atol=1e-5)


def test_features_and_raw_sound_go_together(model, folder):
    sound = model.hparams.feature_extractor.encode(str(folder / "a.wav")).audio
    out = heads(model, sound, FRAMES)
    for clip in ("a.wav", "a.mp4"):
        # Of a clip with a picture, the features are taken in place of it.
        said = model.predict_file(
            folder / clip, visual_features=folder / "a.npy"
        )
        assert said.modality == "audiovisual"
    said = model.predict_file(
        folder / "a.wav", visual_features=folder / "a.npy"
    )
    assert same(said, out.audiovisual)
    alone = model.predict_file(None, visual_features=folder / "a.npy")
    assert alone.modality == "visual" and same(alone, out.visual)
    assert same(model.predict_features(sound, FRAMES), out.audiovisual)
    given = {"visual_features": folder / "a.npy"}
    found = model.embed_file(folder / "a.wav", **given)
    for modality, values in found.items():
        truth = getattr(out, f"{modality}_embedding")[0]
        assert values == pytest.approx(truth.numpy(), abs=1e-5)
    assert found.keys() == {"audio", "visual"}
    assert model.embed_file(None, **given).keys() == {"visual"}


def test_a_batch_gives_each_clip_what_it_gets_alone(model):
    padded = np.full((3, 40, 4), 9.0, np.float32)
    lengths = [40, 17, 0]
    sound = torch.randn(3, 30, 80)
    for row, length in zip(padded, lengths, strict=True):
        row[:length] = FRAMES[:length]
    lens = torch.tensor(lengths) / 40
    found = model.predict_features(sound, padded, visual_lens=lens)
    assert [e.modality for e in found] == ["audiovisual"] * 2 + ["audio"]
    for number, length in enumerate(lengths):
        seen = FRAMES[:length] if length else None
        alone = model.predict_features(sound[number], seen)
        assert alone.as_dict() == found[number].as_dict()


def test_a_timeline_takes_the_frames_of_its_time(model, folder):
    windows = model.analyze(
        None, window=1.0, hop=1.0, visual_features=folder / "a.npy"
    ).timeline
    assert [(w.start, w.end) for w in windows] == [
        (float(s), float(s + 1)) for s in range(4)
    ]
    for window in windows:
        part = FRAMES[round(10 * window.start) : round(10 * window.end)]
        assert same(window.emotion, heads(model, None, part).visual)


def test_a_frame_rate_is_asked_for_where_time_matters(folder, monkeypatch):
    model = EmotionRecognizer.from_hparams(folder / "no_rate")
    options = {"visual_features": folder / "a.npy"}
    assert model.predict_file(folder / "a.wav", **options)
    alone = model.predict_file(None, **options)
    frames = FRAMES.astype(np.float64)
    moments = np.concatenate([frames.mean(0), frames.std(0)])[None]
    truth = heads(model, None, moments.astype(np.float16)).visual
    assert same(alone, truth)
    with pytest.raises(VAVLError, match="visual_features_rate"):
        model.analyze(folder / "a.wav", **options)
    monkeypatch.setattr("vavl_sb.features.extractor.WHOLE", 2.0)
    monkeypatch.setattr("vavl_sb.features.extractor.CHUNK", 1.0)
    with pytest.raises(VAVLError, match="visual_features_rate"):
        model.predict_file(folder / "a.wav", **options)


def test_a_long_clip_gets_the_features_of_each_chunk(
    model, folder, monkeypatch
):
    monkeypatch.setattr("vavl_sb.features.extractor.WHOLE", 2.0)
    monkeypatch.setattr("vavl_sb.features.extractor.CHUNK", 1.0)
    made = model.hparams.feature_extractor
    given = made.encode()
    given.visual = made.read_features("visual", folder / "a.npy")
    chunks = list(made.chunks(str(folder / "a.wav"), None, given=given))
    assert len(chunks) == 4
    for number, chunk in enumerate(chunks):
        part = FRAMES[10 * number : 10 * number + 10]
        np.testing.assert_array_equal(chunk.features.visual, part)


def test_what_a_model_needs_is_told_in_one_line(
    model, folder, caplog, monkeypatch
):
    # No face is looked for that nobody could encode.
    monkeypatch.setattr(FaceTracker, "track", None)
    needs = "takes visual features, not raw clips; give visual_features"
    said = model.predict_file(folder / "a.mp4")
    assert said.modality == "audio"  # All that it can see of such a clip.
    (told,) = caplog.messages
    assert needs in told and str(folder / "a.mp4") in told
    caplog.clear()
    files = {"visual_features": folder / "a.npy"}
    model.predict_file(folder / "a.mp4", **files)
    model.predict_file(folder / "a.wav")
    assert caplog.messages == []
    crops = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    for call in (
        lambda: model.predict_file(folder / "a.mp4", "visual"),
        lambda: model.predict_file(folder / "a.mp4", "audiovisual"),
        lambda: model.predict_file(folder / "face.mp4"),
        lambda: model.predict_frames(crops),
    ):
        with pytest.raises(MediaError, match=needs):
            call()
    with pytest.raises(MediaError, match="the model takes sound, not audio f"):
        model.predict_file(None, audio_features=folder / "a.npy")
    with pytest.raises(MediaError, match=r"shape \(T, 4\), not \(7, 5\)"):
        model.predict_features(visual=np.zeros((7, 5)))
    with pytest.raises(MediaError, match=r"clip 0 of the batch.*NaN"):
        model.predict_features(visual=np.full((1, 7, 4), np.nan))
    with pytest.raises(VAVLError, match="give audio, visual or both"):
        model.predict_features()
    with pytest.raises(VAVLError, match="different numbers of clips"):
        model.predict_features(torch.rand(1, 9, 80), torch.rand(2, 9, 4))


def test_predict_on_the_command_line(model, folder, capsys):
    files = ("--visual_features", str(folder / "a.npy"))
    name, wav = str(folder / "model"), str(folder / "a.wav")
    assert main(["predict", name, *files, wav, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    truth = model.predict_file(wav, visual_features=files[1]).as_dict()
    assert found == {"file": wav, **truth}
    assert main(["predict", name, *files]) == 0
    assert f"{files[1]} (visual): " in capsys.readouterr().out
    for words, line in (
        ([], "give a clip, or features"),
        ([wav, wav, *files], "--visual_features: is for one clip"),
    ):
        assert main(["predict", name, *words]) == 1
        assert line in capsys.readouterr().err


def test_a_model_must_say_what_its_features_are(folder, tmp_path):
    path = folder / "model" / "model.json"
    told = json.loads(path.read_text())
    part = told["visual_encoder"]
    assert part == {
        "class": "Precomputed",
        "arguments": {"output_dim": 4, "frame_rate": 10.0, "columns": None},
    }
    for change, words in (
        ({"output_dim": 5}, "gives 5 numbers a frame"),
        ({"output_dim": -1}, "output_dim of visual_encoder must be an integer"),
        ({"frame_rate": 0}, "frame_rate of visual_encoder must be"),
        ({"columns": "abcd"}, "columns of visual_encoder must be a list"),
        ({"columns": ["a"]}, "4 numbers a frame, but 1 columns"),
    ):
        with pytest.raises(EncoderError, match=words):
            EmotionRecognizer.from_hparams(
                folder / "model",
                overrides={"visual_encoder": {"arguments": change}},
            )
    with pytest.raises(EncoderError, match="give positive numbers"):
        Precomputed(0)


def extract(clips, made, tmp_path):
    """Index and report of an extraction."""
    files = {n: tmp_path / f"{n}.json" for n in ("index", "report")}
    extract_features([clips], made, tmp_path / "features", **files)
    report = json.loads(files["report"].read_text())
    return read_index(files["index"]), report


def test_clips_with_bad_features_lack_them_and_are_counted(folder, tmp_path):
    wav, good = str(folder / "a.wav"), str(folder / "a.npy")
    table = tmp_path / "table.csv"
    rows = "x,1,2,3,4 z,1,2,3,4 z,1,2,3,4 other,5,6,7,8"
    table.write_text("\n".join(["name,a,b,c,d", *rows.split()]))
    np.save(tmp_path / "wide.npy", np.zeros((3, 5)))
    np.save(tmp_path / "large.npy", np.full((2, 4), 1e6))
    cases = {
        "dim": (f"{tmp_path}/wide.npy", r"shape (T, 4), not (3, 5)"),
        "large": (f"{tmp_path}/large.npy", "half precision cannot hold"),
        "twice": (f"{table}#z", "2 times"),
        "gone": (f"{tmp_path}/gone.npy", "cannot be read"),
    }
    clips = {
        name: {"wav": wav, "video": None, "visual_features": reference}
        for name, (reference, _) in cases.items()
    }
    clips["good"] = {"wav": None, "video": None, "visual_features": good}
    clips["row"] = {"wav": wav, "video": None, "visual_features": f"{table}#x"}
    clips["row 2"] = {**clips["row"], "visual_features": f"{table}#other"}
    clips["raw"] = {"wav": wav, "video": str(folder / "a.mp4")}
    index, report = extract(clips, extractor(), tmp_path)
    assert set(report["failed"]) == {f"{n} (visual)" for n in [*cases, "raw"]}
    for name, (reference, words) in cases.items():
        line = report["failed"][f"{name} (visual)"]
        assert words in line and reference.partition("#")[0] in line
        assert "\n" not in line
    assert "takes visual features" in report["failed"]["raw (visual)"]
    assert all(index[name]["audio"] for name in (*cases, "row", "raw"))
    stored = FeatureCache(tmp_path / "features").read(index["good"]["visual"])
    np.testing.assert_array_equal(stored, FRAMES)
    for name, row in (("row", [[1, 2, 3, 4]]), ("row 2", [[5, 6, 7, 8]])):
        stored = FeatureCache(tmp_path / "features").read(index[name]["visual"])
        np.testing.assert_array_equal(stored, row)
    # The other way round: an encoder of raw clips, and features.
    raw = FeatureExtractor(
        AudioEncoder("logmel"), VisualEncoder(), FaceTracker(None)
    )
    _, report = extract({"good": clips["good"]}, raw, tmp_path)
    assert "give --visual_features" in report["failed"]["good (visual)"]


def test_both_modalities_may_be_features(folder, tmp_path):
    sound = np.ones((6, 7), np.float32)
    np.save(tmp_path / "sound.npy", sound)
    made = extractor(audio=choose_encoder(None, tmp_path, 2.0))
    assert (made.dim("audio"), made.audio_encoder.frame_rate) == (7, 2.0)
    clip = {
        "wav": None,
        "video": None,
        "audio_features": str(tmp_path / "sound.npy"),
        "visual_features": str(folder / "a.npy"),
    }
    index, report = extract({"a": clip}, made, tmp_path)
    assert report["failed"] == {} and all(index["a"].values())
    torch.manual_seed(0)
    net = VAVL(7, 4, 3, d_model=16, encoder_layers=1, shared_layers=1)
    options = {"task": "classification", "labels": LABELS}
    model = EmotionRecognizer(
        modules={"vavl": net}, hparams={**options, "feature_extractor": made}
    )
    names = ("audio_features", "visual_features")
    given = {name: clip[name] for name in names}
    found = model.analyze(None, window=1.0, hop=1.0, **given)
    assert same(found.emotion, heads(model, sound, FRAMES).audiovisual)
    # 3 s of sound and 4 s of a face.
    assert [w.emotion.modality for w in found.timeline] == [
        *["audiovisual"] * 3,
        "visual",
    ]
    out = heads(model, sound[2:4], FRAMES[10:20])
    assert same(found.timeline[1].emotion, out.audiovisual)
