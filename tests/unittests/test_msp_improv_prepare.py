"""Tests of the MSP-IMPROV prepare script, on drawn files and released labels.

What all prepare scripts share is tested in test_cremad_prepare.py.
"""

import csv
import os
import shutil
import sys

import numpy as np
import pytest
from prepared_corpus import (
    RECIPES,
    CorpusOnDisk,
    all_entries,
    reasons,
    speakers,
)

sys.path.insert(0, str(RECIPES / "MSP-IMPROV"))

from msp_improv_prepare import (  # noqa: E402
    ATTRIBUTES,
    partitions,
    prepare_msp_improv,
    read_released,
)

from vavl_sb.dataio.manifest import SPLITS  # noqa: E402
from vavl_sb.dataio.preparation import PrepareReport  # noqa: E402

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
RATERS = """rater-p001; Angry; A:5.000000; V:5.000000 ; D:5.000000 ; N:5.0;
rater-p002; Other (calm); A:1.0; V:NaN ; D:9.0 ; N:3.0;
"""


def clip_line(clip, letter, *values):
    """A clip's line as the release has it."""
    name = clip.replace("MSP", "UTD")
    a, v, d = (x if isinstance(x, str) else f"{x:.6f}" for x in values)
    return f"{name}.avi; {letter}; A:{a}; V:{v} ; D:{d} ; N:3.600000;\n"


class Corpus(CorpusOnDisk):
    prepare_script = prepare_msp_improv

    def __init__(self, folder, media):
        super().__init__(folder, media, PARTITION)
        for clip in RATINGS:
            self.add(clip)
        self.ratings = self.folder / "Evalution.txt"
        self.rate(RATINGS)

    def path(self, clip, extension, top=""):
        _, _, sentence, speaker, scenario, _ = clip.split("-")
        folder = self.folder / top / f"session{speaker[-1]}" / sentence
        return folder / scenario / f"{clip}.{extension}"

    def add(self, clip):
        for extension in ("wav", "avi"):
            self.copy(f"a.{extension}", self.path(clip, extension))

    def rate(self, rows, more=""):
        """A line a clip, raters' lines below it, an empty line; then more."""
        lines = (clip_line(c, *row) + RATERS + "\n" for c, row in rows.items())
        self.ratings.write_text("".join(lines) + more)


@pytest.fixture
def corpus(tmp_path, media):
    return Corpus(tmp_path, media)


# What a sound corpus gives.


def test_activation_is_flipped_once_and_the_name_is_the_speaker(corpus):
    splits, report = corpus.prepare()
    entries = all_entries(splits)
    assert set(entries) == set(RATINGS) and not report["left_out"]
    for clip, (letter, activation, valence, dominance) in RATINGS.items():
        entry = entries[clip]
        assert entry["arousal"] == pytest.approx(6 - activation, abs=1e-9)
        assert (entry["valence"], entry["dominance"]) == (valence, dominance)
        assert entry.get("emotion") == EMOTIONS.get(letter)
    assert speakers(splits) == {s: set(who) for s, who in PARTITION.items()}
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
    # However often it is prepared.
    corpus.prepare(seed=9)
    assert corpus.prepare()[0] == splits


def test_the_report_says_how_far_the_raters_agree(corpus):
    _, report = corpus.prepare()
    assert report["target"].startswith("perceived: the mean rating")
    # Of the two raters of these clips one has not rated the valence.
    assert report["ceiling"] is None
    lines = []
    for number, (clip, row) in enumerate(RATINGS.items()):
        value, other = 1 + number % 4, 1 + number // 2
        lines.append(clip_line(clip, *row))
        for dominance in (*["NaN", value] * 3, value, value + 1):
            rated = f"A:{value}; V:{other} ; D:{dominance}; N:1"
            lines.append(f"r-p1; Sad; {rated};\n")
    corpus.ratings.write_text("".join(lines))
    found = corpus.prepare()[1]["ceiling"]["audiovisual"]
    assert found["clips"] == len(RATINGS) and found["ratings_per_clip"] == 5
    ccc = {name: scores["all"] for name, scores in found["ccc"].items()}
    assert ccc["arousal"] == ccc["valence"] == 1 > ccc["dominance"] > 0.5
    # There is none of the raters' classes.
    _, report = corpus.prepare(task="classification")
    assert report["ceiling"] is None and "most raters" in report["target"]


def test_classes_are_those_that_the_raters_agreed_on(corpus):
    splits, report = corpus.prepare(task="classification")
    entries = all_entries(splits)
    assert {clip: entry["emotion"] for clip, entry in entries.items()} == {
        clip: EMOTIONS[RATINGS[clip][0]] for clip in WITH_CLASS
    }
    assert reasons(report) == {
        "raters saw another emotion": {"MSP-IMPROV-S11A-F03-P-FM01"},
        "raters did not agree": {"MSP-IMPROV-S11A-F04-S-FM01"},
    }


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
def test_both_layouts_give_the_same(corpus, rearrange):
    before = corpus.entries()
    shutil.rmtree(corpus.out)
    rearrange(corpus)
    after = corpus.entries()
    assert list(after) == list(before)
    for clip, entry in after.items():
        paths = [entry.pop(field) for field in ("wav", "video")]
        assert ["/audio/" in p.lower() for p in paths] == [True, False]
        for path in paths:
            assert os.path.isfile(path.format(data_root=corpus.folder))
            del before[clip]["wav" if path == paths[0] else "video"]
        assert entry == before[clip]


# Splits.


def test_leave_one_session_out(corpus):
    clips = ("MSP-IMPROV-S01A-F05-T-FM01", "MSP-IMPROV-S01A-M06-T-MF01")
    for clip in clips:
        corpus.add(clip)
    corpus.rate(RATINGS, "".join(clip_line(c, "N", 2, 3, 4) for c in clips))
    for number in range(1, 7):
        splits, _ = corpus.prepare(partition=f"session{number}")
        follows = number % 6 + 1
        assert {
            split: {int(who[1:]) for who in members}
            for split, members in speakers(splits).items()
        } == {
            "train": set(range(1, 7)) - {number, follows},
            "valid": {follows},
            "test": {number},
        }


# Ratings that cannot be used.


@pytest.mark.parametrize(
    "row, reason, shown",
    [
        (("A", 0.9, 3.0, 3.0), "rating that is no number from", "A:0.900000"),
        (("A", 3.0, "much", 3.0), "rating that is no number from", "V:much"),
        (("A", "NaN", 3.0, 3.0), "no rating of an attribute", "A:NaN"),
        (("A", 3.0, 3.0, ""), "no rating of an attribute", "D:missing"),
    ],
)
def test_a_clip_without_a_good_rating_still_has_its_class(
    corpus, row, reason, shown
):
    corpus.rate({**RATINGS, FIRST: row})
    splits, report = corpus.prepare()
    assert set(all_entries(splits)) == set(RATINGS) - {FIRST}
    ((found, group),) = report["left_out"].items()
    assert found.startswith(reason)
    assert group["clips"] == {FIRST: f"{corpus.ratings}, line 1: {shown}"}
    splits, _ = corpus.prepare(task="classification")
    assert splits["train"][FIRST]["emotion"] == "angry"
    assert not set(ATTRIBUTES) & set(splits["train"][FIRST])


def test_a_clip_with_an_unknown_letter_still_has_its_ratings(corpus):
    corpus.rate({**RATINGS, FIRST: ("Q", 1.4, 1.6, 4.2)})
    splits, report = corpus.prepare(task="classification")
    assert set(all_entries(splits)) == WITH_CLASS - {FIRST}
    found = report["left_out"]["unknown letter for the emotion"]["clips"]
    assert found == {FIRST: f"{corpus.ratings}, line 1: 'Q'"}
    splits, _ = corpus.prepare()
    assert splits["train"][FIRST]["arousal"] == pytest.approx(4.6)
    assert "emotion" not in splits["train"][FIRST]


def test_labels_that_are_not_there(corpus):
    corpus.ratings.unlink()
    assert "no Evalution.txt or Evaluation.txt" in corpus.refusal()
    text = corpus.refusal(task="classification", label_csv="x.csv")
    assert "x.csv has ratings, no classes" in text


# The released CSV.

# Sessions as in partition 2, as far as there are clips of them.
SECOND = {1: "Train", 2: "Development", 3: "Test", 4: "Train"}


@pytest.fixture
def label_csv(tmp_path):
    """A label CSV in the released form, of partition 2."""
    lines = ["FileName,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    for clip, (_, activation, valence, dominance) in RATINGS.items():
        sex, _, session = clip.split("-")[3]
        row = f"{6 - activation:.6f},{valence},{dominance},{session}"
        gender = {"F": "Female", "M": "Male"}[sex]
        lines.append(f"{clip}.wav,{row},{gender},{SECOND[int(session)]}")
    path = tmp_path / "labels_consensus_2.csv"
    path.write_text("\n".join([*lines, ""]))
    return path


def test_a_released_csv_is_flipped_already(corpus, label_csv):
    official = corpus.entries()
    splits, _ = corpus.prepare(label_csv=label_csv, partition=2)
    assert speakers(splits)["test"] == {"F03", "M03"}
    assert speakers(splits)["valid"] == {"F02", "M02"}
    for clip, entry in all_entries(splits).items():
        official[clip].pop("emotion", None)
        assert entry == official[clip]


@pytest.mark.parametrize(
    "old, new, part",
    [
        (",2,Female", ",3,Female", ", line 4: MSP-IMPROV-S02S-F02-S-MF11 has"),
        (",2,Female", ",2,Male", "are 2, Female"),
    ],
)  # fmt: skip
def test_a_useless_released_csv(corpus, label_csv, old, new, part):
    label_csv.write_text(label_csv.read_text().replace(old, new))
    text = corpus.refusal(label_csv=label_csv, partition=1)
    assert text.startswith(str(label_csv)) and part in text


@pytest.mark.real
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_the_released_labels_and_partitions(real_data, number):
    path = real_data / "msp_improv_labels" / f"labels_consensus_{number}.csv"
    report = PrepareReport()
    labels = dict(read_released(path, report))
    assert len(labels) == 8385 and report == PrepareReport()
    assert not any(found.missing.get("regression") for found in labels.values())
    # The recipe's own sessions are this file's, clip by clip.
    lists = partitions()[str(number)]
    split_of = {who: split for split in SPLITS for who in lists[split]}
    assert len(split_of) == 12
    names = dict(zip(("Train", "Development", "Test"), SPLITS))
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            clip = row["FileName"][:-4]
            speaker = f"{row['Gender'][0]}0{row['SpkrID']}"
            assert labels[clip].spk_id == speaker
            assert labels[clip].split == names[row["Split_Set"]]
            assert split_of[speaker] == labels[clip].split


@pytest.mark.real
def test_the_released_csv_has_activation_flipped(real_data):
    # The first clip of the official ratings, as published with a reader of
    # them: A:3.333333; V:2.333333; D:3.000000.
    path = real_data / "msp_improv_labels" / "labels_consensus_1.csv"
    labels = dict(read_released(path, PrepareReport()))
    first = labels["MSP-IMPROV-S01A-F02-R-FF01"].fields
    assert first["valence"] == 2.333333 and first["dominance"] == 3.0
    assert first["arousal"] == pytest.approx(6 - 3.333333, abs=1e-9)
    # And what the sentences were meant to be agrees: 5 is very active.
    rated = {}
    for clip, found in labels.items():
        rated.setdefault(clip[14], []).append(found.fields["arousal"])
    means = {letter: np.mean(values) for letter, values in rated.items()}
    assert min(means["A"], means["H"]) > max(means["N"], means["S"]) + 0.3
