"""Media files in, frames with their times and mono audio out.

One path for every container: PyAV (FFmpeg's libraries) opens, demuxes and
decodes a file once, in bounded memory: one batch of frames and one second of
sound at most.

- Times are seconds from the start of the presentation, the same origin for
  sound and picture, whatever offsets the streams have.
- Frames are upright (the file's rotation or mirroring is applied), have square
  pixels, and are RGB. Those of more than 2560 x 1440 pixels come smaller (see
  :func:`vavl_sb.media.decoders.kept_size`).
- Sound is the mean of the channels, resampled by FFmpeg's swresample.

A fault in the middle (a packet that cannot be decoded and good ones after it,
or an end clearly before the duration that the header states) raises a
:class:`MediaError` that names the time. Damage that FFmpeg's decoders mend
gives a warning, as does a gap in the sound.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from vavl_sb.media.decoders import (
    AudioChunk,
    AudioReader,
    FrameBatch,
    VideoReader,
)
from vavl_sb.media.demuxing import (
    AV_TIME_BASE,
    MediaFault,
    Timeline,
    choose_streams,
    open_media,
    read_packets,
)
from vavl_sb.utils.errors import MediaError, VAVLError
from vavl_sb.utils.logger import get_logger

if TYPE_CHECKING:
    import av

__all__ = [
    "SAMPLE_RATE",
    "AudioChunk",
    "FrameBatch",
    "MediaInfo",
    "decode",
    "is_silent",
    "probe",
    "read_audio",
]

logger = get_logger(__name__)

# What encoders of speech are made for, Hz.
SAMPLE_RATE = 16000

# Peak-to-peak range below which sound is digital silence: 2e-4, that is peaks
# of -80 dBFS, three steps of 16-bit audio. Silence that went through dither or
# a lossy codec stays at one step (RAVDESS video-only files: -91 dBFS), while
# any microphone's own noise is above it (quietest speech in CREMA-D and
# RAVDESS: peaks of -35 dBFS or more). The range, not the peak, so that an
# offset is no sound.
SILENCE_RANGE = 2e-4

# Seconds of sound that are held at once, where a clip is read whole: 230 MB.
MAX_WHOLE = 3600.0

# Headers of these state a duration when the file is written. Those of others
# do not (FFmpeg reads ogg's and mpegts' off the last packet, and guesses
# those of adts and mp3 from size and bit rate), so that a missing end cannot
# be known.
FORMATS_WITH_DURATION = {"mov", "matroska", "flv", "asf", "flac", "aiff"}

# Sizes that writers to a pipe put where they cannot know the true one.
UNKNOWN_RIFF_SIZE = 0x7FFF0000

# A stretch of zeros reads as chunks of no length, which have no end.
MAX_RIFF_CHUNKS = 1000


@dataclass
class MediaInfo:
    """What a media file holds, told by its packets.

    Arguments
    ---------
    has_audio, has_video : bool
        Whether there is a stream of that kind; once all is read, whether there
        is anything in it. Cover art is no video; a silent track is audio (see
        :func:`is_silent`).
    duration : float
        Seconds from the start of the presentation to the end of the last
        packet of sound or picture, exact to about one packet.
    audio_duration, video_duration : float
        Seconds of each stream from its first packet to its last one's end; 0.0
        if there is none.
    truncated : bool
        The packets end clearly before the duration that the header states, or
        cannot be read to the end. Ogg, mpegts and bare streams state none, so
        that theirs is always False.
    sample_rate : int or None
        Samples a second of the audio stream.
    """

    has_audio: bool = True
    has_video: bool = True
    duration: float = 0.0
    audio_duration: float = 0.0
    video_duration: float = 0.0
    truncated: bool = False
    sample_rate: int | None = None


class MediaStream:
    """What :func:`decode` gives: an iterator that learns what a file holds.

    Attributes
    ----------
    info : MediaInfo
        ``has_audio`` and ``has_video`` as soon as there is a first item, all
        else after the last.
    """

    def __init__(self, path: str, make_readers: dict[str, Callable]):
        self.info = MediaInfo()
        # The info and not this object: that would be a cycle of references.
        self._items = _decode(path, make_readers, self.info)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._items)


def decode(
    path: str | os.PathLike,
    sample_rate: int = SAMPLE_RATE,
    frame_rate: float | None = None,
    audio: bool = True,
    video: bool = True,
    batch_frames: int = 32,
) -> MediaStream:
    """Decodes a file in one pass.

    Arguments
    ---------
    path : str or os.PathLike
        A file in any container that FFmpeg knows.
    sample_rate : int
        Samples a second of the audio that is yielded.
    frame_rate : float or None
        At most one frame is yielded in each 1 / frame_rate seconds, picked by
        its time, so that variable frame rates are fine. None yields all.
    audio, video : bool
        Whether to yield sound and picture.
    batch_frames : int
        Frames in a batch; fewer where they would fill more than 128 MiB, and
        at the end.

    Returns
    -------
    MediaStream
        An iterator over AudioChunk and FrameBatch, in the order of the file. A
        stream that the file lacks gives nothing.

    Raises
    ------
    MediaError
        The file cannot be opened (see ``open_media``), has a fault, or goes
        beyond a limit (see :mod:`vavl_sb.media.decoders`). Raised at the
        fault: what came before it has been yielded.

    Example
    -------
    >>> import tempfile, wave
    >>> with tempfile.NamedTemporaryFile(suffix=".wav") as file:
    ...     with wave.open(file.name, "wb") as writer:
    ...         writer.setparams((2, 2, 8000, 0, "NONE", "NONE"))
    ...         writer.writeframes(bytes(2 * 2 * 8000))
    ...     for chunk in decode(file.name):
    ...         print(chunk.start, chunk.samples.shape)
    0.0 (16000,)
    """
    if frame_rate is not None and not frame_rate > 0:
        raise VAVLError(
            f"frame_rate is {frame_rate}: give a number above 0, or null for "
            "every frame"
        )
    make_readers: dict[str, Callable] = {}
    if audio:
        make_readers["audio"] = partial(AudioReader, sample_rate=sample_rate)
    if video:
        make_readers["video"] = partial(
            VideoReader, frame_rate=frame_rate, batch_frames=batch_frames
        )
    return MediaStream(os.fspath(path), make_readers)


def _decode(path, make_readers, info):
    """The generator behind :func:`decode`."""
    with open_media(path) as (container, file):
        timeline = Timeline(container, path)
        sound, picture = choose_streams(container)
        info.has_audio, info.has_video = sound is not None, picture is not None
        readers = {
            stream.index: make_readers[stream.type](
                stream, timeline.origin, path
            )
            for stream in (sound, picture)
            if stream is not None and stream.type in make_readers
        }
        if make_readers and not readers:
            return
        fault = None
        try:
            for packet in read_packets(container, timeline):
                reader = readers.get(packet.stream.index)
                if reader is not None:
                    yield from reader.read(packet)
        except MediaFault as error:
            fault = error
        for reader in readers.values():
            try:
                yield from reader.flush()
            except MediaFault as error:
                # What a resampler still holds may be as broken.
                fault = fault or error
            fault = fault or reader.fault_at_end()
        stated = stated_duration(file, container)
        if fault is None and timeline.ends_before(stated):
            fault = MediaFault(
                f"ends at {timeline.end:.2f} s of the {stated:.2f} s that "
                "its header states"
            )
        heard, seen = timeline.span(sound), timeline.span(picture)
        info.has_audio, info.has_video = heard.count > 0, seen.count > 0
        info.duration = max(heard.end, seen.end)
        info.audio_duration, info.video_duration = heard.duration, seen.duration
        codec = sound.codec_context if sound is not None else None
        info.sample_rate = getattr(codec, "sample_rate", None)
        info.truncated = fault is not None
    if fault is not None and readers:
        raise MediaError(
            f"{path}: {fault}; the file is damaged or cut off: get it again, "
            "or leave it out"
        )
    mended = [text for reader in readers.values() for text in reader.mended]
    if mended:
        logger.warning(
            "%s: damaged in places, which FFmpeg has mended as it could "
            "(%d messages, first: %s)",
            *(path, len(mended), mended[0][:100]),
        )


def probe(path: str | os.PathLike) -> MediaInfo:
    """What a file holds, by its packets, without decoding any.

    Arguments
    ---------
    path : str or os.PathLike
        A file in any container that FFmpeg knows.

    Returns
    -------
    MediaInfo

    Example
    -------
    >>> import tempfile, wave
    >>> with tempfile.NamedTemporaryFile(suffix=".wav") as file:
    ...     with wave.open(file.name, "wb") as writer:
    ...         writer.setparams((1, 2, 16000, 0, "NONE", "NONE"))
    ...         writer.writeframes(bytes(2 * 8000))
    ...     info = probe(file.name)
    >>> info.duration, info.has_audio, info.has_video, info.truncated
    (0.5, True, False, False)
    """
    stream = decode(path, audio=False, video=False)
    for _ in stream:
        pass
    return stream.info


def read_audio(
    path: str | os.PathLike, sample_rate: int = SAMPLE_RATE
) -> torch.Tensor | None:
    """All sound of a file, or None where there is nothing to hear.

    Arguments
    ---------
    path : str or os.PathLike
        A file in any container that FFmpeg knows.
    sample_rate : int
        Samples a second wanted.

    Returns
    -------
    torch.FloatTensor or None
        Shape (n,), mono in [-1, 1], from the stream's first sample on; a gap
        in its time stamps is closed. None if there is no audio stream, no
        sample in it, or digital silence alone.

    Raises
    ------
    MediaError
        As :func:`decode`, and for more than an hour of sound.
    """
    parts = [np.zeros(0, np.float32)]
    seconds = 0.0
    for chunk in decode(path, sample_rate, video=False):
        parts.append(chunk.samples)
        seconds += len(chunk.samples) / sample_rate
        refuse_endless(path, seconds)
    samples = np.concatenate(parts)
    return None if is_silent(samples) else torch.from_numpy(samples)


def refuse_endless(path: str | os.PathLike, seconds: float) -> None:
    """Raises a MediaError where more sound is held than is sensible."""
    if seconds > MAX_WHOLE:
        raise MediaError(
            f"{path}: more than {MAX_WHOLE / 3600:g} h of sound; cut it into "
            "clips, or leave it out"
        )


def is_silent(samples: np.ndarray | torch.Tensor) -> bool:
    """Whether samples are digital silence: a track without sound.

    That is a range from lowest to highest sample below ``SILENCE_RANGE``,
    which no recording of a microphone reaches, however quiet.

    Arguments
    ---------
    samples : np.ndarray or torch.Tensor
        Any shape, full scale 1.

    Returns
    -------
    bool
        True also without any sample.

    Example
    -------
    >>> is_silent(np.zeros(100)), is_silent(np.array([0.0, 0.004, -0.004]))
    (True, False)
    """
    if len(samples) == 0:
        return True
    return bool(samples.max() - samples.min() < SILENCE_RANGE)


def stated_duration(
    file: BinaryIO, container: "av.container.InputContainer"
) -> float | None:
    """Duration that the header of a file states, where it can be relied on.

    Arguments
    ---------
    file, container
        From :func:`vavl_sb.media.demuxing.open_media`, read to the end.

    Returns
    -------
    float or None
        Seconds, or None where the container states none (see
        ``FORMATS_WITH_DURATION``) or the writer could not know it.
    """
    file.seek(0)
    name = container.format.name.split(",")[0]
    if name in ("wav", "avi"):
        return riff_duration(file)
    if name not in FORMATS_WITH_DURATION or not container.duration:
        return None
    return container.duration / AV_TIME_BASE


def riff_duration(file: BinaryIO) -> float | None:
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
    for _ in range(MAX_RIFF_CHUNKS):
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
