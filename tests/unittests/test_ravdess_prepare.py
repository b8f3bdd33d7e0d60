"""Tests of the RAVDESS prepare script, on drawn and on real files.

What all prepare scripts share is tested in test_cremad_prepare.py.
"""

import csv
import json
import sys
from pathlib import Path

import pytest
import soundfile
from prepared_corpus import (
    RECIPES,
    CorpusOnDisk,
    all_entries,
    reasons,
    speakers,
)

sys.path.insert(0, str(RECIPES / "RAVDESS"))

from ravdess_prepare import CLASSES, parse_name, partitions, prepare_ravdess  # noqa: E402

from vavl_sb.dataio.manifest import SPLITS, read_manifest  # noqa: E402
from vavl_sb.utils.errors import CorpusError  # noqa: E402

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
FILES = {"01": "av.mp4", "02": "silent.mp4", "03": "a.wav"}


class Corpus(CorpusOnDisk):
    prepare_script = prepare_ravdess

    def add(self, name, folder=None, ending=None):
        """Adds a file by its name without an ending."""
        source = "a.flac" if ending == "flac" else FILES[name[:2]]
        ending = ending or source[-3:]
        place = folder or f"Actor_{name[-2:]}"
        return self.copy(source, place, f"{name}.{ending}")


@pytest.fixture
def empty(tmp_path, media):
    return Corpus(tmp_path, media, PARTITION)


@pytest.fixture
def corpus(empty):
    """Audio-only files of three actors: angry, sad."""
    for actor in ("01", "02", "03"):
        empty.add(f"03-01-05-02-01-01-{actor}")
        empty.add(f"03-01-04-01-02-02-{actor}")
    return empty


# Names.


def test_every_code_of_an_emotion():
    for code, emotion in CODES.items():
        modality, clip, fields = parse_name(f"02-01-{code}-02-01-02-07")
        assert (modality, clip) == ("02", f"01-{code}-02-01-02-07")
        assert fields == {
            "spk_id": "Actor_07",
            "sex": "male",
            "emotion": emotion,
            "intensity": "strong",
            "statement": "01",
            "repetition": "02",
        }


@pytest.mark.parametrize(
    "name, reason",
    [
        ("03-01-09-01-01-01-01", "unknown emotion code"),
        ("04-01-05-01-01-01-01", "unknown modality code"),
        ("03-01-05-01-01-01-25", "unknown actor code"),
        ("03-01-05-01-01-01", "name is not"),
        ("03-01-05-01-01-01-01 (1)", "name is not"),
    ],
)
def test_names_that_cannot_be_read(name, reason):
    with pytest.raises(CorpusError, match=reason):
        parse_name(name)


# Splits.


def test_partitions_are_disjoint_and_balanced_by_sex():
    everyone = {f"Actor_{actor:02d}" for actor in range(1, 25)}
    for lists in partitions().values():
        assert set.union(*lists.values()) == everyone
        assert [len(lists[split]) for split in SPLITS] == [16, 4, 4]
        for members in lists.values():
            men = [who for who in members if int(who[-2:]) % 2]
            assert 2 * len(men) == len(members)
    # No actor scores twice, and all that score are among 01 to 20.
    for split in ("valid", "test"):
        scored = set.union(*(lists[split] for lists in partitions().values()))
        assert len(scored) == 12
        assert scored <= {f"Actor_{actor:02d}" for actor in range(1, 21)}


def test_actors_of_a_list_may_be_called_by_number(corpus):
    splits, _ = corpus.prepare()
    assert speakers(splits)["train"] == {"Actor_01", "Actor_02"}
    corpus.split(train=[1, 2], valid=[], test=["01"])
    assert "speaker Actor_01 is in train and test" in corpus.refusal()


# Files.


def test_an_entry(corpus):
    splits, report = corpus.prepare()
    assert len(all_entries(splits)) == 6 and not report["left_out"]
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


def test_files_are_found_at_any_depth_in_any_case(corpus):
    deep = "x/Audio_Speech_Actors_01-24/Actor_01"
    corpus.add("03-01-03-01-01-01-01", deep)
    corpus.add("03-01-03-01-02-01-01", "Video_Speech_Actor_01", "WAV")
    corpus.add("03-01-06-01-02-01-01", ".", "flac")
    splits, report = corpus.prepare()
    assert len(all_entries(splits)) == 6 + 3 and not report["left_out"]
    for clip, path in (
        ("01-03-01-01-01-01", f"{deep}/03-01-03-01-01-01-01.wav"),
        ("01-03-01-02-01-01", "Video_Speech_Actor_01/03-01-03-01-02-01-01.WAV"),
        ("01-06-01-02-01-01", "03-01-06-01-02-01-01.flac"),
    ):
        assert splits["train"][clip]["wav"] == f"{{data_root}}/{path}"


def test_files_that_cannot_be_used_are_named(corpus):
    corpus.add("03-01-09-01-01-01-01")
    corpus.add("03-01-05-01-01-01-01 copy", "x")
    whole = corpus.add("03-01-06-01-01-01-02")
    whole.write_bytes(whole.read_bytes()[:20000])
    corpus.add("03-01-05-02-01-01-01", "Actor_01", "flac")
    for code in ("01", "02", "03"):  # One song, in three files.
        corpus.add(f"{code}-02-05-01-01-01-01")
    # These are no clips, and nobody's fault.
    for name in ("labels.csv", "Audio_Song.zip", "README.md"):
        (corpus.folder / name).write_text("x")
    splits, report = corpus.prepare()
    assert len(all_entries(splits)) == 6
    assert reasons(report) == {
        "unknown emotion code": {"Actor_01/03-01-09-01-01-01-01.wav"},
        "name is not MODALITY-CHANNEL-...-ACTOR, 7 numbers": {
            "x/03-01-05-01-01-01-01 copy.wav"
        },
        "audio file is truncated and no video file": {"01-06-01-01-01-02"},
        "song": {"02-05-01-01-01-01"},
    }
    # Of two files of one name the first.
    entry = splits["train"]["01-05-02-01-01-01"]
    assert entry["wav"].endswith("/03-01-05-02-01-01-01.flac")
    assert report["noted"]["two 03 files"]["clips"] == {
        "01-05-02-01-01-01": "Actor_01/03-01-05-02-01-01-01.wav is not used"
    }


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
    entries = corpus.entries(labels=list(CLASSES))
    assert len(entries) == 8
    assert entries["01-02-01-01-01-01"]["emotion"] == "calm"
    entries = corpus.entries(labels=["calm", "sad"])
    emotions = sorted(entry["emotion"] for entry in entries.values())
    assert emotions == ["calm", "sad", "sad", "sad"]


@pytest.mark.parametrize(
    "labels",
    [["fearful", "sad"], ["sad"], None],
    ids=str,
)
def test_labels_that_are_not_of_the_eight(corpus, labels):
    line = corpus.refusal(labels=labels)
    assert line.startswith("labels: must be two or more of angry, calm, ")
    assert line.endswith(f"not {labels!r}")


def test_a_folder_without_speech_is_refused(empty):
    (empty.folder / "Audio_Speech.zip").write_text("not unpacked")
    line = empty.refusal()
    assert line.startswith(f"{empty.folder}: no clip in it")
    assert "03-01-05-01-02-01-12.wav" in line


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
        for field in ("sex", "emotion", "intensity", "statement", "repetition"):
            assert entry[field] == row[field]
        info = soundfile.info(folder / row["file"])
        assert entry["duration"] == pytest.approx(info.duration, abs=0.05)
    report = json.loads((tmp_path / "prepare_report.json").read_text())
    assert not report["left_out"] and not report["noted"]


# Features in place of files.


def test_features_are_matched_by_utterance(corpus, tmp_path):
    table = tmp_path / "units.csv"
    angry, sad = "01-05-02-01-01", "01-04-01-02-02"
    names = [f"01-{angry}-01", f"02-{sad}-01", f"01-{angry}-02"]
    voiceless = "01-04-01-02-01-03"
    names += [f"01-{sad}-02"] * 2 + [f"01-{voiceless}", "someone"]
    table.write_text("name,a,b\n" + "".join(f"{n},1,2\n" for n in names))
    corpus.add(f"01-{angry}-01")  # A picture, whose place the features take.
    splits, report = corpus.prepare(visual_features=str(table))
    found = {
        clip: (entry["video"], entry.get("visual_features"))
        for clip, entry in all_entries(splits).items()
    }
    assert found == {
        f"{angry}-01": (None, f"{table}#{names[0]}"),
        f"{sad}-01": (None, f"{table}#{names[1]}"),
        f"{angry}-02": (None, f"{table}#{names[2]}"),
        voiceless: (None, f"{table}#{names[5]}"),
        **dict.fromkeys(
            [f"{sad}-02", f"{angry}-03", f"{sad}-03"], (None, None)
        ),
    }
    assert report["kept"]["train"]["audiovisual"] == 3
    assert report["kept"]["test"]["visual_only"] == 1
    assert reasons(report, "one_modality") == {
        "no visual_features": {f"{sad}-02", f"{angry}-03", f"{sad}-03"},
        "no audio file": {voiceless},
    }
    noted = reasons(report, "noted")
    assert noted["visual_features appear twice"] == {f"{sad}-02"}
    assert {"someone"} in noted.values()
    # A table that was changed is another preparation.
    with open(table, "a", encoding="utf-8") as file:
        file.write(f"01-{angry}-03,1,2\n")
    again, _ = corpus.prepare(visual_features=str(table))
    assert again["test"][f"{angry}-03"]["visual_features"]
