"""Broken and hostile media: refused in one line, in bounded time and memory.

500 files are read by tests/faults (``make test-faults``); here are a few of
them, and headers that ask for more than any clip has.
"""

import io
import struct
from fractions import Fraction

import pytest
import soundfile
from mutation import MUTATIONS, make_broken, read_bounded, summary
from small_clips import grays, sine, write

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.media import reader as media
from vavl_sb.media.reader import decode, probe, read_audio
from vavl_sb.media.riff import riff_duration
from vavl_sb.utils.errors import MediaError


def refusal(use, path):
    """The one line with which a file is refused."""
    with pytest.raises(MediaError) as error:
        use(path)
    text = error.value.text
    assert str(path) in text and "\n" not in text
    return text


def everything(path):
    return list(decode(path))


def claims(path, found, offset, form, *values):
    """Overwrites numbers that stand behind each place of some bytes."""
    data = bytearray(path.read_bytes())
    place = data.find(found)
    assert place >= 0
    while place >= 0:
        struct.pack_into(form, data, place + offset, *values)
        place = data.find(found, place + 1)
    path.write_bytes(data)
    return path


def ffv1_of_a_giant(path):
    """Only the container says how large a picture of FFV1 is."""
    write(path, grays([99] * 10), codecs=("ffv1", None))
    data = path.read_bytes()
    place = data.find(b"strf") + 12  # two sizes, then width and height
    assert struct.unpack_from("<II", data, place) == (64, 48)
    return claims(path, b"strf", 12, "<II", 46000, 46000)


def jpegs_of_a_giant(path):
    """Each picture says that it is large, the container does not."""
    write(path, grays([99] * 10), codecs=("mjpeg", None))
    # Start of frame: marker, length, bits, height, width.
    return claims(path, b"\xff\xc0\x00\x11\x08", 5, ">HH", 46000, 46000)


GIANTS = (ffv1_of_a_giant, jpegs_of_a_giant)


@pytest.mark.parametrize("make", GIANTS)
def test_pictures_that_claim_to_be_giant(tmp_path, make):
    path = make(tmp_path / "c.avi")
    words = "nothing of its video can be decoded (33554432 pixels is the limit"
    assert words in refusal(everything, path)


def test_broken_files_are_read_or_refused(tmp_path):
    """In processes with limits on memory and time."""
    count = 4 * len(MUTATIONS)
    files = make_broken(tmp_path, count)
    files += [make(tmp_path / f"{make.__name__}.avi") for make in GIANTS]
    results = read_bounded([(path, "frames") for path in files])
    assert len(results) == len(files)
    bad = [r for r in results if r["outcome"] not in ("decoded", "refused")]
    assert not bad, summary(results) + "\n" + "\n".join(map(str, bad))
    # Some of both: else nothing was broken, or nothing was read.
    outcomes = {r["outcome"] for r in results}
    assert outcomes == {"decoded", "refused"}
    for giant in results[count:]:
        # As YUV one would fill 3 GB.
        assert giant["outcome"] == "refused" and giant["memory"] < 100, giant


def test_pixels_that_claim_to_be_very_wide(tmp_path):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(256, 1)

    images = grays([99] * 3, 512, 512)
    path = write(tmp_path / "c.mp4", images, setup=wide)
    assert "131072 x 512 pixels is above" in refusal(everything, path)


@pytest.mark.parametrize("rate", [0, 999])
def test_sound_of_a_rate_that_cannot_be(tmp_path, rate):
    path = tmp_path / "c.wav"
    soundfile.write(path, sine(1, 16000), 16000)
    claims(path, b"fmt ", 12, "<I", rate)
    words = "samples a second is outside of 1000 to 768000" if rate else "read"
    assert words in refusal(everything, path)


@pytest.mark.parametrize(
    "size, whole",
    [(400_000, None), (0x7F000000, 2**32 - 1)],
)
def test_sound_of_a_length_that_cannot_be_is_read(
    tmp_path, caplog, size, whole
):
    """More than the file says of itself, or than ten times what is there."""
    path = tmp_path / "c.wav"
    soundfile.write(path, sine(1, 16000), 16000)
    claims(path, b"data", 4, "<I", size)
    if whole is not None:
        claims(path, b"RIFF", 4, "<I", whole)
    stream = decode(path)
    assert sum(len(chunk.samples) for chunk in stream) == 16000
    assert not probe(path).truncated
    (line,) = stream.info.left_out
    assert "ends at 1.00 s of the impossible length" in line
    assert len(caplog.messages) == 1


def test_a_time_stamp_in_a_year(tmp_path):
    path = write(
        tmp_path / "c.mkv", grays([99, 120, 150]), times=[0, 0.5, 3.2e7]
    )
    for use in (everything, probe):
        assert "3.2e+07 s is beyond the limit of 24 hours" in refusal(use, path)


def test_more_sound_than_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "MAX_WHOLE", 2.0)
    path = tmp_path / "c.flac"
    encoder = FeatureExtractor(None, None, FaceTracker(None))
    for seconds, use in ((2.0, read_audio), (2.0, encoder.read)):
        soundfile.write(path, sine(seconds, 16000), 16000)
        use(path)
    soundfile.write(path, sine(2.5, 16000), 16000)
    for use in (read_audio, encoder.read):
        assert "cut it into clips" in refusal(use, path)
    # Bit by bit, it may be of any length.
    assert len(everything(path)) == 3


def test_zeros_in_place_of_chunks_come_to_an_end():
    zeros = io.BytesIO(b"RIFF\0\0\0\0WAVE" + bytes(10_000_000))
    assert riff_duration(zeros) is None and zeros.tell() < 10_000
