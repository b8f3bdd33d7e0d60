"""Tests of the CREMA-D prepare script, on drawn and on real files.

What all prepare scripts share is tested here too, on this corpus.
"""

import csv
import glob
import shutil
import sys

import numpy as np
import pytest
import soundfile
from prepared_corpus import (
    RECIPES,
    CorpusOnDisk,
    all_entries,
    reasons,
    speakers,
)

sys.path.insert(0, str(RECIPES / "CREMA-D"))

from cremad_prepare import (  # noqa: E402
    CLASSES,
    prepare_cremad,
    read_released,
    read_votes,
    released_partitions,
)

from vavl_sb.dataio import preparation  # noqa: E402
from vavl_sb.dataio.manifest import SPLITS  # noqa: E402
from vavl_sb.dataio.preparation import PrepareReport  # noqa: E402

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
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\nsize 265922\n"
BAD_VOTES = "votes or shares cannot be used"


class Corpus(CorpusOnDisk):
    prepare_script = prepare_cremad

    def __init__(self, folder, media):
        super().__init__(folder, media, PARTITION)
        for clip in VOTES:
            self.add(clip)
        self.votes = self.folder / "processedResults" / "tabulatedVotes.csv"
        self.votes.parent.mkdir()
        self.vote(VOTES)

    def wav(self, clip):
        return self.folder / "AudioWAV" / f"{clip}.wav"

    def flv(self, clip):
        return self.folder / "VideoFlash" / f"{clip}.flv"

    def add(self, clip):
        self.copy("a.wav", "AudioWAV", f"{clip}.wav")
        self.copy("a.flv", "VideoFlash", f"{clip}.flv")

    def vote(self, votes, more=""):
        """The vote table in the official order: voice, face, then both.

        The rows of voice and face say something else. Then more lines.
        """
        lines = [",A,D,F,H,N,S,fileName,numResponses"]
        for first in (1, 2, 3):
            for i, (clip, numbers) in enumerate(votes.items(), 1):
                row = numbers if first == 3 else (9, 0, 0, 0, 0, 0)
                row = ",".join(map(str, row))
                lines.append(f"{first * 100000 + i},{row},{clip},10")
        self.votes.write_text("\n".join([*lines, more]))


@pytest.fixture
def corpus(tmp_path, media):
    return Corpus(tmp_path, media)


@pytest.fixture
def log(caplog):
    caplog.set_level("INFO")
    return caplog


# What a sound corpus gives.


def test_the_class_is_the_one_with_more_than_half_of_the_votes(corpus, log):
    splits, report = corpus.prepare()
    entries = all_entries(splits)
    assert {c: e["emotion"] for c, e in entries.items()} == EMOTIONS
    assert speakers(splits) == {s: set(who) for s, who in PARTITION.items()}
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
    assert report["kept"]["train"] == {
        "clips": 4,
        "speakers": 2,
        "audiovisual": 4,
        "audio_only": 0,
        "visual_only": 0,
        "hours": round(4 * 2.2 / 3600, 4),
    }
    assert report["data_folder"] == str(corpus.folder)
    assert "left out: 1 no majority" in log.text


def test_regression_needs_no_majority(corpus):
    entries = corpus.entries(task="regression")
    assert set(entries) == set(VOTES)
    for clip, entry in entries.items():
        counts = [entry[name] * sum(VOTES[clip]) for name in CLASSES]
        assert counts == pytest.approx(VOTES[clip])
        assert entry.get("emotion") == EMOTIONS.get(clip)


def test_acted_classes_are_those_of_the_names(corpus):
    corpus.votes.unlink()
    splits, report = corpus.prepare(label_source="acted")
    assert report["target"].startswith("acted") and report["ceiling"] is None
    entries = all_entries(splits)
    names = dict(zip(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"), CLASSES))
    assert {c: e["emotion"] for c, e in entries.items()} == {
        clip: names[clip[9:12]] for clip in VOTES
    }


def test_order_on_disk_does_not_matter(corpus, monkeypatch):
    # Two files of one clip, where the order could decide.
    corpus.copy("a.wav", "AudioWAV", "1001_DFA_ANG_XX.WAV")
    corpus.prepare()
    texts = {p.name: p.read_bytes() for p in corpus.out.iterdir()}
    shutil.rmtree(corpus.out)
    found = glob.glob
    monkeypatch.setattr(glob, "glob", lambda *a, **b: found(*a, **b)[::-1])
    corpus.vote(dict(reversed(VOTES.items())))
    _, report = corpus.prepare()
    for split in SPLITS:
        name = f"{split}.json"
        assert (corpus.out / name).read_bytes() == texts[name]
    assert reasons(report, "noted") == {"two audio files": {"1001_DFA_ANG_XX"}}


def test_only_training_clips_are_withheld_from(corpus):
    splits, report = corpus.prepare(withhold_audio=0.5, withhold_visual=0.25)
    train = splits["train"]
    silent = {clip for clip, entry in train.items() if entry["wav"] is None}
    unseen = {clip for clip, entry in train.items() if entry["video"] is None}
    assert (len(silent), len(unseen), silent & unseen) == (2, 1, set())
    for split in ("valid", "test"):
        assert all(e["wav"] and e["video"] for e in splits[split].values())
    assert reasons(report, "one_modality") == {
        "audio withheld": silent,
        "video withheld": unseen,
    }
    text = corpus.refusal(withhold_audio=0.75, withhold_visual=0.5)
    assert "only 4 training clips have both" in text


# Doing it again.


def test_finished_work_is_recognised_until_something_changes(corpus, log):
    def skips(**arguments):
        log.clear()
        corpus.prepare(**arguments)
        return "skipping" in log.text

    assert not skips() and skips()
    assert not skips(seed=9) and not skips(task="regression")
    assert not skips(withhold_audio=0.25) and not skips() and skips()
    # The same arguments, but another split, votes, files or manifests.
    corpus.split(train=["1001", "1003"], valid=[], test=["1004"])
    assert not skips() and skips()
    corpus.vote({**VOTES, "1001_DFA_ANG_XX": [5] * 6})
    assert not skips() and skips()
    corpus.flv("1001_DFA_SAD_XX").unlink()
    assert not skips() and skips()
    (corpus.out / "test.json").write_text("{}")
    assert not skips() and skips()
    for broken in ("", "{}"):
        (corpus.out / "prepare_report.json").write_text(broken)
        assert not skips() and skips()


def test_a_killed_preparation_is_not_taken_for_done(corpus, monkeypatch, log):
    first, _ = corpus.prepare()
    with monkeypatch.context() as patch:

        def killed(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(preparation, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            corpus.prepare(task="regression")
    # The manifests are the new ones, the report is the old one.
    log.clear()
    assert corpus.prepare()[0] == first and "skipping" not in log.text
    assert set(corpus.entries(task="regression")) == set(VOTES)


# Media that are missing or broken.


def test_a_missing_file_is_a_missing_modality(corpus):
    corpus.wav("1001_DFA_SAD_XX").unlink()
    corpus.flv("1004_DFA_SAD_XX").unlink()
    corpus.wav("1001_DFA_ANG_XX").unlink()
    corpus.flv("1001_DFA_ANG_XX").unlink()
    corpus.add("1003_MTI_HAP_XX")
    splits, report = corpus.prepare()
    unheard = splits["train"]["1001_DFA_SAD_XX"]
    assert unheard["wav"] is None
    assert unheard["duration"] == pytest.approx(2.2)
    unseen = splits["test"]["1004_DFA_SAD_XX"]
    assert unseen["video"] is None
    assert unseen["duration"] == pytest.approx(2.0)
    assert reasons(report, "one_modality") == {
        "no audio file": {"1001_DFA_SAD_XX"},
        "no video file": {"1004_DFA_SAD_XX"},
    }
    assert report["kept"]["train"]["visual_only"] == 1
    assert report["kept"]["test"]["audio_only"] == 1
    assert reasons(report) == {
        "in the labels, not on disk": {"1001_DFA_ANG_XX"},
        "on disk, not in the labels": {"1003_MTI_HAP_XX"},
        "no majority": {"1004_WSI_ANG_XX"},
    }


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def dangling(path):
    path.unlink()
    path.symlink_to("/nowhere")


def sound_alone(path):
    soundfile.write(path, np.zeros(8000), 16000, format="WAV")


@pytest.mark.parametrize(
    "kind, spoil, fault",
    [
        ("wav", b"", "audio file is empty"),
        ("wav", LFS_POINTER, "audio file is a Git LFS pointer"),
        ("wav", dangling, "audio file is unreadable"),
        ("flv", lambda path: cut(path, 0.5), "video file is truncated"),
        ("flv", sound_alone, "video file has no video stream"),
    ],
)
def test_a_broken_file_is_named_and_stops_nothing(corpus, kind, spoil, fault):
    # One clip keeps its other file, one has nothing else.
    kept, lost = "1001_DFA_ANG_XX", "1002_DFA_HAP_XX"
    this, other = corpus.wav, corpus.flv
    if kind == "flv":
        this, other = other, this
    for path in (this(kept), this(lost)):
        path.write_bytes(spoil) if isinstance(spoil, bytes) else spoil(path)
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
    assert str(this(lost)) in report["left_out"][reason]["clips"][lost]


def test_the_misnamed_official_file(corpus):
    clip = "1040_ITH_SAD_XX"
    corpus.add(clip)
    corpus.wav(clip).rename(corpus.wav("1040_ITH_SAD_X"))
    corpus.vote({**VOTES, clip: (0, 0, 0, 0, 0, 9)})
    corpus.split(**{**PARTITION, "train": ["1001", "1040"]})
    entry = corpus.entries()[clip]
    assert entry["wav"] == "{data_root}/AudioWAV/1040_ITH_SAD_X.wav"
    assert entry["video"] == "{data_root}/VideoFlash/1040_ITH_SAD_XX.flv"


# Labels that cannot be used.


@pytest.mark.parametrize(
    "votes",
    [
        (0, 0, 0, 0, 0, 0),
        ("nan", 0, 0, 0, 0, 0),
    ],
)
def test_a_row_with_bad_votes_is_left_out(corpus, votes):
    corpus.vote({**VOTES, "1001_DFA_ANG_XX": votes}, "399999,1,2")
    splits, report = corpus.prepare(task="regression")
    assert "1001_DFA_ANG_XX" not in splits["train"]
    # 1 header, 8 voice, 8 face, then this one.
    detail = report["left_out"].pop(BAD_VOTES)["clips"]["1001_DFA_ANG_XX"]
    assert detail.startswith(f"{corpus.votes}, line 18: ")
    line = f"{corpus.votes}, line 26"
    assert reasons(report) == {
        "name is not ACTOR_SENTENCE_EMOTION_LEVEL": {line}
    }


def test_a_clip_that_stands_twice(corpus):
    row = "300008,5,5,0,0,0,0,1004_WSI_ANG_XX,10"
    corpus.vote(VOTES, row)
    splits, report = corpus.prepare()
    assert {c: e["emotion"] for c, e in all_entries(splits).items()} == EMOTIONS
    assert reasons(report, "noted") == {
        "twice in the labels": {"1004_WSI_ANG_XX"}
    }
    corpus.vote(VOTES, row.replace("5,5", "5,4"))
    text = corpus.refusal()
    assert f"{corpus.votes}, line 26: 1004_WSI_ANG_XX appears twice" in text
    assert f"first in {corpus.votes}, line 25;" in text


@pytest.mark.parametrize(
    "text, part",
    [
        (b',A,D,F,H,N,fileName\n"300001",1,0,0,0,0,x\n', "no column S in it"),
        (b",A,D,F,H,N,S,fileName\n100001,9,0,0,0,0,0,x\n", "no usable label"),
        (None, "label file cannot be read"),
    ],
)
def test_a_useless_vote_table(corpus, text, part):
    corpus.votes.unlink()
    if text is not None:
        corpus.votes.write_bytes(text)
    text = corpus.refusal()
    assert text.startswith(f"{corpus.votes}: ") and part in text


# The released CSV.


def write_released(path, rows):
    """A label CSV in the released form: clip to (emotion, set)."""
    columns = ["angry", "sad", "disgust", "fear", "neutral", "happy"]
    lines = [f"FileName,{','.join(columns)},SpkrID,Gender,Split_Set"]
    for clip, (emotion, split) in rows.items():
        shares = ["0.95" if name == emotion else "0.01" for name in columns]
        shares = ",".join(shares)
        lines.append(f"{clip}.wav,{shares},{clip[:4]},Male,{split}")
    path.write_text("\r\n".join([*lines, ""]), newline="")
    return str(path)


RELEASED = {
    "1001_DFA_ANG_XX": ("sad", "Train"),
    "1002_DFA_HAP_XX": ("happy", "Test"),
    "1003_DFA_DIS_XX": ("neutral", "Development"),
}


def test_a_released_csv_has_labels_and_split(corpus, tmp_path, log):
    path = write_released(tmp_path / "mine.csv", RELEASED)
    splits, report = corpus.prepare(label_csv=path, partition=1)
    for clip, (emotion, name) in RELEASED.items():
        split = {"Train": "train", "Test": "test"}.get(name, "valid")
        entry = splits[split][clip]
        assert entry["emotion"] == emotion
        assert entry[emotion] == 0.95 and entry["fear"] == 0.01
    assert len(all_entries(splits)) == 3
    assert len(reasons(report)["on disk, not in the labels"]) == 5
    assert "its Split_Set is used, not partition 1" in log.text
    text = corpus.refusal(label_csv=path, partition=2)
    assert text.startswith(path) and "not that of partition 2" in text
    # Who gives a split of their own gets it.
    corpus.split(train=["1002", "1003"], valid=[], test=["1001"])
    splits, _ = corpus.prepare(label_csv=path)
    assert set(splits["test"]) == {"1001_DFA_ANG_XX"}


@pytest.mark.parametrize(
    "old, new, part",
    [
        ("SpkrID", "Speaker", ": no column SpkrID in it"),
        (",1002,", ",1003,", ", line 3: 1002_DFA_HAP_XX has SpkrID '1003'"),
        ("Development", "Dev", ", line 4: Split_Set is 'Dev'"),
        ("Development", "Train\n1003_DFA_ANG_XX,1,1,1,1,1,1,1003,,Test",
         ": speaker 1003 is in train and test"),
    ],
)  # fmt: skip
def test_a_useless_released_csv(corpus, tmp_path, old, new, part):
    path = tmp_path / "mine.csv"
    write_released(path, RELEASED)
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    assert f"{path}{part}" in corpus.refusal(label_csv=str(path), partition=1)


# Splits and arguments that cannot be.


@pytest.mark.parametrize("bad", [6, "no.json"])
def test_a_bad_partition(corpus, bad):
    text = corpus.refusal(partition=bad)
    assert text.startswith("partition: must be 1, 2, 3, 4, 5 or")
    assert text.endswith(f"not {bad!r}")


def test_a_speaker_in_two_splits_is_refused(corpus):
    corpus.split(**{**PARTITION, "test": ["1004", "1002"]})
    text = corpus.refusal()
    assert text == f"{corpus.partition}: speaker 1002 is in train and test"
    assert not corpus.out.exists()


@pytest.mark.parametrize("split", SPLITS)
def test_an_empty_split_says_why(corpus, split):
    corpus.split(**{**PARTITION, split: ["1050"]})
    text = corpus.refusal()
    assert text.startswith(f"the {split} split is empty")
    count = len(PARTITION[split]) * 2
    assert f"(1050); left out: {count} speaker in no split" in text
    assert not (corpus.out / f"{split}.json").exists()


@pytest.mark.parametrize(
    "arguments, part",
    [
        ({"task": "cls"}, "task: must be classification or regression"),
        ({"label_source": "acted", "task": "regression"}, "label_source=acted"),
        ({"withhold_audio": 1.0}, "withhold_audio: must be in [0, 1)"),
    ],
)
def test_bad_arguments(corpus, arguments, part):
    assert part in corpus.refusal(**arguments)


def test_a_missing_corpus(corpus):
    for folder in ("AudioWAV", "VideoFlash"):
        shutil.rmtree(corpus.folder / folder)
    assert corpus.refusal().startswith(f"{corpus.folder}: no clip in it")
    shutil.rmtree(corpus.folder)
    assert corpus.refusal().startswith(f"{corpus.folder}: no such folder")


# On the real tables and clips.


@pytest.fixture
def real_votes(real_data):
    table = real_data / "crema_d_mini/processedResults/tabulatedVotes.csv"
    report = PrepareReport()
    labels = dict(read_votes(table, report))
    assert len(labels) == 7442 and report == PrepareReport()
    return {clip: found.fields.get("emotion") for clip, found in labels.items()}


@pytest.mark.real
def test_the_official_votes_give_a_class_to_5913_clips(real_data, real_votes):
    assert sum(emotion is not None for emotion in real_votes.values()) == 5913
    # Where there is a majority, the official summary names it too.
    letters = dict(zip("ADFHNS", CLASSES, strict=True))
    table = real_data / "crema_d_mini/processedResults/summaryTable.csv"
    with open(table, newline="") as file:
        for row in csv.DictReader(file):
            if real_votes[row["FileName"]] is not None:
                vote = letters[row["MultiModalVote"]]
                assert vote == real_votes[row["FileName"]]


@pytest.mark.real
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_the_released_labels_and_partitions(real_data, real_votes, number):
    path = real_data / "crema_d_labels" / f"label_consensus_{number}.csv"
    report = PrepareReport()
    labels = dict(read_released(path, report))
    assert len(labels) == 5820 and report == PrepareReport()
    shared = [clip for clip in labels if real_votes[clip] is not None]
    assert len(shared) == 5795
    assert all(labels[c].fields["emotion"] == real_votes[c] for c in shared)
    # The recipe's own lists are this file's.
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    lists = released_partitions()[str(number)]
    for name, split in zip(("Train", "Development", "Test"), SPLITS):
        members = {r["SpkrID"] for r in rows if r["Split_Set"] == name}
        assert set(lists[split]) == members
        assert {c[:4] for c in labels if labels[c].split == split} == members
        assert len(members) == (63 if split == "train" else 14)
