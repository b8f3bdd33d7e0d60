"""A clip is one file, of bounded cost: files that ask for more than that."""

import ctypes
import os
import signal
import struct
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
import soundfile
from small_clips import grays, sine, write

from vavl_sb.media import decoders
from vavl_sb.media.reader import decode, probe
from vavl_sb.utils.errors import MediaError

av = pytest.importorskip("av")

IN_OPEN = 0x20  # of inotify(7)

MLV = struct.pack(
    *("<4sI8sQHHIHHIIII", b"MLVI", 52, b"v2.0", 1, 0, 2, 0, 1, 0, 1, 0, 25, 1)
)

# Each opens other.ts where FFmpeg is left to itself, or once did.
PLAYLISTS = {
    "hls.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n"
    b"#EXT-X-ENDLIST\n",
    "list.ffconcat": b"ffconcat version 1.0\nfile other.ts\n",
    "list.mpd": b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:'
    b'2011" type="static"><Period><AdaptationSet><Representation id="1">'
    b"<BaseURL>other.ts</BaseURL></Representation></AdaptationSet></Period>"
    b"</MPD>\n",
    "cpl.xml": b'<?xml version="1.0"?>\n<CompositionPlaylist xmlns="http://www'
    b'.smpte-ra.org/schemas/2067-3/2016"><Id>other.ts</Id>'
    b"</CompositionPlaylist>\n",
    "call.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0"
    b"\nm=audio 5004 RTP/AVP 0\n",
}
OTHERS = {
    "part.mlv": MLV,  # its second part is part.M00
    "subs.idx": b"# VobSub index file, v7\nid: en, index: 0\n"
    b"timestamp: 00:00:01:000, filepos: 000000000\n",
    "%03d.png": b"\x89PNG\r\n\x1a\n",
}


class Watch:
    """Hears, from the system, of each time that a file is opened."""

    def __init__(self, *paths):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.handle = self.libc.inotify_init1(os.O_NONBLOCK)
        for path in paths:
            self.libc.inotify_add_watch(self.handle, bytes(path), IN_OPEN)

    def opened(self):
        try:
            return len(os.read(self.handle, 65536)) > 0
        except BlockingIOError:
            return False


@pytest.fixture
def others(tmp_path):
    """Files that a clip may name; the second value tells of their opening."""
    if not sys.platform.startswith("linux"):
        pytest.skip("inotify is Linux's")
    write(tmp_path / "other.ts", grays([99] * 25), sine(1, 16000))
    names = ["other.ts", "part.M00", "subs.sub", "001.png"]
    for name in names[1:]:
        (tmp_path / name).write_bytes((tmp_path / "other.ts").read_bytes())
    watch = Watch(*(tmp_path / name for name in names))
    probe(tmp_path / "other.ts")
    assert watch.opened()  # It does hear.
    return tmp_path, watch


@pytest.mark.parametrize("name", [*PLAYLISTS, *OTHERS])
def test_no_file_makes_ffmpeg_open_another(others, name):
    folder, watch = others
    content = {**PLAYLISTS, **OTHERS}[name]
    path = folder / name
    path.write_bytes(content)
    start = time.monotonic()
    for use in (probe, lambda path: list(decode(path))):
        with pytest.raises(MediaError) as error:
            use(path)
        assert str(error.value).startswith(f"{path}: ")
        if name in PLAYLISTS:
            assert "a playlist" in str(error.value)
            assert "give the clip itself" in str(error.value)
    assert not watch.opened()
    assert time.monotonic() - start < 5


def test_a_clip_within_a_playlists_bytes_is_still_read(tmp_path):
    """What a file is called does not matter, and what it says neither."""
    path = tmp_path / "clip.m3u8"
    soundfile.write(path, sine(1, 16000), 16000, format="WAV")
    path.write_bytes(path.read_bytes() + b"\n#EXTM3U\nother.ts\n")
    assert probe(path).duration == pytest.approx(1.0, abs=0.01)


CODECS = {
    "a.mpg": ("mpeg1video", "mp2"),
    "a.asf": ("wmv2", "libmp3lame"),
    "a.3gp": ("mpeg4", "aac"),
    "a.opus": (None, "libopus"),
    "a.aac": (None, "aac"),
    "a.mp3": (None, "libmp3lame"),
}


@pytest.mark.parametrize("name", CODECS)
def test_ordinary_containers_still_open(tmp_path, name):
    video, audio = CODECS[name]
    images = grays([99] * 25) if video else None
    path = write(
        *(tmp_path / name, images, sine(1, 48000)),
        codecs=(video, audio),
        rate=48000,
    )
    info = probe(path)
    assert info.has_audio and info.has_video == bool(video)
    assert info.duration == pytest.approx(1.0, abs=0.15)
    sound = sum(len(i.samples) for i in decode(path, video=False))
    assert sound / 16000 == pytest.approx(1.0, abs=0.15)


def repeated(path, count, width=8192, height=4096, step=40):
    """One VP9 key frame of one colour again and again, `step` ms apart."""
    with av.open(str(path), "w", format="matroska") as out:
        options = {"deadline": "realtime", "cpu-used": "8"}
        stream = out.add_stream("libvpx-vp9", rate=25, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([90]) * plane.buffer_size)
        (packet,) = [*stream.encode(frame), *stream.encode(None)]
        data = bytes(packet)
        for number in range(count):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = step * number
            packet.is_keyframe = True
            out.mux(packet)
    return path


# It decodes a file again and again. The peak is the system's count for this
# process: getrusage's is at least that of the parent.
CHILD = """
import re, sys, time
from vavl_sb.media.reader import decode
def megabytes():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1]) / 1024
before = megabytes()
try:
    while True:
        batches = decode(sys.argv[1], frame_rate=25)
        count = sum(len(batch.times) for batch in batches)
        print(count, megabytes() - before, flush=True)
except KeyboardInterrupt:
    print(time.time())
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads /proc/self/status"
)
def test_large_pictures_take_bounded_memory_and_obey_ctrl_c(tmp_path):
    path = repeated(tmp_path / "large.mkv", 16)
    assert path.stat().st_size < 250_000
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    count, megabytes = child.stdout.readline().split()
    assert int(count) == 16
    # 16 pictures are 800 MB as decoded and 1600 MB as RGB.
    assert 50 < float(megabytes) < 600

    time.sleep(0.5)
    sent = time.time()
    child.send_signal(signal.SIGINT)
    words, _ = child.communicate(timeout=60)
    assert float(words.splitlines()[-1]) - sent < 1.0


@pytest.mark.parametrize("codec", ["ffv1", "mjpeg"])
def test_a_large_picture_comes_smaller_and_else_the_same(tmp_path, codec):
    down, across = np.mgrid[0:2160, 0:3840]
    image = np.stack([across // 16, down // 9, 255 - across // 16], axis=-1)
    image = image.clip(0, 255).astype(np.uint8)
    path = tmp_path / "large.avi"
    write(path, [image] * 2, codecs=(codec, None))
    (batch,) = decode(path)
    assert batch.frames.shape == (2, 1080, 1920, 3)
    blocks = image.reshape(1080, 2, 1920, 2, 3).mean(axis=(1, 3))
    assert np.abs(batch.frames[0] - blocks).mean() < 2.0
    # One of 1920 x 1080 is left as it is.
    write(path, [image[::2, ::2].copy()] * 2, codecs=(codec, None))
    (batch,) = decode(path)
    assert np.abs(batch.frames[0] - image[::2, ::2].astype(int)).mean() < 2.0


def test_more_pictures_than_a_clip_has_time_for_are_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(decoders, "MAX_PIXELS_A_SECOND", 26 * 64 * 64)
    path = repeated(tmp_path / "fair.mkv", 300, 64, 64)
    assert sum(len(batch.times) for batch in decode(path)) == 300
    path = repeated(tmp_path / "dense.mkv", 300, 64, 64, step=1)
    with pytest.raises(MediaError, match="million pixels a second"):
        list(decode(path))
