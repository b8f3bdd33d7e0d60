"""The page's parts, without a browser."""

import base64
import csv
import io
import json
import multiprocessing
import os
import re
import socket
import sys
from types import SimpleNamespace

import numpy as np
import page_models
import pytest
from light_model import make_model, write_model_file
from test_media import sine, write
from test_speaker_normalization import recognizer

from vavl_sb.cli import main
from vavl_sb.inference.emotion import Emotion
from vavl_sb.inference.prediction import Analysis
from vavl_sb.page import worker as worker_module
from vavl_sb.page.layout import (
    EMPTY,
    answers_html,
    downloads_html,
    model_text,
    show,
)
from vavl_sb.page.worker import Worker
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


def test_what_is_saved_is_what_the_model_said():
    analysis = Analysis(emotion("audio"), 5.0, windows(0.1, None))
    text = downloads_html(analysis, 'my "clip".mp4')
    found = re.findall(
        r'download="([^"]+)" href="data:([\w/]+);base64,([^"]+)"', text
    )
    (csv_name, csv_kind, table), (json_name, json_kind, saved) = found
    assert (csv_name, csv_kind) == ("my &quot;clip&quot;.csv", "text/csv")
    assert json_name.endswith(".json") and json_kind == "application/json"
    rows = csv.DictReader(io.StringIO(base64.b64decode(table).decode()))
    assert [(row["part"], row["end"], row["<b>loud"]) for row in rows] == [
        ("whole clip", "5.0", "0.75"),
        ("window", "3.0", "0.9"),
        ("window", "4.0", ""),
    ]
    saved = json.loads(base64.b64decode(saved))
    first, gap = saved.pop("timeline")
    assert saved == {"file": 'my "clip".mp4', **analysis.emotion.as_dict()}
    assert first["emotion"]["probabilities"]["<b>loud"] == 0.9
    assert gap == {"start": 1.0, "end": 4.0, "emotion": None}


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
    text = model_text(describe(folder))
    assert "**my run**" in text
    assert "sound 0.50, sound and face 0.71" in text and "macro F1" in text
    assert "Learned from CREMA-D (1,200 clips, 3 speakers)" in text
    assert "<by>" not in text and "perceived &#60;by&#62; raters" in text
    write_model_file(folder, audio_encoder=PRECOMPUTED)
    assert "Test clips" not in model_text(describe(folder))


@pytest.fixture
def in_process(monkeypatch):
    """Makes a worker of a model that is in this process."""

    def make(model):
        monkeypatch.setattr(worker_module, "_model", model, raising=False)
        about = {"attribute_range": None, "trained_heads": model.trained_heads}
        return SimpleNamespace(analyze=worker_module._analyze, about=about)

    yield make
    worker_module._enrol.cache_clear()


def sounds(folder, *frequencies):
    """A wav of 2 s for each."""
    return [
        str(write(folder / f"{f}.wav", sound=sine(2, 16000, f), codecs=PCM))
        for f in frequencies
    ]


def shown(answers, head="audio"):
    """Class to the probability that the page shows."""
    rows = re.findall(r"(\w+) <b>([\d.]+)<", columns(answers)[head][1])
    return {name: float(value) for name, value in rows}


def test_the_page_answers_as_the_shell_does_with_an_enrolment(
    tmp_path, in_process
):
    """Asked of a real recognizer: truth is what ``enrol`` gives."""
    model = recognizer()
    clip, *others = sounds(tmp_path, 300, 900, 2000)
    (tmp_path / "bad.wav").write_bytes(b"no clip at all")
    truth = model.predict_file(clip, speaker=model.enrol(others))
    plain = model.predict_file(clip)
    assert truth.probabilities != pytest.approx(plain.probabilities, abs=0.02)
    worker = in_process(model)
    bad = str(tmp_path / "bad.wav")
    answers = show(worker, clip, False, False, (*others, bad))[0]
    assert shown(answers) == pytest.approx(truth.probabilities, abs=0.0051)
    assert "With 2 other clip(s)" in answers
    assert re.search('<p class="vavl-error">bad.wav: [^<]+</p>$', answers)
    answers = show(worker, clip, False, False)[0]
    assert shown(answers) == pytest.approx(plain.probabilities, abs=0.0051)
    answers, *more = show(worker, clip, False, False, (bad,))
    assert "enrol: no clip can be used" in answers
    assert tuple(more) == EMPTY


def test_switches_ask_the_head_that_is_left(tmp_path, in_process):
    model = make_model()
    worker = in_process(model)
    images = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), "u1")
    clip = str(write(tmp_path / "clip.mp4", images, sine(2, 16000)))
    for head, no_sound, no_face in (
        ("visual", True, False),
        ("audio", False, True),
        ("audiovisual", False, False),
    ):
        answers, *_, crops, _ = show(worker, clip, no_sound, no_face)
        truth = model.predict_file(clip, modality=head).probabilities
        assert shown(answers, head) == pytest.approx(truth, abs=0.0051)
        assert columns(answers)[head][0] == "chosen"
        assert len(crops) == (0 if no_face else 8)
    # The crops are the pictures that the model saw.
    pixels, seconds = crops[0]
    (time, truth), *_ = model.analyze(clip, crops=8).crops
    assert (pixels == truth).all() and seconds == f"{time:.1f} s"
    assert "not both" in show(worker, clip, True, True)[0]
    assert "vavl-error" not in show(worker, None, True, True)[0]


def test_names_are_text_and_a_file_of_no_use_is_one_line(tmp_path, in_process):
    worker = in_process(make_model())
    path = tmp_path / 'a"b<i>&.wav'
    for content in (b"", b"no clip at all\n" * 99):
        path.write_bytes(content)
        answers, *more = show(worker, str(path), False, False)
        assert answers.startswith(
            '<p class="vavl-error">a&quot;b&lt;i&gt;&amp;'
        )
        assert answers.count("<") == 2 and "\n" not in answers
        assert str(tmp_path) not in answers and tuple(more) == EMPTY
    os.rename(sounds(tmp_path, 300)[0], path)
    player = show(worker, str(path), False, False)[1]
    assert f'file={tmp_path}/a%22b%3Ci%3E%26.wav"' in player
    assert "<i>" not in player and "&lt;i&gt;&amp;.wav" in player


def test_a_worker_that_hangs_or_dies_is_replaced(tmp_path):
    paths = {}
    for word in ("happy", "endless", "crash", "bad"):
        (tmp_path / word).write_text(word)
        paths[word] = str(tmp_path / word)
    worker = Worker(page_models.Model, seconds=2)
    try:
        assert worker.about["trained_heads"] == page_models.Model.trained_heads
        for word, line in (
            ("endless", "took more than 2 s"),
            ("crash", "broke off"),
        ):
            with pytest.raises(VAVLError, match=f"{word}: .*{line}"):
                worker.analyze(paths[word])
            assert worker.analyze(paths["happy"]) == ("happy", [])
        with pytest.raises(VAVLError, match="bad: not a media file"):
            worker.analyze(paths["bad"])
        processes = multiprocessing.active_children()
    finally:
        worker.close()
    assert len(processes) == 1 and not processes[0].is_alive()


def test_a_model_that_cannot_be_loaded_is_one_line():
    with pytest.raises(VAVLError, match="^no such model$"):
        Worker(page_models.fail, seconds=9)
    with pytest.raises(VAVLError, match="ended at loading"):
        Worker(os.abort, seconds=9)


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
