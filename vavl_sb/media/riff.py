"""Durations from the headers of wav and avi files.

Layout: Microsoft's "Multimedia Programming Interface and Data Specifications
1.0" (RIFF, WAVE) and "AVI RIFF File Reference"; EBU Tech 3306 (RF64).
"""

import math
import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

# Programs that write to a pipe put sizes above this, as a placeholder.
UNKNOWN_SIZE = 0x7FFF0000

# If less than this fraction of the stated audio is present, the stated size is
# taken for a placeholder.
LEAST_OF_STATED = 0.1

# Limits the chunks that are read: zeros parse as endless chunks of length 0.
MAX_CHUNKS = 1000

# Tags after the last chunk, which are not audio
TAGS = re.compile(rb"TAG|ID3|APET|LYRI")
NAME = re.compile(rb"[A-Za-z0-9_ ]{4}")


@dataclass
class WavData:
    """The audio data of a wav file, according to its header.

    Arguments
    ---------
    start, size : int
        Offset and length of the audio data, bytes.
    byte_rate : int
        Bytes per second; 0 for compressed audio, where it is an average.
    file_size : int
        Size of the file, bytes.
    """

    start: int
    size: int
    byte_rate: int
    file_size: int


def find_data(file: BinaryIO) -> WavData | None:
    """Reads the header of a wav file (RIFF, RF64); None for other files."""
    file.seek(0)
    magic, file_size, form = struct.unpack(
        "<4sI4s", file.read(12).ljust(12, b"\0")
    )
    if magic not in (b"RIFF", b"RF64", b"BW64") or form != b"WAVE":
        return None
    byte_rate, data_size = 0, None
    for _ in range(MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            break
        chunk, size = struct.unpack("<4sI", header)
        if chunk == b"data":
            size = size if data_size is None else data_size
            return WavData(file.tell(), size, byte_rate, file_size + 8)
        body = file.read(min(size, 16)) if chunk in (b"fmt ", b"ds64") else b""
        if len(body) == 16 and chunk == b"ds64" and magic != b"RIFF":
            # RF64 has 64-bit sizes here; its 32-bit sizes are placeholders.
            file_size, data_size = struct.unpack("<QQ", body)
        elif len(body) == 16 and chunk == b"fmt ":
            code, byte_rate = struct.unpack("<H6xI", body[:12])
            # The byte rate is exact for PCM, float and extensible only.
            byte_rate = byte_rate if code in (1, 3, 0xFFFE) else 0
        file.seek(size + size % 2 - len(body), os.SEEK_CUR)
    return None


def trailing_chunks(file: BinaryIO) -> list[bytes] | None:
    """Returns the names of the chunks (or tag) after the audio of a wav file.

    Empty if it is not a wav file. None if other bytes follow: then the stated
    length is too short, because the writer did not update it.
    """
    data = find_data(file)
    if data is None:
        return []
    total = file.seek(0, os.SEEK_END)
    end = data.start + data.size
    # Some writers omit the byte that pads a chunk to an even length.
    padded = _names(file, end + data.size % 2, total)
    return padded if padded is not None else _names(file, end, total)


def _names(file, at, total):
    """Names of the chunks from a byte offset on; None for any other bytes."""
    names = []
    while at + 8 <= total and len(names) < MAX_CHUNKS:
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        names.append(name)
        if TAGS.match(name):
            return names
        at += 8 + size + size % 2
        if not NAME.fullmatch(name) or at > total + 1:
            return None
    return names


def riff_duration(file: BinaryIO) -> float | None:
    """Returns the duration in the header of a wav or avi file, seconds.

    FFmpeg replaces it by one computed from the file size, which hides a missing
    end. None if unknown (written to a pipe, compressed wav). Infinity if the
    stated size is impossible: larger than the data, and either more than ten
    times as large or beyond the file size in the same header.
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
    present = file.seek(0, os.SEEK_END) - data.start
    required = LEAST_OF_STATED * data.size
    if data.start + data.size > data.file_size:
        required = data.size
    return data.size / data.byte_rate if present >= required else math.inf
