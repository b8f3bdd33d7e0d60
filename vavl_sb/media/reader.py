"""Media files in, frames with their times and mono audio out.

One path for every container: PyAV (FFmpeg's libraries) demuxes and decodes in
one pass and in bounded memory, since :func:`decode` is a generator that holds
one batch of frames and one second of sound at most.

- Times are seconds from the start of the presentation, the same origin for
  sound and picture, whatever offsets the streams have.
- Frames are upright (the file's rotation or mirroring is applied), have square
  pixels, and are RGB. Those of more than 2560 x 1440 pixels come smaller (see
  :func:`vavl_sb.media.limits.kept_size`).
- Sound is the mean of the channels, resampled by FFmpeg's swresample.
- Decoders run in one thread: the same file gives the same frames, also where
  it is damaged, and workers do not compete for cores. On clips of 640x360
  threads inside of it gained nothing.

A fault in the middle (a packet that cannot be decoded and good ones after it,
or an end clearly before the duration that the header states) raises a
:class:`MediaError` that names the time; with ``partial=True`` decoding stops
there with a warning. Damage that FFmpeg's decoders mend gives a warning
too, as does a gap in the sound.

Authors
 * The vavl_sb authors 2026
"""

import os
from dataclasses import dataclass

import numpy as np
import torch

from vavl_sb.media.decoders import AudioReader, Fault, VideoReader
from vavl_sb.media.demuxing import (
    Timeline,
    choose_streams,
    import_av,
    open_media,
)
from vavl_sb.media.durations import promised_duration
from vavl_sb.media.ffmpeg_log import Complaints
from vavl_sb.media.frames import AudioChunk, FrameBatch
from vavl_sb.media.limits import MAX_WHOLE, fault_of_time
from vavl_sb.utils.errors import MediaError, VAVLError
from vavl_sb.utils.logger import get_logger

__all__ = [
    "AudioChunk",
    "FrameBatch",
    "MediaInfo",
    "decode",
    "is_silent",
    "probe",
    "read_audio",
]

logger = get_logger(__name__)

# Peak-to-peak range below which sound is digital silence: 2e-4, that is peaks
# of -80 dBFS, three steps of 16-bit audio. Silence that went through dither or
# a lossy codec stays at one step (RAVDESS video-only files: -91 dBFS), while
# any microphone's own noise is above it (quietest speech in CREMA-D and
# RAVDESS: peaks of -35 dBFS or more). The range, not the peak, so that an
# offset is no sound.
SILENCE_RANGE = 2e-4


@dataclass(frozen=True)
class MediaInfo:
    """What a media file holds, told by its packets without decoding.

    Arguments
    ---------
    path : str
        The file.
    duration : float
        Seconds from the start of the presentation to the end of the last
        packet of sound or picture, exact to about one packet.
    has_audio, has_video : bool
        Whether there is a stream of that kind with anything in it. Cover art
        is no video; a silent track is audio (see :func:`is_silent`).
    audio_duration, video_duration : float
        Seconds of each stream from its first packet to its last one's end; 0.0
        if there is none.
    truncated : bool
        The packets end clearly before the duration that the header states, or
        cannot be read to the end. Ogg, mpegts and bare streams state none, so
        that theirs is always False.
    promised_duration : float or None
        Seconds that the header states, where it can be relied on.
    frame_rate : float or None
        Average frames a second of the video stream.
    sample_rate : int or None
        Samples a second of the audio stream.
    """

    path: str
    duration: float
    has_audio: bool
    has_video: bool
    audio_duration: float
    video_duration: float
    truncated: bool
    promised_duration: float | None = None
    frame_rate: float | None = None
    sample_rate: int | None = None


def decode(
    path,
    sample_rate=16000,
    frame_rate=None,
    audio=True,
    video=True,
    batch_frames=32,
    partial=False,
):
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
    partial : bool
        At a fault, stop with a warning instead of raising.

    Yields
    ------
    AudioChunk or FrameBatch
        In the order of the file. A stream that the file lacks yields nothing.

    Raises
    ------
    MediaError
        The file cannot be opened (see ``open_media``), claims a picture above
        the limit (see :mod:`vavl_sb.media.limits`), or has a fault, of which
        a broken limit is one, and ``partial`` is False. Raised at the fault:
        what came before it has been yielded.

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
    if sample_rate <= 0 or batch_frames < 1:
        raise VAVLError(
            f"sample_rate is {sample_rate} and batch_frames {batch_frames}: "
            "both must be above 0"
        )
    readers = {}
    if audio:
        readers["audio"] = AudioReader(sample_rate)
    if video:
        readers["video"] = VideoReader(frame_rate, batch_frames)
    return _decode(os.fspath(path), readers, partial)


def _decode(path, readers, partial):
    """The generator behind :func:`decode`."""
    complaints = Complaints(import_av())
    with open_media(path) as container:
        timeline = Timeline(container)
        used = {}
        for stream in choose_streams(container):
            if stream is not None and stream.type in readers:
                used[stream.index] = readers[stream.type]
                used[stream.index].open(
                    stream, timeline.origin, path, complaints
                )
        if not used:
            return
        fault = None
        try:
            for packet in _packets(container, timeline):
                reader = used.get(packet.stream.index)
                if reader is not None:
                    yield from reader.read(packet)
        except Fault as error:
            fault = error
        for reader in used.values():
            try:
                yield from reader.flush()
            except Fault as error:
                # What a resampler still holds may be as broken.
                fault = fault or error
            fault = fault or reader.fault_at_end()
        promised = promised_duration(path, container)
        if fault is None and timeline.ends_before(promised):
            fault = Fault(
                f"ends at {timeline.end:.2f} s of the {promised:.2f} s that "
                "its header states"
            )
    if fault is not None and not partial:
        raise MediaError(
            f"{path}: {fault}; the file is damaged or cut off: get it again, "
            "or leave it out"
        )
    if fault is not None:
        logger.warning("%s: %s; using what comes before", path, fault)
    elif complaints.count:
        logger.warning(
            "%s: damaged in places, which FFmpeg has mended as it could "
            "(%d messages, first: %s)",
            *(path, complaints.count, complaints.first[:100]),
        )


def _packets(container, timeline):
    """All packets of a container; a fault in reading them is a Fault."""
    av = import_av()
    # What a container's reader says is often of a tag, and does not count.
    unheeded = Complaints(av)
    packets = container.demux()
    while True:
        try:
            with unheeded.heard():
                packet = next(packets)
        except StopIteration:
            return
        except IndexError:
            # PyAV, after all else is read, asks for a stream that was found
            # only in the middle (damaged flv), which it does not know. By
            # chance it does so or not: the stream does not count either way.
            return
        except (av.error.FFmpegError, OSError) as error:
            raise Fault(
                f"cannot be read beyond {timeline.end:.2f} s ({error.strerror})"
            ) from error
        timeline.add(packet)
        yield packet


def read_audio(path, sample_rate=16000, partial=False):
    """All sound of a file, or None where there is nothing to hear.

    Arguments
    ---------
    path : str or os.PathLike
        A file in any container that FFmpeg knows.
    sample_rate : int
        Samples a second wanted.
    partial : bool
        As in :func:`decode`.

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

    Example
    -------
    >>> import tempfile, wave
    >>> with tempfile.NamedTemporaryFile(suffix=".wav") as file:
    ...     with wave.open(file.name, "wb") as writer:
    ...         writer.setparams((1, 2, 16000, 0, "NONE", "NONE"))
    ...         writer.writeframes(bytes(2 * 16000))
    ...     print(read_audio(file.name))
    None
    """
    chunks = decode(path, sample_rate, video=False, partial=partial)
    samples, seconds = [], 0.0
    for chunk in chunks:
        samples.append(chunk.samples)
        seconds += len(chunk.samples) / sample_rate
        refuse_endless(path, seconds)
    samples = np.concatenate(samples) if samples else np.zeros(0, np.float32)
    return None if is_silent(samples) else torch.from_numpy(samples)


def refuse_endless(path, seconds):
    """Raises a MediaError where more sound is held than is sensible.

    Arguments
    ---------
    path : str
        The file, for the message.
    seconds : float
        Of sound that was read so far.
    """
    if seconds > MAX_WHOLE:
        raise MediaError(
            f"{path}: more than {MAX_WHOLE / 3600:g} h of sound; cut it into "
            "clips, or leave it out"
        )


def is_silent(samples):
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


def probe(path):
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
    path = os.fspath(path)
    with open_media(path) as container:
        sound, picture = choose_streams(container)
        timeline = Timeline(container)
        readable = True
        try:
            for _ in _packets(container, timeline):
                pass
        except Fault:
            readable = False
        promised = promised_duration(path, container)
        used = [s for s in (sound, picture) if s is not None]
        spans = [timeline.spans.get(stream.index) for stream in used]
        rate = picture.average_rate if picture is not None else None
        codec = sound.codec_context if sound is not None else None
        beyond = fault_of_time(timeline.end)
        if beyond is not None:
            raise MediaError(f"{path}: {beyond}; get it again or leave it out")
        return MediaInfo(
            path=path,
            duration=max((s.end for s in spans if s is not None), default=0.0),
            has_audio=sound is not None and sound.index in timeline.spans,
            has_video=picture is not None and picture.index in timeline.spans,
            audio_duration=timeline.duration(sound),
            video_duration=timeline.duration(picture),
            truncated=not readable or timeline.ends_before(promised),
            promised_duration=promised,
            frame_rate=float(rate) if rate else None,
            sample_rate=getattr(codec, "sample_rate", None),
        )
