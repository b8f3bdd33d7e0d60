"""Tests of the MSP-IMPROV prepare script, on drawn files and released labels.

Authors
 * The vavl_sb authors 2026
"""

import csv
import json
import logging
import math
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "MSP-IMPROV"
sys.path.insert(0, str(RECIPE))

import msp_improv_labels  # noqa: E402
import msp_improv_prepare  # noqa: E402
import msp_improv_splits  # noqa: E402
from msp_improv_labels import read_ratings, read_released  # noqa: E402
from msp_improv_prepare import prepare_msp_improv  # noqa: E402

from vavl_sb.dataio.manifest import read_manifest  # noqa: E402
from vavl_sb.dataio.prepare_report import PrepareReport  # noqa: E402
from vavl_sb.utils.errors import CorpusError  # noqa: E402

SPLITS = ("train", "valid", "test")
# Letter, activation as the corpus has it (1 = very active), valence, dominance.
RATINGS = {
    "MSP-IMPROV-S01A-F01-T-FM01": ("A", 1.4, 1.6, 4.2),
    "MSP-IMPROV-S01H-M01-R-MM02": ("H", 2.0, 4.4, 3.6),
    "MSP-IMPROV-S02S-F02-S-MF11": ("S", 4.333333, 1.5, 2.0),
    "MSP-IMPROV-S02N-M02-P-FM01": ("N", 3.5, 3.0, 3.0),
    "MSP-IMPROV-S11A-F03-P-FM01": ("O", 2.5, 2.0, 3.0),
    "MSP-IMPROV-S11A-M03-P-FM03": ("A", 1.0, 1.0, 5.0),
    "MSP-IMPROV-S11A-F04-S-FM01": ("X", 3.0, 2.5, 2.8),
    "MSP-IMPROV-S11N-M04-S-MF02": ("N", 3.8, 3.2, 2.6),
}
EMOTIONS = {"A": "angry", "H": "happy", "S": "sad", "N": "neutral"}
WITH_CLASS = {clip for clip, row in RATINGS.items() if row[0] in EMOTIONS}
PARTITION = {
    "train": ["F01", "M01", "F02", "M02"],
    "valid": ["F04", "M04"],
    "test": ["F03", "M03"],
}
FIRST = "MSP-IMPROV-S01A-F01-T-FM01"


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A wav of 2.0 s and an avi of 2.2 s (22 frames, no sound)."""
    folder = tmp_path_factory.mktemp("media")
    tone = 0.1 * np.sin(np.arange(32000) / 16000 * 2 * np.pi * 220)
    soundfile.write(folder / "a.wav", tone, 16000)
    with av.open(str(folder / "a.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(22):
            image = np.full((48, 64, 3), 10 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(image)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return folder


def clip_line(clip, letter, *values):
    """A clip's line as the release has it."""
    name = clip.replace("MSP", "UTD")
    a, v, d = (x if isinstance(x, str) else f"{x:.6f}" for x in values)
    return f"{name}.avi; {letter}; A:{a}; V:{v} ; D:{d} ; N:3.600000;"


RATERS = [
    "rater-p001; Angry; A:5.000000; V:5.000000 ; D:5.000000 ; N:5.000000;",
    "rater-p002; Other (calm); A:1.0; V:NaN ; D:9.0 ; N:3.0;",
]


def ratings_text(rows):
    """Evalution.txt: a line a clip, raters' lines below it, an empty line."""
    blocks = [
        "\n".join([clip_line(clip, *row), *RATERS])
        for clip, row in rows.items()
    ]
    return "\n\n".join(blocks) + "\n"


class Corpus:
    """A small MSP-IMPROV on disk and what the prepare script makes of it."""

    def __init__(self, folder, media):
        self.folder, self.media = folder / "corpus", media
        self.out = folder / "out"
        for clip in RATINGS:
            self.add(clip)
        self.ratings = self.folder / "Evalution.txt"
        self.ratings.write_text(ratings_text(RATINGS))
        self.partition = folder / "partition.json"
        self.partition.write_text(json.dumps(PARTITION))

    def path(self, clip, extension, top=""):
        _, _, sentence, speaker, scenario, _ = clip.split("-")
        folder = self.folder / top / f"session{speaker[-1]}" / sentence
        return folder / scenario / f"{clip}.{extension}"

    def add(self, clip):
        for extension in ("wav", "avi"):
            path = self.path(clip, extension)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.media / f"a.{extension}", path)

    def rate(self, first):
        """Writes the ratings again with another row for the first clip."""
        self.ratings.write_text(ratings_text({**RATINGS, FIRST: first}))

    def prepare(self, **arguments):
        """(split to entries, report as JSON)."""
        paths = [str(self.out / f"{split}.json") for split in SPLITS]
        arguments = {"partition": str(self.partition), **arguments}
        prepare_msp_improv(str(self.folder), *paths, **arguments)
        return {
            split: read_manifest(path)
            for split, path in zip(SPLITS, paths, strict=True)
        }, json.loads((self.out / "prepare_report.json").read_text())

    def refusal(self, **arguments):
        """The one line with which the preparation is refused."""
        with pytest.raises(CorpusError) as error:
            self.prepare(**arguments)
        text = str(error.value)
        assert text and "\n" not in text
        return text


@pytest.fixture
def corpus(tmp_path, media):
    return Corpus(tmp_path, media)


@pytest.fixture
def log(caplog):
    """The log, with SpeechBrain's loggers let through."""
    with caplog.at_level(logging.INFO):
        yield caplog


def all_entries(splits):
    return {c: entry for part in splits.values() for c, entry in part.items()}


def reasons(report, group="left_out"):
    return {why: set(found["clips"]) for why, found in report[group].items()}


# What a sound corpus gives.


def test_regression(corpus):
    splits, report = corpus.prepare()
    entries = all_entries(splits)
    assert set(entries) == set(RATINGS) and not report["left_out"]
    for clip, (letter, activation, valence, dominance) in RATINGS.items():
        entry = entries[clip]
        assert entry["arousal"] == pytest.approx(6 - activation, abs=1e-9)
        assert (entry["valence"], entry["dominance"]) == (valence, dominance)
        assert entry["activation_flipped"] is True
        assert entry.get("emotion") == EMOTIONS.get(letter)
        assert entry["spk_id"] in clip.split("-")
        assert entry["spk_id"][1:] == f"0{entry['session']}"
    for split, speakers in PARTITION.items():
        assert {e["spk_id"] for e in splits[split].values()} == set(speakers)
    assert splits["train"]["MSP-IMPROV-S02S-F02-S-MF11"] == {
        "wav": "{data_root}/session2/S02S/S/MSP-IMPROV-S02S-F02-S-MF11.wav",
        "video": "{data_root}/session2/S02S/S/MSP-IMPROV-S02S-F02-S-MF11.avi",
        "duration": 2.2,
        "spk_id": "F02",
        "session": 2,
        "emotion": "sad",
        "arousal": 1.666667,
        "valence": 1.5,
        "dominance": 2.0,
        "activation_flipped": True,
    }


def test_classification(corpus, log):
    splits, report = corpus.prepare(task="classification")
    entries = all_entries(splits)
    assert set(entries) == WITH_CLASS
    for clip, entry in entries.items():
        assert entry["emotion"] == EMOTIONS[RATINGS[clip][0]]
    assert reasons(report) == {
        "raters saw another emotion": {"MSP-IMPROV-S11A-F03-P-FM01"},
        "raters did not agree": {"MSP-IMPROV-S11A-F04-S-FM01"},
    }
    assert "left out: 2 clips" in log.text


def test_flipped_once_however_often_it_is_prepared(corpus, log):
    first, _ = corpus.prepare()
    again, _ = corpus.prepare()
    assert "skipping" in log.text and again == first
    # Prepared anew, not only recognised.
    corpus.prepare(seed=9)
    assert corpus.prepare()[0] == first


def move(path, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)


def separate(corpus):
    """Sessions below Audio and Video."""
    for clip in RATINGS:
        move(corpus.path(clip, "wav"), corpus.path(clip, "wav", "Audio"))
        move(corpus.path(clip, "avi"), corpus.path(clip, "avi", "Video"))


def separate_and_shout(corpus):
    """The same in other cases, and the ratings one folder below."""
    separate(corpus)
    for clip in RATINGS:
        for top, extension in (("Audio", "wav"), ("Video", "avi")):
            path = corpus.path(clip, extension, top)
            path.rename(path.with_name(path.name.swapcase()))
    for top in ("Audio", "Video"):
        for session in list((corpus.folder / top).iterdir()):
            session.rename(session.with_name(session.name.title()))
        (corpus.folder / top).rename(corpus.folder / top.upper())
    move(corpus.ratings, corpus.folder / "labels" / "EVALUATION.TXT")


@pytest.mark.parametrize("rearrange", [separate, separate_and_shout])
def test_layouts_give_the_same(corpus, rearrange):
    before = all_entries(corpus.prepare()[0])
    shutil.rmtree(corpus.out)
    rearrange(corpus)
    after = all_entries(corpus.prepare()[0])
    assert list(after) == list(before)
    for clip, entry in after.items():
        paths = [entry.pop(field) for field in ("wav", "video")]
        assert ["/audio/" in p.lower() for p in paths] == [True, False]
        for path in paths:
            assert os.path.isfile(path.format(data_root=corpus.folder))
        assert entry == {
            key: value
            for key, value in before[clip].items()
            if key not in ("wav", "video")
        }


def test_order_on_disk_does_not_matter(corpus, monkeypatch):
    # Two files of one clip, where the order could decide.
    wav = corpus.path(FIRST, "wav", "Audio")
    wav.parent.mkdir(parents=True)
    shutil.copy(corpus.media / "a.wav", wav)
    corpus.prepare()
    texts = {p.name: p.read_bytes() for p in corpus.out.iterdir()}
    shutil.rmtree(corpus.out)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listdir(path)[::-1])
    _, report = corpus.prepare()
    for split in SPLITS:
        name = f"{split}.json"
        assert (corpus.out / name).read_bytes() == texts[name]
    assert reasons(report, "noted") == {"two audio files": {FIRST}}


def test_one_file_is_a_missing_modality(corpus):
    corpus.path(FIRST, "wav").unlink()
    splits, report = corpus.prepare(withhold_visual=0.5)
    assert splits["train"][FIRST]["wav"] is None
    assert reasons(report, "one_modality") == {"no audio file": {FIRST}}
    held = [e.get("withheld") for e in splits["train"].values()]
    assert held.count("visual") == 2


# Splits.


def sessions(splits):
    return {
        split: {entry["session"] for entry in entries.values()}
        for split, entries in splits.items()
    }


def test_leave_one_session_out(corpus):
    for clip in ("MSP-IMPROV-S01A-F05-T-FM01", "MSP-IMPROV-S01A-M06-T-MF01"):
        corpus.add(clip)
        with open(corpus.ratings, "a") as file:
            file.write(clip_line(clip, "N", 2, 3, 4) + "\n")
    for number in range(1, 7):
        splits, _ = corpus.prepare(partition=f"session{number}")
        follows = number % 6 + 1
        assert sessions(splits) == {
            "train": set(range(1, 7)) - {number, follows},
            "valid": {follows},
            "test": {number},
        }


@pytest.mark.parametrize("bad", [0, 6, "six", "session7", None, True, []])
def test_bad_partition(corpus, bad):
    text = corpus.refusal(partition=bad)
    assert text.startswith("partition: must be 1, 2, 3, 4, 5, session1 to")
    assert repr(bad) in text


def test_speakers_in_two_splits(corpus):
    split = {**PARTITION, "test": ["F03", "M02"]}
    corpus.partition.write_text(json.dumps(split))
    text = corpus.refusal()
    assert text == f"{corpus.partition}: speaker M02 is in train and test"


def test_speakers_in_no_split(corpus, log):
    split = {"train": ["F01", "1001"], "valid": ["F04"], "test": ["M03"]}
    corpus.partition.write_text(json.dumps(split))
    _, report = corpus.prepare()
    assert len(reasons(report)["speaker in no split"]) == 5
    assert "no labels for speakers: 1 of train (1001)" in log.text


# Ratings that cannot be used.


def line_of(corpus, text):
    """Number of the first line with a text."""
    lines = corpus.ratings.read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize(
    "row, shown",
    [
        (("A", 0.9, 3.0, 3.0), "A:0.900000"),
        (("A", 3.0, 5.1, 3.0), "V:5.100000"),
        (("A", 3.0, 3.0, "6"), "D:6"),
        (("A", 3.0, "much", 3.0), "V:much"),
        (("A", "inf", 3.0, 3.0), "A:inf"),
    ],
)
def test_rating_out_of_range(corpus, row, shown):
    corpus.rate(first=row)
    splits, report = corpus.prepare()
    assert set(all_entries(splits)) == set(RATINGS) - {FIRST}
    found = report["left_out"][msp_improv_labels.BAD_RATING]
    assert found["count"] == 1
    assert found["clips"] == {FIRST: f"{corpus.ratings}, line 1: {shown}"}
    # Its class is as good as any, so that task goes on with it.
    splits, report = corpus.prepare(task="classification")
    assert splits["train"][FIRST]["emotion"] == "angry"
    assert "arousal" not in splits["train"][FIRST]
    noted = report["noted"][msp_improv_labels.BAD_RATING]
    assert noted["clips"] == {FIRST: f"{corpus.ratings}, line 1: {shown}"}


@pytest.mark.parametrize("missing", ["NaN", "nan", ""])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_clip_without_a_rating(corpus, missing, place):
    row = ["A", 1.4, 1.6, 4.2]
    row[place] = missing
    corpus.rate(first=row)
    splits, report = corpus.prepare()
    assert reasons(report) == {"no rating of an attribute": {FIRST}}
    assert not any(
        math.isnan(entry[name])
        for entry in all_entries(splits).values()
        for name in msp_improv_labels.ATTRIBUTES
    )
    splits, report = corpus.prepare(task="classification")
    assert FIRST in splits["train"] and report["noted"] == {}


@pytest.mark.parametrize("letter", ["Q", "", "Angry"])
def test_unknown_letter(corpus, letter):
    corpus.rate(first=(letter, 1.4, 1.6, 4.2))
    splits, report = corpus.prepare(task="classification")
    assert set(all_entries(splits)) == WITH_CLASS - {FIRST}
    found = report["left_out"][msp_improv_labels.UNKNOWN_LETTER]["clips"]
    shown = f"{letter.upper()!r}, not one of A, H, N, S, O, X"
    assert found == {FIRST: f"{corpus.ratings}, line 1: {shown}"}
    splits, report = corpus.prepare()
    assert splits["train"][FIRST]["arousal"] == pytest.approx(4.6)
    assert "emotion" not in splits["train"][FIRST]
    assert reasons(report, "noted") == {
        msp_improv_labels.UNKNOWN_LETTER: {FIRST}
    }


def test_short_line_and_strange_name(corpus):
    with open(corpus.ratings, "a") as file:
        file.write("UTD-IMPROV-S01A-F09-T-FM01.avi; A; A:2; V:2; D:2; N:2;\n")
        file.write("UTD-IMPROV-S03A-F01-T-FM01.avi\n")
    corpus.add("MSP-IMPROV-S03A-F01-T-FM01")
    splits, report = corpus.prepare()
    assert set(all_entries(splits)) == set(RATINGS)
    line = line_of(corpus, "F09")
    assert report["left_out"][msp_improv_labels.NOT_A_NAME]["clips"] == {
        "UTD-IMPROV-S01A-F09-T-FM01": f"{corpus.ratings}, line {line}"
    }
    short = report["left_out"][msp_improv_labels.NO_RATING]["clips"]
    assert short == {
        "MSP-IMPROV-S03A-F01-T-FM01": (
            f"{corpus.ratings}, line {line + 1}: A:missing"
        )
    }


def test_the_same_clip_twice(corpus):
    with open(corpus.ratings, "a") as file:
        file.write(clip_line(FIRST, *RATINGS[FIRST]) + "\n")
    splits, report = corpus.prepare()
    assert set(all_entries(splits)) == set(RATINGS)
    assert reasons(report, "noted") == {"twice in the labels": {FIRST}}
    with open(corpus.ratings, "a") as file:
        file.write(clip_line(FIRST, "A", 2.0, 2.0, 2.0) + "\n")
    line = len(corpus.ratings.read_text().splitlines())
    text = corpus.refusal()
    assert text.startswith(f"{corpus.ratings}, line {line}: {FIRST} stands twi")
    assert f"first in {corpus.ratings}, line 1;" in text


@pytest.mark.parametrize("session", [2, 3])
def test_session_folder_missing(corpus, log, session):
    shutil.rmtree(corpus.folder / f"session{session}")
    gone = {clip for clip in RATINGS if f"0{session}-" in clip}
    if session == 3:  # It alone tests.
        text = corpus.refusal()
        assert text.startswith("the test split is empty (left out of it: 2 ses")
    else:
        splits, report = corpus.prepare()
        assert set(all_entries(splits)) == set(RATINGS) - gone
        found = report["left_out"]["session folder missing"]
        assert found["count"] == 2 and set(found["clips"]) == gone
        for clip, detail in found["clips"].items():
            line = line_of(corpus, clip[4:])
            assert detail == f"{corpus.ratings}, line {line}"
    assert f"session{session}: no such folder" in log.text
    assert "its 2 rated clips" in log.text


def test_files_and_ratings_without_each_other(corpus):
    corpus.add("MSP-IMPROV-S20A-F01-S-FM01")
    corpus.path(FIRST, "wav").unlink()
    corpus.path(FIRST, "avi").unlink()
    (corpus.folder / "session1" / "notes.wav").write_text("x")
    _, report = corpus.prepare()
    assert reasons(report) == {
        "in the labels, not on disk": {FIRST},
        "on disk, not in the labels": {"MSP-IMPROV-S20A-F01-S-FM01"},
        msp_improv_labels.NOT_A_NAME: {"session1/notes.wav"},
    }


def test_file_in_the_wrong_session_keeps_its_speaker(corpus):
    path = corpus.path(FIRST, "wav")
    move(path, corpus.folder / "session2" / "S01A" / "T" / path.name)
    splits, report = corpus.prepare()
    assert splits["train"][FIRST]["spk_id"] == "F01"
    assert splits["train"][FIRST]["session"] == 1
    assert reasons(report, "noted") == {
        "in the folder of another session": {FIRST}
    }


def test_missing_ratings_and_corpus(corpus):
    corpus.ratings.write_text("\n".join(RATERS))
    assert corpus.refusal().startswith(f"{corpus.ratings}: no line of a clip")
    corpus.ratings.unlink()
    assert "no Evalution.txt or Evaluation.txt" in corpus.refusal()
    corpus.ratings.write_text(ratings_text(RATINGS))
    for folder in corpus.folder.glob("session*"):
        shutil.rmtree(folder)
    assert corpus.refusal().startswith(f"{corpus.folder}: no clip (MSP-IMPROV")
    shutil.rmtree(corpus.folder)
    assert corpus.refusal().startswith(f"{corpus.folder}: no such folder")


@pytest.mark.parametrize(
    "arguments, part",
    [
        ({"task": "cls"}, "task: must be classification or regression"),
        ({"csv_activation": "x"}, "csv_activation: must be flipped or raw"),
        ({"withhold_audio": 1.0}, "withhold_audio: must be in [0, 1)"),
        (
            {"task": "classification", "label_csv": "x.csv"},
            "x.csv has ratings, no classes",
        ),
        ({"label_csv": "/no/x.csv"}, "/no/x.csv: label file cannot be read"),
    ],
)
def test_bad_arguments(corpus, arguments, part):
    assert part in corpus.refusal(**arguments)


# The released CSV.


def write_released(path, sets):
    """Writes a label CSV in the released form, by session to set."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = ["EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender"]
        writer.writerow(["FileName", *columns, "Split_Set"])
        for clip, (_, activation, valence, dominance) in RATINGS.items():
            speaker = clip.split("-")[3]
            number, sex = int(speaker[-1]), speaker[0]
            row = [f"{6 - activation:.6f}", valence, dominance, number]
            row.append({"F": "Female", "M": "Male"}[sex])
            if number in sets:
                writer.writerow([f"{clip}.wav", *row, sets[number]])
    return str(path)


# Sessions as in partition 2, as far as there are clips of them.
SECOND = {1: "Train", 2: "Development", 3: "Test", 4: "Train"}


def test_released_csv_is_flipped_already(corpus, tmp_path):
    official = all_entries(corpus.prepare()[0])
    path = write_released(tmp_path / "mine.csv", SECOND)
    splits, _ = corpus.prepare(label_csv=path, partition=2)
    assert sessions(splits) == {"train": {1, 4}, "valid": {2}, "test": {3}}
    for clip, entry in all_entries(splits).items():
        assert entry == {
            key: value
            for key, value in official[clip].items()
            if key != "emotion"
        }
    splits, _ = corpus.prepare(
        label_csv=path, partition=2, csv_activation="raw"
    )
    for clip, entry in all_entries(splits).items():
        assert entry["arousal"] == pytest.approx(RATINGS[clip][1], abs=1e-6)


def test_released_csv_of_another_partition(corpus, tmp_path, log):
    path = write_released(tmp_path / "labels_consensus_2.csv", SECOND)
    splits, _ = corpus.prepare(label_csv=path, partition=1)
    assert sessions(splits)["test"] == {3}
    assert "its split holds, which is that of partition 2" in log.text
    text = corpus.refusal(label_csv=path, partition=4)
    assert text.startswith(path) and "that of partition 2, not" in text
    # Who asks for a split of their own gets it.
    splits, _ = corpus.prepare(label_csv=path)
    assert sessions(splits) == {"train": {1, 2}, "valid": {4}, "test": {3}}
    splits, _ = corpus.prepare(label_csv=path, partition="session1")
    assert sessions(splits) == {"train": {3, 4}, "valid": {2}, "test": {1}}


@pytest.mark.parametrize(
    "old, new, part",
    [
        ("SpkrID", "Speaker", "no column SpkrID in it"),
        ("EmoAct", "Act", "no column EmoAct in it"),
        (",2,Female", ",3,Female", "line 4: MSP-IMPROV-S02S-F02-S-MF11 has Sp"),
        (",2,Female", ",2,Male", "are 2, Female"),
        ("Development", "Dev", "F02-S-MF11 has Split_Set 'Dev'"),
        ("Male,Test", "Male,Train", "session 3 is in train and test"),
    ],
)
def test_useless_released_csv(corpus, tmp_path, old, new, part):
    path = tmp_path / "mine.csv"
    write_released(path, SECOND)
    path.write_text(path.read_text().replace(old, new))
    text = corpus.refusal(label_csv=str(path), partition=1)
    assert text.startswith(str(path)) and part in text


def test_bad_rows_of_a_released_csv(corpus, tmp_path):
    path = tmp_path / "mine.csv"
    write_released(path, SECOND)
    text = path.read_text().replace("4.600000", "5.600000")
    path.write_text(
        text + "MSP-IMPROV-S1-F01-T-FM01.wav,1,1,1,1,Female,Train\n"
    )
    _, report = corpus.prepare(label_csv=str(path), partition=2)
    assert report["left_out"][msp_improv_labels.BAD_RATING]["clips"] == {
        FIRST: f"{path}, line 2: EmoAct:5.600000"
    }
    assert report["left_out"][msp_improv_labels.NOT_A_NAME]["clips"] == {
        "MSP-IMPROV-S1-F01-T-FM01": f"{path}, line 10"
    }


# The synthetic corpus, and the released labels.


def test_synthetic_corpus(tmp_path):
    from synthetic.msp_improv import LAYOUT, clip_name, rate_attributes
    from synthetic.performance import EMOTIONS as ALL

    speakers = [f"{sex}0{number}" for number in range(1, 7) for sex in "FM"]
    clips = [c for who in speakers for c in LAYOUT.clips(who, 5)[:24]]
    path = tmp_path / "Evalution.txt"
    path.write_text(LAYOUT.tables(clips)["Evalution.txt"])
    report = PrepareReport()
    labels = read_ratings(path, report)
    assert set(labels) == {clip_name(clip) for clip in clips}
    assert len(labels) == 12 * 24 and report == PrepareReport()
    assert {msp_improv_labels.parse_name(clip)[1] for clip in labels} == {
        *speakers
    }
    means = {}
    for clip in clips:
        found = labels[clip_name(clip)]
        seen, ratings = rate_attributes(clip)
        seen = [ALL[vote] for vote in seen]
        if found.ratings is not None:
            expected = ratings[:, :3].mean(axis=0)
            assert list(found.ratings.values()) == pytest.approx(
                expected, abs=1e-6
            )
            means.setdefault(clip.emotion, []).append(expected)
        votes = Counter(seen).most_common()
        if found.emotion is not None:
            assert votes[0] == (found.emotion, votes[0][1])
            assert set(seen) <= set(ALL)
    # All kinds of lines occur, each as often as it should.
    whys = Counter(
        why for found in labels.values() for why, _ in found.unusable.values()
    )
    assert set(whys) == {
        msp_improv_labels.NO_RATING,
        msp_improv_labels.NO_CLASS,
        msp_improv_labels.NO_AGREEMENT,
    }
    assert whys[msp_improv_labels.NO_RATING] < 0.1 * len(labels)
    # Angry and happy are aroused, happy alone is pleased, sad is weak.
    arousal, valence, dominance = (
        {emotion: np.mean(rows, axis=0)[i] for emotion, rows in means.items()}
        for i in range(3)
    )
    assert min(arousal["angry"], arousal["happy"]) > arousal["sad"] + 0.7
    assert valence["happy"] > max(valence["angry"], valence["sad"]) + 0.7
    assert min(dominance, key=dominance.get) == "sad"


@pytest.mark.real
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_real_released_csv(real_data, number):
    path = real_data / "msp_improv_labels" / f"labels_consensus_{number}.csv"
    report = PrepareReport()
    labels = read_released(path, report)
    assert len(labels) == 8385 and report == PrepareReport()
    assert all(found.ratings is not None for found in labels.values())
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    # The recipe's own sessions are this file's, clip by clip.
    split_of = msp_improv_splits.make_splitter(number, None, labels)
    names = {"Train": "train", "Development": "valid", "Test": "test"}
    found = {
        row["FileName"][:-4]: split_of(row["FileName"][:-4]) for row in rows
    }
    assert found == {
        row["FileName"][:-4]: names[row["Split_Set"]] for row in rows
    }
    own = json.loads((RECIPE / "partitions.json").read_text())[str(number)]
    assert sorted(sum(own.values(), [])) == [1, 2, 3, 4, 5, 6]
    assert [len(own[split]) for split in SPLITS] == [4, 1, 1]


@pytest.mark.real
def test_the_released_csv_has_activation_flipped(real_data):
    # The first clip of the official ratings, as published with a reader of
    # them: A:3.333333; V:2.333333; D:3.000000.
    path = real_data / "msp_improv_labels" / "labels_consensus_1.csv"
    labels = read_released(path, PrepareReport())
    first = labels["MSP-IMPROV-S01A-F02-R-FF01"].ratings
    assert first["valence"] == 2.333333 and first["dominance"] == 3.0
    assert first["arousal"] == pytest.approx(6 - 3.333333, abs=1e-9)
    # And what the sentences were meant to be agrees: 5 is very active.
    rated = {}
    for clip, found in labels.items():
        rated.setdefault(clip[14], []).append(found.ratings["arousal"])
    means = {letter: np.mean(values) for letter, values in rated.items()}
    assert min(means["A"], means["H"]) > max(means["N"], means["S"]) + 0.3


@pytest.mark.real
@pytest.mark.slow
def test_real_labels_on_a_tree_of_the_same_names(real_data, tmp_path, media):
    # One small file under 8,385 names, each in its folder.
    folder = tmp_path / "corpus"
    labels = real_data / "msp_improv_labels"
    with open(labels / "labels_consensus_1.csv", newline="") as file:
        names = [row["FileName"] for row in csv.DictReader(file)]
    soundfile.write(tmp_path / "short.wav", np.ones(800) / 9, 16000)
    for name in names:
        _, _, sentence, speaker, scenario, _ = name.split("-")
        parent = folder / f"session{speaker[-1]}" / sentence / scenario
        parent.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / "short.wav", parent / name)
    manifests = [str(tmp_path / f"{split}.json") for split in SPLITS]
    # The first partition goes through all of it; the others differ from it
    # in who is chosen for what alone.
    path = labels / "labels_consensus_1.csv"
    prepare_msp_improv(str(folder), *manifests, partition=1, label_csv=path)
    report = json.loads((tmp_path / "prepare_report.json").read_text())
    kept = {split: n["clips"] for split, n in report["kept"].items()}
    assert kept == {"train": 5778, "valid": 1108, "test": 1499}
    assert [n["speakers"] for n in report["kept"].values()] == [8, 2, 2]
    assert report["left_out"] == {} and sum(kept.values()) == 8385
    found = PrepareReport()
    tree = msp_improv_prepare.find_media(str(folder), found)
    for number in range(1, 6):
        path = labels / f"labels_consensus_{number}.csv"
        rated = read_released(path, found)
        with open(path, newline="") as file:
            sets = Counter(row["Split_Set"] for row in csv.DictReader(file))
        split_of = msp_improv_splits.make_splitter(number, str(path), rated)
        chosen = msp_improv_prepare.choose_clips(
            rated, tree, split_of, "regression", found
        )
        counts = Counter(split_of(clip) for clip in chosen)
        assert counts == {
            "train": sets["Train"],
            "valid": sets["Development"],
            "test": sets["Test"],
        }
        assert found == PrepareReport()
