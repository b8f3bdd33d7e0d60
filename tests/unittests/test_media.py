"""Decoding against media written here with known pictures, times and tones."""

import logging
from fractions import Fraction

import numpy as np
import pytest
import soundfile
import torch
from small_clips import CONTAINERS, FPS, TONE, break_picture, grays, sine, write

from vavl_sb.media.reader import (
    AudioChunk,
    decode,
    is_silent,
    probe,
    read_audio,
)
from vavl_sb.utils.errors import MediaError

av = pytest.importorskip("av")


def collect(path, **options):
    """(samples, start of sound, frames, times) of everything decoded."""
    sound, frames = [], []
    for item in decode(path, **options):
        (sound if isinstance(item, AudioChunk) else frames).append(item)
    samples = [c.samples for c in sound] or [np.zeros(0, np.float32)]
    return (
        np.concatenate(samples),
        sound[0].start if sound else None,
        [frame for batch in frames for frame in batch.frames],
        np.concatenate([b.times for b in frames] or [np.zeros(0)]),
    )


def correlate(a, b):
    """Lag of a behind b (samples) and the correlation there."""
    size = len(a) + len(b)
    spectrum = np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size))
    curve = np.fft.irfft(spectrum, size)
    lag = int(np.argmax(curve))
    value = curve[lag] / (np.linalg.norm(a) * np.linalg.norm(b))
    return (lag if lag < size // 2 else lag - size), float(value)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """3 s in each container: a ramp of grays, and 440 Hz."""
    folder = tmp_path_factory.mktemp("clips")
    levels = np.linspace(20, 230, 3 * FPS).round()
    for name, (video, audio, rate, options) in CONTAINERS.items():
        write(
            folder / name,
            grays(levels),
            sine(3, rate),
            codecs=(video, audio),
            rate=rate,
            options=options,
        )
    return folder, levels


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_pictures_times_and_tone(clips, name):
    folder, levels = clips
    info = probe(folder / name)
    assert info.has_audio and info.has_video and not info.truncated
    for seconds in (info.duration, info.audio_duration, info.video_duration):
        assert seconds == pytest.approx(3.0, abs=0.09)

    samples, start, frames, times = collect(folder / name)

    assert len(frames) == len(levels)
    assert all(f.dtype == np.uint8 and f.shape == (48, 64, 3) for f in frames)
    shown = np.array([f.mean(axis=(0, 1)) for f in frames])
    assert np.abs(shown - levels[:, None]).max() < 6
    # One step of a container's clock is 1 ms; avi repeats its first frame.
    steps = np.diff(times)
    assert np.median(steps) == pytest.approx(1 / FPS, abs=1e-3)
    assert np.allclose(times - times[0], np.arange(75) / FPS, atol=0.041)
    assert -1e-6 <= times[0] < 0.1 and abs(start) < 0.1

    assert samples.dtype == np.float32
    assert len(samples) / 16000 == pytest.approx(3.0, abs=0.06)
    middle = samples[4000:-4000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    peak = np.argmax(spectrum) * 16000 / len(middle)
    assert peak == pytest.approx(TONE, abs=0.5)
    # LAME writes about 5 % less than it is given.
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(
        0.3 / np.sqrt(2), rel=0.06 if "mp3" in CONTAINERS[name][1] else 0.03
    )


@pytest.mark.parametrize(
    "name, offset",
    [("clip.mp4", 0.0), ("clip.mkv", 5.0), ("clip.flv", 0.0), ("clip.ts", 5.0)],
)
def test_a_flash_and_a_beep_stay_together(tmp_path, name, offset):
    """Whatever the container adds at the start, and wherever it starts."""
    video, audio, rate, _ = CONTAINERS[name]
    levels = np.full(50, 30)
    levels[30:] = 220  # the flash, at 1.2 s
    sound = sine(2, rate, frequency=1000)
    sound[: int(1.2 * rate)] = 0  # the beep, at 1.2 s
    path = write(
        tmp_path / name,
        grays(levels),
        sound,
        codecs=(video, audio),
        rate=rate,
        offset=offset,
    )

    samples, start, frames, times = collect(path)

    flash = times[np.argmax([frame.mean() > 125 for frame in frames])]
    beep = start + np.argmax(np.abs(samples) > 0.15) / 16000
    assert abs(flash - beep) < 0.025
    assert flash == pytest.approx(1.2, abs=0.1)  # from the start, not from 5 s


@pytest.mark.parametrize("rate, channels", [(8000, 1), (11025, 6), (48000, 2)])
def test_resampling_and_downmix_match_the_closed_form(tmp_path, rate, channels):
    """The mean of channels that hold 1, 2, 3... tenths of one sine."""
    weights = np.arange(1, channels + 1) / 10
    sound = sine(1.5, rate, level=1.0)[:, None] * weights
    path = tmp_path / "tone.wav"
    soundfile.write(path, sound, rate, subtype="FLOAT")

    samples = read_audio(path).numpy()

    assert abs(len(samples) - 24000) <= 1
    truth = weights.mean() * sine(1.5, 16000, level=1.0)[: len(samples)]
    assert np.abs(samples - truth)[800:-800].max() < 1e-4


def test_sound_at_16_khz_is_passed_on_unchanged(tmp_path):
    sound = np.random.default_rng(0).integers(-9000, 9000, 40001)
    path = tmp_path / "noise.wav"
    soundfile.write(path, sound.astype(np.int16), 16000)

    samples = read_audio(path)

    assert isinstance(samples, torch.Tensor) and samples.dtype == torch.float32
    assert np.array_equal(samples.numpy() * 32768, sound)


def test_a_gap_in_the_sound_shows_in_the_starts(tmp_path, caplog):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=16000, layout="mono")
        for index in range(20):
            pcm = np.full((1, 1600), index * 100 + 100, np.int16)
            frame = av.AudioFrame.from_ndarray(pcm, "s16", "mono")
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = index * 1600 + (40000 if index >= 13 else 0)
            for packet in stream.encode(frame):
                out.mux(packet)
    with caplog.at_level(logging.WARNING):
        chunks = list(decode(path))
    assert [(c.start, len(c.samples)) for c in chunks] == [
        (0.0, 16000),
        (pytest.approx(1.0), 4800),
        (pytest.approx(3.8), 11200),
    ]
    assert chunks[2].samples[0] == pytest.approx(1400 / 32768)
    assert "2.50 s of sound are missing at 1.30 s" in caplog.text


@pytest.mark.parametrize("rate", [None, 10.0])
def test_frames_are_picked_by_time_at_a_variable_rate(tmp_path, rate):
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.005, 0.3, 40)).round(3)
    levels = np.arange(40) * 6
    path = tmp_path / "vfr.mkv"
    write(path, grays(levels), times=times, codecs=("ffv1", None), fps=30)
    # Independent of the picker: group the times by interval, take each first.
    groups = {}
    for index, time in enumerate(times):
        key = index if rate is None else int((time - times[0]) * rate + 0.1)
        groups.setdefault(key, index)
    wanted = sorted(groups.values())

    _, _, frames, found = collect(path, frame_rate=rate)

    assert [int(f[0, 0, 0]) for f in frames] == levels[wanted].tolist()
    assert found == pytest.approx(times[wanted] - times[0], abs=1.1e-3)
    # At the file's own rate none is lost, though 1/30 s is stored as 33 ms.
    write(path, grays(range(90)), codecs=("ffv1", None), fps=30)
    assert len(collect(path, frame_rate=30)[2]) == 90


@pytest.mark.parametrize("turn, flip", [(90, 0), (180, 0), (-90, 0), (90, 1)])
def test_the_display_matrix_makes_frames_upright(tmp_path, turn, flip):
    image = np.zeros((96, 128, 3), np.uint8)  # four quadrants of four colours
    image[:48, :64], image[:48, 64:] = (200, 40, 40), (40, 200, 40)
    image[48:, :64], image[48:, 64:] = (40, 40, 200), (220, 220, 220)
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a display matrix")
    path = write(
        tmp_path / "turned.mp4",
        [image] * 5,
        setup=lambda s: s.set_display_rotation(turn, hflip=bool(flip)),
    )

    _, _, frames, _ = collect(path)

    truth = np.rot90(image, turn // 90)  # counter-clockwise, then mirrored
    truth = truth[:, ::-1] if flip else truth
    assert frames[0].shape == truth.shape
    height, width = truth.shape[:2]
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            difference = frames[0][y, x].astype(int) - truth[y, x]
            assert np.abs(difference).max() < 20


def test_pixels_are_made_square(tmp_path):
    """As in the HDV recordings of MSP-IMPROV: 1440x1080 shown as 16:9."""

    def anamorphic(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    image = np.full((108, 144, 3), 90, np.uint8)
    image[:, 72:] = 200
    path = write(tmp_path / "hdv.mp4", [image] * 3, setup=anamorphic)
    _, _, frames, _ = collect(path)
    assert frames[0].shape == (108, 192, 3)
    assert frames[0][50, 90].mean() < 110 and frames[0][50, 102].mean() > 180


def test_a_change_of_size_starts_a_new_batch(tmp_path):
    """Two transport streams one after the other are one."""
    parts = []
    for index, (height, width) in enumerate([(48, 64), (96, 128)]):
        images = grays([60 + 100 * index] * 10, height, width)
        path = write(tmp_path / f"{index}.ts", images, offset=index * 0.4)
        parts.append(path.read_bytes())
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(parts))
    batches = list(decode(both))
    assert [b.frames.shape for b in batches] == [
        (10, 48, 64, 3),
        (10, 96, 128, 3),
    ]
    assert np.all(np.diff(np.concatenate([b.times for b in batches])) >= 0)


def cut(path, share=0.6):
    data = path.read_bytes()
    short = path.with_name(f"cut_{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


def sounds(folder):
    """The sound files whose header states a duration, 3 s each."""
    for name, codec in (("a.wav", "pcm_s16le"), ("a.flac", "flac")):
        write(folder / name, sound=sine(3, 16000), codecs=(None, codec))
    return folder


@pytest.mark.parametrize(
    "name",
    [*("clip.mp4", "clip.mkv", "clip.flv", "pcm.avi"), *("a.wav", "a.flac")],
)
def test_a_file_that_was_cut_off_is_told(clips, name, tmp_path):
    folder = clips[0] if name in CONTAINERS else sounds(tmp_path)
    assert not probe(folder / name).truncated
    collect(folder / name)
    path = cut(folder / name)

    info = probe(path)
    assert info.truncated and info.duration < 2.7
    with pytest.raises(MediaError, match="damaged or cut off") as error:
        collect(path)
    assert str(path) in str(error.value)


@pytest.fixture
def broken_frames(tmp_path):
    """Makes a mov of 25 png frames, some of which hold garbage."""

    def make(bad):
        whole = tmp_path / "whole.mov"
        write(whole, grays(np.arange(25) * 9), codecs=("png", None))
        return break_picture(whole, tmp_path / "bad.mov", bad)

    return make


@pytest.mark.parametrize(
    "bad, words, given",
    [
        # A broken packet at either end is no fault.
        ({24}, None, 24),
        ({0, 1}, None, 23),
        # What is good is given all the same.
        ({12, 13, 20}, r"fails at 0.48 s .*, 3 of 25 packets", 22),
        (set(range(25)), "nothing of its video", 0),
    ],
)
def test_much_damage_is_told_but_none_at_an_end(
    broken_frames, bad, words, given
):
    path = broken_frames(bad)
    found = []

    def read():
        for batch in decode(path, batch_frames=4):
            found.extend(batch.times)

    if words is None:
        read()
    else:
        with pytest.raises(MediaError, match=words) as error:
            read()
        assert str(path) in str(error.value)
    assert len(found) == given


@pytest.mark.parametrize("bad", [{12}, {6, 18}])
def test_little_damage_in_the_middle_is_one_warning(broken_frames, caplog, bad):
    path = broken_frames(bad)
    stream = decode(path)
    levels = [frame[0, 0, 0] for batch in stream for frame in batch.frames]
    assert levels == [9 * i for i in range(25) if i not in bad]
    (line,) = stream.info.left_out
    assert f"fails at {min(bad) / 25:.2f} s" in line
    assert f"{len(bad)} of 25 packets" in line
    assert [str(path) in m and line in m for m in caplog.messages] == [True]


def test_damage_that_ffmpeg_mends_is_one_warning(tmp_path, caplog, capfd):
    whole, damaged = tmp_path / "whole.avi", tmp_path / "damaged.avi"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (10, 128, 128, 3), dtype=np.uint8)
    write(whole, images, codecs=("mjpeg", None), fps=10)
    data = bytearray(whole.read_bytes())
    # A few bytes within a picture: the decoder goes on, with other pixels.
    for at in range(7 * len(data) // 10, 7 * len(data) // 10 + 8):
        data[at] ^= 0xFF
    damaged.write_bytes(data)
    expected, found = collect(whole)[2], collect(damaged)[2]
    assert len(found) == len(expected) == 10
    assert not np.array_equal(found, expected)
    (line,) = caplog.messages  # And none of the whole file.
    assert line.startswith(f"{damaged}: ") and "damaged in places" in line
    assert "\n" not in line and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "name, codec",
    [("c.mp4", "libx264"), ("c.webp", "libwebp"), ("c.avif", "libsvtav1")],
)
def test_a_single_picture_is_no_clip_whatever_holds_it(tmp_path, name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = tmp_path / name
    write(path, grays([99], 64, 64), codecs=(codec, None))
    for use in (probe, collect):
        with pytest.raises(MediaError, match="a still picture"):
            use(path)


def test_an_animated_webp_is_read_or_said_to_be_undecodable(tmp_path):
    from PIL import Image

    first, *rest = (Image.new("L", (64, 48), g) for g in (20, 120, 220))
    path = tmp_path / "moving.webp"
    first.save(path, save_all=True, append_images=rest, duration=100)
    try:
        assert len(collect(path)[2]) == 3
    except MediaError as error:
        assert "an animated WebP, which FFmpeg cannot decode" in error.text


SUBTITLES = b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n"


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("missing.mp4", None, "no such file"),
        ("empty.mp4", b"", "0 bytes"),
        ("garbage.mp4", bytes(range(256)) * 99, "not a media file"),
        ("words.srt", SUBTITLES, "neither audio nor video"),
    ],
)
def test_unusable_files_give_one_line(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for use in (probe, read_audio, collect):
        with pytest.raises(MediaError, match=words) as error:
            use(path)
        assert str(path) in str(error.value)


def test_sound_that_is_empty_absent_or_silent(tmp_path):
    path = tmp_path / "zero.wav"
    soundfile.write(path, np.zeros(0), 16000)
    info = probe(path)
    assert (info.has_audio, info.duration, info.truncated) == (False, 0, False)
    assert read_audio(path) is None and list(decode(path)) == []
    images = grays([99] * 25)
    for sound, has in ((None, False), (np.zeros(16000), True)):
        path = write(tmp_path / "mute.mp4", images, sound)
        assert probe(path).has_audio is has and read_audio(path) is None


def test_what_counts_as_silence():
    rng = np.random.default_rng(0)
    dither = rng.integers(-1, 2, 16000) / 32768  # one step of 16 bits
    assert is_silent(dither) and is_silent(torch.from_numpy(dither))
    assert is_silent(dither + 0.01)  # an offset is not heard
    assert is_silent(np.zeros(0)) and is_silent(np.zeros(9))
    hiss = rng.standard_normal(16000) * 10 ** (-75 / 20)
    assert not is_silent(hiss) and not is_silent(torch.from_numpy(hiss))
    assert not is_silent(0.004 * rng.standard_normal(16000))
    click = np.zeros(16000)
    click[800] = 0.01
    assert not is_silent(click)


def test_sound_that_is_not_a_number_or_too_loud(tmp_path):
    sound = sine(1, 16000, level=1.4)
    soundfile.write(tmp_path / "loud.wav", sound, 16000, subtype="FLOAT")
    samples = read_audio(tmp_path / "loud.wav")
    assert torch.equal(samples, torch.from_numpy(sound).clamp(-1, 1))

    sound[8000] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, 16000, subtype="FLOAT")
    with pytest.raises(MediaError, match="not a number at 0.[45]"):
        read_audio(tmp_path / "nan.wav")


# Real clips


@pytest.mark.real
def test_crema_d_video(real_data):
    paths = sorted((real_data / "crema_d_mini" / "VideoFlash").glob("*.flv"))
    assert len(paths) == 6
    for path in paths:
        info = probe(path)
        assert info.has_audio and info.has_video and not info.truncated
        samples, start, frames, times = collect(path)
        assert start == 0.0 and times[0] == pytest.approx(0.027)
        assert {frame.shape for frame in frames} == {(360, 480, 3)}
        rate = (len(times) - 1) / (times[-1] - times[0])
        assert rate == pytest.approx(29.97, abs=0.05)
        assert len(samples) / 16000 == pytest.approx(info.audio_duration, 0.03)
        assert times[-1] < info.duration < times[-1] + 0.1

        wav = path.parents[1] / "AudioWAV" / f"{path.stem}.wav"
        truth, _ = soundfile.read(wav, dtype="float32")
        lag, value = correlate(samples, truth)
        assert abs(lag) <= 2 and value > 0.999
        assert np.array_equal(read_audio(wav).numpy(), truth)
        assert not probe(wav).truncated and not probe(wav).has_video
