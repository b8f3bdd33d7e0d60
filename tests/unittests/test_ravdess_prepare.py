"""Tests of the RAVDESS prepare script, on drawn and on real files.

Authors
 * The vavl_sb authors 2026
"""

import csv
import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "RAVDESS"
sys.path.insert(0, str(RECIPE))

from ravdess_names import CLASSES, SIX_CLASSES, parse_name  # noqa: E402
from ravdess_prepare import prepare_ravdess  # noqa: E402
from ravdess_splits import read_partition  # noqa: E402

from synthetic.media import write_video  # noqa: E402
from vavl_sb.dataio.manifest import read_manifest  # noqa: E402
from vavl_sb.utils.errors import CorpusError  # noqa: E402

SPLITS = ("train", "valid", "test")
PARTITION = {"train": [1, "02"], "valid": [], "test": ["Actor_03"]}
CODES = {  # Of RAVDESS's own description, in its words but for "fear".
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprised",
}


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A tone of 2.0 s as wav, flac and mp4, and an mp4 with silence."""
    folder = tmp_path_factory.mktemp("ravdess_media")
    tone = 0.1 * np.sin(np.arange(32000) / 16000 * 2 * np.pi * 220)
    for name in ("03.wav", "03.flac"):
        soundfile.write(folder / name, tone, 16000)
    frames = [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(20)]
    for name, sound in (("01.mp4", tone), ("02.mp4", 0 * tone)):
        sound = sound.astype(np.float32)
        write_video(folder / name, frames, sound, 10, (64, 48))
    return folder


class Corpus:
    """A small RAVDESS on disk and what the prepare script makes of it."""

    def __init__(self, folder, media):
        self.folder, self.media = folder / "corpus", media
        self.out = folder / "out"
        self.folder.mkdir()
        self.partition = folder / "partition.json"
        self.partition.write_text(json.dumps(PARTITION))

    def add(self, name, folder=None, ending=None):
        """Adds a file by its name without an ending."""
        real = {"01": "mp4", "02": "mp4"}.get(name[:2], "wav")
        place = self.folder / (folder or f"Actor_{name[-2:]}")
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{name}.{ending or real}"
        source = "03.flac" if (ending or "").lower() == "flac" else None
        source = source or f"{name[:2] if name[:2] < '03' else '03'}.{real}"
        shutil.copy(self.media / source, path)
        return path

    def prepare(self, **arguments):
        """(split to entries, report as JSON)."""
        paths = [str(self.out / f"{split}.json") for split in SPLITS]
        arguments = {"partition": str(self.partition), **arguments}
        prepare_ravdess(str(self.folder), *paths, **arguments)
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
    """Audio-only files of three actors: angry, sad."""
    corpus = Corpus(tmp_path, media)
    for actor in ("01", "02", "03"):
        corpus.add(f"03-01-05-02-01-01-{actor}")
        corpus.add(f"03-01-04-01-02-02-{actor}")
    return corpus


@pytest.fixture
def log(caplog):
    with caplog.at_level(logging.INFO):
        yield caplog


def all_entries(splits):
    return {c: entry for part in splits.values() for c, entry in part.items()}


def reasons(report, group="left_out"):
    return {why: set(found["clips"]) for why, found in report[group].items()}


# Names.


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_an_emotion(code):
    modality, found = parse_name(f"02-01-{code}-02-01-02-07")
    assert (modality, found.id) == ("02", f"01-{code}-02-01-02-07")
    assert found.emotion == CODES[code] and not found.song
    assert found.fields() == {
        "spk_id": "Actor_07",
        "sex": "male",
        "emotion": CODES[code],
        "intensity": "strong",
        "statement": "01",
        "repetition": "02",
    }


def test_classes():
    assert set(CLASSES) == set(CODES.values()) and len(CLASSES) == 8
    # CREMA-D's six, in its recipe's order.
    assert SIX_CLASSES == (
        *("angry", "disgust", "fear"),
        *("happy", "neutral", "sad"),
    )


@pytest.mark.parametrize(
    "name, reason",
    [
        ("03-01-09-01-01-01-01", "unknown emotion code"),
        ("03-01-00-01-01-01-01", "unknown emotion code"),
        ("04-01-05-01-01-01-01", "unknown modality code"),
        ("03-03-05-01-01-01-01", "unknown channel code"),
        ("03-01-05-03-01-01-01", "unknown intensity code"),
        ("03-01-05-01-03-01-01", "unknown statement code"),
        ("03-01-05-01-01-03-01", "unknown repetition code"),
        ("03-01-05-01-01-01-25", "unknown actor code"),
        ("03-01-05-01-01-01-00", "unknown actor code"),
        ("03-01-05-01-01-01", "name is not"),
        ("03-01-05-01-01-01-01-01", "name is not"),
        ("03-01-05-01-01-01-01 (1)", "name is not"),
        ("03-01-05-01-01-01-1", "name is not"),
        ("03-01-05-01-01-01-٠١", "name is not"),
        ("03-01-05-01-01-01-01\n", "name is not"),
        ("", "name is not"),
    ],
)
def test_names_that_cannot_be_read(name, reason):
    with pytest.raises(CorpusError, match=reason):
        parse_name(name)


# Splits.


@pytest.mark.parametrize("number", [1, "2", 3])
def test_a_partition_is_disjoint_and_balanced_by_sex(number):
    lists = read_partition(number)
    everyone = {f"Actor_{actor:02d}" for actor in range(1, 25)}
    assert set.union(*lists.values()) == everyone
    assert [len(lists[split]) for split in SPLITS] == [16, 4, 4]
    for members in lists.values():
        men = [who for who in members if int(who[-2:]) % 2]
        assert 2 * len(men) == len(members)
    # Those that score are among the twenty actors of the small release.
    twenty = {f"Actor_{actor:02d}" for actor in range(1, 21)}
    assert lists["valid"] | lists["test"] <= twenty


@pytest.mark.parametrize("split", ["valid", "test"])
def test_no_two_partitions_share_an_actor_that_scores(split):
    groups = [read_partition(number)[split] for number in (1, 2, 3)]
    assert len(set.union(*groups)) == 12


@pytest.mark.parametrize(
    "lists, words",
    [
        ({"train": ["Actor_25"], "valid": [], "test": [1]}, ["'Actor_25'"]),
        ({"train": ["me"], "valid": [], "test": [1]}, ["'me'", "Actor_24"]),
        ({"train": [0], "valid": [], "test": [1]}, ["'0'"]),
        ({"train": [1, 2], "valid": [], "test": ["01"]}, ["Actor_01 is in"]),
        ({"train": [1], "test": [2]}, ["must be"]),
    ],
)
def test_speaker_lists_that_cannot_be_used(corpus, lists, words):
    corpus.partition.write_text(json.dumps(lists))
    line = corpus.refusal()
    assert all(w in line for w in [str(corpus.partition), *words]), line


def test_a_split_that_would_be_empty_is_refused(corpus):
    line = corpus.refusal(partition=1)
    assert "partition 1: the valid split would be empty" in line
    assert "Actor_13, Actor_14, Actor_15, Actor_16" in line
    assert "those on disk are Actor_01, Actor_02, Actor_03" in line
    lists = {"train": [1], "valid": [2], "test": [4, 5]}
    corpus.partition.write_text(json.dumps(lists))
    assert "the test split would be empty" in corpus.refusal()
    # Nothing was written that a later run could take for its own.
    assert not (corpus.out / "train.json").exists()


def test_missing_actors_make_a_split_smaller(corpus, log):
    lists = {"train": [1, 7], "valid": [], "test": [3]}
    corpus.partition.write_text(json.dumps(lists))
    splits, report = corpus.prepare()
    assert {e["spk_id"] for e in splits["train"].values()} == {"Actor_01"}
    assert "1 of the 2 actors of train have no clip: Actor_07" in log.text
    assert reasons(report)["speaker in no split"] == {
        "01-05-02-01-01-02",
        "01-04-01-02-02-02",
    }


@pytest.mark.parametrize("partition", [0, 4, "nowhere.json", "1.0", None])
def test_unknown_partition(corpus, partition):
    line = corpus.refusal(partition=partition)
    assert line.startswith("partition: must be 1, 2, 3 or")
    assert repr(partition) in line


# Files.


def test_an_entry(corpus):
    splits, report = corpus.prepare()
    assert set(all_entries(splits)) == {
        f"01-{rest}-{actor}"
        for rest in ("05-02-01-01", "04-01-02-02")
        for actor in ("01", "02", "03")
    }
    assert splits["test"]["01-05-02-01-01-03"] == {
        "wav": "{data_root}/Actor_03/03-01-05-02-01-01-03.wav",
        "video": None,
        "duration": 2.0,
        "spk_id": "Actor_03",
        "sex": "male",
        "emotion": "angry",
        "intensity": "strong",
        "statement": "01",
        "repetition": "01",
    }
    assert not report["left_out"]
    assert report["kept"]["train"]["audio_only"] == 4
    assert not splits["valid"]


def test_one_entry_whatever_files_an_utterance_has(corpus):
    utterance = "01-03-01-01-01-0"
    wanted = {}
    for actor, codes, wav, video in (
        (1, ("01", "02", "03"), "03", "02"),
        (2, ("01", "03"), "03", "01"),
        (3, ("01",), "01", "01"),
    ):
        for code in codes:
            corpus.add(f"{code}-{utterance}{actor}")
        wanted[f"{utterance}{actor}"] = (wav, video)
    # Silence is no sound: such a clip only has a picture.
    corpus.add("02-01-07-01-01-01-01")
    wanted["01-07-01-01-01-01"] = (None, "02")
    splits, report = corpus.prepare()
    entries = all_entries(splits)
    assert len(entries) == 6 + 4
    for clip, codes in wanted.items():
        for field, code in zip(("wav", "video"), codes, strict=True):
            path = entries[clip][field]
            found = path and path.rsplit("/", 1)[1][:2]
            assert found == code, (clip, field)
    assert report["kept"]["train"]["visual_only"] == 1
    assert reasons(report, "one_modality")["no audio file"] == {
        "01-07-01-01-01-01"
    }
    # Another coding than most clips have is told of.
    noted = reasons(report, "noted")
    assert noted["audio of a 01- file, most of 03- files"] == {f"{utterance}3"}


def test_files_are_found_at_any_depth_in_any_case(corpus, tmp_path):
    deep = "x/Audio_Speech_Actors_01-24/Actor_01"
    corpus.add("03-01-03-01-01-01-01", deep)
    corpus.add("03-01-03-01-02-01-01", "Video_Speech_Actor_01", "WAV")
    corpus.add("03-01-06-01-02-01-01", ".", "FLAC")
    corpus.add("01-01-07-01-02-01-01", "Actor_01", "Mp4")
    # A link to a folder elsewhere, and one that leads in a circle.
    (tmp_path / "far").mkdir()
    corpus.add("03-01-01-01-01-01-01").rename(
        tmp_path / "far" / "03-01-01-01-01-01-01.wav"
    )
    (corpus.folder / "link").symlink_to(tmp_path / "far")
    (corpus.folder / "link" / "circle").symlink_to(corpus.folder)
    splits, report = corpus.prepare()
    entries = all_entries(splits)
    assert len(entries) == 6 + 5
    paths = {clip: entry["wav"] for clip, entry in entries.items()}
    root = "{data_root}/"
    assert paths["01-03-01-01-01-01"] == (
        f"{root}{deep}/03-01-03-01-01-01-01.wav"
    )
    assert paths["01-03-01-02-01-01"].endswith("01.WAV")
    assert paths["01-06-01-02-01-01"] == f"{root}03-01-06-01-02-01-01.FLAC"
    assert paths["01-01-01-01-01-01"] == f"{root}link/03-01-01-01-01-01-01.wav"
    assert entries["01-07-01-02-01-01"]["video"].endswith(".Mp4")
    assert not report["left_out"] and not reasons(report, "noted").get("two")


def test_a_second_file_of_the_same_name_is_noted(corpus):
    corpus.add("03-01-05-02-01-01-01", "Actor_01", "flac")
    splits, report = corpus.prepare()
    entry = splits["train"]["01-05-02-01-01-01"]
    # The first by name.
    assert entry["wav"].endswith("/03-01-05-02-01-01-01.flac")
    noted = report["noted"]["two 03- files"]["clips"]
    assert list(noted) == ["01-05-02-01-01-01"]
    assert "03-01-05-02-01-01-01.wav is not used" in noted["01-05-02-01-01-01"]


def test_names_and_files_that_cannot_be_used_are_counted(corpus):
    for name in (
        "03-01-09-01-01-01-01",
        "03-01-05-01-01-01-25",
        "03-01-05-01-01-01-01 copy",
    ):
        corpus.add(name)
    corpus.add("03-01-06-01-01-01-01").rename(
        corpus.folder / "03-01-06-01-01-01-01.ogg"
    )
    whole = corpus.add("03-01-06-01-01-01-02")
    whole.write_bytes(whole.read_bytes()[:20000])
    corpus.add("03-01-06-01-01-01-03").write_bytes(b"no sound at all")
    # These are no clips, and nobody's fault.
    for name in ("labels.csv", "Audio_Song.zip", "README.md"):
        (corpus.folder / name).write_text("x")
    splits, report = corpus.prepare()
    assert len(all_entries(splits)) == 6
    found = reasons(report)
    assert found.pop("unknown emotion code") == {
        "Actor_01/03-01-09-01-01-01-01.wav"
    }
    assert found.pop("unknown actor code") == {
        "Actor_25/03-01-05-01-01-01-25.wav"
    }
    assert found.pop("not a .wav, .flac, .mp4 file") == {
        "03-01-06-01-01-01-01.ogg"
    }
    (reason,) = [why for why in found if why.startswith("name is not")]
    assert len(found.pop(reason)) == 1
    (broken,) = [why for why in found if "truncated" in why]
    assert found.pop(broken) == {"01-06-01-01-01-02"}
    (broken,) = [why for why in found if "unreadable" in why]
    assert found.pop(broken) == {"01-06-01-01-01-03"}
    assert not found


def test_song_is_left_out_once_for_all_its_files(corpus):
    for code in ("01", "02", "03"):
        corpus.add(f"{code}-02-05-01-01-01-01")
    splits, report = corpus.prepare()
    assert len(all_entries(splits)) == 6
    assert reasons(report) == {"song": {"02-05-01-01-01-01"}}


# Labels.


def test_the_labels_decide_which_clips_are_used(corpus):
    corpus.add("03-01-02-01-01-01-01")
    corpus.add("03-01-08-01-01-01-03")
    splits, report = corpus.prepare()
    assert len(all_entries(splits)) == 6
    assert reasons(report) == {
        "calm is not in labels": {"01-02-01-01-01-01"},
        "surprised is not in labels": {"01-08-01-01-01-03"},
    }
    # Other labels, other manifests: what was prepared does not stand.
    splits, report = corpus.prepare(labels=list(CLASSES))
    entries = all_entries(splits)
    assert entries["01-02-01-01-01-01"]["emotion"] == "calm"
    assert entries["01-08-01-01-01-03"]["emotion"] == "surprised"
    assert len(entries) == 8 and not report["left_out"]
    splits, report = corpus.prepare(labels=["calm", "sad"])
    emotions = sorted(e["emotion"] for e in all_entries(splits).values())
    assert emotions == ["calm", "sad", "sad", "sad"]


@pytest.mark.parametrize(
    "labels",
    [["fearful", "sad"], ["sad"], [], "sad", None, ["sad", "sad"], [1, ["x"]]],
    ids=str,
)
def test_labels_that_are_not_of_the_eight(corpus, labels):
    line = corpus.refusal(labels=labels)
    assert line.startswith("labels: must be two or more of angry, calm, ")
    assert line.endswith(f"not {labels!r}")


@pytest.mark.parametrize("label_csv", ["labels.csv", "", False])
def test_a_label_file_is_refused(corpus, label_csv):
    line = corpus.refusal(label_csv=label_csv)
    assert line.startswith("label_csv: must be null for RAVDESS")


# The whole.


def test_a_folder_without_speech_is_refused(tmp_path, media):
    corpus = Corpus(tmp_path, media)
    assert "no file of RAVDESS" in corpus.refusal()
    (corpus.folder / "Audio_Speech.zip").write_text("not unpacked")
    assert "unpack" in corpus.refusal()
    corpus.add("03-02-05-01-01-01-01")
    corpus.add("03-01-02-01-01-01-01")
    line = corpus.refusal()
    assert "no speech of the classes angry, disgust" in line
    assert "1 calm is not in labels, 1 song" in line
    corpus.folder = tmp_path / "nowhere"
    assert "nowhere: no such folder" in corpus.refusal()


def test_withheld_clips(corpus):
    for actor in ("01", "02"):
        for rest in ("05-02-01-01", "04-01-02-02"):
            corpus.add(f"02-01-{rest}-{actor}")
    splits, report = corpus.prepare(withhold_audio=0.5, withhold_visual=0.25)
    withheld = [e.get("withheld") for e in splits["train"].values()]
    assert sorted(map(str, withheld)) == ["None", "audio", "audio", "visual"]
    assert report["kept"]["train"]["withheld_audio"] == 2
    assert "withhold_audio" in corpus.refusal(withhold_audio=1.5)


def test_finished_work_is_recognised_until_something_changes(corpus, log):
    def skips(**arguments):
        log.clear()
        corpus.prepare(**arguments)
        return "skipping" in log.text

    assert not skips() and skips()
    corpus.add("03-01-03-01-01-01-01")
    assert not skips() and skips()
    assert not skips(labels=["angry", "sad"]) and not skips()
    assert not skips(seed=2, withhold_audio=0.0) and not skips()
    lists = {"train": [1], "valid": [2], "test": [3]}
    corpus.partition.write_text(json.dumps(lists))
    assert not skips()


# Real files.


@pytest.mark.real
def test_real_names_give_the_labels_of_the_table(real_data, tmp_path):
    folder = real_data / "ravdess_audio"
    paths = [str(tmp_path / f"{split}.json") for split in SPLITS]
    prepare_ravdess(str(folder), *paths)
    entries = {}
    for path, count in zip(paths, (12 * 22, 4 * 22, 4 * 22), strict=True):
        part = read_manifest(path)
        assert len(part) == count
        entries.update(part)
    with open(folder / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(entries) == 440
    for row in rows:
        entry = entries[Path(row["file"]).stem.split("-", 1)[1]]
        assert entry["wav"] == f"{{data_root}}/{row['file']}"
        assert entry["spk_id"] == f"Actor_{row['actor']}"
        for field in ("sex", "emotion", "intensity"):
            assert entry[field] == row[field]
        for field in ("statement", "repetition"):
            assert entry[field] == row[field]
        info = soundfile.info(folder / row["file"])
        assert entry["duration"] == pytest.approx(info.duration, abs=0.05)
    report = json.loads((tmp_path / "prepare_report.json").read_text())
    assert not report["left_out"] and not report["noted"]


@pytest.mark.real
def test_real_clips_beside_real_voices(real_data, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("ravdess_clips", "ravdess_audio"):
        (corpus / name).symlink_to(real_data / name)
    out = tmp_path / "out"
    paths = [str(out / f"{split}.json") for split in SPLITS]
    prepare_ravdess(str(corpus), *paths, labels=list(CLASSES))
    train = read_manifest(paths[0])
    assert len(train) == 12 * 22 + 2
    clips = {
        # The voice's own file, and the picture of the audio-video one.
        "01-01-01-01-01-01": (
            "ravdess_audio/Actor_01/03-01-01-01-01-01-01.flac",
            "ravdess_clips/01-01-01-01-01-01-01.mp4",
            "neutral",
        ),
        "01-08-01-01-02-01": (
            "ravdess_clips/01-01-08-01-01-02-01.mp4",
            "ravdess_clips/01-01-08-01-01-02-01.mp4",
            "surprised",
        ),
        # It has a sound track, and that is silent.
        "01-01-01-01-02-01": (
            None,
            "ravdess_clips/02-01-01-01-01-02-01.mp4",
            "neutral",
        ),
    }
    for clip, (wav, video, emotion) in clips.items():
        entry = train[clip]
        assert entry["wav"] == (wav and f"{{data_root}}/{wav}")
        assert entry["video"] == f"{{data_root}}/{video}"
        assert entry["emotion"] == emotion and entry["spk_id"] == "Actor_01"
        assert entry["duration"] == pytest.approx(3.3, abs=0.1)
    report = json.loads((out / "prepare_report.json").read_text())
    assert not report["left_out"]
    kept = report["kept"]["train"]
    assert (kept["audiovisual"], kept["visual_only"]) == (2, 1)
