"""Tests of manifests, their checks, withholding and speaker lists."""

import json
import math
import os
import random

import pytest
from hypothesis import (
    given,
    settings,
    strategies as st,
)
from speechbrain.dataio.dataio import load_data_json

from vavl_sb.dataio.manifest import (
    check_disjoint,
    check_entries,
    read_manifest,
    write_manifest,
)
from vavl_sb.dataio.preparation import read_partition, recorded_folder, withhold
from vavl_sb.utils.errors import CorpusError, ManifestError

LABELS = ("angry", "happy")


def entry(**fields):
    """A good entry, but for the fields given; `...` removes a field."""
    good = {
        "wav": "{data_root}/a.wav",
        "video": "{data_root}/a.flv",
        "duration": 1.5,
        "spk_id": "1001",
        "emotion": "angry",
        "valence": 3.5,
    }
    good.update(fields)
    return {key: value for key, value in good.items() if value is not ...}


def clips(both, audio_only=0, visual_only=0):
    """Entries of so many clips of each kind."""
    kinds = [{}] * both + [{"video": None}] * audio_only
    kinds += [{"wav": None}] * visual_only
    return {f"c{i:03}": entry(**kind) for i, kind in enumerate(kinds)}


def line(error):
    """The text of an error, checked to be one line."""
    text = error.value.text
    assert text and "\n" not in text
    return text


# Reading and writing.


def test_speechbrain_reads_the_same(tmp_path):
    write_manifest(tmp_path / "m.json", dict(reversed(clips(2, 1).items())))
    theirs = load_data_json(tmp_path / "m.json", {"data_root": "/corpus"})
    ours = read_manifest(tmp_path / "m.json", LABELS, data_root="/corpus")
    assert ours == theirs and list(theirs) == ["c000", "c001", "c002"]
    assert ours["c000"]["wav"] == "/corpus/a.wav"
    assert ours["c002"]["video"] is None


def test_bad_entries_leave_the_old_manifest(tmp_path):
    path = tmp_path / "m.json"
    write_manifest(path, clips(1))
    before = path.read_bytes()
    with pytest.raises(ManifestError):
        write_manifest(path, {"x": entry(duration=-1.0)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.json"]


# Checks.


@pytest.mark.parametrize(
    "fields, fault",
    [
        ({"wav": ...}, "wav: missing"),
        ({"video": 3}, "video: must be a path or null, not 3"),
        ({"wav": "{root}/a.wav"}, "wav: braces"),
        ({"wav": None, "video": None}, "wav, video: both null"),
        ({"visual_features": "a.npy"}, "video, visual_features: both given"),
        ({"duration": None}, "duration: must be a finite number, not None"),
        ({"duration": 0}, "duration: must be above 0"),
        ({"duration": math.nan}, "duration: must be a finite number"),
        ({"spk_id": 1001}, "spk_id: must be a name, not 1001"),
        ({"emotion": None}, "emotion: must be one of angry, happy, not None"),
        ({"valence": ...}, "valence: missing"),
    ],
)
def test_a_bad_field_is_named(fields, fault):
    entries = {"good": entry(wav=None, duration=2), "bad": entry(**fields)}
    with pytest.raises(ManifestError) as error:
        check_entries(entries, "valid.json", LABELS, ["valence"])
    assert line(error).startswith(f"valid.json: bad: {fault}")


def test_features_may_take_the_place_of_files(tmp_path):
    given = {"visual_features": "{data_root}/units.csv#a", "video": None}
    both = {**given, "wav": None, "audio_features": "/b.npy", "duration": None}
    entries = {"a": entry(**given), "b": entry(**both)}
    write_manifest(tmp_path / "m.json", entries, LABELS, ["valence"])
    found = read_manifest(tmp_path / "m.json", data_root="/corpus")
    assert found["a"]["visual_features"] == "/corpus/units.csv#a"
    assert found["b"]["audio_features"] == "/b.npy"
    # They are withheld as files are.
    taken = withhold({str(n): entry(**given) for n in range(4)}, 0.25, 0.5)
    kept = [(row["wav"], row["visual_features"]) for row in taken.values()]
    assert [sum(x is None for x in column) for column in zip(*kept)] == [1, 2]
    assert all(any(pair) for pair in kept)


@pytest.mark.parametrize(
    "text, part",
    [
        (None, "cannot be read"),
        ('{"a": ', "not a JSON file"),
        ("[]", "not a JSON object"),
        ('{"a1": {}, "b": {}, "a1": {}}', "a1 appears twice"),
        ('{"a1": {"wav": "x", "wav": "y"}}', "wav appears twice"),
    ],
)
def test_a_broken_manifest(tmp_path, text, part):
    path = tmp_path / "m.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ManifestError) as error:
        read_manifest(path)
    assert line(error).startswith(f"{path}: {part}")


def test_disjoint_splits_pass_and_others_do_not():
    train = {"a": entry(spk_id="1"), "b": entry(spk_id="2")}
    valid, test = {"c": entry(spk_id="3")}, {"d": entry(spk_id="4")}
    check_disjoint(train, valid, test)
    check_disjoint(train, {}, test)
    both = {"e": entry(spk_id="1"), "f": entry(spk_id="2")}
    for splits, words in (
        ((train, valid, {"e": entry(spk_id="2")}), "speaker 2 is in train and"),
        ((train, {"e": entry(spk_id="4")}, test), "4 is in valid and test"),
        ((train, {"a": entry(spk_id="9")}, test), "clip a is in train and"),
        ((train, valid, both), "speaker 1 (and 1 more) is in train and test"),
    ):
        with pytest.raises(CorpusError) as error:
            check_disjoint(*splits)
        assert words in line(error)


# Withholding.


def counts(entries):
    """(without audio, without video)."""
    rows = entries.values()
    return tuple(sum(row[f] is None for row in rows) for f in ("wav", "video"))


@settings(max_examples=80, deadline=None)
@given(
    both=st.integers(0, 40),
    audio_only=st.integers(0, 10),
    visual_only=st.integers(0, 10),
    shares=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
    seed=st.integers(),
)
def test_withhold(both, audio_only, visual_only, shares, seed):
    entries = clips(both, audio_only, visual_only)
    before = json.dumps(entries)
    audio = round(shares[0] * (both + audio_only))
    visual = round(shares[1] * (both + visual_only))
    if audio + visual > both:
        with pytest.raises(CorpusError) as error:
            withhold(entries, *shares, seed)
        assert f"only {both} training clips have both" in line(error)
        return
    result = withhold(entries, *shares, seed)
    assert json.dumps(entries) == before and list(result) == list(entries)
    assert counts(result) == (audio + visual_only, visual + audio_only)
    # No clip loses its last modality, and nothing else changes.
    check_entries(result, "m.json", LABELS, ["valence"])
    for clip, row in result.items():
        kept = {k: v for k, v in row.items() if v is not None}
        assert kept.items() <= entries[clip].items()
    # The order of entries does not count.
    order = list(entries)
    random.Random(seed).shuffle(order)
    assert withhold({c: entries[c] for c in order}, *shares, seed) == result


def test_withhold_depends_on_the_seed_and_a_larger_share_takes_more():
    entries = clips(100)

    def chosen(*arguments):
        found = withhold(entries, *arguments)
        return {(c, f) for c, row in found.items() for f in row if not row[f]}

    first, second = chosen(0.3, 0.2, 1), chosen(0.3, 0.2, 2)
    assert len(first) == len(second) == 50 and first != second
    # By chance alone the first half holds 25 of the 50; sd 3.5.
    assert 11 < sum(clip < "c050" for clip, _ in first) < 39
    assert chosen(0.1, 0.2, 1) < first < chosen(0.4, 0.2, 1)


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_withhold_refuses_a_bad_share(share):
    for name in ("withhold_audio", "withhold_visual"):
        with pytest.raises(CorpusError) as error:
            withhold(clips(4), **{name: share})
        assert line(error).startswith(f"{name}: must be in [0, 1)")


# Speaker lists, and where a corpus is.


@pytest.mark.parametrize(
    "text, part",
    [
        ("{", "must be a JSON file {"),
        ('{"train": ["1"], "test": ["2"]}', "must be a JSON file {"),
        ('{"train": "12", "valid": [], "test": []}', "must be a JSON file {"),
        ('{"train": [1], "valid": ["1"], "test": []}', "speaker 1 is in train"),
    ],
)
def test_bad_speaker_lists(tmp_path, text, part):
    path = tmp_path / "split.json"
    path.write_text('{"train": ["1", 2], "valid": [], "test": ["3"]}')
    lists = {"train": {"1", "2"}, "valid": set(), "test": {"3"}}
    assert read_partition(path, {}) == lists
    path.write_text(text)
    with pytest.raises(CorpusError) as error:
        read_partition(path, {})
    assert line(error).startswith(f"{path}: {part}")


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_folder_that_was_not_prepared(tmp_path, text):
    path = tmp_path / "prepare_report.json"
    path.write_text('{"data_folder": "/corpus"}')
    assert recorded_folder(tmp_path) == "/corpus"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ManifestError) as error:
        recorded_folder(tmp_path)
    assert line(error).startswith(f"{path}: cannot be used")
    assert "--prepare_only" in line(error)
