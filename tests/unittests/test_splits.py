"""Several corpora in one run: what is merged, and what is refused."""

import json

import pytest

from vavl_sb.dataio.datasets import read_splits
from vavl_sb.utils.errors import CorpusError, ManifestError

LABELS = ["angry", "happy", "sad"]


def entry(speaker, emotion="happy", video=None):
    """An entry of a manifest."""
    return {
        "wav": "{data_root}/a.wav",
        "video": video,
        "duration": 1.5,
        "spk_id": speaker,
        "emotion": emotion,
    }


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


class Run:
    """A run with a clip in each split, and other corpora beside it."""

    def __init__(self, folder):
        self.folder = folder
        self.settings = {
            "manifests": {},
            "task": "classification",
            "labels": LABELS,
            "data_folder": "/voices",
            "also_train": [],
        }
        for split in ("train", "valid", "test"):
            path = folder / "run" / f"{split}.json"
            write(path, {f"v_{split}": entry(f"S_{split}")})
            self.settings["manifests"][split] = str(path)

    def other(self, name, train, **more):
        """Adds another corpus; its valid.json and test.json are no JSON."""
        folder = self.folder / name
        write(folder / "train.json", train)
        for split in ("valid", "test"):
            (folder / f"{split}.json").write_text("not read")
        report = {"data_folder": f"/{name}", **more}
        write(folder / "prepare_report.json", report)
        self.settings["also_train"].append(str(folder))
        return folder

    def refusal(self, error):
        """The one line with which the run is refused."""
        with pytest.raises(error) as caught:
            read_splits(**self.settings)
        assert "\n" not in caught.value.text
        return caught.value.text


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_training_clips_of_all_corpora_are_merged(run):
    run.other("faces", {"f_1": entry("1001", "sad", "{data_root}/f.flv")})
    run.other("more", {"m_1": entry("M1"), "m_2": entry("S_train", "angry")})
    splits = read_splits(**run.settings)
    assert list(splits["train"]) == ["v_train", "f_1", "m_1", "m_2"]
    assert list(splits["valid"]) == ["v_valid"]
    assert list(splits["test"]) == ["v_test"]
    # Each path is below its own corpus.
    wavs = {clip: item["wav"] for clip, item in splits["train"].items()}
    assert wavs == {
        "v_train": "/voices/a.wav",
        "f_1": "/faces/a.wav",
        "m_1": "/more/a.wav",
        "m_2": "/more/a.wav",
    }
    assert splits["train"]["f_1"]["video"] == "/faces/f.flv"
    assert splits["train"]["f_1"]["emotion"] == "sad"


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_an_id_in_two_corpora_is_refused(run, split):
    clips = {"f_1": entry("1001"), f"v_{split}": entry("1002")}
    folder = run.other("faces", clips)
    line = run.refusal(ManifestError)
    assert line == (
        f"{folder / 'train.json'}: v_{split} is already a {split} clip of this "
        "run; ids must be unique over all corpora"
    )


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_speaker_that_scores_this_run_may_not_train_it(run, split):
    folder = run.other("faces", {"f_1": entry(f"S_{split}")})
    line = run.refusal(CorpusError)
    assert line.startswith(f"{folder / 'train.json'}: speaker S_{split} is in")
    assert "train" in line and split in line


def test_own_manifests_that_share_a_speaker_are_refused(run, caplog):
    path = run.folder / "run" / "test.json"
    write(path, {"v_test": entry("S_train")})
    line = run.refusal(CorpusError)
    assert "speaker S_train is in train and test" in line
    assert "nothing about new speakers" in line and "allow_overlap" in line
    with caplog.at_level("WARNING"):
        splits = read_splits(**run.settings, allow_overlap=True)
    assert set(splits["test"]) == {"v_test"}
    assert "speaker S_train is in train and test" in caplog.text


def test_manifests_that_no_recipe_made_train_too(run):
    """With classes of their own, and paths below their own folder."""
    folder = run.folder / "strangers"
    clips = {
        "s_1": entry("P1", "joyful"),
        "s_2": entry("P2", "bored"),
        "s_3": entry("P3", "angry"),
    }
    write(folder / "all.json", clips)
    run.settings["also_train"] = str(folder / "all.json")
    assert "'joyful'" in run.refusal(ManifestError)
    names = {"joyful": "happy", "bored": None}
    found = read_splits(**run.settings, label_map=names)["train"]
    said = {clip: item["emotion"] for clip, item in found.items()}
    assert said == {"v_train": "happy", "s_1": "happy", "s_3": "angry"}
    assert found["s_1"]["wav"] == f"{folder}/a.wav"
    # A map to what this run does not have.
    run.settings["label_map"] = {"joyful": "glad", "bored": None}
    assert "'glad'" in run.refusal(ManifestError)
