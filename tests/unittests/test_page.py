"""The page's parts, without a browser."""

import base64
import csv
import io
import json
import os
import re
import socket
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import page_models
import pytest
from light_model import make_model, write_model_file
from matplotlib.colors import to_hex
from test_media import sine, write
from test_speaker_normalization import recognizer

from vavl_sb.cli import main
from vavl_sb.inference.emotion import Emotion
from vavl_sb.inference.prediction import Analysis
from vavl_sb.page.guard import Clips
from vavl_sb.page.layout import (
    Page,
    answers_html,
    build_page,
    downloads_html,
    learn,
    model_html,
    results,
    timeline_json,
)
from vavl_sb.page.worker import Ended, Worker
from vavl_sb.training.model_card import describe
from vavl_sb.training.plots import emotion_curves, emotion_over_time
from vavl_sb.utils.errors import VAVLError

PCM = (None, "pcm_s16le")
PRECOMPUTED = {"class": "Precomputed", "arguments": {"dim": 3}}


def emotion(modality="audiovisual", shares=(0.25, 0.75)):
    """An answer of all three heads, the same from each."""
    probabilities = dict(zip(("calm", "<b>loud"), shares))
    answer = {
        "label": max(probabilities, key=probabilities.get),
        "probabilities": probabilities,
    }
    heads = dict.fromkeys(("audio", "visual", "audiovisual"), answer)
    return Emotion(modality=modality, **answer, per_modality=heads)


def columns(text):
    """Head to the HTML of its column."""
    parts = re.split(
        r'<div class="vavl-answer([^"]*)" data-head="(\w+)">', text
    )
    return {
        parts[i + 1]: (parts[i].strip(), parts[i + 2])
        for i in range(1, len(parts), 3)
    }


def test_three_answers_stand_side_by_side_and_the_chosen_one_is_marked():
    found = columns(answers_html(emotion("visual")))
    assert list(found) == ["audio", "visual", "audiovisual"]
    marked = [head for head, (mark, _) in found.items() if mark == "chosen"]
    assert marked == ["visual"]
    for _, body in found.values():
        # Labels are a model's, so they are text and never HTML.
        assert "<b>loud" not in body and "&lt;b&gt;loud" in body
        assert re.findall(r"width: (\d+)%", body) == ["75", "25"]


def test_a_head_that_is_ignored_or_has_no_answer_says_so():
    found = columns(answers_html(emotion("audio"), modality="audio"))
    assert "75%" in found["audio"][1] and "ignored" not in found["audio"][1]
    for head in ("visual", "audiovisual"):
        assert "ignored" in found[head][1] and "%" not in found[head][1]
    answer = emotion("audio")
    answer.per_modality = {"audio": answer.per_modality["audio"]}
    found = columns(answers_html(answer))
    assert "no answer" in found["visual"][1]
    assert "no answer" not in found["audio"][1]
    found = columns(answers_html(answer, trained=["audio", "visual"]))
    assert "no answer" in found["visual"][1]
    assert "not trained" in found["audiovisual"][1]


def test_bars_of_attributes_follow_the_scale_of_the_corpus():
    values = {"valence": 4.0, "arousal": 0.5}
    answer = Emotion(
        "audio",
        attributes=values,
        per_modality={"audio": {"attributes": values}},
    )
    body = columns(answers_html(answer, [1.0, 5.0]))["audio"][1]
    # In the model's own order; what lies outside is at the end of the bar.
    assert re.findall(r"(\w+) <b>([\d.]+)</b>", body) == [
        ("valence", "4.00"),
        ("arousal", "0.50"),
    ]
    assert re.findall(r"width: (\d+)%", body) == ["75", "0"]


def windows(*shares):
    """Windows of 3 s each second."""
    return [
        SimpleNamespace(
            start=float(i),
            end=i + 3.0,
            emotion=None
            if share is None
            else emotion(shares=(share, 1 - share)),
        )
        for i, share in enumerate(shares)
    ]


def test_the_timeline_has_a_point_a_window_and_gaps():
    timeline = windows(0.1, None, 0.3)
    times, values = emotion_curves(timeline)
    assert times == [0.0, 1.5, 2.5, 3.5, 5.0]
    nan = float("nan")
    np.testing.assert_allclose(values["calm"], [0.1, 0.1, nan, 0.3, 0.3])
    np.testing.assert_allclose(values["<b>loud"], [0.9, 0.9, nan, 0.7, 0.7])
    figure = emotion_over_time(timeline, title="a.mp4: VAVL")
    (axes,) = figure.axes
    assert axes.get_xlim() == (0.0, 5.0)
    assert axes.get_ylim() == (0.0, 1.0)
    assert figure.get_suptitle() == "a.mp4: VAVL"
    assert axes.get_ylabel() == "probability"
    drawn = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(drawn["calm"].get_ydata(), values["calm"])
    # The page's figure has the same points and colours, and gaps too.
    figure = json.loads(timeline_json(timeline))
    assert figure["layout"]["xaxis"]["range"] == [0, 5.0]
    assert figure["layout"]["yaxis"]["title"]["text"] == "probability"
    calm, loud = figure["data"]
    # Plotly would take a label for HTML.
    assert (calm["name"], loud["name"]) == ("calm", "&lt;b&gt;loud")
    assert calm["x"] == times and calm["y"] == [0.1, 0.1, None, 0.3, 0.3]
    for curve, name in ((calm, "calm"), (loud, "<b>loud")):
        colour = to_hex(drawn[name].get_color()).upper()
        assert curve["line"]["color"].upper() == colour


def test_what_is_saved_is_what_the_model_said():
    analysis = Analysis(emotion("audio"), 5.0, windows(0.1, None))
    analysis.emotion.per_modality["visual"] = None
    text = downloads_html(analysis, 'my "clip".mp4')
    found = re.findall(
        r'download="([^"]+)" href="data:([\w/]+);base64,([^"]+)"', text
    )
    (csv_name, csv_kind, table), (json_name, json_kind, listed) = found
    assert (csv_name, csv_kind) == ("my &quot;clip&quot;.csv", "text/csv")
    assert json_name.endswith(".json") and json_kind == "application/json"
    rows = csv.DictReader(io.StringIO(base64.b64decode(table).decode()))
    assert [row["<b>loud"] for row in rows] == ["0.75", "0.9", ""]
    whole, first, gap = json.loads(base64.b64decode(listed))
    assert whole["per_modality"] == analysis.emotion.per_modality
    assert first["per_modality"]["visual"]["label"] == "<b>loud"
    assert gap["per_modality"] is None and gap["end"] == 4.0


def test_the_page_tells_the_models_name_corpus_and_score(tmp_path):
    folder = tmp_path / "my run" / "inference"
    folder.mkdir(parents=True)
    metadata = {
        "train_clips": 1200,
        "train_speakers": ["1", "2", "3"],
        "test": {"audio": {"f1_macro": 0.5}, "audiovisual": {"f1_macro": 0.71}},
        "n_test": {"audio": 9},
        "target": "perceived <by> raters",
    }
    write_model_file(
        folder, metadata, corpus="CREMA-D", audio_encoder=PRECOMPUTED
    )
    text = model_html(describe(folder))
    assert "<b>my run</b>" in text
    assert "sound 0.50, sound and face 0.71" in text and "macro F1" in text
    assert "Learned from CREMA-D (1,200 clips, 3 speakers)" in text
    assert "perceived &lt;by&gt; raters" in text
    write_model_file(folder, audio_encoder=PRECOMPUTED)
    assert "Test clips" not in model_html(describe(folder))


def upload(folder, content, name):
    """A file where Gradio would put it."""
    place = folder / content
    place.mkdir(exist_ok=True)
    (place / name).write_text(content)
    return place / name


def test_a_clip_is_deleted_when_the_next_comes_and_when_its_owner_leaves(
    tmp_path,
):
    clips = Clips(tmp_path, max_bytes=99)
    first, second = (upload(tmp_path, n, "a.mp4") for n in ("first", "second"))
    clips.take("anna", first)
    clips.take("anna", second)
    assert [p.name for p in tmp_path.rglob("*")] == ["second", "a.mp4"]
    clips.take("anna", second)
    assert second.is_file() and clips.held("anna") == str(second)
    clips.drop("anna")
    assert list(tmp_path.iterdir()) == [] and clips.held("anna") is None


def test_clips_that_grow_old_are_deleted_by_gradio(tmp_path):
    pytest.importorskip("gradio")
    from gradio.route_utils import delete_files_created_by_app

    clips = Clips(tmp_path, max_bytes=99)
    page = build_page(None, clips, max_mb=1)
    file = (io.BytesIO(b"clip"), 4, "a.mp4")
    paths = [Path(clips.keep(*file)) for _ in range(3)]
    for _ in clips.kept:  # Uploads come while Gradio looks at them.
        paths.append(Path(clips.keep(*file)))
    delete_files_created_by_app(page, age=3600)
    assert len(paths) == 6 and all(path.is_file() for path in paths)
    delete_files_created_by_app(page, age=-1)
    assert not any(path.is_file() for path in paths)
    clips.keep(*file)
    assert len(list(tmp_path.iterdir())) == 1


class Recognizer(page_models.Model):
    """Notes what it is asked."""

    def __init__(self):
        self.asked = []

    def analyze(self, path, modality, crops):
        self.asked.append((path, modality, crops))
        return super().analyze(path, modality, crops)


def page_of(model, folder):
    """A page whose model works in this process."""
    return Page(partial(results, model), Clips(folder, max_bytes=10**6))


def page_of_speakers(folder, model=None):
    """The same for a model with speaker normalization."""
    model = model or page_models.ModelOfSpeakers()
    page = page_of(model, folder)
    page.learn = partial(learn, model)
    return page


def add(page, visitor, *clips):
    """Adds uploads of such content; gives the lines about those of no use."""
    files = [(io.BytesIO(c.encode()), len(c), f"{c[:9]}.wav") for c in clips]
    paths = [page.clips.keep(*file) for file in files]
    found = list(page.add(visitor, paths))
    assert not any(Path(path).exists() for path in paths)
    return [line for line in found if line is not None]


def test_what_other_clips_told_is_gone_with_the_visitor(tmp_path):
    page = page_of_speakers(tmp_path)
    add(page, "anna", "one", "two")
    paths = [page.clips.keep(io.BytesIO(b"word"), 4, "a.wav") for _ in range(3)]
    adding = page.add("anna", paths)
    next(adding)
    page.leave("anna")  # In the midst of it.
    assert list(adding) == [] and list(tmp_path.iterdir()) == []
    assert page.known("anna") == 0 and page._others == {}
    # Whose leaving nobody has noticed makes room.
    for visitor in "abcde":
        add(page, visitor, "word")
    assert [page.known(visitor) for visitor in "abcde"] == [0, 1, 1, 1, 1]


def test_the_page_answers_as_the_shell_does_with_an_enrolment(tmp_path):
    """Asked of a real recognizer: truth is what ``enrol`` gives."""
    model = recognizer()
    sounds = [sine(2, 16000, frequency) for frequency in (300, 900, 2000)]
    files = [
        write(tmp_path / f"{n}.wav", sound=sound, codecs=PCM)
        for n, sound in enumerate(sounds)
    ]
    (tmp_path / "held").mkdir()
    page = page_of_speakers(tmp_path / "held", model)
    clip, *others = (
        page.clips.keep(io.BytesIO(f.read_bytes()), f.stat().st_size, f.name)
        for f in files
    )
    page.new_clip("anna", clip, False, False)
    assert list(page.add("anna", others)) == [None, None]
    truth = model.predict_file(files[0], speaker=model.enrol(files[1:]))
    plain = model.predict_file(files[0])
    assert truth.probabilities != pytest.approx(plain.probabilities, abs=0.02)
    body = columns(page.same_clip("anna", False, False)[0])["audio"][1]
    shown = {n: float(p) for n, p in re.findall(r"(\w+) <b>([\d.]+)<", body)}
    assert shown == pytest.approx(truth.probabilities, abs=0.005)


def test_of_a_long_clip_of_the_person_the_first_30_s_are_read(tmp_path):
    model = recognizer()
    long = write(tmp_path / "long.wav", sound=sine(50, 16000), codecs=PCM)
    cut = write(tmp_path / "cut.wav", sound=sine(30, 16000), codecs=PCM)
    frames = [len(part.audio) for part in learn(model, str(long))]
    (whole,) = learn(model, str(cut))
    assert len(frames) == 5 and sum(frames) == pytest.approx(
        len(whole.audio), abs=5
    )
    assert len(model.clip_features(long)) == 9


def test_a_file_of_no_use_is_one_line_and_leaves_nothing(tmp_path):
    """Asked of a real recognizer: what is told and left does not depend on it."""
    page = page_of(make_model(), tmp_path / "held")
    images = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), "u1")
    clip = write(tmp_path / "clip.mp4", images, sine(2, 16000))
    bad = {"empty.mp4": b"", "text.mp4": b"no clip at all\n" * 99}
    bad["cut.mp4"] = clip.read_bytes()[: clip.stat().st_size // 2]
    for name, content in bad.items():
        path = tmp_path / "held" / name.split(".")[0] / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        with pytest.raises(VAVLError) as error:
            page.new_clip("anna", str(path), False, False)
        line = str(error.value)
        assert line.startswith(f"{name}: ") and "\n" not in line
        assert str(tmp_path) not in line
        assert list((tmp_path / "held").iterdir()) == []
    # Newer clips needed its room, or it is nobody's upload.
    for gone in (path, clip):
        with pytest.raises(VAVLError, match="not there any more"):
            page.new_clip("anna", str(gone), False, False)
    assert clip.exists()


def test_the_player_escapes_the_name(tmp_path):
    page = page_of(Recognizer(), tmp_path)
    path = upload(tmp_path, "x", 'a"b<i>&.mp4')
    player = page.new_clip("anna", str(path), False, False)[1]
    assert f'file={tmp_path}/x/a%22b%3Ci%3E%26.mp4"' in player
    assert "<i>" not in player and "&lt;i&gt;&amp;.mp4" in player


def test_a_worker_that_hangs_or_dies_is_replaced(tmp_path):
    for word in ("happy", "endless", "crash", "bad"):
        (tmp_path / word).write_text(word)
    with Worker(page_models.Model, page_models.label, seconds=2) as worker:
        for word, line in (
            ("endless", "took more than 2 s"),
            ("crash", "broke off"),
        ):
            first = worker._process.pid
            with pytest.raises(Ended, match=f"{word}: .*{line}"):
                worker.ask(str(tmp_path / word), "auto")
            assert worker.ask(str(tmp_path / "happy"), "auto") == "happy"
            assert worker._process.pid != first
        with pytest.raises(VAVLError, match="bad: not a media file"):
            worker.ask(str(tmp_path / "bad"), "auto")
        # One that dies while it has nothing to do is replaced as well.
        worker._process.kill()
        worker._process.join()
        assert worker.ask(str(tmp_path / "happy"), "auto") == "happy"
    assert not worker._process.is_alive()
    with pytest.raises(VAVLError):
        worker.ask(str(tmp_path / "happy"), "auto")
    assert not worker._process.is_alive()


def test_a_model_that_cannot_be_loaded_is_one_line():
    with pytest.raises(VAVLError, match="^no such model$"):
        Worker(page_models.fail, page_models.label, seconds=9)
    with pytest.raises(VAVLError, match="ended at loading"):
        Worker(os.abort, page_models.label, seconds=9)


def demo(capsys, *options):
    """The one line with which `vavl demo` ends."""
    assert main(["demo", "no-model", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_is_one_line(monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        taken.listen()
        line = demo(capsys, "--port", port)
        assert f"port {port}" in line and "choose another with --port" in line
    for name in ("--max-mb", "--max-seconds"):
        assert f"{name} 0: give a number above 0" in demo(capsys, name, "0")
    assert "port 70000" in demo(capsys, "--port", "70000")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'vavl_sb[demo]'" in demo(capsys, "--port", port)
