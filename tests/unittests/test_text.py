"""What others wrote is printed as text, and JSON is strict."""

import errno
import json
import os
import re
import unicodedata

import numpy as np
import pytest
import soundfile
from hypothesis import (
    example,
    given,
    strategies as st,
)
from light_model import make_model, write_model_file
from test_commands import call, make_run
from test_media import sine

from vavl_sb.cli import main
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.inference.prediction import Emotion, TimedEmotion
from vavl_sb.training import plots
from vavl_sb.training.model_card import model_card
from vavl_sb.utils.errors import MediaError, VAVLError, exit_on_error
from vavl_sb.utils.files import read_json, write_json
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.text import markdown, printable

# Colours, a title, a cleared line, C1, DEL, letters turned around, no width,
# ends of lines, half a character.
HOSTILE = (
    "happy\x1b[2K\x1b]0;owned\x07\x9b31m\x7f\u202e\u2066\u200b\r\n"
    "task: regression\u2028licence: none\u2029\x85\udcff"
)
SHOWN = (
    r"happy\x1b[2K\x1b]0;owned\x07\x9b31m\x7f\u202e\u2066\u200b\x0d\x0a"
    r"task: regression\u2028licence: none\u2029\x85\udcff"
)
# What the shell hands over of a file name that is no UTF-8, without a slash.
NAME = "a\x1b[31m\x9b\u202e\nvavl: all is well\udcff.wav"
NAME_SHOWN = r"a\x1b[31m\x9b\u202e\x0avavl: all is well\udcff.wav"
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
ANY_TEXT = st.text(
    st.one_of(
        st.characters(exclude_categories=[]),
        st.sampled_from("\\xuU01e\x1b\u202e"),
    )
)


def hidden(text):
    """What of a text does not show as itself, ends of lines apart."""
    return {c for c in text if unicodedata.category(c) in HIDDEN} - {"\n"}


def test_every_character_there_is_can_be_printed():
    every = "".join(map(chr, range(0x110000)))
    shown = printable(every)
    assert not hidden(shown) and "\n" not in shown
    kept = [c for c in every if unicodedata.category(c) not in HIDDEN]
    assert [c for c in shown if ord(c) > 0x7F] == [
        c for c in kept if ord(c) > 0x7F
    ]


@given(ANY_TEXT)
@example("\\\x1b")
@example("\\\\")
@example("\\x1b")
def test_what_was_written_can_be_told_from_what_is_shown(text):
    """An independent reader of the escapes finds the text again."""
    shown = printable(text)
    assert not hidden(shown) and "\n" not in shown
    escape = r"\\x(..)|\\u(....)|\\U(.{8})|\\(\\)"
    assert text == re.sub(
        escape,
        lambda m: m[4] or chr(int(m[1] or m[2] or m[3], 16)),
        shown,
    )


@pytest.fixture
def hostile_model(monkeypatch):
    """A light model whose first label is hostile, whatever MODEL is called."""
    light = make_model()
    light.hparams.labels = [HOSTILE, "$\\frac{", "_hidden"]
    monkeypatch.setattr(
        EmotionRecognizer, "from_hparams", lambda *_, **__: light
    )
    return light


@pytest.fixture
def odd_clip(tmp_path):
    """A sound whose name is hostile."""
    soundfile.write(tmp_path / "plain.wav", sine(2, 16000), 16000)
    path = os.path.join(tmp_path, NAME)
    os.rename(tmp_path / "plain.wav", path)
    return path


def test_predict_shows_labels_and_names(
    hostile_model, odd_clip, capsys, tmp_path
):
    picture = tmp_path / "plot.png"
    words = ("predict", "M", odd_clip, "--timeline", "--plot", picture)
    status, out, err = call(capsys, *words)
    assert (status, err) == (0, "")
    assert not hidden(out) and SHOWN in out
    # The clip, and a line for its one window: labels add none.
    first, second = out.splitlines()
    assert first.startswith(f"{tmp_path}/{NAME_SHOWN} (audio): ")
    assert second.startswith("     0.00 - ")
    assert picture.stat().st_size > 1000


def test_predict_names_a_clip_that_fails(hostile_model, capsys, tmp_path):
    path = os.path.join(tmp_path, NAME)
    status, out, err = call(capsys, "predict", "M", path, "--json")
    assert status == 1 and not hidden(err) and err.count("\n") == 1
    assert err.startswith(f"vavl: {tmp_path}/{NAME_SHOWN}: ")
    (result,) = json.loads(out)
    # As it is, but for half a character, which JSON cannot say.
    name = NAME.replace("\udcff", r"\udcff")
    assert result["file"] == f"{tmp_path}/{name}"
    assert result["error"].startswith(f"{tmp_path}/{name}: ")


def test_predict_json_is_json_for_every_reader(
    hostile_model, odd_clip, capsys, monkeypatch
):
    def predict(*_):
        return Emotion("audio", attributes={HOSTILE: np.nan, "b": -np.inf})

    monkeypatch.setattr(hostile_model, "predict_file", predict)
    status, out, _ = call(capsys, "predict", "M", odd_clip, "--json")
    (result,) = json.loads(out, parse_constant=pytest.fail)
    assert status == 0 and out.isascii() and not hidden(out)
    assert list(result["attributes"].values()) == [None, None]
    json.dumps(result, ensure_ascii=False).encode("utf-8")


def test_check_media_shows_a_name(odd_clip, capsys, tmp_path):
    status, out, err = call(capsys, "check-media", odd_clip)
    assert (status, err) == (0, "") and not hidden(out)
    assert out.startswith(f"{tmp_path}/{NAME_SHOWN}: 2.00 s\n  stream: audio")
    (report,) = json.loads(call(capsys, "check-media", odd_clip, "--json")[1])
    report["file"].encode("utf-8")
    with open(odd_clip, "r+b") as file:
        file.truncate(30000)
    status, out, err = call(capsys, "check-media", odd_clip)
    assert status == 1 and not hidden(out + err)
    (fault,) = [x for x in out.splitlines() if x.startswith("  fault: ")]
    assert NAME_SHOWN in fault
    os.truncate(odd_clip, 10)
    status, out, err = call(capsys, "check-media", odd_clip)
    assert status == 1 and not hidden(err) and NAME_SHOWN in err
    assert out == "" and err.count("\n") == 1


def test_info_shows_what_an_export_says(capsys, tmp_path):
    evil = HOSTILE.replace("\udcff", "")  # No model.json may have it.
    run = make_run(tmp_path / "run", [evil, "b", "c"], corpus=evil)
    path = run / "inference" / "model.json"
    model = json.loads(path.read_text())
    model["metadata"] |= {
        "run": {evil: evil, "task": "x", "command": evil},
        "encoder_names": {"audio": evil},
        "test": {evil: {evil: 0.5, "ccc": {"a": None}}, "task": {}},
        "licences": {evil: evil},
    }
    path.write_text(json.dumps(model))
    status, out, err = call(capsys, "info", run)
    assert (status, err) == (0, "") and not hidden(out)
    names = [line.split(":")[0] for line in out.splitlines()]
    # Neither a line break nor the name of a setting passes for "task".
    assert names.count("task") == 1 and "licence" not in names
    assert len(names) == 15 and out.count(SHOWN.replace("\\udcff", "")) == 10
    status, out, _ = call(capsys, "info", run, "--json")
    assert status == 0 and out.isascii() and not hidden(out)
    json.dumps(json.loads(out), ensure_ascii=False).encode("utf-8")


def test_a_word_that_is_no_option_is_shown(capsys):
    with pytest.raises(SystemExit):
        main(["check-media", "a.wav", "--x\x1b[31m\nvavl:"])
    err = capsys.readouterr().err
    assert not hidden(err) and r"--x\x1b[31m\x0avavl:" in err


def test_errors_and_warnings_are_shown(caplog):
    with pytest.raises(SystemExit), exit_on_error():
        raise MediaError(f"{HOSTILE}: broken")
    with pytest.raises(SystemExit), exit_on_error():
        raise OSError(errno.ENOSPC, "full", HOSTILE)
    logger = get_logger("vavl_sb.test")
    logger.warning("%s: %d of %.1f", HOSTILE, 1, 2.0)
    logger.warning("%s", ValueError(HOSTILE))
    logger.warning("%s", VAVLError(HOSTILE))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"error: {SHOWN}: broken",
        f"error: {SHOWN}: cannot be written (full); free space, then run the "
        "same command again",
        f"{SHOWN}: 1 of 2.0",
        SHOWN,
        SHOWN,
    ]
    assert caplog.records[-1].funcName == "test_errors_and_warnings_are_shown"


def test_an_error_of_a_loaders_worker_is_shown():
    text = f"Caught MediaError.\nOriginal Traceback:\nMediaError: \x1b[31m{1}"
    assert str(MediaError(text)) == r"\x1b[31m1"


@given(ANY_TEXT)
def test_markdown_of_others_has_no_structure(text):
    marked = markdown(text)
    assert not set(marked) & set("\\`*[]<>|$\n") and not hidden(marked)


def test_a_card_shows_what_an_export_says(tmp_path):
    evil = "x\n## Licences\n<script>|`[a](http://b)\x1b[31m\u202e"
    metadata = {
        "run": {
            "command": f"a `` b {evil}",
            "seed": evil,
            "also_train": [evil, {"a": []}],
        },
        "encoder_names": {"audio": evil, "visual": evil},
        "test": {evil: {evil: 0.5, "uar": 0.25}},
        "licences": {"audio": evil},
    }
    write_model_file(tmp_path, metadata, labels=[evil], corpus=evil)
    text = model_card(tmp_path)
    assert not hidden(text) and text.count("\n## Licences\n") == 1
    code = re.findall("```a|(``` (.*?) ```)", text)
    assert len(code) == 2 and all("a `` b x\\x0a## L" in c for c, _ in code)
    for span, _ in code:
        text = text.replace(span, "")
    assert "<script>" not in text and "](http://b)" not in text
    (row,) = [x for x in text.splitlines() if "0.500" in x]
    assert row.count("|") == 5


def test_a_figure_draws_labels_as_they_are(tmp_path):
    labels = ["$\\frac{", "$x$", "_hidden", "50 $", HOSTILE * 99]
    windows = [
        TimedEmotion(
            i, i + 1, Emotion("audio", None, dict.fromkeys(labels, 0.2))
        )
        for i in (0.0, 1.0)
    ]
    figure = plots.emotion_over_time(windows)
    plots.save_figure(figure, tmp_path / "time.png")
    drawn = figure.axes[0].get_legend().get_texts()
    assert len(drawn) == len(labels)
    for text, label in zip(drawn, labels):
        # matplotlib's own answer: what it draws, and whether as a formula.
        shown, formula = text._preprocess_math(text.get_text())
        assert not formula and shown.strip() == printable(label)[:40]
    counts = np.eye(5, dtype=int)
    plots.confusion(counts, labels, "audio", tmp_path / "confusion.png")
    entry = {
        "epoch": 1,
        "train": {"audio_loss": 1.0},
        "valid": {f"audio_ccc_{label}": None for label in labels},
    }
    plots.learning_curves([entry], tmp_path / "curves.png")
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_json_files_are_strict(tmp_path):
    path = tmp_path / "metrics.json"
    content = {"ccc": float("nan"), "losses": [float("inf"), 1.0], "name": "ü"}
    write_json(path, content)
    found = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert found == {"ccc": None, "losses": [None, 1.0], "name": "ü"}
    # A path that is no UTF-8 is still that path when it is read again.
    write_json(path, {"folder": NAME})
    assert read_json(path) == {"folder": NAME}
