"""The duration that a media file's header states.

Where the packets end clearly before it, the file was cut off.

Authors
 * The vavl_sb authors 2026
"""

import os
import struct

from vavl_sb.media.demuxing import AV_TIME_BASE

# Headers of these state a duration when the file is written. Those of others
# do not (ogg, mpegts: FFmpeg reads it off the last packet; adts, mp3 without a
# Xing frame: FFmpeg guesses it from size and bit rate), so that a missing end
# cannot be known.
FORMATS_WITH_DURATION = {"mov", "matroska", "flv", "asf", "flac", "aiff"}

# Sizes that writers to a pipe put where they cannot know the true one.
UNKNOWN_RIFF_SIZE = 0x7FFF0000

# A stretch of zeros reads as chunks of no length, which have no end.
MAX_CHUNKS = 1000


def promised_duration(path, container):
    """Duration that the header of a file states, where it can be relied on.

    Arguments
    ---------
    path : str or os.PathLike
        The file.
    container : av.container.InputContainer
        The same file, open.

    Returns
    -------
    float or None
        Seconds, or None where the container states none (see
        ``FORMATS_WITH_DURATION``) or the writer could not know it.
    """
    name = container.format.name.split(",")[0]
    with open(path, "rb") as file:
        if name in ("wav", "avi"):
            return riff_duration(file)
        stated = name in FORMATS_WITH_DURATION or (
            name == "mp3" and _has_xing_frame(file)
        )
    if not stated or not container.duration or container.duration < 0:
        return None
    return container.duration / AV_TIME_BASE


def riff_duration(file):
    """Duration that the header of a wav or avi file states.

    FFmpeg corrects both by the size of the file, which hides a missing end.
    Layout: Microsoft's "Multimedia Programming Interface and Data
    Specifications 1.0" (RIFF, WAVE) and "AVI RIFF File Reference".

    Arguments
    ---------
    file : binary file object
        Open at its start.

    Returns
    -------
    float or None
        Seconds; None if unknown (written to a pipe, RF64, compressed wav).

    Example
    -------
    >>> import io, wave
    >>> buffer = io.BytesIO()
    >>> with wave.open(buffer, "wb") as writer:
    ...     writer.setparams((1, 2, 16000, 0, "NONE", "NONE"))
    ...     writer.writeframes(bytes(2 * 8000))
    >>> riff_duration(io.BytesIO(buffer.getvalue()[:100]))
    0.5
    """
    magic, _, form = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
    if magic != b"RIFF":
        return None
    if form == b"AVI ":
        # LIST size hdrl avih size, then the fields of AVIMAINHEADER.
        head = file.read(40).ljust(40, b"\0")
        if head[12:16] != b"avih":
            return None
        frame_us, frames = struct.unpack_from("<I12xI", head, 20)
        return frame_us * frames / 1e6 or None
    byte_rate = 0
    for _ in range(MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            break
        chunk, size = struct.unpack("<4sI", header)
        if chunk == b"data":
            known = byte_rate and size < UNKNOWN_RIFF_SIZE
            return size / byte_rate if known else None
        body = file.read(min(size, 16)) if chunk == b"fmt " else b""
        if len(body) == 16:
            code, byte_rate = struct.unpack("<H6xI", body[:12])
            # PCM, float or extensible: else the byte rate is an average.
            byte_rate = byte_rate if code in (1, 3, 0xFFFE) else 0
        file.seek(size + size % 2 - len(body), os.SEEK_CUR)
    return None


def _has_xing_frame(file):
    """Whether the first frame of an mp3 states the number of frames."""
    head = file.read(10)
    if head[:3] == b"ID3" and len(head) == 10:
        # An ID3v2 tag's size is written in four bytes of seven bits each.
        size = 0
        for byte in head[6:]:
            size = size << 7 | byte & 0x7F
        file.seek(10 + size)
        head = b""
    frame = head + file.read(1500)
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))
