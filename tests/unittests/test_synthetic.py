"""The synthetic corpus: repeatable, resumable, laid out as the real one, and
saying with voice and face what it claims to say.

Authors
 * The vavl_sb authors 2026
"""

import csv
import dataclasses
import json
import subprocess
import sys
import wave
from fractions import Fraction

import numpy as np
import pytest

from vavl_sb.corpora import render, synthetic
from vavl_sb.corpora.acting import EMOTIONS, Clip, cast, perform, rate
from vavl_sb.corpora.cremad import (
    ACTORS,
    LETTERS,
    clip_name,
    cremad_clips,
    tables,
)
from vavl_sb.corpora.drawn_face import FacePainter, still_track
from vavl_sb.corpora.drawn_features import FACE_AXES
from vavl_sb.corpora.look import Look, draw_look
from vavl_sb.corpora.motion import animate
from vavl_sb.corpora.phones import HOP, SAMPLE_RATE, SENTENCES
from vavl_sb.corpora.voice import VOICE_AXES, Speaker, speak
from vavl_sb.utils.errors import CorpusError

# Small and slow pictures: what is tested does not depend on their number.
FAST = {
    "clips_per_actor": 2,
    "num_workers": 1,
    "frame_rate": 5,
    "size": (160, 120),
    "progress": False,
}
TABLES = (
    "processedResults/tabulatedVotes.csv",
    "processedResults/summaryTable.csv",
    "VideoDemographics.csv",
    "SentenceFilenames.csv",
)


def contents(folder):
    """Bytes of all files of a corpus but its record, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != synthetic.RECORD
    }


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def read_wav(path):
    with wave.open(str(path)) as file:
        assert file.getnchannels() == 1 and file.getsampwidth() == 2
        assert file.getframerate() == SAMPLE_RATE
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three actors of two clips."""
    folder = tmp_path_factory.mktemp("synthetic")
    counts = synthetic.make_cremad(folder, actors=3, **FAST)
    assert counts == {
        "actors": 3,
        "clips": 6,
        "audio": 6,
        "video": 6,
        "made": 6,
    }
    return folder


# --- the same from the same seed -------------------------------------------


def test_same_seed_same_bytes_in_other_processes(corpus, tmp_path):
    two = {**FAST, "num_workers": 2}
    synthetic.make_cremad(tmp_path, actors=3, **two)
    assert contents(tmp_path) == contents(corpus)


def test_other_seed_other_content_of_every_media_file(corpus, tmp_path):
    synthetic.make_cremad(tmp_path, actors=[1002], seed=1, **FAST)
    made, before = contents(tmp_path), contents(corpus)
    media = [name for name in made if name.endswith((".wav", ".flv"))]
    assert len(media) == 4
    assert all(made[name] != before[name] for name in media)


def test_subset_of_actors_has_the_same_files(corpus, tmp_path):
    synthetic.make_cremad(tmp_path, actors=[1003], **FAST)
    made, before = contents(tmp_path), contents(corpus)
    media = {name for name in made if name.endswith((".wav", ".flv"))}
    assert {name[-15:-4] for name in media} == {"_DFA_ANG_XX", "_DFA_DIS_XX"}
    assert all(made[name] == before[name] for name in media)
    # The votes of a clip are the same too; its row number is not.
    votes = {
        row[7]: row[1:] for row in rows(corpus / TABLES[0]) if row[0] > "3"
    }
    for row in rows(tmp_path / TABLES[0]):
        if row[0] > "3":
            assert row[1:] == votes[row[7]]


def test_clips_of_an_actor_are_added_at_the_end():
    every = [clip_name(clip) for clip in cremad_clips(1050, 82, seed=0)]
    assert len(set(every)) == 82
    for count in (1, 6, 13, 71):
        few = cremad_clips(1050, count, seed=0)
        assert [clip_name(clip) for clip in few] == every[:count]
    # Six clips are one sentence in all emotions: words tell nothing.
    assert {name[5:8] for name in every[:6]} == {"DFA"}
    assert len({name[9:12] for name in every[:6]}) == 6


# --- going on after a stop ---------------------------------------------------


def test_resume_makes_only_what_is_missing(corpus, tmp_path):
    synthetic.make_cremad(tmp_path, actors=3, **FAST)
    whole = contents(tmp_path)
    kept = tmp_path / "AudioWAV" / "1001_DFA_ANG_XX.wav"
    kept.write_bytes(b"marked")  # seen again if it is left alone
    (tmp_path / "AudioWAV" / "1002_DFA_ANG_XX.wav").unlink()
    (tmp_path / "VideoFlash" / "1003_DFA_DIS_XX.flv").unlink()
    (tmp_path / TABLES[0]).unlink()
    part = tmp_path / "VideoFlash" / ".1003_DFA_DIS_XX.flv.part"
    part.write_bytes(b"half a file of a killed run")
    assert synthetic.make_cremad(tmp_path, actors=3, **FAST)["made"] == 2
    after = contents(tmp_path)
    assert after.pop("AudioWAV/1001_DFA_ANG_XX.wav") == b"marked"
    whole.pop("AudioWAV/1001_DFA_ANG_XX.wav")
    assert after == whole
    assert synthetic.make_cremad(tmp_path, actors=3, **FAST)["made"] == 0


def test_a_failed_write_leaves_neither_file_nor_part(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(render.wave.Wave_write, "writeframes", full_disk)
    with pytest.raises(CorpusError, match="No space left") as caught:
        synthetic.make_cremad(tmp_path, actors=1, **FAST)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "AudioWAV").iterdir()) == []
    assert not (tmp_path / TABLES[0]).exists()


def test_other_settings_and_foreign_folders_are_refused(corpus, tmp_path):
    before = contents(corpus)
    with pytest.raises(CorpusError, match="other settings .*seed"):
        synthetic.make_cremad(corpus, actors=3, seed=5, **FAST)
    foreign = tmp_path / "VideoDemographics.csv"
    foreign.write_text("somebody's", encoding="utf-8")
    with pytest.raises(CorpusError, match="not made here"):
        synthetic.make_cremad(tmp_path, actors=3, **FAST)
    assert contents(corpus) == before
    assert list(contents(tmp_path)) == ["VideoDemographics.csv"]


# --- files that are left out --------------------------------------------------


@pytest.mark.parametrize(
    ("audio", "video", "expected"),
    [(0.25, 0.25, (2, 2)), (0.5, 0.5, (4, 4)), (1.0, 0.0, (8, 0))],
)
def test_missing_shares_are_exact_and_never_both(audio, video, expected):
    clips = [c for a in ACTORS[:4] for c in cremad_clips(a, 2, seed=3)]
    deaf, blind = synthetic.choose_missing(clips, audio, video)
    assert (len(deaf), len(blind)) == expected
    assert not deaf & blind
    again = synthetic.choose_missing(clips[::-1], audio, video)
    assert again == (deaf, blind)
    if expected == (2, 2):
        other = [dataclasses.replace(clip, seed=4) for clip in clips]
        moved = {dataclasses.replace(clip, seed=4) for clip in deaf}
        assert synthetic.choose_missing(other, audio, video)[0] != moved


def test_missing_files_are_missing_and_still_have_votes(tmp_path):
    counts = synthetic.make_cremad(
        tmp_path, actors=3, missing_audio=1 / 3, missing_video=1 / 6, **FAST
    )
    assert (counts["audio"], counts["video"]) == (4, 5)
    wavs = {path.stem for path in (tmp_path / "AudioWAV").iterdir()}
    flvs = {path.stem for path in (tmp_path / "VideoFlash").iterdir()}
    assert (len(wavs), len(flvs)) == (4, 5)
    assert len(wavs | flvs) == 6
    assert {row[7] for row in rows(tmp_path / TABLES[0])[1:]} == wavs | flvs


# --- the layout --------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("name", TABLES)
def test_tables_have_the_real_ones_columns_and_forms(corpus, real_data, name):
    real = real_data / "crema_d_mini" / name
    ours, theirs = rows(corpus / name), rows(real)
    assert ours[0] == theirs[0]
    ours_raw = (corpus / name).read_bytes()
    theirs_raw = real.read_bytes()
    assert ours_raw.split(b"\n")[0] == theirs_raw.split(b"\n")[0]
    assert ours_raw.endswith(b"\n") == theirs_raw.endswith(b"\n")

    def forms(line):
        """Which cells are quoted, and the length of an id."""
        return [cell[:1] == '"' for cell in line.decode().split(",")]

    assert forms(ours_raw.split(b"\n")[1]) == forms(theirs_raw.split(b"\n")[1])
    if name == TABLES[0]:
        assert {len(row[0]) for row in theirs[1:]} == {6}
        assert {len(row[0]) for row in ours[1:]} == {6}


def test_vote_table_adds_up():
    clips = [clip for a in ACTORS for clip in cremad_clips(a, 6, seed=0)]
    made = tables(clips)
    table = list(csv.DictReader(made[TABLES[0]].splitlines()))
    summary = {
        row["FileName"]: row
        for row in csv.DictReader(made[TABLES[1]].splitlines())
    }
    ids = [row[""] for row in table]
    expected = [f"{d}{n:05d}" for d in (1, 2, 3) for n in range(1, 547)]
    assert ids == expected
    columns = {"1": "Voice", "2": "Face", "3": "MultiModal"}
    words = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad")
    for row in table:
        counts = [int(row[letter]) for letter in LETTERS]
        assert 8 <= sum(counts) == int(row["numResponses"]) <= 12
        most = max(counts)
        best = [
            letter
            for letter, count in zip(LETTERS, counts, strict=True)
            if count == most
        ]
        assert row["emoVote"] == ":".join(best)
        assert float(row["agreement"]) == pytest.approx(most / sum(counts))
        kind = columns[row[""][0]]
        assert summary[row["fileName"]][f"{kind}Vote"] == row["emoVote"]
        levels = summary[row["fileName"]][f"{kind}Level"].split(":")
        total = 0.0
        for letter, word, count in zip(LETTERS, words, counts, strict=True):
            mean = float(row[f"mean{word}Resp"])
            assert (mean == -1) == (count == 0)
            total += count * mean * (count > 0)
            if letter in best:
                assert float(levels[best.index(letter)]) == pytest.approx(
                    mean, abs=0.0051
                )
        assert total / sum(counts) == pytest.approx(float(row["meanEmoResp"]))


def test_raters_agree_as_far_as_each_modality_goes():
    agree = {"voice": 0, "face": 0, "both": 0}
    split = 0
    clips = [clip for a in ACTORS for clip in cremad_clips(a, 6, seed=0)]
    for clip in clips:
        for kind, votes in rate(clip).items():
            counts = np.bincount(votes, minlength=6)
            acted = EMOTIONS.index(clip.emotion)
            agree[kind] += counts[acted] == counts.max()
            if kind == "both":
                split += 2 * counts.max() <= len(votes)
    shares = {kind: count / len(clips) for kind, count in agree.items()}
    assert 0.05 <= split / len(clips) <= 0.08
    assert 0.93 <= shares["both"] < 0.99
    assert 0.65 <= shares["voice"] <= 0.9
    assert 0.65 <= shares["face"] <= 0.9


def test_neither_modality_says_all():
    """Nearest mean on what is acted: each modality some, both nearly all."""
    clips = [clip for a in ACTORS for clip in cremad_clips(a, 6, seed=0)]
    labels = np.array([EMOTIONS.index(clip.emotion) for clip in clips])
    actors = np.array([clip.actor for clip in clips])
    acted = [perform(clip) for clip in clips]
    shown = {
        "voice": np.stack([play.voice for play in acted]),
        "face": np.stack([play.face for play in acted]),
    }
    shown["both"] = np.concatenate(list(shown.values()), axis=1)
    right = {}
    train = actors % 3 > 0
    for kind, values in shown.items():
        means = np.stack(
            [values[train & (labels == k)].mean(0) for k in range(6)]
        )
        spread = (values - means[labels])[train].std(0)
        distance = (values[:, None] - means) / spread
        chosen = (distance**2).sum(-1).argmin(1)
        right[kind] = (chosen == labels)[~train].mean()
    assert 0.65 <= right["voice"] <= 0.92
    assert 0.65 <= right["face"] <= 0.92
    assert right["both"] >= 0.93


# --- the voice ---------------------------------------------------------------


def pitch_by_autocorrelation(samples, center, lowest, highest):
    """Pitch in Hz around a sample, from the peak of the autocorrelation."""
    window = samples[center - 480 : center + 480].astype(float)
    window = (window - window.mean()) * np.hanning(len(window))
    spectrum = np.abs(np.fft.rfft(window, 4096)) ** 2
    lags = np.fft.irfft(spectrum)
    # The taper's own autocorrelation makes far lags look weak.
    taper = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(960), 4096)) ** 2)
    lags = lags / taper.clip(1e-3 * taper[0])
    low, high = int(SAMPLE_RATE / highest), int(SAMPLE_RATE / lowest)
    best = low + int(np.argmax(lags[low : high + 1]))
    left, top, right = lags[best - 1 : best + 2]
    return SAMPLE_RATE / (
        best + 0.5 * (left - right) / (left - 2 * top + right)
    )


@pytest.mark.parametrize("f0", [100.0, 160.0, 230.0])
@pytest.mark.parametrize("sentence", ["IOM", "TSI"])
def test_pitch_is_what_was_intended(f0, sentence):
    speaker = Speaker(f0, f0 / 150 * 0.1 + 0.95, 0, 0, 0, 0, 2.5, -70)
    said = speak(sentence, speaker, {"pitch": 3.0}, np.random.default_rng(4))
    steady = np.flatnonzero(said.voiced > 0.9)
    assert len(steady) > 40
    errors = [
        pitch_by_autocorrelation(
            said.samples,
            frame * HOP + HOP // 2,
            0.7 * said.f0[frame],
            1.5 * said.f0[frame],
        )
        / said.f0[frame]
        - 1
        for frame in steady
        if 480 <= frame * HOP <= len(said.samples) - 480
    ]
    assert abs(np.median(errors)) < 0.01
    assert np.median(np.abs(errors)) < 0.03
    wanted = f0 * 2 ** (3 / 12)
    assert np.median(said.f0[steady]) == pytest.approx(wanted, rel=0.12)


def test_style_changes_what_it_names():
    """Level, tilt, breath, rate and spread, measured in the vowels' sound."""
    speaker = Speaker(150, 1.0, 0, 0, 0, 0, 2.5, -90)
    hertz = np.fft.rfftfreq(960, 1 / SAMPLE_RATE)

    def vowels(**style):
        said = speak("IWW", speaker, style, np.random.default_rng(1))
        starts = np.flatnonzero(said.voiced > 0.95) * HOP - 440
        parts = [said.samples[s : s + 960] * np.hanning(960) for s in starts]
        return (np.abs(np.fft.rfft(parts)) ** 2).mean(axis=0)

    def decibels(power, low=0, high=8000):
        return 10 * np.log10(power[(hertz >= low) & (hertz < high)].sum())

    def bright(power):
        return decibels(power, 1500, 3500) - decibels(power, 0, 1000)

    def airy(power):
        return decibels(power, 3500, 6000) - decibels(power, 0, 1000)

    def center(power):
        formants = (hertz > 400) & (hertz < 3500)
        return (hertz * power)[formants].sum() / power[formants].sum()

    plain = vowels()
    louder = decibels(vowels(level=6.0)) - decibels(plain)
    assert louder == pytest.approx(6.0, abs=0.1)
    # Without breath, whose noise would fill up what the folds leave.
    tilts = [bright(vowels(tilt=t, breath=-40.0)) for t in (-4.0, 0.0, 4.0)]
    assert np.diff(tilts).min() > 2.5
    assert airy(vowels(breath=12.0)) > airy(vowels(breath=-6.0)) + 6
    assert center(vowels(spread=0.15)) > 1.05 * center(plain)

    def seconds(rate):
        said = speak("IWW", speaker, {"rate": rate}, np.random.default_rng(1))
        return len(said.samples) / SAMPLE_RATE

    assert seconds(0.2) < 0.9 * seconds(0.0) < 0.85 * seconds(-0.2)


def test_every_sentence_lasts_one_to_two_seconds():
    for sentence in SENTENCES:
        for speed in (-0.6, 0.6):
            speaker = Speaker(150, 1.0, speed, 0, 0, 0, 2.5, -70)
            said = speak(sentence, speaker, {}, np.random.default_rng(0))
            assert 1.29 <= len(said.samples) / SAMPLE_RATE <= 2.21
            assert len(said.samples) == HOP * len(said.f0)
            assert np.isfinite(said.samples).all()
            assert 0.02 < np.abs(said.samples).max() <= 0.95


# --- the face ----------------------------------------------------------------


@pytest.fixture(scope="module")
def painter():
    """A plain talker: light skin and hair do not hide the mouth's colours."""
    look = draw_look(np.random.default_rng(0), female=False)
    look = dataclasses.replace(
        look, skin=(236, 190, 158), glasses=0.0, stubble=0.0, tilt=0.0
    )
    return FacePainter(look, np.random.default_rng(0))


def mouth_hole(image, look):
    """Pixels of the dark red between the lips."""
    x, y = (round(c) for c in look.centre)
    part = np.asarray(image).astype(int)[y + 20 : y + 110, x - 50 : x + 50]
    red, green, blue = part[..., 0], part[..., 1], part[..., 2]
    return int(((red < 95) & (green < 45) & (blue < 50) & (red > 30)).sum())


def test_mouth_opens_with_the_track(painter):
    holes = [
        mouth_hole(painter.paint(still_track(mouth=m), 0), painter.look)
        for m in (0.0, 0.3, 0.6, 1.0)
    ]
    assert holes == sorted(holes)
    assert holes[0] == 0 and holes[-1] > 100


@pytest.mark.parametrize("axis", FACE_AXES)
def test_every_axis_changes_the_face_and_only_the_face(painter, axis):
    calm = np.asarray(painter.paint(still_track(), 0)).astype(int)
    moved = painter.paint(still_track({axis: 1.0}), 0)
    change = np.abs(np.asarray(moved).astype(int) - calm).max(axis=2) > 20
    assert change.sum() > 40
    x, y = painter.look.centre
    rows_changed, columns = np.nonzero(change)
    assert (
        np.abs(columns - x).max() < 90 and np.abs(rows_changed - y).max() < 120
    )


def test_lips_follow_the_sound():
    """Hole between the lips, seen in the frames, against the sound's energy."""
    correlations = []
    for actor, emotion in ((1001, "neutral"), (1004, "angry"), (1010, "sad")):
        clip = Clip(actor, emotion, "IWW", "XX", seed=0)
        said = render.render_voice(clip)
        rate_ = 30
        times = (
            np.arange(round(len(said.samples) / SAMPLE_RATE * rate_)) / rate_
        )
        track = animate(clip, perform(clip), said, times)
        calm = dataclasses.replace(
            track, expression=0 * track.expression, turn=0 * track.turn
        )
        look = dataclasses.replace(
            cast(0, actor).look, skin=(236, 190, 158), stubble=0.0
        )
        painter = FacePainter(look, np.random.default_rng(0))
        holes = [
            mouth_hole(painter.paint(calm, i), look) for i in range(len(times))
        ]
        energy = [
            np.sqrt(np.mean(said.samples[max(0, c - 640) : c + 640] ** 2))
            for c in (times * SAMPLE_RATE).astype(int)
        ]
        correlations.append(np.corrcoef(holes, energy)[0, 1])
        late = np.corrcoef(np.roll(holes, 8), energy)[0, 1]
        assert correlations[-1] > late + 0.2
    assert min(correlations) > 0.5


@pytest.mark.slow
def test_face_detector_finds_the_faces():
    facenet = pytest.importorskip("facenet_pytorch")
    detector = facenet.MTCNN(keep_all=False, min_face_size=60)
    rng = np.random.default_rng(2)
    frames, places = [], []
    for number, actor in enumerate(ACTORS[5::6]):
        clip = Clip(actor, EMOTIONS[number % 6], "DFA", "XX", seed=0)
        said = render.render_voice(clip)
        times = rng.uniform(0, 1.3, 2)
        track = animate(clip, perform(clip), said, np.sort(times))
        look = cast(0, actor).look
        painter = FacePainter(look, rng)
        for index in range(2):
            frames.append(painter.paint(track, index))
            places.append(look.centre)
    boxes, _ = detector.detect(frames)
    found = 0
    for box, (x, y) in zip(boxes, places, strict=True):
        if box is not None:
            left, top, right, bottom = box[0]
            found += left < x < right and top < y < bottom
    assert found >= 0.95 * len(frames)


def test_talkers_differ():
    looks = [cast(0, actor).look for actor in ACTORS]
    for field in dataclasses.fields(Look):
        values = {getattr(look, field.name) for look in looks}
        least = 2 if field.name == "glasses" else 4
        assert len(values) >= least, field.name
    voices = [cast(0, actor).speaker.f0 for actor in ACTORS]
    assert max(voices) > 1.8 * min(voices)
    women = sum(cast(0, actor).female for actor in ACTORS)
    assert 25 <= women <= 66


# --- the media files ----------------------------------------------------------


def test_wav_and_flv_last_as_long_and_begin_together(tmp_path):
    av = pytest.importorskip("av")
    clip = Clip(1001, "happy", "DFA", "XX", seed=0)
    said = render.render_voice(clip)
    render.write_wav(tmp_path / "a.wav", said.samples)
    frames = render.render_frames(clip, said, 15, (160, 120))
    render.write_flv(tmp_path / "a.flv", frames, said.samples, 15, (160, 120))
    wav = read_wav(tmp_path / "a.wav")
    assert np.abs(wav - said.samples).max() < 5e-5  # 16 bits
    seconds = len(wav) / SAMPLE_RATE
    with av.open(str(tmp_path / "a.flv")) as file:
        assert file.streams.video[0].codec_context.name == "h264"
        times = [frame.time for frame in file.decode(video=0)]
    with av.open(str(tmp_path / "a.flv")) as file:
        assert file.streams.audio[0].codec_context.name.startswith("mp3")
        to_wav = av.AudioResampler("fltp", "mono", SAMPLE_RATE)
        chunks = [
            part.to_ndarray()[0]
            for frame in file.decode(audio=0)
            for part in to_wav.resample(frame)
        ]
    sound = np.concatenate(chunks)
    assert len(times) == round(seconds * 15)
    assert np.diff(times) == pytest.approx(1 / 15, abs=0.0011)
    assert len(sound) / SAMPLE_RATE == pytest.approx(seconds, abs=0.12)
    # The coder delays the sound; the picture must wait for it.
    size = 2 ** int(np.ceil(np.log2(len(sound) + len(wav))))
    cross = np.fft.irfft(
        np.fft.rfft(sound, size) * np.conj(np.fft.rfft(wav, size)), size
    )
    delay = int(np.argmax(cross[:4000])) / SAMPLE_RATE
    assert cross.max() == cross[:4000].max()
    assert times[0] == pytest.approx(delay, abs=0.002)
    assert times[0] == pytest.approx(0.027, abs=0.005)  # as in CREMA-D


def test_frame_rate_of_the_real_corpus(tmp_path):
    av = pytest.importorskip("av")
    clip = Clip(1002, "sad", "DFA", "XX", seed=0)
    said = render.render_voice(clip)
    said = dataclasses.replace(
        said, **{k: getattr(said, k)[:80] for k in ("f0", "voiced", "jaw")},
        rounding=said.rounding[:80], samples=said.samples[: 80 * HOP],
    )  # fmt: skip
    rate_ = Fraction(30000, 1001)
    frames = render.render_frames(clip, said, rate_, (160, 120))
    render.write_flv(
        tmp_path / "a.flv", frames, said.samples, rate_, (160, 120)
    )
    with av.open(str(tmp_path / "a.flv")) as file:
        times = [frame.time for frame in file.decode(video=0)]
    assert len(times) == round(0.4 * rate_)
    assert np.diff(times) == pytest.approx(1001 / 30000, abs=0.0011)


# --- command line and bad arguments --------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"actors": 92}, "1 to 91"),
        ({"actors": [999]}, "no such actors"),
        ({"actors": []}, "empty"),
        ({"clips_per_actor": 0}, "1 to 82"),
        ({"clips_per_actor": 83}, "1 to 82"),
        ({"seed": -1}, "negative"),
        ({"missing_audio": 1.5}, "from 0 to 1"),
        ({"missing_audio": 0.6, "missing_video": 0.6}, "lack both"),
        ({"frame_rate": 0}, "frame_rate"),
        ({"size": (480, 361)}, "4:3"),
    ],
)
def test_bad_arguments_are_told_in_one_line(tmp_path, arguments, text):
    with pytest.raises(CorpusError, match=text) as caught:
        synthetic.make_cremad(tmp_path / "new", **{**FAST, **arguments})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_command_line(tmp_path, capsys, monkeypatch):
    asked = {}

    def layout(folder, **arguments):
        asked.update(arguments, folder=folder)
        return {"actors": 2, "clips": 8, "audio": 7, "video": 6, "made": 8}

    monkeypatch.setitem(synthetic.LAYOUTS, "crema-d", layout)
    words = "--actors 1001,1005 --clips-per-actor 4 --seed 3 --workers 1"
    words += " --missing-audio 0.1 --missing-video 0.2 --frame-rate 30000/1001"
    assert synthetic.main([str(tmp_path), *words.split()]) == 0
    assert asked == {
        "folder": str(tmp_path),
        "actors": [1001, 1005],
        "clips_per_actor": 4,
        "seed": 3,
        "missing_audio": 0.1,
        "missing_video": 0.2,
        "num_workers": 1,
        "frame_rate": Fraction(30000, 1001),
    }
    assert "8 clips of 2 actors" in capsys.readouterr().out
    synthetic.main([str(tmp_path), "--actors", "12"])
    assert asked["actors"] == 12
    synthetic.main([str(tmp_path), "--actors", "1001"])
    assert asked["actors"] == [1001]


def test_command_line_errors(tmp_path, capsys):
    assert synthetic.main([str(tmp_path / "x"), "--actors", "1000"]) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "no such actors" in errors[0]
    blocked = tmp_path / "file"
    blocked.write_text("x", encoding="utf-8")
    assert synthetic.main([str(blocked), "--actors", "1"]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    for words in (["--layout", "nowhere"], ["--actors", "many"]):
        with pytest.raises(SystemExit) as caught:
            synthetic.main([str(tmp_path / "x"), *words])
        assert caught.value.code == 2


def test_record_tells_how_the_corpus_was_made(corpus):
    record = json.loads((corpus / synthetic.RECORD).read_text("utf-8"))
    assert record["actors"] == [1001, 1002, 1003]
    assert record["generator"] == synthetic.GENERATOR
    assert len(VOICE_AXES) == len(perform(cremad_clips(1001, 1, 0)[0]).voice)


def test_a_script_without_a_guard_ends_with_one_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from vavl_sb.corpora.synthetic import make_cremad\n"
        "from vavl_sb.utils.errors import exit_on_error\n"
        "with exit_on_error():\n"
        f"    make_cremad({str(tmp_path / 'corpus')!r}, actors=[1001, 1002],"
        " clips_per_actor=1, num_workers=2, progress=False)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120
    )
    # Its children start the script anew, and end; it must not replace them.
    assert done.returncode == 1
    assert "__main__" in done.stderr.splitlines()[-1]
