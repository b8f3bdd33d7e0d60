"""No sound or picture that a file has is lost without a word."""

import logging
import struct
from fractions import Fraction

import numpy as np
import pytest
import soundfile
from small_clips import cover_mp3, grays, sine, write

from vavl_sb.faces.detector import Detection
from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.extractor import picture_with_face
from vavl_sb.media import demuxing
from vavl_sb.media.decoders import AudioChunk, FrameBatch
from vavl_sb.media.reader import decode, probe, read_audio

av = pytest.importorskip("av")

RATE = 16000


@pytest.fixture
def read(caplog):
    """Reads a file: (samples, frames, times, info); warns once if ever."""

    def use(path, **options):
        caplog.clear()
        stream = decode(path, **options)
        items = list(stream)
        with caplog.at_level(logging.WARNING):
            told = [m for m in caplog.messages if str(path) in m]
        covers = sum("cover" in line for line in stream.info.left_out)
        assert len(told) == (len(stream.info.left_out) > covers)
        assert all(
            line in told[0]
            for line in stream.info.left_out
            if "cover" not in line
        )
        sound = [i.samples for i in items if isinstance(i, AudioChunk)]
        batches = [i for i in items if isinstance(i, FrameBatch)]
        return (
            np.concatenate(sound or [np.zeros(0, np.float32)]),
            [frame for batch in batches for frame in batch.frames],
            np.concatenate([b.times for b in batches] or [np.zeros(0)]),
            stream.info,
        )

    return use


def mux(path, sounds=(), pictures=(), fps=25):
    """A file of several tracks of sound (16 kHz PCM) and of picture (FFV1)."""
    with av.open(str(path), "w") as out:
        videos = [out.add_stream("ffv1", rate=fps) for _ in pictures]
        audios = [
            out.add_stream("pcm_s16le", rate=RATE, layout="mono")
            for _ in sounds
        ]
        packets = []
        for stream, images in zip(videos, pictures):
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = "bgr0"
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for stream, sound in zip(audios, sounds):
            for start in range(0, len(sound), RATE // 10):
                pcm = sound[None, start : start + RATE // 10] * 32767
                pcm = pcm.round().astype(np.int16)
                frame = av.AudioFrame.from_ndarray(pcm, "s16", "mono")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = start
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def voice(seconds=3, seed=0):
    """Noise whose loudness goes up and down, as it does in speech."""
    noise = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    slow = np.abs(sine(seconds, RATE, frequency=2, level=1.0))
    return (0.05 * noise * slow).astype(np.float32)


# Channels


@pytest.mark.parametrize("share", [-1.0, -0.9, -0.3])
@pytest.mark.parametrize("others", [0, 1])
def test_channels_that_cancel_each_other(tmp_path, read, share, others):
    sound = voice()
    channels = [sound, share * sound] + [0 * sound] * others
    path = tmp_path / "c.wav"
    soundfile.write(path, np.stack(channels, 1), RATE, subtype="FLOAT")
    samples, _, _, info = read(path)
    assert np.array_equal(samples, sound)
    (line,) = info.left_out
    assert "cancel each other for 3.00 s" in line
    # Which of them is the louder does not matter.
    soundfile.write(path, np.stack(channels[::-1], 1), RATE, subtype="FLOAT")
    assert np.array_equal(np.abs(read(path)[0]), np.abs(sound))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0, -0.2])
def test_channels_that_do_not_are_averaged(tmp_path, read, share):
    """A mean of -0.2 and 1 is 5.1 dB below the channels, not yet 6."""
    sound = voice()
    path = tmp_path / "c.wav"
    channels = np.stack([sound, share * sound], 1)
    soundfile.write(path, channels, RATE, subtype="FLOAT")
    samples, _, _, info = read(path)
    assert info.left_out == []
    assert np.allclose(samples, (1 + share) / 2 * sound, atol=1e-6)


def test_channels_that_cancel_each_other_for_a_while(tmp_path, read):
    sound = voice(4)
    other = sound * np.repeat([1, -1], 2 * RATE)
    path = tmp_path / "c.wav"
    soundfile.write(path, np.stack([sound, other], 1), RATE, subtype="FLOAT")
    samples, _, _, info = read(path)
    assert np.array_equal(samples, sound)
    assert "for 2.00 s" in info.left_out[0]


# Tracks


@pytest.mark.parametrize("spoken", [0, 1, 2])
def test_the_sound_track_that_is_not_silent_is_used(tmp_path, read, spoken):
    sounds = [np.zeros(3 * RATE, np.float32)] * 3
    sounds[spoken] = voice()
    path = mux(tmp_path / "c.mkv", sounds, [grays([99] * 75)])
    samples, frames, _, info = read(path)
    assert np.abs(samples - sounds[spoken]).max() < 1e-4 and len(frames) == 75
    assert f"stream {spoken + 1} (pcm_s16le" in info.used["audio"]
    assert sorted(info.left_out) == [
        f"sound: stream {n + 1} (pcm_s16le, 16000 Hz, 1 channel)"
        for n in range(3)
        if n != spoken
    ]
    assert np.array_equal(read_audio(path).numpy(), samples)


@pytest.mark.parametrize("level, used", [(-80, 1), (-66, 1), (-45, 0)])
def test_a_track_of_noise_alone_is_not_used(tmp_path, read, level, used):
    """A microphone that is open, beside a voice of -29 dB."""
    noise = np.random.default_rng(1).standard_normal(3 * RATE)
    noise = (noise * 10 ** (level / 20)).astype(np.float32)
    path = mux(tmp_path / "c.mkv", [noise, voice()])
    samples, _, _, info = read(path)
    assert np.abs(samples - [noise, voice()][used]).max() < 1e-4
    assert f"stream {used} " in info.used["audio"]
    assert len(info.left_out) == 1
    # One sentence in a long silence counts as much as speech throughout.
    late = np.concatenate([np.zeros(9 * RATE, np.float32), voice(1)])
    path = mux(tmp_path / "c.mkv", [late, np.tile(voice(), 4)[: 10 * RATE]])
    assert "stream 0 " in read(path)[3].used["audio"]


class Bright:
    """A detector to which whatever is bright is a face."""

    def detect(self, frames):
        box, eyes = np.array([0, 0, 9, 9.0]), np.array([[3, 3], [6, 3.0]])
        return [[Detection(box, eyes)] * int(f.mean() > 99) for f in frames]

    def settings(self):
        return {}


@pytest.mark.parametrize("camera", [0, 1])
def test_the_picture_that_shows_a_face_is_used(tmp_path, read, camera):
    pictures = [grays([40] * 75), grays([40] * 25 + [200] * 50)]
    path = mux(tmp_path / "c.mkv", [voice()], pictures[:: 1 if camera else -1])
    tracker = FaceTracker(Bright())
    asked = []

    def choose(*found):
        asked.append(found)
        return picture_with_face(tracker, *found)

    _, frames, _, info = read(path, choose_picture=choose)
    assert [int(f[0, 0, 0]) for f in frames] == [40] * 25 + [200] * 50
    assert f"stream {camera} (ffv1" in info.used["video"]
    assert info.left_out == [f"picture: stream {1 - camera} (ffv1, 64x48)"]
    assert len(asked) == 1
    # Without a detector, or without a choice, it is said which one it is.
    for option in ({}, {"choose_picture": lambda path, numbers: numbers[0]}):
        info = read(path, **option)[3]
        assert len(info.used) == 2 and len(info.left_out) == 1
    assert picture_with_face(FaceTracker(None), path, [1, 0]) == 1


# Time


JOINABLE = {"c.ts": ("libx264", "aac"), "c.mpg": ("mpeg1video", "mp2")}


@pytest.mark.parametrize("name", JOINABLE)
def test_files_that_were_joined_are_one_clip(tmp_path, read, name):
    data, levels, tones = b"", [], []
    for part in range(3):
        shown = np.full(50, 60 + 10 * part)
        shown[25:] = 220  # the flash, 1 s into each part
        sound = sine(2, 48000, frequency=1000)
        sound[:48000] = 0  # the beep, 1 s into each part
        path = tmp_path / f"{part}{name}"
        write(path, grays(shown), sound, codecs=JOINABLE[name], rate=48000)
        data += path.read_bytes()
        levels += [*shown]
        tones += [sound]
    path = tmp_path / name
    path.write_bytes(data)

    samples, frames, times, info = read(path)

    assert len(frames) == 150 and (np.diff(times) >= 0).all()
    shown = np.array([frame.mean() for frame in frames])
    assert np.abs(shown - levels).max() < 8
    assert len(samples) / RATE == pytest.approx(6, abs=0.2)
    for seconds in (info.duration, info.audio_duration, info.video_duration):
        assert seconds == pytest.approx(6, abs=0.2)
    assert probe(path) == info
    bright = shown > 150
    loud = [
        np.abs(part).max() > 0.15 for part in np.split(samples[:96000], 600)
    ]
    flashes = times[1:][bright[1:] & ~bright[:-1]]
    beeps = np.flatnonzero(np.diff(np.array(loud, int)) == 1) / 100
    assert flashes == pytest.approx([1, 3, 5], abs=0.25)
    # Where one part's sound ends before its picture, what follows is moved up.
    assert np.abs(flashes - beeps).max() < 0.15
    assert sum("begin anew" in line for line in info.left_out) == 2


@pytest.mark.parametrize("name", [*JOINABLE, "c.flv", "c.mkv"])
def test_sound_that_begins_late_is_used(tmp_path, read, name):
    codecs = {**JOINABLE, "c.flv": ("flv1", "aac")}.get(name, JOINABLE["c.ts"])
    path = write(
        *(tmp_path / name, grays([99] * 22 * 25), sine(2, 48000)),
        codecs=codecs,
        rate=48000,
        late=20.0,
    )
    samples, _, _, info = read(path)
    assert len(samples) / RATE == pytest.approx(2, abs=0.1)
    assert np.abs(samples).max() > 0.2 and info.has_audio
    assert info.audio_duration == pytest.approx(2, abs=0.1)


def test_sound_that_no_probe_meets_is_used_where_it_is_listed(
    tmp_path, read, monkeypatch
):
    """A transport stream lists its streams at its start."""
    monkeypatch.setattr(demuxing, "PROBE", 50_000)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (100, 48, 64, 3), dtype=np.uint8)
    path = write(tmp_path / "c.ts", images, voice(1), rate=RATE, late=3.0)
    assert path.stat().st_size > 150_000
    samples, _, _, info = read(path)
    assert len(samples) / RATE == pytest.approx(1, abs=0.15) and info.has_audio


# Lengths


def wav(size, riff=None, ds64=None, tail=b"", tag=1, sound=None):
    """A wav file (2 s) whose header states the size of its sound at will."""
    data = (32767 * sine(2, RATE)).astype("<i2").tobytes()
    data = data if sound is None else sound
    form = struct.pack("<HHIIHH", tag, 1, RATE, 2 * RATE, 2, 16)
    if tag == 0xFFFE:  # WAVE_FORMAT_EXTENSIBLE, with PCM's GUID
        form += struct.pack("<HHIH", 22, 16, 4, 1)
        form += bytes.fromhex("000000001000800000aa00389b71")
    body = b"WAVE"
    if ds64 is not None:
        body += b"ds64" + struct.pack("<IQQQI", 28, *ds64, 0, 0)
    body += b"fmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", size) + data + tail
    magic = b"RIFF" if ds64 is None else b"RF64"
    return magic + struct.pack("<I", riff or len(body)) + body


SIZE = 2 * 2 * RATE
FULL = 2**32 - 1
LIST = b"LIST" + struct.pack("<I", 10) + b"INFOname\0\0"


@pytest.mark.parametrize(
    "data",
    [
        *(wav(n, n) for n in (0x80000000, FULL)),
        *(wav(n) for n in (0, FULL)),
        wav(SIZE, 36),
        wav(FULL, FULL, tag=0xFFFE),
        wav(FULL, FULL, ds64=(0, 0)),  # as FFmpeg writes RF64 to a pipe
        wav(FULL, FULL, ds64=(SIZE + 72, SIZE)),
    ],
)
def test_a_wavs_length_of_a_streaming_writer(tmp_path, read, data):
    path = tmp_path / "c.wav"
    path.write_bytes(data)
    samples, _, _, info = read(path)
    assert len(samples) == 2 * RATE and info.left_out == []


@pytest.mark.parametrize("size", [2, SIZE // 2])
@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("tag", [1, 0xFFFE])
def test_a_wavs_length_that_is_too_short_is_told(
    tmp_path, read, size, stale, tag
):
    path = tmp_path / "c.wav"
    path.write_bytes(wav(size, size + 36 if stale else None, tag=tag))
    samples, _, _, info = read(path)
    assert len(samples) == 2 * RATE
    (line,) = info.left_out
    stated = size / 2 / RATE
    assert f"states {stated:.2f} s of the 2.00 s that are there" in line
    path.write_bytes(wav(FULL, FULL, ds64=(size + 72, size)))
    assert len(read(path)[0]) == 2 * RATE


@pytest.mark.parametrize("tail", [LIST, b"TAG" + bytes(125)])
def test_what_stands_behind_a_wavs_sound_is_no_sound(tmp_path, read, tail):
    path = tmp_path / "c.wav"
    for sound in (None, bytes(2 * RATE - 2) + b"\0"):
        size = SIZE if sound is None else len(sound)
        even = tail if size % 2 == 0 else b"\0" + tail
        for end in (tail, even):  # Also without the byte of padding
            path.write_bytes(wav(size, tail=end, sound=sound))
            samples, _, _, info = read(path)
            assert len(samples) == size // 2 and info.left_out == []


JOINED = {
    "c.mp4": ("libx264", "aac"),
    "c.flv": ("flv1", "aac"),
    "c.wav": (None, "pcm_s16le"),
}


@pytest.mark.parametrize("name", JOINED)
def test_a_file_that_ffmpeg_does_not_read_behind_another_is_told(
    tmp_path, read, name
):
    video, _ = JOINED[name]
    path = tmp_path / name
    images = None if video is None else grays([99] * 50)
    rate = 44100 if name != "c.wav" else RATE
    write(path, images, sine(2, rate), codecs=JOINED[name], rate=rate)
    assert read(path)[3].left_out == []
    path.write_bytes(path.read_bytes() * 2)
    samples, _, _, info = read(path)
    assert len(samples) / RATE == pytest.approx(2, abs=0.1)
    assert info.left_out == ["another file that was joined to its end"]


# HDR


def pq(light):
    """Code of light in cd/m2: SMPTE ST 2084."""
    root = (light / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375


def hlg(light):
    """Code of light of a screen of 1000 cd/m2: ITU-R BT.2100."""
    scene = (light / 1000) ** (1 / 1.2)
    bright = 0.17883277 * np.log((12 * scene - 0.28466892).clip(1e-9))
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright + 0.55991073)


def hdr(path, codes, transfer):
    """A video of even grays, 10 bits, tagged as BT.2020."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        codec = stream.codec_context
        codec.color_trc, codec.color_primaries, codec.colorspace = (
            *(transfer, 9, 9),
        )
        codec.color_range = 1
        for number, code in enumerate(codes):
            frame = av.VideoFrame(64, 48, "yuv420p10le")
            for plane, value in zip(frame.planes, (64 + 876 * code, 512, 512)):
                data = np.full(plane.buffer_size // 2, round(value), np.uint16)
                plane.update(data.tobytes())
            frame.pts = number
            frame.color_trc, frame.colorspace = transfer, 9
            frame.color_primaries, frame.color_range = 9, 1
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.skipif(
    not hasattr(av.VideoFrame, "color_trc"),
    reason="this PyAV cannot tag a frame as HDR",
)
@pytest.mark.parametrize("transfer, code", [(16, pq), (18, hlg)])
def test_hdr_looks_as_its_sdr_version(tmp_path, read, transfer, code):
    levels = np.arange(20, 256, 20)
    light = 100 * (levels / 255) ** 2.4  # of an SDR screen: ITU-R BT.1886
    path = hdr(tmp_path / "c.mp4", code(light), transfer)
    _, frames, _, info = read(path)
    shown = np.array([frame.mean() for frame in frames])
    low = light < 75
    assert np.abs(shown - levels)[low].max() < 4
    assert np.abs(shown - levels)[~low].max() < 12  # on its way to white
    (line,) = info.left_out
    assert f"HDR ({'PQ' if transfer == 16 else 'HLG'})" in line
    # Brighter than SDR's white stays bright, in order.
    path = hdr(tmp_path / "c.mp4", code(np.array([100, 150, 900.0])), transfer)
    bright = [frame.mean() for frame in read(path)[1]]
    assert bright[0] < bright[1] <= bright[2] <= 255 and bright[0] > 240
    # The same codes as SDR stay as they are.
    _, frames, _, info = read(hdr(path, [0.2, 0.6], 1))
    assert [f.mean() for f in frames] == pytest.approx([51, 153], abs=2)
    assert info.left_out == []


# Damage and lengths of mp3


def mp3(path, seconds):
    sound = sine(seconds, 44100)
    write(path, sound=sound, codecs=(None, "libmp3lame"), rate=44100)
    return path.read_bytes()


def test_an_mp3_that_was_cut_off_is_told(tmp_path, read):
    plain = mp3(tmp_path / "c.mp3", 4.0)
    tagged = cover_mp3(tmp_path / "tagged.mp3", 4.0).read_bytes()
    for number, data in enumerate((plain, tagged)):
        path = tmp_path / "cut.mp3"
        path.write_bytes(data)
        assert len(read(path)[3].left_out) == number
        path.write_bytes(data[: len(data) - len(plain) // 2])
        samples, _, _, info = read(path)
        assert len(samples) / RATE == pytest.approx(2, abs=0.2)
        *_, line = info.left_out
        assert line.startswith(f"ends at {info.duration:.2f} s of the 4.0")


def test_cover_art_is_left_out_without_a_warning(tmp_path, read):
    info = read(cover_mp3(tmp_path / "song.mp3"))[3]
    (line,) = info.left_out
    assert line.startswith("cover picture: stream 1")
    assert info.has_audio and not info.has_video
    assert info.used == {
        "audio": "sound: stream 0 (mp3float, 44100 Hz, 1 channel)"
    }
