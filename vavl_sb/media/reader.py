"""Media files in, frames with their times and mono audio out.

One path for every container: PyAV (FFmpeg's libraries) opens, demuxes and
decodes a file once, in bounded memory: one batch of frames and one second of
sound at most.

- Times are seconds from the start of the presentation, the same origin for
  sound and picture, whatever offsets the streams have.
- Frames are upright (the file's rotation or mirroring is applied), have square
  pixels, and are RGB. Those of more than 2560 x 1440 pixels come smaller (see
  :func:`vavl_sb.media.decoders.kept_size`).
- Sound is the mean of the channels, resampled by FFmpeg's swresample; where
  channels cancel each other, it is the loudest of them.
- HDR pictures come as SDR (see :func:`vavl_sb.media.decoders.tone_map`).
- Files that were joined byte by byte are one clip.

Nothing that a file has is lost without a word. :class:`MediaInfo` lists what is
used and what is left out, and one warning says the latter. Of several sound
tracks the first is used that has more than noise, of several pictures FFmpeg's choice
or the caller's.

An end clearly before the duration that the header states, or more damage than
``MAX_DAMAGE`` of :mod:`vavl_sb.media.decoders` raises a :class:`MediaError`
that names the time; so does a single picture without sound, whatever holds it.
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
from vavl_sb.media.riff import chunks_behind, riff_duration
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

# Decibels by which a sound track, at its loudest second, is so far below
# another of the file that there is but noise on it.
MUCH_QUIETER = 35.0

# Seconds of sound that are held at once, where a clip is read whole: 230 MB.
MAX_WHOLE = 3600.0

# Headers of these state a duration when the file is written. Those of others
# do not (FFmpeg reads ogg's and mpegts' off the last packet, and guesses
# those of adts and mp3 from size and bit rate), so that a missing end cannot
# be known.
FORMATS_WITH_DURATION = {"mov", "matroska", "flv", "asf", "flac", "aiff"}


@dataclass
class MediaInfo:
    """What a media file holds, told by its packets.

    Attributes
    ----------
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
    used : dict
        "audio" and "video" to the stream that is yielded, in words.
    left_out : list of str
        Once all is read: what is not yielded, or not as it was recorded; a
        line each.
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
        """Moves what was used of a kind to what is left out."""
        if kind in self.used:
            self.left_out.append(f"{self.used.pop(kind)}: {why}")


class MediaStream:
    """What :func:`decode` gives: an iterator that learns what a file holds.

    In its ``info``, ``has_audio``, ``has_video`` and ``used`` are there as soon
    as there is a first item, all else after the last.
    """

    def __init__(self, info: MediaInfo, items: Iterator):
        self.info, self._items = info, items

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
    choose_picture: Callable | None = None,
) -> MediaStream:
    """Decodes a file, in any container that FFmpeg knows, in one pass.

    Gives AudioChunk and FrameBatch objects, in the order of the file. A stream
    that the file lacks gives nothing.

    Arguments
    ---------
    path : str or os.PathLike
        The file.
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
    choose_picture : callable
        Gets the path and the numbers of the streams of a file with several
        pictures, FFmpeg's choice first, and gives the one to use. None takes
        the first.

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
    readers: dict[str, Callable] = {}
    if audio:
        readers["audio"] = partial(AudioReader, sample_rate=sample_rate)
    if video:
        readers["video"] = partial(
            VideoReader, frame_rate=frame_rate, batch_frames=batch_frames
        )
    info, choose = MediaInfo(), {"audio": _with_sound, "video": choose_picture}
    return MediaStream(info, _decode(os.fspath(path), readers, info, choose))


def decode_stream(
    path: str | os.PathLike, number: int, frame_rate: float | None = None
) -> Iterator[AudioChunk | FrameBatch]:
    """Decodes one stream of a file, by its number: see :func:`decode`.

    To choose among several: no warning tells what is left out.
    """
    readers = {
        "audio": partial(AudioReader, sample_rate=SAMPLE_RATE),
        "video": partial(VideoReader, frame_rate=frame_rate, batch_frames=8),
    }
    return _decode(os.fspath(path), readers, MediaInfo(), {}, number)


def _with_sound(path, numbers):
    """The first of several sound tracks that is not much quieter than others,
    which is one that nobody spoke into."""
    powers = dict.fromkeys(numbers, 0.0)
    for number in numbers:
        with contextlib.suppress(MediaError):  # Of one that is used, it counts.
            for chunk in decode_stream(path, number):
                if not is_silent(chunk.samples):
                    power = float(np.square(chunk.samples).mean())
                    powers[number] = max(powers[number], power)
    least = max(powers.values()) * 10 ** (-MUCH_QUIETER / 10)
    return next(n for n in numbers if powers[n] >= least)


def _choose(container, path, info, choose, wanted):
    """The stream of each kind to use, by kind; and those left out, in words.

    Cover art is left out without a warning, and so are kinds not ``wanted``.
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
    """The generator behind :func:`decode`; of one stream where ``only``."""
    with open_media(path) as (container, file):
        timeline = Timeline(container, path)
        if only is None:
            chosen, notes = _choose(container, path, info, choose, make_readers)
        else:
            stream, notes = container.streams[only], []
            chosen = {**dict.fromkeys(WORDS), stream.type: stream}
        sound, picture = chosen["audio"], chosen["video"]
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
            notes += reader.left_out
        heard, seen = timeline.span(sound), timeline.span(picture)
        info.has_audio, info.has_video = heard.count > 0, seen.count > 0
        for kind, span in (("audio", heard), ("video", seen)):
            if span.count == 0:  # Listed, but with nothing in it.
                info.used.pop(kind, None)
        stated = stated_duration(file, container)
        if stated and chunks_behind(file) is None:
            notes.append(
                f"its header states {stated:.2f} s of the {timeline.end:.2f} s "
                "that are there: read to the end"
            )
        if joined_behind(file, container.format.name):
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
        info.duration = max(heard.end, seen.end)
        info.audio_duration, info.video_duration = heard.duration, seen.duration
        info.truncated = fault is not None
        notes += timeline.notes
        info.left_out += notes
        if (
            fault is None
            and only is None
            and heard.count == 0
            and seen.count == 1
        ):
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
    """What a file in any container that FFmpeg knows holds, by its packets,
    without decoding any.

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

    Float32 (n,), mono in [-1, 1], from the stream's first sample on; a gap in
    its time stamps is closed. None if there is no audio stream, no sample in
    it, or digital silence alone. MediaError as of :func:`decode`, and for more
    than an hour of sound.
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
    """Whether samples of any shape, full scale 1, are digital silence: a track
    without sound.

    That is a range from lowest to highest sample below ``SILENCE_RANGE``, which
    no recording of a microphone reaches, however quiet; or no sample at all.

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
    """Duration in seconds that the header of a file states, where it can be
    relied on.

    None where the container states none (see ``FORMATS_WITH_DURATION``) or the
    writer could not know it. File and container are from
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


def joined_behind(file: BinaryIO, form: str) -> bool:
    """Whether another file was joined to a file's end, which FFmpeg leaves out.

    ``form`` is FFmpeg's name of its container; in others than those below it
    reads on by itself.
    """
    if form == "wav":
        return bool({b"RIFF", b"data"}.intersection(chunks_behind(file) or ()))
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
    """Duration in seconds that an mp3, open at its start, states in the Xing
    frame behind its tags; None without such a frame."""
    head = file.read(10)
    while head[:3] == b"ID3" and len(head) == 10:
        size = sum(b << s for b, s in zip(head[6:], (21, 14, 7, 0)))
        file.seek(size, os.SEEK_CUR)
        head = file.read(10)
    found = re.search(rb"(?:Xing|Info)...[\x01-\xff](....)", file.read(190), 16)
    if found is None or not sample_rate:
        return None
    frames = int.from_bytes(found[1], "big")
    return frames * (1152 if sample_rate >= 32000 else 576) / sample_rate
