"""`vavl predict`, `info`, `export` and `check-media`, as a user types them."""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from light_model import LABELS, make_model
from PIL import Image
from small_models import export_small, light_extractor
from test_inference import break_picture
from test_media import grays, sine, write

from vavl_sb.cli import _parser, main
from vavl_sb.inference import EmotionRecognizer, hub
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.page import server
from vavl_sb.training.model_card import describe, learned_from
from vavl_sb.training.run_metadata import (
    command_line,
    run_record,
    trained_heads,
)
from vavl_sb.utils.corpora import DRAWN
from vavl_sb.utils.errors import VAVLError

RATE = 16000


@pytest.fixture
def model(monkeypatch):
    """A light model, whatever MODEL is called."""
    light = make_model()
    seen = []

    def load(source, trust=False, token=None, run_opts=None):
        seen.append((source, trust))
        return light

    monkeypatch.setattr(EmotionRecognizer, "from_hparams", load)
    light.seen = seen
    return light


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A clip with both, a sound, and one that is no media."""
    folder = tmp_path_factory.mktemp("clips")
    write(folder / "both.mp4", grays(np.arange(100) * 2), sine(4, RATE))
    soundfile.write(folder / "sound.wav", sine(2, RATE), RATE)
    (folder / "text.txt").write_text("no media\n" * 100)
    return folder


def call(capsys, *words):
    """(status, stdout, stderr) of a command."""
    status = main([str(word) for word in words])
    heard = capsys.readouterr()
    assert "Traceback" not in heard.err
    return status, heard.out, heard.err


def test_predict_json(model, clips, capsys):
    files = [clips / n for n in ("both.mp4", "text.txt", "sound.wav")]
    words = ("--json", "--timeline", "--profile", "--hop", 2)
    status, out, err = call(capsys, "predict", "M", *files, *words)
    assert status == 1 and model.seen == [("M", False)]
    both, failed, sound = json.loads(out)
    assert [r["file"] for r in (both, failed, sound)] == [str(f) for f in files]
    assert (failed["used"], failed["left_out"]) == ([], [])
    assert err.count("\n") == 1 and failed["error"] in err
    expected = model.predict_file(files[0])
    assert both["label"] == expected.label
    assert both["probabilities"] == pytest.approx(expected.probabilities)
    assert both["per_modality"].keys() == {"audio", "visual", "audiovisual"}
    assert [w["start"] for w in both["timeline"]] == [0.0, 2.0]
    timed = model.timeline(files[0], hop=2.0)
    for found, window in zip(both["timeline"], timed, strict=True):
        assert found["emotion"] == window.emotion.as_dict()
    assert set(both["profile"]) > {"decode", "faces", "heads", "duration"}
    assert sound["modality"] == "audio"
    assert [s.split(":")[0] for s in both["used"]] == ["sound", "picture"]
    assert sound["used"] == ["sound: stream 0 (pcm_s16le, 16000 Hz, 1 channel)"]
    assert both["left_out"] == sound["left_out"] == []
    out = call(
        capsys, "predict", "M", files[0], "--json", "--modality", "audio"
    )
    (alone,) = json.loads(out[1])
    assert alone["used"] == both["used"][:1]
    assert alone["left_out"] == [both["used"][1] + ": the audio head predicted"]
    assert call(capsys, "predict", "M", files[0], "--trust")[0] == 0
    assert model.seen[-1] == ("M", True)


def test_all_commands_take_a_model_in_the_same_way(monkeypatch, capsys):
    seen = []

    def load(source, **options):
        seen.append({"source": source, **options})
        raise VAVLError("that will do")

    monkeypatch.setattr(EmotionRecognizer, "from_hparams", load)
    monkeypatch.setattr(hub, "model_folder", load)
    monkeypatch.setattr(server, "serve", lambda load, *options: load())
    for command in ("predict M clip", "evaluate M test.json", "demo M"):
        words = [*command.split(), "--device", "cpu", "--token", "T", "--trust"]
        assert call(capsys, *words) == (1, "", "vavl: that will do\n")
        assert call(capsys, *words[:-5])[0] == 1
    # Nothing is loaded, so that nothing needs to be trusted.
    assert call(capsys, "info", "M", "--token", "T")[0] == 1
    with pytest.raises(SystemExit):
        main(["info", "M", "--trust"])
    given = {"source": "M", "token": "T", "trust": True}
    given["run_opts"] = {"device": "cpu"}
    plain = {"source": "M", "token": None, "trust": False, "run_opts": {}}
    assert seen == [*[given, plain] * 3, {"source": "M", "token": "T"}]


def test_predict_for_a_reader(model, clips, capsys):
    clip = clips / "both.mp4"
    words = ("--modality", "audio", "--timeline", "--profile")
    status, out, err = call(capsys, "predict", "M", clip, *words)
    label = model.predict_file(clip, "audio").label
    assert status == 0 and err == ""
    assert out.startswith(f"{clip} (audio): {label}  [")
    assert out.count(" s: ") == 2 and "visual encoder" in out
    sound = clips / "sound.wav"
    words = ("--audio", sound, "--json")
    out = call(capsys, "predict", "M", clip, *words)[1]
    expected = model.predict_file(clip, audio_path=sound).as_dict()
    assert json.loads(out) == [{"file": str(clip), **expected}]


@contextlib.contextmanager
def output(monkeypatch, kind):
    """Standard output that is full, that nobody reads, or that is ascii."""
    if kind == "full":
        stream = open("/dev/full", "w", encoding="utf-8")
    elif kind == "broken":
        reader, writer = os.pipe()
        os.close(reader)
        stream = open(writer, "w", encoding="utf-8")
    else:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patch, stream:
        patch.setattr(sys, "stdout", stream)
        yield stream


@pytest.mark.parametrize("kind, status", [("full", 1), ("broken", 141)])
def test_output_that_cannot_be_written_is_told_in_one_line(
    model, clips, capsys, monkeypatch, kind, status
):
    words = [
        ["predict", "m", clips / "sound.wav", *j] for j in ([], ["--json"])
    ]
    words += [["check-media", clips / "sound.wav"]]
    (commands,) = _parser()._subparsers._group_actions
    words += [[name, "--help"] for name in commands.choices]
    for command in words:
        with output(monkeypatch, kind):
            assert main(list(map(str, command))) == status, command
        said = capsys.readouterr().err
        assert said.count("\n") == (kind == "full"), said
        assert ("No space left" in said) == (kind == "full")


def test_an_ascii_terminal_shows_every_name(model, clips, monkeypatch):
    path = clips / "glücklich 漢字.wav"
    shutil.copy(clips / "sound.wav", path)
    for command in (["predict", "m"], ["check-media"]):
        with output(monkeypatch, "ascii") as stream:
            assert main([*command, str(path)]) == 0
            stream.flush()
            said = stream.buffer.getvalue().decode("ascii")
        assert r"gl\xfccklich \u6f22\u5b57.wav" in said


def test_a_pipe_that_closes_leaves_no_word_at_the_end(clips):
    """Python too flushes, and would complain, when it ends."""
    command = [sys.executable, "-m", "vavl_sb.cli", "check-media"]
    for stdout, status in (("/dev/full", 1), (None, 141)):
        reader, writer = os.pipe()
        os.close(reader)
        with open(stdout or writer, "wb") as stream:
            found = subprocess.run(
                [*command, str(clips / "sound.wav")],
                stdout=stream,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert found.returncode == status
        assert found.stderr.count("\n") == (status == 1), found.stderr
        if stdout:
            os.close(writer)


def test_predict_draws(model, clips, capsys, tmp_path):
    picture = tmp_path / "plot.png"
    words = ("predict", "M", clips / "both.mp4", "--plot", picture)
    assert call(capsys, *words)[0] == 0
    drawn = np.asarray(Image.open(io.BytesIO(picture.read_bytes())))
    assert drawn.shape[0] > 200 and len(np.unique(drawn[..., :3])) > 20
    assert [p.name for p in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["second.mp4", "--plot", "x.png"], "--plot: is for one clip"),
        (["second.mp4", "--audio", "x.wav"], "--audio: is for one clip"),
        (["--plot", "x.txt"], "must end in .png"),
        (["--timeline", "--hop", "0"], "hop"),
        (["--timeline", "--window", "99"], "window"),
        (["--profile", "--hop", "2"], "--hop: needs --timeline or --plot"),
    ],
)
def test_predict_options_that_cannot_be(model, clips, capsys, words, said):
    clip = clips / "both.mp4"
    status, out, err = call(capsys, "predict", "M", clip, *words)
    assert status == 1 and out == "" and said in err
    assert err.count("\n") == 1


def test_media_that_cannot_be_used(model, clips, capsys, tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "picture.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "picture.jpg")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    header = (clips / "sound.wav").read_bytes()[:44]
    (tmp_path / "no_samples.wav").write_bytes(header)
    with av.open(str(tmp_path / "no_frames.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()
    whole = write(
        tmp_path / "whole.mov",
        np.random.default_rng(0).integers(0, 255, (250, 48, 64, 3), np.uint8),
        codecs=("png", None),
    )
    assert model.predict_file(whole).modality == "visual"
    break_picture(whole, tmp_path / "corrupt_middle.mov")
    whole.unlink()
    names = sorted(p.name for p in tmp_path.iterdir()) + ["missing.mp4"]
    files = [tmp_path / name for name in names]
    status, out, err = call(capsys, "predict", "M", *files, "--json")
    assert status == 1 and len(err.strip().splitlines()) == len(files)
    for path, result in zip(files, json.loads(out), strict=True):
        assert str(path) in result["error"] and set(result) == {
            *("file", "error", "used", "left_out")
        }
    assert len(list(tmp_path.iterdir())) == len(files) - 1


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run, as far as export and info look at it."""
    return make_run(tmp_path_factory.mktemp("run"))


def make_run(folder, labels=LABELS, corpus="CREMA-D"):
    """Such a run, of any labels and corpus."""
    folder.mkdir(exist_ok=True)
    metrics = {
        "task": "classification",
        "test": {"audio": {"f1_macro": 0.5, "uar": 0.25, "confusion": [[1]]}},
        "n_test": {"audio": 7, "visual": 0, "audiovisual": 0},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    hparams = {
        "output_folder": folder,
        "audio_encoder_source": "logmel",
        "visual_encoder_weights": None,
        "seed": 11,
        "partition": 2,
    }
    encoder = light_extractor()
    export_small(
        *(folder / "inference", labels, encoder),
        train_speakers=["1001", "1002"],
        record=run_record(
            audio_encoder=encoder.audio_encoder,
            visual_encoder=encoder.visual_encoder,
            train_clips=3742,
            **hparams,
        ),
        corpus=corpus,
        trained_heads=["audio"],
    )
    return folder


def test_info_tells_what_an_export_records(run_folder, capsys):
    status, out, _ = call(capsys, "info", run_folder, "--json")
    about = json.loads(out)
    assert status == 0
    assert about["labels"] == LABELS and about["trained_heads"] == ["audio"]
    assert about["encoders"]["audio"] == "log-mel features (logmel)"
    assert about["test"] == {"audio": {"f1_macro": 0.5, "uar": 0.25}}
    assert about["run"]["seed"] == 11 and about["run"]["partition"] == 2
    assert "Open Database" in about["licences"]["CREMA-D"]
    out = call(capsys, "info", run_folder / "inference")[1]
    assert "| audio | 7     | 0.500    | 0.250 |" in out


@pytest.fixture
def folder(clips, tmp_path):
    """A folder of clips, in two levels, with what is none beside them."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name, place in (
        ("sound.wav", "deep/b.wav"),
        ("both.mp4", "c.MP4"),
        ("text.txt", "d.txt"),
    ):
        shutil.copy(clips / name, tmp_path / "in" / place)
    (tmp_path / "in" / "a.wav").write_text("no media\n" * 100)
    return tmp_path / "in"


def read_table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predict_takes_a_folder_and_writes_a_table(
    model, folder, capsys, tmp_path
):
    table = tmp_path / "deep" / "table.csv"
    status, out, err = call(capsys, "predict", "M", folder, "--csv", table)
    assert status == 1 and str(folder / "a.wav") in err
    bad, both, sound = read_table(table)
    names = ["a.wav", "c.MP4", "deep/b.wav"]
    assert [r["file"] for r in (bad, both, sound)] == [
        str(folder / name) for name in names
    ]
    assert bad["error"] in err and bad["label"] == bad["happy"] == ""
    for row in (both, sound):
        truth = model.predict_file(row["file"])
        assert (row["modality"], row["label"]) == (truth.modality, truth.label)
        for name, share in truth.probabilities.items():
            assert float(row[name]) == pytest.approx(share, rel=1e-6)
        assert out.count(row["file"]) == 1 and row["error"] == ""
    # What cannot be written is told before a clip is looked at.
    (tmp_path / "file").touch()
    words = ("--csv", tmp_path / "file" / "table.csv")
    status, out, err = call(capsys, "predict", "M", folder, *words)
    assert (status, out) == (1, "") and "cannot be written" in err


def test_what_is_done_is_in_the_table_where_somebody_stops_it(
    model, folder, monkeypatch, capsys, tmp_path
):
    def predict(path, *args, **kwargs):
        if path.endswith("b.wav"):
            raise KeyboardInterrupt
        return EmotionRecognizer.predict_file(model, path, *args, **kwargs)

    monkeypatch.setattr(model, "predict_file", predict)
    table = tmp_path / "table.csv"
    assert call(capsys, "predict", "M", folder, "--csv", table)[0] == 130
    assert [Path(r["file"]).name for r in read_table(table)] == [
        "a.wav",
        "c.MP4",
    ]


def test_embed_writes_what_the_heads_read(model, folder, capsys, tmp_path):
    words = ("embed", "M", folder, "-o")
    status, out, err = call(capsys, *words, tmp_path / "r.npy")
    names = ["a.wav", "c.MP4", "deep/b.wav"]
    assert status == 1 and err.count("\n") == 1
    assert out.splitlines() == [str(folder / name) for name in names]
    bad, both, sound = found = np.load(tmp_path / "r.npy")
    assert found.shape == (3, 32) and np.isnan(bad).all()
    assert np.isnan(sound[16:]).all() and not np.isnan(both).any()
    # The prediction heads make of it what the model predicts.
    net = model.mods.vavl.eval()
    for row, file in ((both, folder / "c.MP4"), (sound, folder / "deep/b.wav")):
        truth = model.predict_file(file, "audio").probabilities
        with torch.no_grad():
            head = net.audio_branch["prediction_head"]
            logits = head(torch.from_numpy(row[:16]))
        np.testing.assert_allclose(
            logits.softmax(0), list(truth.values()), atol=1e-5
        )
    with torch.no_grad():
        logits = net.audiovisual_head(torch.from_numpy(both))
    truth = model.predict_file(folder / "c.MP4").probabilities
    np.testing.assert_allclose(
        logits.softmax(0), list(truth.values()), atol=1e-5
    )
    call(capsys, *words, tmp_path / "r.csv")
    rows = read_table(tmp_path / "r.csv")
    assert [row.pop("file") for row in rows] == out.splitlines()
    names = [f"{m}_{i}" for m in ("audio", "visual") for i in range(16)]
    assert list(rows[0]) == names
    table = [[float(x) for x in row.values()] for row in rows]
    np.testing.assert_allclose(table, found, rtol=1e-6)


def test_embed_of_a_long_clip_is_the_mean_over_its_chunks(model, tmp_path):
    sound = np.concatenate([sine(30, RATE), sine(4, RATE, 0.01)])
    path = tmp_path / "long.wav"
    soundfile.write(path, sound, RATE)
    parts, whole = [], np.zeros(16)
    for start in range(0, 34, 6):
        part = tmp_path / "part.wav"
        piece = sound[start * RATE : (start + 6) * RATE]
        soundfile.write(part, piece, RATE)
        whole += model.embed_file(part)["audio"] * len(piece) / len(sound)
        parts.append(model.embed_file(part)["audio"])
    assert np.ptp(parts, axis=0).max() > 0.01
    found = model.embed_file(path)["audio"]
    np.testing.assert_allclose(found, whole, atol=2e-3)


def test_embed_without_anything_to_write(model, clips, capsys, tmp_path):
    text = clips / "text.txt"
    for name, said in (("r.txt", "must end in .npy"), ("r.npy", "not written")):
        words = ("embed", "M", text, "-o", tmp_path / name)
        status, out, err = call(capsys, *words)
        assert status == 1 and out == "" and said in err
    assert list(tmp_path.iterdir()) == []


def test_info_groups_what_it_tells_and_counts_the_parameters(
    run_folder, capsys
):
    net = VAVL(80, 512, 3, d_model=16, encoder_layers=1, shared_layers=1)
    state = sum(t.numel() for t in net.state_dict().values())
    about = json.loads(call(capsys, "info", run_folder, "--json")[1])
    assert about["parameters"] == state and about["train_clips"] == 3742
    out = call(capsys, "info", run_folder)[1]
    heads = [x for x in out.splitlines() if x[:1].isupper() and "," not in x]
    titles = ["Task", "Training", "Network", "Scores", "Licences"]
    assert [x for x in heads if x in titles] == titles
    assert f"- Parameters, without the encoders: {state:,}\n" in out
    assert "- Clips in training: 3742\n" in out
    # For a terminal: no marks of Markdown, and its own characters.
    assert "#" not in out and "`" not in out


@pytest.mark.parametrize("drawn", [False, True])
def test_predict_says_in_one_line_what_the_model_has_learned_from(
    model, clips, capsys, tmp_path, drawn
):
    corpus = f"{DRAWN}CREMA-D" if drawn else "CREMA-D"
    folder = make_run(tmp_path / "run", corpus=corpus)
    target = {"target": "perceived: the emotion with most votes"}
    (folder / "prepare_report.json").write_text(json.dumps(target))
    make_run(folder, corpus=corpus)
    model.metadata = describe(folder / "inference")
    sound = clips / "sound.wav"
    out = call(capsys, "predict", "M", sound)[1]
    line = out.splitlines()[-1]
    assert line.startswith(
        f"Learned from {corpus} (3,742 clips, 2 speakers); its labels are "
        "perceived: the emotion with most votes."
    )
    assert ("drawn faces" in line) == drawn
    # What programs read is the list alone.
    out = call(capsys, "predict", "M", sound, "--json")[1]
    assert json.loads(out)[0]["file"] == str(sound)


def test_a_loaded_model_knows_what_it_has_learned_from(run_folder):
    model = EmotionRecognizer.from_hparams(run_folder / "inference")
    assert model.metadata == describe(run_folder / "inference")
    assert learned_from(model.metadata).startswith(
        "Learned from CREMA-D (3,742"
    )


def test_info_never_runs_what_it_reads(run_folder, capsys, tmp_path):
    folder = shutil.copytree(run_folder / "inference", tmp_path / "model")
    with open(folder / "hyperparams.yaml", "a", encoding="utf-8") as file:
        file.write(f"x: !apply:os.mkdir ['{tmp_path}/boom']\n")
    assert call(capsys, "info", folder)[0] == 0
    assert not (tmp_path / "boom").exists()


def test_export_makes_a_folder_that_loads(run_folder, capsys, tmp_path):
    target = tmp_path / "deep" / "model"
    assert call(capsys, "export", run_folder, target)[0] == 0
    assert EmotionRecognizer.from_hparams(target).trained_heads == ("audio",)
    copied = json.loads((target / "model.json").read_text())["metadata"]
    assert copied["test"] == {"audio": {"f1_macro": 0.5, "uar": 0.25}}
    status, _, err = call(capsys, "export", run_folder, target)
    assert status == 1 and "exists already" in err
    assert [p.name for p in target.parent.iterdir()] == ["model"]


def test_export_leaves_nothing_of_a_broken_run(run_folder, capsys, tmp_path):
    broken = shutil.copytree(run_folder, tmp_path / "run")
    path = broken / "inference" / "vavl.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    status, _, err = call(capsys, "export", broken, tmp_path / "model")
    assert status == 1 and err.count("\n") == 1
    assert f" {path}: " in err  # Not its copy, which is gone.
    for source in (tmp_path / "nowhere", tmp_path):
        assert call(capsys, "export", source, tmp_path / "model")[0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_check_media_tells_what_is_in_a_clip(clips, capsys, tmp_path):
    status, out, _ = call(capsys, "check-media", clips / "both.mp4", "--json")
    (report,) = json.loads(out)
    assert status == 0 and report["duration"] == pytest.approx(4, abs=0.1)
    kinds = {s["kind"]: s for s in report["streams"]}
    assert kinds["video"]["size"] == [64, 48]
    assert kinds["video"]["frame_rate"] == pytest.approx(25)
    assert kinds["audio"]["sample_rate"] == RATE
    # A sine of amplitude 0.3: 20 log10(0.3 / sqrt 2) = -13.5 dBFS.
    assert report["rms_dbfs"] == pytest.approx(-13.47, abs=0.2)
    assert not report["silent_track"]
    assert (report["frames"], report["frames_with_face"]) == (40, 0)
    assert [s.split(" (")[0] for s in report["used"]] == ["sound: stream 1"]
    (line,) = report["left_out"]
    assert line == "picture: stream 0 (h264, 64x48): no face was found in it"
    assert "RMS -13" in call(capsys, "check-media", clips / "both.mp4")[1]
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    out = call(capsys, "check-media", tmp_path / "silent.wav")[1]
    assert "a silent track" in out and "not checked" in out
    assert "left out: sound: stream 0 (pcm_s16le, 16000 Hz, 1 channel)" in out


def test_check_media_of_what_cannot_be_used(clips, capsys, tmp_path):
    for path in (clips / "text.txt", tmp_path, tmp_path / "nowhere"):
        status, out, err = call(capsys, "check-media", path)
        assert status == 1 and out == "" and err.count("\n") == 1
    cut = tmp_path / "cut.wav"
    cut.write_bytes((clips / "sound.wav").read_bytes()[:30000])
    status, out, _ = call(capsys, "check-media", cut)
    assert status == 1 and "fault: " in out
    # What is no media does not stop the rest.
    sound = clips / "sound.wav"
    status, out, err = call(capsys, "check-media", clips / "text.txt", sound)
    assert status == 1 and out.startswith(str(sound)) and "text.txt" in err


def test_heads_learn_from_the_clips_that_have_what_they_need():
    both = {"audio": "f", "visual": "f"}
    sound = {"audio": "f", "visual": None}
    picture = {"audio": None, "visual": "f"}
    index = {"a": both, "b": sound, "c": picture}
    assert trained_heads(index, "b") == ["audio"]
    assert trained_heads(index, "c") == ["visual"]
    assert trained_heads(index, "bc") == ["audio", "visual"]
    assert trained_heads(index, "ab") == ["audio", "visual", "audiovisual"]


def test_a_recorded_command_names_no_folder_of_this_machine(tmp_path):
    words = ["/x/train.py", "hparams/a.yaml", "--data_folder", "/home/me/CREMA"]
    words += [f"--feature_folder={tmp_path}", "--visual_encoder_weights"]
    words += [str(tmp_path / "w.pt"), "--seed", "3"]
    said = command_line(words)
    assert "/home" not in said and str(tmp_path) not in said
    assert said.endswith("--visual_encoder_weights w.pt --seed 3")
    assert said.startswith("python train.py hparams/a.yaml --data_folder ")
