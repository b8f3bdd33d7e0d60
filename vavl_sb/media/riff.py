"""Headers of wav and avi files: how long they say that they are.

Layout: Microsoft's "Multimedia Programming Interface and Data Specifications
1.0" (RIFF, WAVE) and "AVI RIFF File Reference"; EBU Tech 3306 (RF64).
"""

import math
import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

# Sizes that writers to a pipe put where they cannot know the true one.
UNKNOWN_SIZE = 0x7FFF0000

# Of sound of a stated length at least so much is there: else the length cannot
# be true, and stands for one that the writer did not know.
LEAST_OF_STATED = 0.1

# A stretch of zeros reads as chunks of no length, which have no end.
MAX_CHUNKS = 1000

# What stands behind the chunks of a file, and is no sound.
TAGS = re.compile(rb"TAG|ID3|APET|LYRI")
NAME = re.compile(rb"[A-Za-z0-9_ ]{4}")


@dataclass
class WavData:
    """The sound of a wav file, as its header has it.

    Arguments
    ---------
    start, size : int
        Bytes: where it begins, and how many there are.
    byte_rate : int
        Bytes a second; 0 where it is but an average (compressed sound).
    whole : int
        Bytes of the whole file.
    """

    start: int
    size: int
    byte_rate: int
    whole: int


def find_data(file: BinaryIO) -> WavData | None:
    """What the header of a wav file (RIFF, RF64), which is read from its start,
    says of its sound; None where it is no such file."""
    file.seek(0)
    magic, whole, form = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
    if magic not in (b"RIFF", b"RF64", b"BW64") or form != b"WAVE":
        return None
    byte_rate, long = 0, None
    for _ in range(MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            break
        chunk, size = struct.unpack("<4sI", header)
        if chunk == b"data":
            size = size if long is None else long
            return WavData(file.tell(), size, byte_rate, whole + 8)
        body = file.read(min(size, 16)) if chunk in (b"fmt ", b"ds64") else b""
        if len(body) == 16 and chunk == b"ds64" and magic != b"RIFF":
            # In place of the sizes of 32 bits, which are full.
            whole, long = struct.unpack("<QQ", body)
        elif len(body) == 16 and chunk == b"fmt ":
            code, byte_rate = struct.unpack("<H6xI", body[:12])
            # PCM, float or extensible: else the byte rate is an average.
            byte_rate = byte_rate if code in (1, 3, 0xFFFE) else 0
        file.seek(size + size % 2 - len(body), os.SEEK_CUR)
    return None


def chunks_behind(file: BinaryIO) -> list[bytes] | None:
    """What stands behind the sound of a wav file, where its header says.

    Names of the chunks, and a tag; empty where it is no wav file. None where
    there is something else, so that the stated length must be too short: the
    writer never came to put the true one.
    """
    data = find_data(file)
    if data is None:
        return []
    total = file.seek(0, os.SEEK_END)
    end = data.start + data.size
    # Some writers leave out the byte that makes a chunk's length even.
    found = [_names(file, at, total) for at in (end + data.size % 2, end)]
    return found[0] if found[0] is not None else found[1]


def _names(file, at, total):
    """Names of the chunks that fill a file from a byte on; None for others."""
    found = []
    while at + 8 <= total and len(found) < MAX_CHUNKS:
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        found.append(name)
        if TAGS.match(name):
            return found
        at += 8 + size + size % 2
        if not NAME.fullmatch(name) or at > total + 1:
            return None
    return found


def riff_duration(file: BinaryIO) -> float | None:
    """Duration that the header of a wav or avi file states.

    FFmpeg corrects both by the size of the file, which hides a missing end.
    In seconds; None if unknown (written to a pipe, compressed wav), and
    infinity where it cannot be true: more is stated than there is, and more
    than ten times that, or than the file states for all that is in it.
    """
    file.seek(0)
    head = file.read(52).ljust(52, b"\0")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        # LIST size hdrl avih size, then the fields of AVIMAINHEADER.
        if head[24:28] != b"avih":
            return None
        frame_us, frames = struct.unpack_from("<I12xI", head, 32)
        return frame_us * frames / 1e6 or None
    data = find_data(file)
    if data is None or not data.byte_rate or not data.size:
        return None
    if head[:4] == b"RIFF" and data.size >= UNKNOWN_SIZE:
        return None
    there = file.seek(0, os.SEEK_END) - data.start
    least = LEAST_OF_STATED * data.size
    if data.start + data.size > data.whole:
        least = data.size
    return data.size / data.byte_rate if there >= least else math.inf
