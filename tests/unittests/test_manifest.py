"""Tests of manifests, their checks, withholding, and the prepare report.

Authors
 * The vavl_sb authors 2026
"""

import json
import math
import os
import random
import types

import pytest
from hypothesis import (
    given,
    settings,
    strategies as st,
)
from speechbrain.dataio.dataio import load_data_json

from vavl_sb.dataio import inspection
from vavl_sb.dataio.manifest import (
    check_disjoint,
    check_entries,
    read_manifest,
    withhold,
    write_manifest,
)
from vavl_sb.dataio.preparation import (
    REPORT,
    digest_files,
    fingerprint,
    is_prepared,
    make_entries,
    read_speaker_lists,
    recorded_folder,
    save_splits,
)
from vavl_sb.dataio.prepare_report import PrepareReport
from vavl_sb.media import reader as media
from vavl_sb.utils.errors import CorpusError, ManifestError, MediaError

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
    kinds = (
        [{}] * both
        + [{"video": None}] * audio_only
        + [{"wav": None}] * visual_only
    )
    return {f"c{i:03}": entry(**kind) for i, kind in enumerate(kinds)}


def one_line(error):
    """The text of an error, checked to be one line."""
    text = str(error.value)
    assert text and "\n" not in text
    return text


# Reading and writing.


def test_written_sorted_whatever_the_order(tmp_path):
    entries = clips(20, 3, 2)
    order = list(entries)
    random.Random(1).shuffle(order)
    write_manifest(tmp_path / "a.json", entries)
    write_manifest(tmp_path / "b.json", {clip: entries[clip] for clip in order})
    text = (tmp_path / "a.json").read_bytes()
    assert text == (tmp_path / "b.json").read_bytes()
    assert list(json.loads(text)) == sorted(entries)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json"]


def test_speechbrain_reads_the_same(tmp_path):
    entries = clips(2, 1)
    write_manifest(tmp_path / "m.json", entries)
    theirs = load_data_json(tmp_path / "m.json", {"data_root": "/corpus"})
    ours = read_manifest(tmp_path / "m.json", LABELS, data_root="/corpus")
    assert ours == theirs
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


names = st.text(
    st.characters(blacklist_characters="{}", blacklist_categories=("Cs",)),
    min_size=1,
)
seconds = st.floats(min_value=1e-9, allow_infinity=False)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        names,
        st.builds(
            entry,
            wav=names,
            video=st.none() | names,
            duration=seconds,
            spk_id=names,
            emotion=st.sampled_from(LABELS),
        ),
    )
)
def test_round_trip(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("m") / "m.json"
    write_manifest(path, entries, LABELS, ["valence"])
    back = read_manifest(path, LABELS, ["valence"])
    assert back == entries and list(back) == sorted(entries)


# Checks.


@pytest.mark.parametrize(
    "fields, fault",
    [
        ({"wav": ...}, "wav: missing"),
        ({"video": ...}, "video: missing"),
        ({"wav": ""}, "wav: must be a path or null"),
        ({"video": 3}, "video: must be a path or null, not 3"),
        ({"video": ["a.flv"]}, "video: must be a path or null"),
        ({"wav": "{root}/a.wav"}, "wav: braces"),
        ({"wav": None, "video": None}, "wav, video: both null"),
        ({"duration": ...}, "duration: missing"),
        ({"duration": 0}, "duration: must be above 0"),
        ({"duration": -2.0}, "duration: must be above 0"),
        ({"duration": math.nan}, "duration: must be a finite number"),
        ({"duration": math.inf}, "duration: must be a finite number"),
        ({"duration": "1.5"}, "duration: must be a finite number, not '1.5'"),
        ({"duration": True}, "duration: must be a finite number, not True"),
        ({"duration": None}, "duration: must be a finite number"),
        ({"spk_id": ...}, "spk_id: missing"),
        ({"spk_id": 1001}, "spk_id: must be a name, not 1001"),
        ({"spk_id": ""}, "spk_id: must be a name"),
        ({"emotion": ...}, "emotion: missing"),
        ({"emotion": None}, "emotion: must be one of angry, happy, not None"),
        ({"emotion": "Angry"}, "emotion: must be one of"),
        ({"emotion": ["angry"]}, "emotion: must be one of"),
        ({"valence": ...}, "valence: missing"),
        ({"valence": "3.5"}, "valence: must be a finite number"),
        ({"valence": math.nan}, "valence: must be a finite number"),
        ({"withheld": "video"}, "withheld: must be audio or visual"),
    ],
)
def test_bad_field_is_named(fields, fault):
    entries = {"good": entry(), "bad": entry(**fields)}
    with pytest.raises(ManifestError) as error:
        check_entries(entries, "valid.json", LABELS, ["valence"])
    assert one_line(error).startswith("valid.json: bad: ")
    assert fault in one_line(error)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"wav": None},
        {"video": None},
        {"withheld": "audio", "wav": None},
        {"duration": 2},
        {"other": [1, 2]},
    ],
)
def test_good_entry_passes(fields):
    check_entries({"good": entry(**fields)}, "m.json", LABELS, ["valence"])


def test_labels_are_asked_for_by_task_only():
    check_entries({"c": entry(emotion=..., valence=...)}, "m.json")
    check_entries({"c": entry(emotion=...)}, "m.json", attributes=["valence"])


@pytest.mark.parametrize("bad", [None, 3, "text", []])
def test_entry_that_is_no_object(bad):
    with pytest.raises(ManifestError) as error:
        check_entries({"bad": bad}, "m.json")
    assert one_line(error).startswith("m.json: bad: entry")


@pytest.mark.parametrize(
    "text, part",
    [
        ("", "not a JSON file"),
        ('{"a": ', "not a JSON file"),
        ("[]", "not a JSON object"),
        (b"\xff\xfe\x00", "not a JSON file"),
        ('{"a1": {}, "b": {}, "a1": {}}', "a1 stands twice"),
        ('{"a1": {"wav": "x", "wav": "y"}}', "wav stands twice"),
        ('{"a1": {"duration": NaN}}', "a1: wav: missing"),
    ],
)
def test_broken_manifest(tmp_path, text, part):
    path = tmp_path / "m.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ManifestError) as error:
        read_manifest(path)
    assert one_line(error).startswith(str(path)) and part in one_line(error)


def test_missing_manifest(tmp_path):
    for path in (tmp_path / "no.json", tmp_path):
        with pytest.raises(ManifestError) as error:
            read_manifest(path)
        assert one_line(error).startswith(f"{path}: cannot be read")


def test_disjoint_splits_pass_and_others_do_not():
    train = {"a": entry(spk_id="1"), "b": entry(spk_id="2")}
    valid = {"c": entry(spk_id="3")}
    test = {"d": entry(spk_id="4")}
    check_disjoint(train, valid, test)
    check_disjoint(train, {}, test)
    with pytest.raises(CorpusError) as error:
        check_disjoint(train, valid, {**test, "e": entry(spk_id="2")})
    assert "speaker 2 is in train and test" in one_line(error)
    with pytest.raises(CorpusError) as error:
        check_disjoint(train, {"e": entry(spk_id="4")}, test)
    assert "speaker 4 is in valid and test" in one_line(error)
    with pytest.raises(CorpusError) as error:
        check_disjoint(train, {"a": entry(spk_id="9")}, test)
    assert "clip a is in train and valid" in one_line(error)
    both = {"e": entry(spk_id="1"), "f": entry(spk_id="2")}
    with pytest.raises(CorpusError) as error:
        check_disjoint(train, valid, both)
    assert "speaker 1 (and 1 more) is in train and test" in one_line(error)


# Withholding.


def counts(entries):
    """(without audio, without video)."""
    rows = entries.values()
    return (
        sum(row["wav"] is None for row in rows),
        sum(row["video"] is None for row in rows),
    )


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
        assert f"only {both} training clips have both" in one_line(error)
        return
    result = withhold(entries, *shares, seed)
    assert json.dumps(entries) == before and list(result) == list(entries)
    assert counts(result) == (audio + visual_only, visual + audio_only)
    check_entries(result, "m.json", LABELS, ["valence"])
    for clip, row in result.items():
        changed = {k for k in entry() if row[k] != entries[clip][k]}
        said = {"audio": {"wav"}, "visual": {"video"}, None: set()}
        assert changed == said[row.get("withheld")]
    # Neither the order of entries nor anything else but the seed counts.
    order = list(entries)
    random.Random(seed).shuffle(order)
    again = withhold({clip: entries[clip] for clip in order}, *shares, seed)
    assert again == result and list(again) == order


def test_withhold_depends_on_the_seed_and_is_spread():
    entries = clips(100)
    chosen = [
        {
            c
            for c, row in withhold(entries, 0.3, 0.2, seed).items()
            if row.get("withheld")
        }
        for seed in range(3)
    ]
    assert all(len(members) == 50 for members in chosen)
    assert chosen[0] != chosen[1] != chosen[2]
    # By chance alone the first half holds 25 of the 50; sd 2.5.
    assert 12 < sum(clip < "c050" for clip in chosen[0]) < 38


def test_a_larger_share_withholds_more_of_the_same():
    entries = clips(50, 5, 5)
    less, more = withhold(entries, 0.1, 0.2), withhold(entries, 0.3, 0.4)
    for clip, row in less.items():
        if "withheld" in row:
            assert more[clip]["withheld"] == row["withheld"]


def test_nothing_withheld_changes_nothing():
    entries = clips(5, 2)
    assert withhold(entries) == entries


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, math.nan, "0.5", None, True])
def test_withhold_refuses_a_bad_share(share):
    for arguments in ({"withhold_audio": share}, {"withhold_visual": share}):
        with pytest.raises(CorpusError) as error:
            withhold(clips(4), **arguments)
        assert one_line(error).startswith(
            f"{next(iter(arguments))}: must be in"
        )


# The report.


def test_report_counts_and_names(tmp_path):
    report = PrepareReport()
    report.leave_out("x1", "no majority", "5 of 10")
    report.leave_out("x2", "no majority", "4 of 10")
    report.leave_out("x3", "not on disk")
    report.lose_modality("c005", "no video file")
    report.note("c001", "twice in the table", "line 3")
    entries = withhold(clips(4, 2, 1), withhold_visual=0.2)
    report.keep("train", entries)
    assert report.kept["train"] == {
        "clips": 7,
        "speakers": 1,
        "audiovisual": 3,
        "audio_only": 3,
        "visual_only": 1,
        "withheld_audio": 0,
        "withheld_visual": 1,
        "hours": round(7 * 1.5 / 3600, 4),
    }
    assert report.reasons() == "2 no majority, 1 not on disk"
    assert report.reasons(lambda clip: clip == "x3") == "1 not on disk"
    assert report.reasons(lambda clip: False) == "nothing"
    lines = report.summary()
    assert len(lines) == 4 and not any("\n" in line for line in lines)
    assert lines[1] == "left out: 3 clips (2 no majority, 1 not on disk)"
    report.write(tmp_path / "prepare_report.json", seed=5)
    saved = json.loads((tmp_path / "prepare_report.json").read_text())
    assert saved["left_out"]["no majority"] == {
        "count": 2,
        "clips": {"x1": "5 of 10", "x2": "4 of 10"},
    }
    assert saved["one_modality"]["no video file"]["clips"] == {"c005": ""}
    assert saved["kept"] == report.kept and saved["seed"] == 5


# What a preparation depends on.


def test_fingerprint_follows_arguments_and_files(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"1")
    (tmp_path / "b.wav").write_bytes(b"1")
    files = ["a.wav", "b.wav"]
    marks = [fingerprint({"seed": 1}, tmp_path, files)]
    assert marks[0] == fingerprint({"seed": 1}, tmp_path, files[::-1])
    marks.append(fingerprint({"seed": 2}, tmp_path, files))
    marks.append(fingerprint({"seed": 1}, tmp_path, files[:1]))
    (tmp_path / "b.wav").write_bytes(b"22")
    marks.append(fingerprint({"seed": 1}, tmp_path, files))
    os.utime(tmp_path / "b.wav", (5, 5))
    marks.append(fingerprint({"seed": 1}, tmp_path, files))
    (tmp_path / "b.wav").unlink()
    marks.append(fingerprint({"seed": 1}, tmp_path, files))
    assert len(set(marks)) == len(marks)


def test_is_prepared(tmp_path):
    manifest, path = str(tmp_path / "m.json"), tmp_path / REPORT
    with pytest.raises(ManifestError) as error:
        recorded_folder(tmp_path)
    assert "prepare_only" in one_line(error)
    write_manifest(manifest, clips(1))
    assert not is_prepared(path, "mark", [manifest], "corpus")
    PrepareReport().write(
        path,
        fingerprint="mark",
        manifests=digest_files([manifest]),
        data_folder="corpus",
    )
    assert is_prepared(path, "mark", [manifest], "corpus")
    assert recorded_folder(tmp_path) == os.path.abspath("corpus")
    assert is_prepared(path, "mark", [manifest], "moved")
    assert recorded_folder(tmp_path) == os.path.abspath("moved")
    assert not is_prepared(path, "other", [manifest], "corpus")
    write_manifest(manifest, clips(2))
    assert not is_prepared(path, "mark", [manifest], "corpus")
    for broken in ("", "[]", "{}", "null"):
        path.write_text(broken)
        assert not is_prepared(path, "mark", [manifest], "corpus")


def test_speaker_lists(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"train": ["1001", 1002], "valid": [], "test": ["1003"]}')
    assert read_speaker_lists(path) == {
        "train": {"1001", "1002"},
        "valid": set(),
        "test": {"1003"},
    }


@pytest.mark.parametrize(
    "text, part",
    [
        ("{", "not a JSON file"),
        ("[1]", "must be"),
        ('{"train": ["1"], "test": ["2"]}', 'must be {"train"'),
        ('{"train": "1001", "valid": [], "test": []}', "train must be a list"),
        ('{"train": [1.5], "valid": [], "test": []}', "train must be a list"),
        ('{"train": [1], "valid": ["1"], "test": []}', "speaker 1 is in train"),
    ],
)
def test_bad_speaker_lists(tmp_path, text, part):
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(CorpusError) as error:
        read_speaker_lists(path)
    assert one_line(error).startswith(str(path)) and part in one_line(error)


# Media files into entries, with the look into them played by hand.


def info(**fields):
    """What media.probe returns of a sound clip, but for the fields given."""
    good = {
        "has_audio": True,
        "has_video": True,
        "audio_duration": 2.0,
        "video_duration": 2.5,
        "truncated": False,
    }
    return types.SimpleNamespace(**{**good, **fields})


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A folder of files whose probe is the name's value in a dict."""
    probes = {}

    def probe(path):
        found = probes[os.path.basename(path)]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(media, "probe", probe)

    def add(name, found, content=b"media"):
        (tmp_path / name).write_bytes(content)
        probes[name] = found

    return types.SimpleNamespace(folder=tmp_path, add=add)


@pytest.mark.parametrize(
    "found, content, fault",
    [
        (info(), b"", "audio file is empty"),
        (
            info(),
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "audio file is a Git LFS pointer",
        ),
        (MediaError("a.wav:\n bad"), b"x", "audio file is unreadable"),
        (info(has_audio=False), b"x", "audio file has no audio stream"),
        (info(audio_duration=0.0), b"x", "audio file has no length"),
        (info(audio_duration=None), b"x", "audio file has no length"),
        (info(audio_duration=math.nan), b"x", "audio file has no length"),
        (info(truncated=True), b"x", "audio file is truncated"),
    ],
)
def test_fault_of_a_file(corpus, found, content, fault):
    corpus.add("a.wav", found, content)
    path = str(corpus.folder / "a.wav")
    check = inspection.inspect_media(path, "audio")
    assert check.fault == fault and check.duration is None
    assert path in check.detail and "\n" not in check.detail


def test_missing_file_is_a_fault(tmp_path):
    check = inspection.inspect_media(str(tmp_path / "no.wav"), "audio")
    assert check.fault == "audio file is unreadable" and check.duration is None


def test_entries_from_media(corpus):
    corpus.add("a.wav", info(audio_duration=2.0))
    corpus.add("a.flv", info(video_duration=2.5))
    corpus.add("b.wav", info(audio_duration=4.0))
    corpus.add("b.flv", info(video_duration=2.5))
    corpus.add("c.wav", info(audio_duration=1.0))
    corpus.add("d.wav", info(audio_duration=1.25))
    corpus.add("d.flv", info(truncated=True))
    corpus.add("e.flv", info(video_duration=3.0, has_audio=False))
    corpus.add("f.wav", info(), b"")
    corpus.add("f.flv", info(has_video=False))
    corpus.add("g.wav", info(truncated=True))
    media_files = {
        "audio": {c: f"{c}.wav" for c in "abcdfg"},
        "video": {c: f"{c}.flv" for c in "abdef"},
    }
    fields = {clip: {"spk_id": clip, "emotion": "angry"} for clip in "abcdefg"}
    report = PrepareReport()
    entries = make_entries(fields, media_files, str(corpus.folder), report)
    assert {clip: row["duration"] for clip, row in entries.items()} == {
        "a": 2.5,
        "b": 4.0,
        "c": 1.0,
        "d": 1.25,
        "e": 3.0,
    }
    assert entries["a"] == {
        "wav": "{data_root}/a.wav",
        "video": "{data_root}/a.flv",
        "duration": 2.5,
        "spk_id": "a",
        "emotion": "angry",
    }
    assert entries["d"]["video"] is None and entries["e"]["wav"] is None
    assert {
        reason: set(group) for reason, group in report.one_modality.items()
    } == {
        "no video file": {"c"},
        "video file is truncated": {"d"},
        "no audio file": {"e"},
    }
    assert {
        reason: set(group) for reason, group in report.left_out.items()
    } == {
        "audio file is empty and video file has no video stream": {"f"},
        "audio file is truncated and no video file": {"g"},
    }
    assert (
        "f.wav"
        in report.left_out[
            "audio file is empty and video file has no video stream"
        ]["f"]
    )
    assert list(report.noted.values()) == [{"b": "4.00 s and 2.50 s"}]


@pytest.mark.parametrize("workers", [1, 7])
def test_inspect_all_keeps_the_order(corpus, workers):
    for i in range(30):
        corpus.add(f"{i}.wav", info(audio_duration=i + 1.0))
    files = [(str(corpus.folder / f"{i}.wav"), "audio") for i in range(30)]
    checks = inspection.inspect_all(files, workers)
    assert [check.duration for check in checks] == [i + 1.0 for i in range(30)]


def test_interrupted_preparation_is_not_taken_for_done(tmp_path, monkeypatch):
    splits = {
        "train": {"a": entry(spk_id="1")},
        "valid": {},
        "test": {"b": entry(spk_id="2")},
    }
    manifests = [str(tmp_path / f"{split}.json") for split in splits]
    path = str(tmp_path / "prepare_report.json")
    arguments = {"withhold_audio": 0.0, "withhold_visual": 0.0, "seed": 1}

    def save(mark):
        save_splits(
            splits,
            manifests,
            PrepareReport(),
            path,
            arguments,
            mark,
            "corpus",
            {},
        )

    save("old")
    assert is_prepared(path, "old", manifests, "corpus")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(PrepareReport, "keep", fail)
    splits["train"]["c"] = entry(spk_id="1")
    with pytest.raises(KeyboardInterrupt):
        save("new")
    assert not is_prepared(path, "old", manifests, "corpus")
    assert not is_prepared(path, "new", manifests, "corpus")


def test_shared_speaker_is_not_written(tmp_path):
    splits = {
        "train": {"a": entry(spk_id="1")},
        "valid": {},
        "test": {"b": entry(spk_id="1")},
    }
    manifests = [str(tmp_path / f"{split}.json") for split in splits]
    arguments = {"withhold_audio": 0.0, "withhold_visual": 0.0, "seed": 1}
    report = str(tmp_path / "report.json")
    with pytest.raises(CorpusError) as error:
        save_splits(
            splits,
            manifests,
            PrepareReport(),
            report,
            arguments,
            "mark",
            "corpus",
            {},
        )
    assert "speaker 1 is in train and test" in one_line(error)
    assert os.listdir(tmp_path) == []
