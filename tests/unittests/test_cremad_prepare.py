"""Tests of the CREMA-D prepare script, on drawn and on real files.

Authors
 * The vavl_sb authors 2026
"""

import csv
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "CREMA-D"
sys.path.insert(0, str(RECIPE))

import cremad_labels  # noqa: E402
import cremad_splits  # noqa: E402
from cremad_labels import CLASSES, read_released, read_votes  # noqa: E402
from cremad_prepare import prepare_cremad  # noqa: E402

from vavl_sb.dataio.manifest import read_manifest  # noqa: E402
from vavl_sb.dataio.prepare_report import PrepareReport  # noqa: E402
from vavl_sb.utils.errors import CorpusError  # noqa: E402

SPLITS = ("train", "valid", "test")
# Two clips of each of four actors; the columns are A D F H N S.
VOTES = {
    "1001_DFA_ANG_XX": (8, 1, 0, 0, 1, 0),
    "1001_DFA_SAD_XX": (0, 0, 1, 0, 6, 3),
    "1002_DFA_HAP_XX": (0, 0, 0, 9, 1, 0),
    "1002_IEO_FEA_LO": (0, 2, 6, 0, 0, 1),
    "1003_DFA_DIS_XX": (1, 7, 0, 0, 0, 2),
    "1003_TAI_NEU_XX": (0, 0, 0, 1, 8, 1),
    "1004_DFA_SAD_XX": (0, 0, 0, 0, 4, 6),
    "1004_WSI_ANG_XX": (5, 5, 0, 0, 0, 0),
}
EMOTIONS = {
    "1001_DFA_ANG_XX": "angry",
    "1001_DFA_SAD_XX": "neutral",
    "1002_DFA_HAP_XX": "happy",
    "1002_IEO_FEA_LO": "fear",
    "1003_DFA_DIS_XX": "disgust",
    "1003_TAI_NEU_XX": "neutral",
    "1004_DFA_SAD_XX": "sad",
}
PARTITION = {"train": ["1001", "1002"], "valid": ["1003"], "test": ["1004"]}


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A wav of 2.0 s and an flv of 2.2 s (22 frames, no sound)."""
    folder = tmp_path_factory.mktemp("media")
    tone = 0.1 * np.sin(np.arange(32000) / 16000 * 2 * np.pi * 220)
    soundfile.write(folder / "a.wav", tone, 16000)
    with av.open(str(folder / "a.flv"), "w") as container:
        stream = container.add_stream("flv", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(22):
            image = np.full((48, 64, 3), 10 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(image)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return folder


def write_votes(path, rows):
    """Writes a vote table: (row number, six votes, clip) a row."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", *"ADFHNS", "fileName", "numResponses"])
        for number, votes, clip in rows:
            writer.writerow([number, *votes, clip, 10])


def vote_rows(votes):
    """Rows in the official order: voice, face, then audio-visual."""
    return [
        (
            first * 100000 + i,
            numbers if first == 3 else (9, 0, 0, 0, 0, 0),
            clip,
        )
        for first in (1, 2, 3)
        for i, (clip, numbers) in enumerate(votes.items(), 1)
    ]


class Corpus:
    """A small CREMA-D on disk and what the prepare script makes of it."""

    def __init__(self, folder, media):
        self.folder, self.media = folder / "corpus", media
        self.out = folder / "out"
        for name in ("AudioWAV", "VideoFlash"):
            (self.folder / name).mkdir(parents=True)
        for clip in VOTES:
            self.add(clip)
        self.votes = self.folder / "processedResults" / "tabulatedVotes.csv"
        write_votes(self.votes, vote_rows(VOTES))
        self.partition = folder / "partition.json"
        self.partition.write_text(json.dumps(PARTITION))

    def wav(self, clip):
        return self.folder / "AudioWAV" / f"{clip}.wav"

    def flv(self, clip):
        return self.folder / "VideoFlash" / f"{clip}.flv"

    def add(self, clip):
        shutil.copy(self.media / "a.wav", self.wav(clip))
        shutil.copy(self.media / "a.flv", self.flv(clip))

    def prepare(self, **arguments):
        """(split to entries, report as JSON)."""
        paths = [str(self.out / f"{split}.json") for split in SPLITS]
        arguments = {"partition": str(self.partition), **arguments}
        prepare_cremad(str(self.folder), *paths, **arguments)
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


def test_classification(corpus, log):
    splits, report = corpus.prepare()
    entries = all_entries(splits)
    assert {c: e["emotion"] for c, e in entries.items()} == EMOTIONS
    for split, speakers in PARTITION.items():
        assert {e["spk_id"] for e in splits[split].values()} == set(speakers)
    assert splits["test"] == {
        "1004_DFA_SAD_XX": {
            "wav": "{data_root}/AudioWAV/1004_DFA_SAD_XX.wav",
            "video": "{data_root}/VideoFlash/1004_DFA_SAD_XX.flv",
            "duration": 2.2,
            "spk_id": "1004",
            "emotion": "sad",
            "angry": 0.0,
            "disgust": 0.0,
            "fear": 0.0,
            "happy": 0.0,
            "neutral": 0.4,
            "sad": 0.6,
        }
    }
    # Half of the votes is no majority.
    assert reasons(report) == {"no majority": {"1004_WSI_ANG_XX"}}
    assert report["kept"]["train"]["audiovisual"] == 4
    assert "left out: 1 clip (1 no majority)" in log.text


def test_regression_needs_no_majority(corpus):
    splits, report = corpus.prepare(task="regression")
    entries = all_entries(splits)
    assert set(entries) == set(VOTES) and not report["left_out"]
    for clip, entry in entries.items():
        total = sum(VOTES[clip])
        assert [entry[name] * total for name in CLASSES] == pytest.approx(
            VOTES[clip]
        )
        assert entry.get("emotion") == EMOTIONS.get(clip)


def test_acted(corpus):
    splits, report = corpus.prepare(label_source="acted")
    entries = all_entries(splits)
    assert set(entries) == set(VOTES) and not report["left_out"]
    assert entries["1001_DFA_SAD_XX"]["emotion"] == "sad"
    assert entries["1004_WSI_ANG_XX"]["emotion"] == "angry"
    assert entries["1004_WSI_ANG_XX"]["disgust"] == 0.5
    corpus.votes.unlink()
    splits, _ = corpus.prepare(label_source="acted")
    assert "disgust" not in all_entries(splits)["1004_WSI_ANG_XX"]


@pytest.mark.parametrize("number", [1, "2"])
def test_released_partition(corpus, number):
    # 1004 tests in partition 1 and trains in 2; 1011 tests in both.
    corpus.add("1011_DFA_HAP_XX")
    rows = {**VOTES, "1011_DFA_HAP_XX": (0, 0, 0, 10, 0, 0)}
    write_votes(corpus.votes, vote_rows(rows))
    splits, _ = corpus.prepare(partition=number)
    assert "1011_DFA_HAP_XX" in splits["test"]
    expected = "test" if number == 1 else "train"
    assert "1004_DFA_SAD_XX" in splits[expected]


def test_order_on_disk_does_not_matter(corpus, monkeypatch):
    # Two files of one clip, where the order could decide.
    shutil.copy(
        corpus.media / "a.wav",
        corpus.folder / "AudioWAV" / "1001_DFA_ANG_XX.WAV",
    )
    before, _ = corpus.prepare()
    texts = {p.name: p.read_bytes() for p in corpus.out.iterdir()}
    shutil.rmtree(corpus.out)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listdir(path)[::-1])
    write_votes(corpus.votes, vote_rows(dict(reversed(VOTES.items()))))
    _, report = corpus.prepare()
    for split in SPLITS:
        name = f"{split}.json"
        assert (corpus.out / name).read_bytes() == texts[name]
    assert reasons(report, "noted") == {"two audio files": {"1001_DFA_ANG_XX"}}


def test_withheld_from_training_only(corpus):
    splits, report = corpus.prepare(withhold_audio=0.5, withhold_visual=0.25)
    train = splits["train"].values()
    assert sum(entry["wav"] is None for entry in train) == 2
    assert sum(entry["video"] is None for entry in train) == 1
    held = [entry.get("withheld") for entry in train]
    assert sorted(filter(None, held)) == ["audio", "audio", "visual"]
    for split in ("valid", "test"):
        assert all(e["wav"] and e["video"] for e in splits[split].values())
    assert report["kept"]["train"]["withheld_audio"] == 2
    text = corpus.refusal(withhold_audio=0.75, withhold_visual=0.5)
    assert "only 4 training clips have both" in text


# Doing it again.


def prepared(corpus, log, **arguments):
    """Whether the preparation was done, rather than skipped."""
    log.clear()
    corpus.prepare(**arguments)
    return "skipping" not in log.text


def test_skips_the_same_only(corpus, log):
    assert prepared(corpus, log)
    assert not prepared(corpus, log)
    assert prepared(corpus, log, seed=9)
    assert prepared(corpus, log, task="regression")
    assert prepared(corpus, log, withhold_audio=0.25)
    assert prepared(corpus, log)
    assert not prepared(corpus, log)
    # The same arguments, but another split, votes, files or manifests.
    corpus.partition.write_text(
        json.dumps({**PARTITION, "valid": [], "train": ["1001", "1003"]})
    )
    assert prepared(corpus, log) and not prepared(corpus, log)
    write_votes(corpus.votes, vote_rows({**VOTES, "1001_DFA_ANG_XX": [5] * 6}))
    assert prepared(corpus, log) and not prepared(corpus, log)
    corpus.flv("1001_DFA_SAD_XX").unlink()
    assert prepared(corpus, log) and not prepared(corpus, log)
    (corpus.out / "test.json").write_text("{}")
    assert prepared(corpus, log) and not prepared(corpus, log)
    (corpus.out / "valid.json").unlink()
    assert prepared(corpus, log) and not prepared(corpus, log)


def test_changed_partition_prepares_anew(corpus):
    rows = {f"10{i:02}_DFA_HAP_XX": (0, 0, 0, 9, 1, 0) for i in range(1, 13)}
    for clip in rows:
        corpus.add(clip)
    write_votes(corpus.votes, vote_rows(rows))
    first, _ = corpus.prepare(partition=1)
    second, _ = corpus.prepare(partition=5)
    assert set(first["test"]) != set(second["test"])


def test_skip_prep_does_nothing(tmp_path):
    prepare_cremad("/no/such/corpus", "a.json", "b.json", "c.json", skip_prep=1)


# Media that are missing or broken.


def test_one_file_is_a_missing_modality(corpus):
    corpus.wav("1001_DFA_ANG_XX").unlink()
    corpus.flv("1004_DFA_SAD_XX").unlink()
    splits, report = corpus.prepare()
    train, test = splits["train"], splits["test"]
    assert train["1001_DFA_ANG_XX"]["wav"] is None
    assert train["1001_DFA_ANG_XX"]["duration"] == pytest.approx(2.2)
    assert test["1004_DFA_SAD_XX"]["video"] is None
    assert test["1004_DFA_SAD_XX"]["duration"] == pytest.approx(2.0)
    assert reasons(report, "one_modality") == {
        "no audio file": {"1001_DFA_ANG_XX"},
        "no video file": {"1004_DFA_SAD_XX"},
    }
    assert report["kept"]["train"]["visual_only"] == 1
    assert report["kept"]["test"]["audio_only"] == 1


def test_mp3_never_stands_in_for_one_wav(corpus):
    (corpus.folder / "AudioMP3").mkdir()
    for clip in VOTES:
        path = corpus.folder / "AudioMP3" / f"{clip}.mp3"
        soundfile.write(path, np.sin(np.arange(32000) / 20.0), 16000)
    corpus.wav("1001_DFA_ANG_XX").unlink()
    splits, _ = corpus.prepare()
    assert splits["train"]["1001_DFA_ANG_XX"]["wav"] is None
    splits, _ = corpus.prepare(audio_folder="AudioMP3")
    wavs = {entry["wav"] for entry in all_entries(splits).values()}
    assert wavs == {f"{{data_root}}/AudioMP3/{clip}.mp3" for clip in EMOTIONS}


def test_no_video_folder_at_all(corpus, log):
    shutil.rmtree(corpus.folder / "VideoFlash")
    splits, _ = corpus.prepare()
    assert all(e["video"] is None for e in all_entries(splits).values())
    assert f"{corpus.folder}/VideoFlash: no such folder" in log.text


def test_labels_and_files_without_each_other(corpus):
    corpus.wav("1001_DFA_ANG_XX").unlink()
    corpus.flv("1001_DFA_ANG_XX").unlink()
    corpus.add("1003_MTI_HAP_XX")
    corpus.add("1009_MTI_HAP_XX")
    _, report = corpus.prepare()
    assert reasons(report) == {
        "in the labels, not on disk": {"1001_DFA_ANG_XX"},
        "on disk, not in the labels": {"1003_MTI_HAP_XX", "1009_MTI_HAP_XX"},
        "no majority": {"1004_WSI_ANG_XX"},
    }


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(3000))


def lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\nsize 265922\n")


def no_samples(path):
    soundfile.write(path, np.zeros(0), 16000, format="WAV")


def sound_alone(path):
    soundfile.write(path, np.zeros(8000), 16000, format="WAV")


@pytest.mark.parametrize(
    "kind, spoil, fault",
    [
        ("wav", empty, "audio file is empty"),
        ("wav", garbage, "audio file is unreadable"),
        ("wav", lfs_pointer, "audio file is a Git LFS pointer"),
        ("wav", lambda path: cut(path, 0.5), "audio file is truncated"),
        ("wav", no_samples, "audio file"),
        ("flv", empty, "video file is empty"),
        ("flv", garbage, "video file is unreadable"),
        ("flv", lfs_pointer, "video file is a Git LFS pointer"),
        ("flv", lambda path: cut(path, 0.5), "video file is truncated"),
        ("flv", lambda path: cut(path, 0.01), "video file"),
        ("flv", sound_alone, "video file has no video stream"),
    ],
)
def test_broken_file(corpus, kind, spoil, fault):
    # One clip keeps its other file, one has nothing else.
    kept, lost = "1001_DFA_ANG_XX", "1002_DFA_HAP_XX"
    this, other = (
        (corpus.wav, corpus.flv) if kind == "wav" else (corpus.flv, corpus.wav)
    )
    spoil(this(kept))
    spoil(this(lost))
    other(lost).unlink()
    splits, report = corpus.prepare()
    field = "wav" if kind == "wav" else "video"
    assert splits["train"][kept][field] is None
    assert lost not in all_entries(splits)
    (reason,) = (why for why in report["one_modality"] if why.startswith(fault))
    assert reasons(report, "one_modality")[reason] == {kept}
    detail = report["one_modality"][reason]["clips"][kept]
    assert str(this(kept)) in detail and "\n" not in detail
    (reason,) = (why for why in report["left_out"] if fault in why)
    assert reasons(report)[reason] == {lost}
    assert str(this(lost)) in report["left_out"][reason]["clips"][lost]


def test_clone_without_lfs_says_so(corpus):
    for clip in VOTES:
        lfs_pointer(corpus.wav(clip))
        lfs_pointer(corpus.flv(clip))
    text = corpus.refusal()
    assert text.startswith("the train split is empty")
    assert "4 audio file is a Git LFS pointer and video file is" in text
    assert "prepare_report.json" in text


def test_unrelated_lengths_are_noted(corpus):
    soundfile.write(corpus.wav("1001_DFA_ANG_XX"), np.ones(64000) / 9, 16000)
    splits, report = corpus.prepare()
    assert splits["train"]["1001_DFA_ANG_XX"]["duration"] == 4.0
    assert list(reasons(report, "noted").values()) == [{"1001_DFA_ANG_XX"}]


def test_names_that_are_no_clips(corpus):
    for name in ("1001_DFA_XYZ_XX.wav", "1001.wav", "._1001_DFA_ANG_XX.wav"):
        shutil.copy(corpus.media / "a.wav", corpus.folder / "AudioWAV" / name)
    (corpus.folder / "AudioWAV" / "notes.txt").write_text("x")
    _, report = corpus.prepare()
    found = reasons(report)
    assert found[cremad_labels.UNKNOWN_CODE] == {"AudioWAV/1001_DFA_XYZ_XX.wav"}
    assert found[cremad_labels.NOT_A_NAME] == {
        "AudioWAV/1001.wav",
        "AudioWAV/._1001_DFA_ANG_XX.wav",
    }
    assert found["not a .wav file"] == {"AudioWAV/notes.txt"}


def test_the_misnamed_official_file(corpus):
    clip = "1040_ITH_SAD_XX"
    corpus.add(clip)
    corpus.wav(clip).rename(corpus.wav("1040_ITH_SAD_X"))
    rows = {**VOTES, clip: (0, 0, 0, 0, 0, 9)}
    write_votes(corpus.votes, vote_rows(rows))
    split = {**PARTITION, "train": ["1001", "1040"]}
    corpus.partition.write_text(json.dumps(split))
    splits, _ = corpus.prepare()
    entry = splits["train"][clip]
    assert entry["wav"] == "{data_root}/AudioWAV/1040_ITH_SAD_X.wav"
    assert entry["video"] == "{data_root}/VideoFlash/1040_ITH_SAD_XX.flv"


# Votes that cannot be used.


@pytest.mark.parametrize(
    "votes",
    [
        (0, 0, 0, 0, 0, 0),
        (9, 0, -1, 0, 0, 0),
        (9, "x", 0, 0, 0, 0),
        (9, "", 0, 0, 0, 0),
        ("nan", 0, 0, 0, 0, 0),
        ("inf", 0, 0, 0, 0, 0),
    ],
)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_bad_votes_are_left_out(corpus, votes, task):
    rows = {**VOTES, "1001_DFA_ANG_XX": votes}
    write_votes(corpus.votes, vote_rows(rows))
    splits, report = corpus.prepare(task=task)
    assert "1001_DFA_ANG_XX" not in splits["train"]
    found = report["left_out"][cremad_labels.BAD_VOTES]
    assert found["count"] == 1
    # 1 header, 8 voice, 8 face, then this one.
    assert f"{corpus.votes}, line 18: " in found["clips"]["1001_DFA_ANG_XX"]
    assert "on disk, not in the labels" not in report["left_out"]


def test_short_row_is_left_out(corpus):
    with open(corpus.votes, "a") as file:
        file.write("399999,1,2\n300998,1,0,0,0,0,0,1001_DFA\n")
    _, report = corpus.prepare()
    found = report["left_out"][cremad_labels.NOT_A_NAME]["clips"]
    assert found["line 26"].endswith("line 26")
    assert found["1001_DFA"].endswith("line 27")


def test_unknown_code_in_the_votes(corpus):
    rows = {**VOTES, "1001_DFA_SUR_XX": (9, 0, 0, 0, 0, 0)}
    write_votes(corpus.votes, vote_rows(rows))
    _, report = corpus.prepare()
    assert reasons(report)[cremad_labels.UNKNOWN_CODE] == {"1001_DFA_SUR_XX"}


def test_the_same_row_twice(corpus):
    rows = vote_rows(VOTES)
    write_votes(corpus.votes, [*rows, rows[-1], rows[-2]])
    splits, report = corpus.prepare()
    assert {c: e["emotion"] for c, e in all_entries(splits).items()} == EMOTIONS
    assert reasons(report, "noted") == {
        "twice in the table": {"1004_WSI_ANG_XX", "1004_DFA_SAD_XX"}
    }
    other = (300999, (0, 0, 0, 0, 0, 9), "1004_WSI_ANG_XX")
    write_votes(corpus.votes, [*rows, other])
    text = corpus.refusal()
    assert f"{corpus.votes}, line 26: 1004_WSI_ANG_XX stands twice" in text


@pytest.mark.parametrize(
    "text, part",
    [
        ("", "no column A, D, F, H, N, S, fileName"),
        (',A,D,F,H,N,fileName\n"300001",1,0,0,0,0,x\n', "no column S in it"),
        (",A,D,F,H,N,S,fileName\n100001,9,0,0,0,0,0,x\n", "no usable row"),
        (b"\xff\xfe\x00\x01", "not a CSV file"),
    ],
)
def test_useless_vote_table(corpus, text, part):
    corpus.votes.write_bytes(text if isinstance(text, bytes) else text.encode())
    text = corpus.refusal()
    assert text.startswith(f"{corpus.votes}: ") and part in text


def test_missing_vote_table(corpus):
    corpus.votes.unlink()
    assert corpus.refusal().startswith(f"{corpus.votes}: label file cannot")


# The released CSV.


def write_released(path, rows):
    """Writes a label CSV in the released form: clip to (emotion, set)."""
    columns = ["angry", "sad", "disgust", "fear", "neutral", "happy"]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(["FileName", *columns, "SpkrID", "Gender", "Split_Set"])
        for clip, (emotion, split) in rows.items():
            shares = [0.95 if name == emotion else 0.01 for name in columns]
            writer.writerow([f"{clip}.wav", *shares, clip[:4], "Male", split])
    return str(path)


RELEASED = {
    "1001_DFA_ANG_XX": ("sad", "Train"),
    "1002_DFA_HAP_XX": ("happy", "Test"),
    "1003_DFA_DIS_XX": ("neutral", "Development"),
}


def test_released_csv(corpus, tmp_path, log):
    path = write_released(tmp_path / "mine.csv", RELEASED)
    splits, report = corpus.prepare(label_csv=path, partition=1)
    for clip, (emotion, name) in RELEASED.items():
        split = {"Train": "train", "Test": "test"}.get(name, "valid")
        entry = splits[split][clip]
        assert entry["emotion"] == emotion
        assert entry[emotion] == 0.95 and entry["fear"] == 0.01
    assert len(all_entries(splits)) == 3
    assert len(reasons(report)["on disk, not in the labels"]) == 5
    assert "its split holds, which is its own" in log.text
    regression, _ = corpus.prepare(
        label_csv=path, partition=1, task="regression"
    )
    assert regression == splits


def test_released_csv_with_own_split(corpus, tmp_path):
    path = write_released(
        tmp_path / "mine.csv", {**RELEASED, "1004_DFA_SAD_XX": ("sad", "Train")}
    )
    splits, _ = corpus.prepare(label_csv=path)
    for split, speakers in PARTITION.items():
        assert {e["spk_id"] for e in splits[split].values()} == set(speakers)
    assert splits["train"]["1001_DFA_ANG_XX"]["emotion"] == "sad"


def test_released_csv_of_another_partition(corpus, tmp_path, log):
    # 1004 tests in partition 1 alone of the five.
    rows = {
        "1001_DFA_ANG_XX": ("sad", "Train"),
        "1004_DFA_SAD_XX": ("sad", "Test"),
    }
    path = write_released(tmp_path / "label_consensus_1.csv", rows)
    splits, _ = corpus.prepare(label_csv=path, partition=1)
    assert set(splits["test"]) == {"1004_DFA_SAD_XX"}
    text = corpus.refusal(label_csv=path, partition=2)
    assert text.startswith(path) and "that of partition 1, not" in text


def test_released_csv_with_shared_speaker(corpus, tmp_path):
    rows = {**RELEASED, "1002_IEO_FEA_LO": ("fear", "Train")}
    path = write_released(tmp_path / "mine.csv", rows)
    text = corpus.refusal(label_csv=path, partition=1)
    assert text == f"{path}: speaker 1002 is in train and test"


@pytest.mark.parametrize(
    "old, new, part",
    [
        ("SpkrID", "Speaker", "no column SpkrID in it"),
        ("Split_Set", "Set", "no column Split_Set in it"),
        ("fear", "anxious", "no column fear in it"),
        (",1002,", ",1003,", "line 3: 1002_DFA_HAP_XX has SpkrID '1003'"),
        ("Development", "Dev", "line 4: 1003_DFA_DIS_XX has Split_Set 'Dev'"),
    ],
)
def test_useless_released_csv(corpus, tmp_path, old, new, part):
    path = tmp_path / "mine.csv"
    write_released(path, RELEASED)
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    text = corpus.refusal(label_csv=str(path), partition=1)
    assert text.startswith(str(path)) and part in text


def test_bad_row_of_a_released_csv(corpus, tmp_path):
    path = tmp_path / "mine.csv"
    rows = {**RELEASED, "1001_DFA_SAD_XX": ("sad", "Train")}
    write_released(path, rows)
    text = path.read_text().splitlines()
    text[4] = "1001_DFA_SAD_XX.wav,0.5,0.5,0,0,0,0,1001,Male,Train"
    text.append("1001_XXX_SAD_XX.wav,a,0.5,0,0,0,0,1001,Male,Train")
    path.write_text("\n".join(text))
    splits, report = corpus.prepare(label_csv=str(path), partition=1)
    assert set(splits["train"]) == {"1001_DFA_ANG_XX"}
    found = reasons(report)
    assert found["no majority"] == {"1001_DFA_SAD_XX"}
    assert found[cremad_labels.BAD_VOTES] == {"1001_XXX_SAD_XX"}


def test_missing_released_csv(corpus, tmp_path):
    path = str(tmp_path / "no.csv")
    assert corpus.refusal(label_csv=path).startswith(f"{path}: label file")


# Splits and arguments that cannot be.


@pytest.mark.parametrize("bad", [0, 6, "six", "no.json", None, True, 1.5, []])
def test_bad_partition(corpus, bad):
    text = corpus.refusal(partition=bad)
    assert text.startswith("partition: must be 1, 2, 3, 4, 5 or")
    assert repr(bad) in text


def test_speakers_in_two_splits(corpus):
    split = {**PARTITION, "test": ["1004", "1002"]}
    corpus.partition.write_text(json.dumps(split))
    text = corpus.refusal()
    assert text == f"{corpus.partition}: speaker 1002 is in train and test"


def test_speakers_in_no_split(corpus, log):
    split = {"train": ["1001", "2001"], "valid": [], "test": ["1004"]}
    corpus.partition.write_text(json.dumps(split))
    splits, report = corpus.prepare()
    assert len(reasons(report)["speaker in no split"]) == 4
    assert "no labels for speakers: 1 of train (2001)" in log.text
    assert splits["valid"] == {} and "the valid split is empty" in log.text


@pytest.mark.parametrize("split", ["train", "test"])
def test_empty_split_says_why(corpus, split):
    lists = {**PARTITION, split: ["1004"]}
    lists["train" if split == "test" else "test"] = ["1001"]
    corpus.partition.write_text(json.dumps(lists))
    rows = {**VOTES, "1004_DFA_SAD_XX": (0, 0, 0, 0, 5, 5)}
    write_votes(corpus.votes, vote_rows(rows))
    text = corpus.refusal()
    assert text.startswith(f"the {split} split is empty")
    assert "(left out of it: 2 no majority)" in text
    corpus.partition.write_text(json.dumps({**lists, split: ["1050"]}))
    assert "(left out of it: nothing)" in corpus.refusal()


@pytest.mark.parametrize(
    "arguments, part",
    [
        ({"task": "cls"}, "task: must be classification or regression"),
        ({"label_source": "x"}, "label_source: must be votes or acted"),
        ({"audio_folder": "wav"}, "audio_folder: must be AudioWAV or"),
        ({"label_source": "acted", "task": "regression"}, "no shares"),
        ({"label_source": "acted", "label_csv": "x.csv"}, "leave label_csv"),
        ({"withhold_audio": 1.0}, "withhold_audio: must be in [0, 1)"),
        ({"withhold_visual": -1}, "withhold_visual: must be in [0, 1)"),
    ],
)
def test_bad_arguments(corpus, arguments, part):
    assert part in corpus.refusal(**arguments)


def test_missing_corpus(corpus):
    for folder in ("AudioWAV", "VideoFlash"):
        shutil.rmtree(corpus.folder / folder)
    text = corpus.refusal()
    assert text.startswith(f"{corpus.folder}: no clip in AudioWAV/*.wav")
    shutil.rmtree(corpus.folder)
    assert corpus.refusal().startswith(f"{corpus.folder}: no such folder")


# On the real tables and clips.


@pytest.mark.real
def test_real_votes(real_data):
    mini = real_data / "crema_d_mini" / "processedResults"
    report = PrepareReport()
    labels = read_votes(mini / "tabulatedVotes.csv", report)
    classes = {c: found.emotion for c, found in labels.items()}
    assert len(classes) == 7442 and report == PrepareReport()
    assert sum(emotion is not None for emotion in classes.values()) == 5913
    # Where there is a majority, the official summary names it too.
    letters = dict(zip("ADFHNS", CLASSES, strict=True))
    with open(mini / "summaryTable.csv", newline="") as file:
        for row in csv.DictReader(file):
            if classes[row["FileName"]] is not None:
                vote = letters[row["MultiModalVote"]]
                assert vote == classes[row["FileName"]]


@pytest.mark.real
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_real_released_csv(real_data, number):
    path = real_data / "crema_d_labels" / f"label_consensus_{number}.csv"
    report = PrepareReport()
    labels = read_released(path, report)
    assert len(labels) == 5820 and report == PrepareReport()
    votes = read_votes(
        real_data / "crema_d_mini" / "processedResults" / "tabulatedVotes.csv",
        report,
    )
    shared = [clip for clip in labels if votes[clip].emotion is not None]
    assert len(shared) == 5795
    assert all(labels[c].emotion == votes[c].emotion for c in shared)
    # The recipe's own lists are this file's.
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    sets = {
        name: {row["SpkrID"] for row in rows if row["Split_Set"] == name}
        for name in ("Train", "Development", "Test")
    }
    assert [len(members) for members in sets.values()] == [63, 14, 14]
    lists = json.loads((RECIPE / "partitions.json").read_text())[str(number)]
    assert set(lists["valid"]) == sets["Development"]
    assert set(lists["test"]) == sets["Test"]
    assert len(lists["valid"]) == len(lists["test"]) == 14
    split_of = cremad_splits.make_splitter(number, None, labels)
    assert all(split_of(clip) == found.split for clip, found in labels.items())


@pytest.mark.real
def test_real_labels_on_a_tree_of_the_same_names(real_data, tmp_path):
    # One small file under 5,820 names; partition 3, as its CSV has it.
    path = real_data / "crema_d_labels" / "label_consensus_3.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    folder = tmp_path / "corpus" / "AudioWAV"
    folder.mkdir(parents=True)
    soundfile.write(tmp_path / "short.wav", np.ones(800) / 9, 16000)
    for row in rows:
        os.link(tmp_path / "short.wav", folder / row["FileName"])
    manifests = [str(tmp_path / f"{split}.json") for split in SPLITS]
    prepare_cremad(str(folder.parent), *manifests, 3, label_csv=path)
    report = json.loads((tmp_path / "prepare_report.json").read_text())
    sets = [row["Split_Set"] for row in rows]
    assert [n["clips"] for n in report["kept"].values()] == [
        sets.count(name) for name in ("Train", "Development", "Test")
    ]
    assert [n["speakers"] for n in report["kept"].values()] == [63, 14, 14]
    assert len(rows) == 5820 and report["left_out"] == {}


@pytest.mark.real
def test_real_mini(real_data, tmp_path):
    mini = real_data / "crema_d_mini"
    split = {"train": ["1001"], "valid": [], "test": ["1002"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    manifests = [str(tmp_path / f"{name}.json") for name in SPLITS]

    def prepare(task):
        prepare_cremad(
            str(mini), *manifests, str(tmp_path / "split.json"), task=task
        )
        return [read_manifest(path) for path in manifests]

    train, valid, test = prepare("classification")
    # The two clips of 1001 that the released labels lack as well.
    assert {clip[9:12] for clip in train} == {"ANG", "DIS", "HAP", "NEU"}
    assert len(test) == 6 and valid == {}
    assert test["1002_DFA_SAD_XX"]["emotion"] == "neutral"
    assert all(entry["video"] is None for entry in test.values())
    assert all(entry["video"] is not None for entry in train.values())
    for entry in [*train.values(), *test.values()]:
        path = entry["wav"].format(data_root=mini)
        seconds = soundfile.info(path).duration
        # The picture may be a little longer than the sound.
        assert seconds <= entry["duration"] + 1e-6 < seconds + 0.2
    report = json.loads((tmp_path / "prepare_report.json").read_text())
    assert report["kept"]["test"]["audio_only"] == 6
    assert report["kept"]["train"]["audiovisual"] == 4
    assert reasons(report)["no majority"] == {
        "1001_DFA_FEA_XX",
        "1001_DFA_SAD_XX",
    }
    assert len(reasons(report)["in the labels, not on disk"]) == 7442 - 12
    assert reasons(report, "one_modality") == {"no video file": set(test)}

    train, _, test = prepare("regression")
    assert len(train) == len(test) == 6
    # Six rows of the table, read by eye.
    fear = train["1001_DFA_FEA_XX"]
    assert [fear[name] for name in CLASSES] == [0, 0.2, 0.5, 0.1, 0.2, 0]
