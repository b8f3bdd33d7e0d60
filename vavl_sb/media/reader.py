"""Decodes media files into video frames with times, and mono audio.

PyAV (FFmpeg's libraries) reads any container in one pass. Memory is bounded: at
most one batch of frames and one second of audio are decoded at a time.

- Times are seconds from the start of the presentation, the same origin for
  audio and video, whatever offsets the streams have.
- Frames are RGB, upright (the file's rotation or mirroring is applied) and have
  square pixels. Frames of more than 2560 x 1440 pixels are downscaled (see
  :func:`vavl_sb.media.decoders.kept_size`).
- Audio is the mean of the channels, resampled by FFmpeg's swresample. If the
  channels cancel each other, it is the loudest channel.
- HDR frames are converted to SDR (see
  :func:`vavl_sb.media.decoders.tone_map`).
- Files that were joined byte by byte are read as one clip.

:class:`MediaInfo` lists the streams that are used and what is left out; a
warning logs the latter. Of several audio tracks, the first one that has more
than noise is used; of several video streams, FFmpeg's choice or the caller's.

A :class:`MediaError` is raised if a file ends clearly before the duration in
its header, has more damage than ``MAX_DAMAGE`` of
:mod:`vavl_sb.media.decoders`, or is a single picture without sound.
"""

import contextlib
import math
import mmap
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from vavl_sb.media.decoders import (
    SAMPLE_RATE,
    AudioChunk,
    AudioReader,
    FrameBatch,
    VideoReader,
)
from vavl_sb.media.demuxing import (
    AV_TIME_BASE,
    WORDS,
    MediaFault,
    Timeline,
    describe,
    is_attached,
    open_media,
    rank_streams,
    read_packets,
)
from vavl_sb.media.riff import riff_duration, trailing_chunks
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

# Peak-to-peak range below which audio is digital silence: peaks of -80 dBFS, or
# three steps of 16-bit audio. Silence after dither or a lossy codec stays at
# one step (RAVDESS video-only files: -91 dBFS); the noise of any microphone is
# above it (quietest speech in CREMA-D and RAVDESS: peaks of -35 dBFS or more).
# A range rather than a peak, so that a constant offset counts as silence.
SILENCE_RANGE = 2e-4

# An audio track whose loudest second is this many decibels below that of
# another track of the file is taken for noise.
MUCH_QUIETER = 35.0

# Longest audio, in seconds, that is read into memory as a whole: 230 MB.
MAX_WHOLE = 3600.0

# Formats whose header states a duration. For others FFmpeg takes it from the
# last packet (ogg, mpegts) or estimates it from size and bit rate (adts, mp3),
# so that a missing end cannot be detected.
FORMATS_WITH_DURATION = {"mov", "matroska", "flv", "asf", "flac", "aiff"}


@dataclass
class MediaInfo:
    """Streams and durations of a media file, from its packets.

    Attributes
    ----------
    has_audio, has_video : bool
        Whether there is a stream of that kind; after the last packet, whether
        it has any packets. Cover art does not count as video; a silent track
        counts as audio (see :func:`is_silent`).
    duration : float
        Seconds from the start of the presentation to the end of the last audio
        or video packet, exact to about one packet.
    audio_duration, video_duration : float
        Seconds from the first packet to the end of the last packet of each
        stream; 0.0 without a stream.
    truncated : bool
        Whether the packets end clearly before the duration in the header, or
        cannot be read to the end. Always False for formats without a stated
        duration: ogg, mpegts and raw streams.
    used : dict
        "audio" and "video" to a description of the stream that is decoded.
    left_out : list of str
        After the last packet: one line for each stream or part that was left
        out or altered.
    """

    has_audio: bool = True
    has_video: bool = True
    duration: float = 0.0
    audio_duration: float = 0.0
    video_duration: float = 0.0
    truncated: bool = False
    used: dict[str, str] = field(default_factory=dict, compare=False)
    left_out: list[str] = field(default_factory=list, compare=False)

    def leave_out(self, kind: str, why: str) -> None:
        """Moves the stream of a kind from ``used`` to ``left_out``."""
        if kind in self.used:
            self.left_out.append(f"{self.used.pop(kind)}: {why}")


class MediaStream:
    """An iterator over the decoded items of a file; returned by :func:`decode`.

    ``info.has_audio``, ``info.has_video`` and ``info.used`` are set from the
    first item on, the rest of ``info`` after the last one.
    """

    def __init__(self, info: MediaInfo, items: Iterator):
        self.info, self._items = info, items

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._items)


def decode(
    path: str | os.PathLike,
    frame_rate: float | None = None,
    audio: bool = True,
    video: bool = True,
    batch_frames: int = 32,
    choose_picture: Callable | None = None,
) -> MediaStream:
    """Decodes a file, in any container that FFmpeg supports, in one pass.

    Yields AudioChunk and FrameBatch objects in the order of the file, and
    nothing for a missing stream.

    Arguments
    ---------
    path : str or os.PathLike
        The file.
    frame_rate : float or None
        Yields at most one frame in each 1 / frame_rate seconds, selected by
        time stamp, so that variable frame rates work. None yields all frames.
    audio, video : bool
        Whether to yield audio and video.
    batch_frames : int
        Frames per batch; fewer at the end, or if they would take more than
        128 MiB.
    choose_picture : callable
        For files with several video streams: takes the path and the stream
        numbers, FFmpeg's choice first, and returns the number of the stream to
        use. None uses the first.

    Raises
    ------
    MediaError
        The file cannot be opened (see ``open_media``), is damaged, or exceeds
        a limit (see :mod:`vavl_sb.media.decoders`). Items before the fault are
        yielded first.

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
    readers: dict[str, Callable] = {}
    if audio:
        readers["audio"] = AudioReader
    if video:
        readers["video"] = partial(
            VideoReader, frame_rate=frame_rate, batch_frames=batch_frames
        )
    info, choose = MediaInfo(), {"audio": _with_sound, "video": choose_picture}
    return MediaStream(info, _decode(os.fspath(path), readers, info, choose))


def decode_stream(
    path: str | os.PathLike, number: int, frame_rate: float | None = None
) -> Iterator[AudioChunk | FrameBatch]:
    """Decodes one stream of a file, by its number; see :func:`decode`.

    Logs no warning about what is left out.
    """
    readers = {
        "audio": AudioReader,
        "video": partial(VideoReader, frame_rate=frame_rate, batch_frames=8),
    }
    return _decode(os.fspath(path), readers, MediaInfo(), {}, number)


def _with_sound(path, numbers):
    """Returns the first audio track that is not much quieter than another one,
    so that the track of an unused microphone is skipped."""
    powers = dict.fromkeys(numbers, 0.0)
    for number in numbers:
        # If this track is chosen, decoding it raises the error again.
        with contextlib.suppress(MediaError):
            for chunk in decode_stream(path, number):
                if not is_silent(chunk.samples):
                    power = float(np.square(chunk.samples).mean())
                    powers[number] = max(powers[number], power)
    least = max(powers.values()) * 10 ** (-MUCH_QUIETER / 10)
    return next(n for n in numbers if powers[n] >= least)


def _choose(container, path, info, choose, wanted):
    """Returns the stream to use of each kind, and descriptions of the others.

    Cover art and kinds that are not ``wanted`` do not cause a warning.
    """
    chosen, others = {}, []
    for kind in WORDS:
        ranked = rank_streams(container, kind)
        first = ranked[0] if ranked else None
        if len(ranked) > 1 and kind in wanted and choose.get(kind):
            number = choose[kind](path, [stream.index for stream in ranked])
            first = container.streams[number]
        chosen[kind] = first
        if first is not None and kind in wanted:
            info.used[kind] = describe(first)
            others += [describe(s) for s in ranked if s is not first]
    covers = filter(is_attached, container.streams)
    info.left_out += map(describe, covers if "video" in wanted else ())
    return chosen, others


def _decode(path, make_readers, info, choose, only=None):
    """Generator of :func:`decode`; ``only`` is the number of one stream."""
    with open_media(path) as (container, file):
        timeline = Timeline(container, path)
        if only is None:
            chosen, notes = _choose(container, path, info, choose, make_readers)
        else:
            stream, notes = container.streams[only], []
            chosen = {**dict.fromkeys(WORDS), stream.type: stream}
        audio, video = chosen["audio"], chosen["video"]
        info.has_audio, info.has_video = audio is not None, video is not None
        readers = {
            stream.index: make_readers[stream.type](
                stream, timeline.origin, path
            )
            for stream in (audio, video)
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
                fault = fault or error
            fault = fault or reader.fault_at_end()
            notes += reader.left_out
        spans = {kind: timeline.span(chosen[kind]) for kind in WORDS}
        audio_span, video_span = spans["audio"], spans["video"]
        info.has_audio = audio_span.count > 0
        info.has_video = video_span.count > 0
        for kind, span in spans.items():
            if span.count == 0:  # The stream is listed but has no packets.
                info.used.pop(kind, None)
        stated = stated_duration(file, container)
        if stated and trailing_chunks(file) is None:
            notes.append(
                f"its header states {stated:.2f} s of the {timeline.end:.2f} s "
                "that are there: read to the end"
            )
        if has_appended_file(file, container.format.name):
            notes.append("another file that was joined to its end")
        end = f"ends at {timeline.end:.2f} s of the "
        if stated == math.inf:
            notes.append(f"{end}impossible length that its header states")
        elif timeline.ends_before(stated):
            text = f"{end}{stated:.2f} s that its header states"
            if container.format.name == "mp3":
                notes.append(text)
            else:
                fault = fault or MediaFault(text)
        info.duration = max(audio_span.end, video_span.end)
        info.audio_duration = audio_span.duration
        info.video_duration = video_span.duration
        info.truncated = fault is not None
        notes += timeline.notes
        info.left_out += notes
        is_still = audio_span.count == 0 and video_span.count == 1
        if is_still and fault is None and only is None:
            raise MediaError(
                f"{path}: a still picture; give a clip with sound or a moving "
                "picture"
            )
    if fault is not None and readers:
        raise MediaError(
            f"{path}: {fault}; the file is damaged or cut off: get it again, "
            "or leave it out"
        )
    if notes and readers and only is None:
        logger.warning("%s: left out or mended: %s", path, "; ".join(notes))


def probe(path: str | os.PathLike) -> MediaInfo:
    """Reads the :class:`MediaInfo` of a file without decoding it.

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


def read_audio(path: str | os.PathLike) -> torch.Tensor | None:
    """Reads all audio of a file: float32 (n,), 16 kHz mono in [-1, 1].

    Starts at the stream's first sample; gaps in the time stamps are closed.
    None if there is no audio stream, no sample, or only digital silence. Raises
    a MediaError as :func:`decode` does, and for more than an hour of audio.
    """
    parts = [np.zeros(0, np.float32)]
    seconds = 0.0
    for chunk in decode(path, video=False):
        parts.append(chunk.samples)
        seconds += len(chunk.samples) / SAMPLE_RATE
        check_length(path, seconds)
    samples = np.concatenate(parts)
    return None if is_silent(samples) else torch.from_numpy(samples)


def check_length(path: str | os.PathLike, seconds: float) -> None:
    """Raises a MediaError for more than ``MAX_WHOLE`` seconds of audio."""
    if seconds > MAX_WHOLE:
        raise MediaError(
            f"{path}: more than {MAX_WHOLE / 3600:g} h of sound; cut it into "
            "clips, or leave it out"
        )


def is_silent(samples: np.ndarray | torch.Tensor) -> bool:
    """Whether samples of any shape (full scale 1) are digital silence.

    This is a range from lowest to highest sample below ``SILENCE_RANGE``, which
    even the quietest microphone recording exceeds; or no sample at all.

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
    """Returns the duration in the header of a file, seconds, if it is reliable.

    None if the format states none (see ``FORMATS_WITH_DURATION``) or the file
    was written without knowing it. ``file`` and ``container`` are those of
    :func:`vavl_sb.media.demuxing.open_media`, read to the end.
    """
    file.seek(0)
    name = container.format.name.split(",")[0]
    if name in ("wav", "avi"):
        return riff_duration(file)
    if name == "mp3":
        return xing_duration(file, container.streams.audio[0].sample_rate)
    if name not in FORMATS_WITH_DURATION or not container.duration:
        return None
    return container.duration / AV_TIME_BASE


def has_appended_file(file: BinaryIO, form: str) -> bool:
    """Whether another file, which FFmpeg ignores, is appended to a file.

    ``form`` is FFmpeg's name of the container. In containers other than those
    below, FFmpeg continues to read.
    """
    if form == "wav":
        return bool(
            {b"RIFF", b"data"}.intersection(trailing_chunks(file) or ())
        )
    file.seek(0)
    start = file.read(16)
    begins = {
        "mov": (start[4:8] == b"ftyp", re.escape(start[4:12])),
        "w64": (True, re.escape(start)),
        "aiff": (True, b"FORM...." + re.escape(start[8:12]) + b"COMM"),
        "flv": (True, re.escape(start[:9])),
    }
    known, pattern = begins.get(form.split(",")[0], (False, b""))
    if not known:
        return False
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return re.compile(pattern, re.DOTALL).search(content, 16) is not None


def xing_duration(file: BinaryIO, sample_rate: int) -> float | None:
    """Returns the duration in the Xing frame of an mp3, seconds, or None.

    The file must be open at its start; tags before the frame are skipped.
    """
    head = file.read(10)
    while head[:3] == b"ID3" and len(head) == 10:
        size = sum(b << s for b, s in zip(head[6:], (21, 14, 7, 0)))
        file.seek(size, os.SEEK_CUR)
        head = file.read(10)
    xing = re.compile(rb"(?:Xing|Info)...[\x01-\xff](....)", re.DOTALL)
    match = xing.search(file.read(190))
    if match is None or not sample_rate:
        return None
    frames = int.from_bytes(match[1], "big")
    return frames * (1152 if sample_rate >= 32000 else 576) / sample_rate
