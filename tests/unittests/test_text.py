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
    given,
    strategies as st,
)
from light_model import make_model, write_model_file
from test_commands import call
from test_media import sine

from vavl_sb.inference import EmotionRecognizer
from vavl_sb.inference.prediction import Emotion
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


def test_predict_json_is_json_for_every_reader(
    hostile_model, odd_clip, capsys, monkeypatch
):
    def predict(*_, **__):
        return Emotion("audio", attributes={HOSTILE: np.nan, "b": -np.inf})

    monkeypatch.setattr(hostile_model, "predict_file", predict)
    status, out, _ = call(capsys, "predict", "M", odd_clip, "--json")
    (result,) = json.loads(out, parse_constant=pytest.fail)
    assert status == 0 and out.isascii() and not hidden(out)
    assert list(result["attributes"].values()) == [None, None]
    json.dumps(result, ensure_ascii=False).encode("utf-8")


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
    assert len(code) == 1 and all("a `` b x\\x0a## L" in c for c, _ in code)
    for span, _ in code:
        text = text.replace(span, "")
    assert "<script>" not in text and "](http://b)" not in text
    (row,) = [x for x in text.splitlines() if "0.500" in x]
    assert row.count("|") == 5


def test_json_files_are_strict(tmp_path):
    path = tmp_path / "metrics.json"
    content = {"ccc": float("nan"), "losses": [float("inf"), 1.0], "name": "ü"}
    write_json(path, content)
    found = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert found == {"ccc": None, "losses": [None, 1.0], "name": "ü"}
    # A path that is no UTF-8 is still that path when it is read again.
    write_json(path, {"folder": NAME})
    assert read_json(path) == {"folder": NAME}
