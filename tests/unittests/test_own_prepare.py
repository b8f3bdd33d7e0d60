"""A corpus of one's own: a table and its files to manifests."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import soundfile
from prepared_corpus import RECIPES, all_entries, speakers
from small_clips import grays, sine, write

from vavl_sb.dataio.manifest import SPLITS
from vavl_sb.utils.errors import CorpusError


def load(path):
    """A script of a recipe as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


own_prepare = load(RECIPES / "own" / "own_prepare.py")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six speakers; of sam the sound and the picture are two files."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["file,speaker,emotion,arousal"]
    for speaker in ("ann", "bob", "cleo", "dan", "eve"):
        (folder / speaker).mkdir()
        for number, emotion in enumerate(("calm", "tense", "odd")):
            path = folder / speaker / f"{number}.wav"
            soundfile.write(path, sine(1, 16000), 16000)
            name = f"{speaker}/{number}.wav"
            lines.append(f"{name},{speaker},{emotion},{number + 1}.5")
    write(folder / "both.mp4", grays(np.arange(25) * 4), sine(1, 16000))
    write(folder / "two.mp4", grays(np.arange(25) * 4))
    shutil.copy(folder / "ann" / "0.wav", folder / "two.wav")
    for name in ("both.mp4", "two.mp4", "two.wav"):
        lines.append(f"{name},sam,calm,")
    lines.append("nowhere.wav,ann,calm,1")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def prepare(corpus, out, **more):
    """The manifests, by split, and the report."""
    paths = {f"save_json_{s}": str(out / f"{s}.json") for s in SPLITS}
    options = {"labels": ["calm", "tense"], **more}
    own_prepare.prepare_own(str(corpus), **paths, **options)
    found = {s: json.loads((out / f"{s}.json").read_text()) for s in SPLITS}
    return found, json.loads((out / "prepare_report.json").read_text())


def test_each_speaker_tests_once_and_trains_nowhere_beside(corpus, tmp_path):
    tested = []
    for partition in range(1, 6):
        out = tmp_path / str(partition)
        splits, _ = prepare(corpus, out, partition=partition)
        people = speakers(splits)
        assert all(people.values())
        assert len(set().union(*people.values())) == 6
        assert sum(map(len, people.values())) == 6
        tested += people["test"]
    assert sorted(tested) == ["ann", "bob", "cleo", "dan", "eve", "sam"]


def test_files_labels_and_what_is_left_out(corpus, tmp_path):
    splits, report = prepare(corpus, tmp_path)
    entries = all_entries(splits)
    assert len(entries) == 5 * 2 + 2
    assert entries["ann/1"]["emotion"] == "tense"
    assert entries["ann/1"]["wav"] == "{data_root}/ann/1.wav"
    assert entries["ann/1"]["video"] is None
    for clip, wav in (("both", "both.mp4"), ("two", "two.wav")):
        assert entries[clip]["wav"] == "{data_root}/" + wav
        assert entries[clip]["video"] == "{data_root}/" + f"{clip}.mp4"
    assert report["left_out"]["class is not in labels"]["count"] == 5
    (reason,) = (r for r in report["left_out"] if "unreadable" in r)
    assert list(report["left_out"][reason]["clips"]) == ["nowhere"]


def test_attributes_are_columns_of_the_table(corpus, tmp_path):
    task = {"task": "regression", "labels": ["arousal"]}
    splits, report = prepare(corpus, tmp_path, **task)
    entries = all_entries(splits)
    assert entries["bob/2"]["arousal"] == 3.5 and "two" not in entries
    assert report["left_out"]["no number for an attribute"]["count"] == 2


def test_features_go_to_the_clip_of_their_own_folder(corpus, tmp_path):
    folder = tmp_path / "features"
    own = ["ann/1", "bob/0", "cleo/0", "dan/0", "eve/0"]
    for name in (*own, "zoe/2", "deep/two", "1"):
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.ones((2, 3)))
    splits, report = prepare(corpus, tmp_path, audio_features=str(folder))
    entries = {**splits["train"], **splits["valid"], **splits["test"]}
    # All have a clip 0 and a clip 1; ann's 0 must not get that of another.
    with_sound = {k for k, e in entries.items() if e.get("audio_features")}
    assert with_sound == {*own, "two"}
    for clip in own:
        path = entries[clip]["audio_features"]
        assert path.endswith(f"features/{clip}.npy")
    told = {why: [*part["clips"]] for why, part in report["noted"].items()}
    (nobodys,) = (told[why] for why in told if "no clip of that name" in why)
    (several,) = (told[why] for why in told if "several clips of" in why)
    assert (nobodys, several) == (["zoe/2"], ["1"])


@pytest.mark.parametrize(
    "table, words",
    [
        (None, "labels.csv: no such file; write a table"),
        ("file,speaker\na.wav,ann\n", "no column emotion"),
        ("file,speaker,emotion\na.wav,,calm\n", "line 2: file and speaker"),
        ("file,speaker,emotion\na.wav,ann,calm\n", "1 speakers: .* three"),
        (
            "file,speaker,emotion\na.wav,ann,calm\na.mp4,ann,tense\n",
            "line 3: a appears twice",
        ),
    ],
)
def test_tables_that_cannot_be(table, words, tmp_path):
    if table is not None:
        (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(CorpusError, match=words):
        prepare(tmp_path, tmp_path / "out")
