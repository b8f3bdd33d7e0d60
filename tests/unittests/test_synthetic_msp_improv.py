"""The synthetic MSP-IMPROV: files that players read, and its own names.

Authors
 * The vavl_sb authors 2026
"""

import csv
import json
from collections import Counter
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from vavl_sb.corpora import render, synthetic
from vavl_sb.corpora.acting import cast
from vavl_sb.corpora.msp_improv import (
    MAX_CLIPS,
    SPEAKERS,
    clip_files,
    clip_name,
    make_msp_improv,
    msp_improv_clips,
    speaker_number,
)
from vavl_sb.utils.errors import CorpusError

FAST = {
    "clips_per_actor": 2,
    "seed": 1,
    "num_workers": 1,
    "frame_rate": 5,
    "size": (160, 120),
    "progress": False,
}


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != synthetic.RECORD
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("msp_improv")
    counts = make_msp_improv(folder, actors=["M02", "F01"], **FAST)
    assert counts == {
        "actors": 2,
        "clips": 4,
        "audio": 4,
        "video": 4,
        "made": 4,
    }
    return folder


def test_layout_and_names(corpus):
    media = {path for path in contents(corpus) if path != "Evalution.txt"}
    assert media == {
        f"session{speaker[-1]}/{sentence}/{name.split('-')[4]}/{name}.{end}"
        for name, speaker, sentence in (
            ("MSP-IMPROV-S01A-F01-T-FM01", "F01", "S01A"),
            ("MSP-IMPROV-S01H-F01-S-FM01", "F01", "S01H"),
            ("MSP-IMPROV-S01A-M02-T-MF01", "M02", "S01A"),
            ("MSP-IMPROV-S01H-M02-S-FM01", "M02", "S01H"),
        )
        for end in ("wav", "avi")
    }
    clips = [
        clip for who in SPEAKERS for clip in msp_improv_clips(who, MAX_CLIPS, 0)
    ]
    assert len({clip_name(clip) for clip in clips}) == 12 * MAX_CLIPS
    assert len({file for clip in clips for file in clip_files(clip)}) == (
        2 * 12 * MAX_CLIPS
    )
    assert set(Counter(clip_name(c).split("-")[4] for c in clips)) == {*"PRST"}


@pytest.mark.parametrize("seed", range(4))
def test_speakers_have_their_sex_and_a_talker_each(seed):
    numbers = {who: speaker_number(who, seed) for who in SPEAKERS}
    assert len(set(numbers.values())) == 12
    for who, number in numbers.items():
        assert cast(seed, number).female == (who[0] == "F")


@pytest.mark.parametrize("rate", [Fraction(5), Fraction(30000, 1001)])
def test_avi_holds_the_frames_and_the_sound(tmp_path, rate):
    clip = msp_improv_clips("F01", 1, 0)[0]
    said = render.render_voice(clip)
    frames = list(render.render_frames(clip, said, rate, (160, 120)))
    path = tmp_path / "clip.avi"
    render.write_avi(path, frames, said.samples, rate, (160, 120))
    with av.open(str(path)) as file:
        decoded = list(file.decode(video=0))
    times = [float(frame.pts * frame.time_base) for frame in decoded]
    assert times == pytest.approx(np.arange(len(frames)) / float(rate))
    pictures = np.stack([f.to_ndarray(format="rgb24") for f in decoded])
    error = pictures.astype(float) - np.stack([np.asarray(f) for f in frames])
    assert np.sqrt(np.mean(error**2)) < 6  # 255 is all that can be
    with av.open(str(path)) as file:
        heard = np.concatenate(
            [frame.to_ndarray()[0] for frame in file.decode(audio=0)]
        )
    assert np.abs(heard / 32767 - said.samples).max() < 1e-4


def test_sound_of_wav_and_avi_is_the_same(corpus):
    wav = corpus / "session1/S01A/T/MSP-IMPROV-S01A-F01-T-FM01.wav"
    samples, rate = soundfile.read(wav)
    with av.open(str(wav.with_suffix(".avi"))) as file:
        assert file.streams.audio[0].rate == rate == 16000
        heard = np.concatenate(
            [frame.to_ndarray()[0] for frame in file.decode(audio=0)]
        )
    assert np.abs(heard / 32768 - samples).max() < 1e-4


def test_resumed_and_part_corpora_have_the_same_files(corpus, tmp_path):
    whole = contents(corpus)
    options = {**FAST, "actors": ["F01", "M02"], "missing_audio": 0.5}
    counts = make_msp_improv(tmp_path / "part", **options)
    assert (counts["audio"], counts["video"]) == (2, 4)
    part = contents(tmp_path / "part")
    assert all(whole[name] == data for name, data in part.items())
    gone = next(name for name in part if name.endswith(".avi"))
    (tmp_path / "part" / gone).unlink()
    assert make_msp_improv(tmp_path / "part", **options)["made"] == 1
    assert contents(tmp_path / "part") == part
    with pytest.raises(CorpusError, match=r"other settings \(seed\)"):
        make_msp_improv(tmp_path / "part", **{**options, "seed": 2})
    (tmp_path / "real" / "session3").mkdir(parents=True)
    with pytest.raises(CorpusError, match="already has session3"):
        make_msp_improv(tmp_path / "real", **options)


def test_raters_lines_belong_to_the_mean_above_them(corpus):
    text = (corpus / "Evalution.txt").read_text(encoding="utf-8")
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    assert len(blocks) == 4
    for clip, *raters in blocks:
        assert 5 <= len(raters) <= 8
        values = [
            [float(part.split(":")[1]) for part in line.split(";")[2:6]]
            for line in (clip, *raters)
        ]
        means = np.mean(values[1:], axis=0)
        rated = ~np.isnan(values[0])
        assert np.array(values[0])[rated] == pytest.approx(
            means[rated], abs=1e-6
        )
    first = next(csv.reader([blocks[0][0]], delimiter=";"))
    assert first[0] == "UTD-IMPROV-S01A-F01-T-FM01.avi"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"actors": 13}, "1 to 12"),
        ({"actors": ["F07"]}, "no such actors"),
        ({"actors": []}, "empty"),
        ({"clips_per_actor": 49}, "1 to 48"),
    ],
)
def test_bad_arguments_are_told_in_one_line(tmp_path, arguments, text):
    with pytest.raises(CorpusError, match=text) as caught:
        make_msp_improv(tmp_path / "new", **{**FAST, **arguments})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_command_line(tmp_path, capsys):
    words = "--layout msp-improv --actors F03 --clips-per-actor 1 --workers 1"
    folder = tmp_path / "made"
    words += " --frame-rate 5"
    assert synthetic.main([str(folder), *words.split()]) == 0
    assert "1 clips of 1 actors" in capsys.readouterr().out
    record = json.loads((folder / synthetic.RECORD).read_text())
    assert (record["layout"], record["actors"]) == ("msp-improv", ["F03"])
    assert synthetic.main([str(tmp_path / "x"), "--actors", "F03"]) == 1
    assert "no such actors: ['F03']" in capsys.readouterr().err
