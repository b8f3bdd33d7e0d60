"""The synthetic corpus in RAVDESS's layout: names, sexes, files, quirks.

Authors
 * The vavl_sb authors 2026
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vavl_sb.corpora import synthetic
from vavl_sb.corpora.acting import cast
from vavl_sb.corpora.ravdess import (
    ACTORS,
    actor_of,
    file_path,
    make_ravdess,
    ravdess_clips,
    talker_number,
)
from vavl_sb.media.reader import probe, read_audio
from vavl_sb.utils.errors import CorpusError

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "RAVDESS"
sys.path.insert(0, str(RECIPE))

from ravdess_prepare import parse_name  # noqa: E402

# Small and slow pictures: what is tested does not depend on their number.
FAST = {
    "clips_per_actor": 2,
    "num_workers": 1,
    "frame_rate": 5,
    "size": (160, 120),
    "progress": False,
}
ALL = ("01", "02", "03")


def contents(folder):
    """Bytes of all files of a corpus but its record, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != synthetic.RECORD
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two actors of two clips, three files each."""
    folder = tmp_path_factory.mktemp("ravdess")
    counts = make_ravdess(folder, actors=2, parts=ALL, **FAST)
    assert counts == {
        "actors": 2,
        "clips": 4,
        "audio": 4,
        "video": 4,
        "made": 4,
    }
    return folder


@pytest.mark.parametrize("seed", [0, 1, 77])
def test_odd_actors_are_men_and_no_two_are_one_person(seed):
    numbers = [talker_number(actor, seed) for actor in ACTORS]
    assert len(set(numbers)) == 24
    for actor, number in zip(ACTORS, numbers, strict=True):
        assert cast(seed, number).female == (actor % 2 == 0)
    pitch = [cast(seed, number).speaker.f0 for number in numbers]
    assert len(set(pitch)) == 24
    assert np.mean(pitch[1::2]) > 1.4 * np.mean(pitch[::2])


def test_the_recipe_reads_every_name_as_it_was_meant():
    seen = set()
    for actor in ACTORS:
        clips = ravdess_clips(actor, 22, seed=3)
        for clip in clips:
            assert actor_of(clip) == actor
            path = Path(file_path(clip, "03"))
            modality, id, fields = parse_name(path.stem)
            seen.add(id)
            assert modality == "03" and path.suffix == ".wav"
            assert path.parent.name == fields["spk_id"] == f"Actor_{actor:02d}"
            assert fields["emotion"] == clip.emotion and id.startswith("01-")
            strong = fields["intensity"] == "strong"
            assert strong == (clip.level == "HI")
            assert not (strong and fields["emotion"] == "neutral")
        # The first six are all emotions in one sentence.
        assert len({clip.emotion for clip in clips[:6]}) == 6
        assert len({clip.sentence for clip in clips[:6]}) == 1
    assert len(seen) == 24 * 22


@pytest.mark.real
def test_the_names_are_those_of_the_real_voices(real_data):
    folder = real_data / "ravdess_audio"
    real = {
        path.relative_to(folder).with_suffix(".wav").as_posix()
        for path in folder.rglob("*.flac")
    }
    made = {
        file_path(clip, "03")
        for actor in range(1, 21)
        for clip in ravdess_clips(actor, 22, seed=0)
    }
    assert made == real


def test_each_file_has_what_the_real_one_has(corpus):
    for wav in sorted(corpus.glob("*/03-*.wav")):
        sound = read_audio(wav).numpy()
        both, silent = (
            wav.with_name(f"{part}{wav.stem[2:]}.mp4") for part in ("01", "02")
        )
        assert np.array_equal(sound, soundfile.read(wav, dtype="float32")[0])
        assert sound.std() > 0.01
        for path in (both, silent):
            info = probe(path)
            assert info.has_video and info.has_audio and not info.truncated
            assert info.sample_rate == 48000
            assert info.video_duration == pytest.approx(
                len(sound) / 16000, abs=0.2
            )
        # As in the release, the track is there and says nothing.
        assert read_audio(silent) is None
        # The same words at the same time and as loud, but for the codec.
        heard = read_audio(both).numpy()
        size = 2**17
        cross = np.fft.irfft(
            np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sound, size)), size
        )
        shift = (int(np.argmax(cross)) + size // 2) % size - size // 2
        assert abs(shift) <= 32  # 2 ms
        assert heard.std() == pytest.approx(sound.std(), rel=0.05)


def test_the_same_seed_gives_the_same_bytes(corpus, tmp_path):
    make_ravdess(tmp_path / "one", actors=[2], parts=ALL, **FAST)
    made, before = contents(tmp_path / "one"), contents(corpus)
    assert len(made) == 6
    assert all(before[name] == made[name] for name in made)
    make_ravdess(tmp_path / "two", actors=[2], parts=["03"], seed=1, **FAST)
    made = contents(tmp_path / "two")
    assert len(made) == 2
    assert all(before[name] != made[name] for name in made)


def test_a_stopped_run_goes_on(corpus, tmp_path):
    make_ravdess(tmp_path, actors=1, parts=ALL, **FAST)
    whole = contents(tmp_path)
    lost = sorted(tmp_path.glob("Actor_01/0[12]-*"))[1:3]
    kept = tmp_path / "Actor_01" / "03-01-01-01-01-01-01.wav"
    kept.write_bytes(b"marked")  # seen again if it is left alone
    for path in lost:
        path.unlink()
    assert make_ravdess(tmp_path, actors=1, parts=ALL, **FAST)["made"] == 2
    after = contents(tmp_path)
    assert after.pop("Actor_01/03-01-01-01-01-01-01.wav") == b"marked"
    del whole["Actor_01/03-01-01-01-01-01-01.wav"]
    assert after == whole


def test_missing_shares_are_exact_and_never_both(tmp_path):
    counts = make_ravdess(
        tmp_path, actors=4, missing_audio=0.25, missing_video=0.5, **FAST
    )
    assert (counts["clips"], counts["audio"], counts["video"]) == (8, 6, 4)
    codes = {}
    for path in tmp_path.glob("*/*"):
        codes.setdefault(path.stem[3:], set()).add(path.stem[:2])
    kinds = sorted("".join(sorted(group)) for group in codes.values())
    assert kinds == ["02"] * 2 + ["0203"] * 2 + ["03"] * 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"actors": 25}, r"no such actors: \[25\]"),
        ({"actors": [0, 3]}, r"no such actors: \[0\]"),
        ({"actors": []}, "empty"),
        ({"actors": 0}, "empty"),
        ({"clips_per_actor": 23}, "1 to 22"),
        ({"seed": -1}, "negative"),
        ({"parts": []}, "some of 01, 02, 03"),
        ({"parts": ["04"]}, "some of 01, 02, 03"),
        ({"parts": ["03"], "missing_audio": 0.1}, "02- file"),
        ({"parts": ["01", "02"], "missing_video": 0.1}, "03- file"),
        ({"missing_audio": 0.6, "missing_video": 0.6}, "lack both"),
        ({"frame_rate": 0}, "frame_rate"),
    ],
)
def test_bad_arguments_are_told_in_one_line(tmp_path, arguments, text):
    with pytest.raises(CorpusError, match=text) as caught:
        make_ravdess(tmp_path / "new", **{**FAST, **arguments})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_other_settings_and_foreign_folders_are_refused(corpus, tmp_path):
    before = contents(corpus)
    with pytest.raises(CorpusError, match="other settings .*parts"):
        make_ravdess(corpus, actors=2, parts=["03"], **FAST)
    assert contents(corpus) == before
    (tmp_path / "Actor_24").mkdir()
    with pytest.raises(CorpusError, match="Actor_24, which was not made here"):
        make_ravdess(tmp_path, actors=1, **FAST)
    assert [path.name for path in tmp_path.iterdir()] == ["Actor_24"]


def test_a_failed_encoding_leaves_no_file(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr("vavl_sb.corpora.ravdess.render_frames", broken)
    with pytest.raises(CorpusError, match="No space left") as caught:
        make_ravdess(tmp_path, actors=1, parts=["01"], **FAST)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "Actor_01").iterdir()) == []


def test_command_line(tmp_path, capsys):
    words = "--layout ravdess --actors 3,4 --clips-per-actor 1 --workers 1"
    words += " --missing-video 1 --frame-rate 5"
    assert synthetic.main([str(tmp_path), *words.split()]) == 0
    assert "2 clips of 2 actors" in capsys.readouterr().out
    assert sorted(contents(tmp_path)) == [
        "Actor_03/03-01-01-01-01-01-03.wav",
        "Actor_04/03-01-01-01-01-01-04.wav",
    ]
    record = json.loads((tmp_path / synthetic.RECORD).read_text("utf-8"))
    assert (record["layout"], record["parts"]) == ("ravdess", ["02", "03"])
