"""The synthetic corpus: repeatable, resumable, laid out as the real ones, and
saying with voice and face what it claims to say."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import FAST

from synthetic import generate
from synthetic.generate import LAYOUTS, generate_corpus
from synthetic.performance import EMOTIONS, rate
from vavl_sb.utils.errors import CorpusError

CREMAD = LAYOUTS["crema-d"]
MEDIA = (".wav", ".flv", ".avi", ".mp4")
FAST = {**FAST, "clips_per_speaker": 2}


def contents(folder):
    """Bytes of all files of a corpus but its record, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != generate.RECORD
    }


@pytest.fixture(scope="module", params=LAYOUTS)
def corpus(request, tmp_path_factory):
    """Two speakers of two clips."""
    folder = tmp_path_factory.mktemp(request.param)
    counts = generate_corpus(folder, request.param, 2, **FAST)
    assert counts == {
        "speakers": 2,
        "clips": 4,
        "audio": 4,
        "video": 4,
        "generated": 4,
    }
    return folder


@pytest.fixture(scope="module")
def all_clips():
    """Six clips of each actor, one an emotion, in CREMA-D's layout."""
    return [c for name in CREMAD.speakers for c in CREMAD.clips(name, 0)[:6]]


# --- files ---------------------------------------------------------------


def test_same_seed_same_bytes_for_part_of_the_speakers(corpus, tmp_path):
    layout, before = corpus.name[:-1], contents(corpus)
    second = LAYOUTS[layout].speakers[1]
    two = {**FAST, "num_workers": 2}
    generate_corpus(tmp_path / "same", layout, [second], **two)
    made = contents(tmp_path / "same")
    media = [name for name in made if name.endswith(MEDIA)]
    assert len(media) == 4
    assert all(made[name] == before[name] for name in media)
    generate_corpus(tmp_path / "other", layout, [second], seed=1, **FAST)
    other = contents(tmp_path / "other")
    assert all(other[name] != before[name] for name in media)


def test_a_stopped_run_goes_on(corpus, tmp_path):
    layout = corpus.name[:-1]
    generate_corpus(tmp_path, layout, 2, **FAST)
    whole = contents(tmp_path)
    assert whole == contents(corpus)
    kept, *_, lost = (name for name in whole if name.endswith(MEDIA))
    (tmp_path / kept).write_bytes(b"marked")  # Seen again if it is let alone.
    (tmp_path / lost).unlink()
    assert generate_corpus(tmp_path, layout, 2, **FAST)["generated"] == 1
    assert contents(tmp_path) == {**whole, kept: b"marked"}


def test_other_settings_and_foreign_folders_are_refused(corpus, tmp_path):
    before, layout = contents(corpus), corpus.name[:-1]
    with pytest.raises(CorpusError, match=r"other settings \(seed\)"):
        generate_corpus(corpus, layout, 2, seed=5, **FAST)
    assert contents(corpus) == before
    (tmp_path / "mine.txt").write_text("somebody's")
    with pytest.raises(CorpusError, match="other files"):
        generate_corpus(tmp_path, layout, 2, **FAST)
    assert list(contents(tmp_path)) == ["mine.txt"]


def test_missing_shares_are_exact_and_never_both(tmp_path):
    shares = {"missing_audio": 0.25, "missing_video": 0.5}
    counts = generate_corpus(tmp_path, "ravdess", 4, **shares, **FAST)
    assert (counts["clips"], counts["audio"], counts["video"]) == (8, 6, 4)
    codes = {}
    for name in contents(tmp_path):
        part, _, rest = Path(name).stem.partition("-")
        codes.setdefault(rest, []).append(part)
    kinds = sorted("".join(group) for group in codes.values())
    assert kinds == ["02"] * 2 + ["0203"] * 2 + ["03"] * 4


def test_command_line(tmp_path, capsys):
    words = "--layout ravdess --speakers 03,04 --clips-per-speaker 1"
    words += " --workers 1 --missing-video 1 --frame-rate 30000/1001"
    assert generate.main([str(tmp_path / "a"), *words.split()]) == 0
    assert "2 clips of 2 speakers" in capsys.readouterr().out
    assert sorted(contents(tmp_path / "a")) == [
        "Actor_03/03-01-01-01-01-01-03.wav",
        "Actor_04/03-01-01-01-01-01-04.wav",
    ]
    record = json.loads((tmp_path / "a" / generate.RECORD).read_text("utf-8"))
    assert record["frame_rate"] == "30000/1001"
    assert generate.main([str(tmp_path / "b"), "--speakers", "1000"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


# --- what is acted -------------------------------------------------------


def test_raters_agree_as_far_as_each_modality_goes(all_clips):
    agree, split = dict.fromkeys(("voice", "face", "both"), 0.0), 0
    for clip in all_clips:
        for kind, votes in rate(clip).items():
            counts = np.bincount(votes, minlength=6)
            acted = EMOTIONS.index(clip.emotion)
            agree[kind] += (counts[acted] == counts.max()) / len(all_clips)
            split += kind == "both" and 2 * counts.max() <= len(votes)
    assert 0.02 <= split / len(all_clips) <= 0.1  # No majority, no class.
    assert agree["both"] >= 0.93
    assert 0.65 <= agree["voice"] <= 0.9
    assert 0.65 <= agree["face"] <= 0.9
