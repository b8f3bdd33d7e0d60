"""Media containers: open them, choose their streams, time their packets.

What :mod:`vavl_sb.media.reader` needs below decoding. Nothing here decodes.

Times are seconds from the start of the presentation, which is the start of
the container and the same for all of its streams, so that sound and picture
stay in step with each other.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import functools
import itertools
import os
import re
from dataclasses import dataclass

from vavl_sb.media.ffmpeg_log import Complaints
from vavl_sb.media.limits import MAX_PIXELS
from vavl_sb.utils.errors import MediaError

# FFmpeg counts the times of a container in microseconds.
AV_TIME_BASE = 1_000_000

# FFmpeg draws text files as pictures of a terminal; to us they are no media.
FORMATS_OF_TEXT = {"tty", "bin", "xbin", "adf", "idf"}

# Demuxers that open more than the file they are given: playlists, scripts,
# descriptions of a broadcast, and formats that lie in several files.
FORMATS_OF_MANY_FILES = {
    *("avisynth", "concat", "concatf", "dash", "hls", "imf"),
    *("mlv", "rtp", "rtsp", "sap", "sdp", "vapoursynth", "vobsub"),
    "webm_dash_manifest",
}

# What such a file begins with, for an error that says what it is.
PLAYLIST = re.compile(
    rb"^\s*(#EXTM3U|ffconcat version|\[playlist\]|v=0\s)"
    rb"|<(\w+:)?(MPD|CompositionPlaylist|asx|smil|playlist)\b",
    re.IGNORECASE,
)


@contextlib.contextmanager
def open_media(path):
    """Opens a media file for reading, and closes it at the end.

    Arguments
    ---------
    path : str or os.PathLike
        A regular file in any container that FFmpeg knows, but no playlist.

    Yields
    ------
    av.container.InputContainer
        The open container. It has at least one stream of audio or video.

    Raises
    ------
    MediaError
        The file is missing, a directory, empty, unreadable, not media, or has
        neither audio nor video.
    """
    path = os.fspath(path)
    check_file(path)
    with _open(path) as container:
        name = container.format.name
        still = name == "image2" or name.endswith("_pipe")
        if still or (name == "gif" and _is_one_picture(path)):
            raise MediaError(
                f"{path}: a still picture; give a clip with sound or a moving "
                "picture"
            )
        text = name in FORMATS_OF_TEXT
        if text or not any(choose_streams(container)):
            raise MediaError(
                f"{path}: has neither audio nor video in it, or is cut off "
                "before they begin; give a clip that has at least one of them"
            )
        yield container


@contextlib.contextmanager
def _open(path):
    """PyAV's container; a MediaError where there is none.

    FFmpeg is handed the open file and not its name, and no protocol at all:
    whatever a file asks for, FFmpeg cannot open another.
    """
    av = import_av()
    with contextlib.ExitStack() as stack:
        try:
            # Unbuffered: all C, where Ctrl-C is not lost in a callback.
            file = stack.enter_context(open(path, "rb", buffering=0))
            with Complaints(av).heard():
                container = av.open(
                    file,
                    metadata_errors="ignore",
                    options={
                        "format_whitelist": _formats_of_one_file(),
                        "protocol_whitelist": "none",
                        "max_pixels": str(MAX_PIXELS),
                    },
                )
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(f"{path}: {_why_not(path, error)}") from error
        yield stack.enter_context(container)


@functools.cache
def _formats_of_one_file():
    """Names of all demuxers but those that open other files or devices."""
    av = import_av()
    names = set()
    for name in av.formats_available - FORMATS_OF_MANY_FILES:
        with contextlib.suppress(ValueError):  # It is for writing alone.
            if not av.format.ContainerFormat(name, "r").no_file:
                names.update(name.split(","))
    return ",".join(sorted(names - FORMATS_OF_MANY_FILES))


def _why_not(path, error):
    """What is wrong with a file that FFmpeg does not open."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if PLAYLIST.search(file.read(4096)):
            return (
                "a playlist, which names other files and is no clip; give "
                "the clip itself"
            )
    return (
        f"not a media file that can be read ({reason(error)}); it may be "
        "damaged or cut off: get it again"
    )


def _is_one_picture(path):
    """Whether a GIF does not move; one that is cut off counts as moving."""
    av = import_av()
    with _open(path) as container, Complaints(av).heard():
        packets = (p for p in container.demux() if p.size)
        try:
            return len(list(itertools.islice(packets, 2))) < 2
        except av.error.FFmpegError:
            return False


def import_av():
    """Imports PyAV when it is first needed.

    Returns
    -------
    module
        The module ``av``.
    """
    try:
        import av
    except ImportError as error:
        raise MediaError(
            "media files are decoded by PyAV, which is missing: pip install av"
        ) from error
    return av


def check_file(path):
    """Raises a MediaError if a path is not a regular file with bytes in it.

    Arguments
    ---------
    path : str
        The path to look at.
    """
    if not os.path.exists(path):
        raise MediaError(f"{path}: no such file; check the path")
    if not os.path.isfile(path):
        raise MediaError(f"{path}: not a file; give the path of one clip")
    if os.path.getsize(path) == 0:
        raise MediaError(f"{path}: empty (0 bytes); get it again")


def reason(error):
    """Text of an FFmpeg error in a few words, without its number and path.

    Arguments
    ---------
    error : Exception
        What PyAV raised.

    Returns
    -------
    str
    """
    return getattr(error, "strerror", None) or str(error) or "unknown error"


def choose_streams(container):
    """The audio and the video stream to use.

    FFmpeg's own choice of the best stream of each kind, but never a picture
    that is attached to a sound file (cover art).

    Arguments
    ---------
    container : av.container.InputContainer
        An open container.

    Returns
    -------
    audio : av.audio.stream.AudioStream or None
    video : av.video.stream.VideoStream or None
    """
    audio = container.streams.best("audio")
    video = container.streams.best("video")
    moving = [s for s in container.streams.video if not is_attached(s)]
    if video is not None and is_attached(video):
        video = moving[0] if moving else None
    return audio, video


def is_attached(stream):
    """Whether a stream is a still picture attached to the file.

    Arguments
    ---------
    stream : av.stream.Stream
        A video stream.

    Returns
    -------
    bool
    """
    # 0x400 is AV_DISPOSITION_ATTACHED_PIC.
    return stream.type == "video" and bool(stream.disposition.value & 0x400)


def origin(container):
    """Time stamp at which the presentation starts.

    Arguments
    ---------
    container : av.container.InputContainer
        An open container.

    Returns
    -------
    float
        Seconds.
    """
    return (container.start_time or 0) / AV_TIME_BASE


@dataclass
class _Span:
    """First start, last end and widest step of a stream's packets, seconds."""

    first: float
    last: float
    end: float
    step: float = 0.0
    count: int = 1


class Timeline:
    """Where each stream starts and ends, learnt from its packets.

    Arguments
    ---------
    container : av.container.InputContainer
        An open container, whose packets are then shown to :meth:`add`.
    """

    def __init__(self, container):
        self.origin = origin(container)
        self.spans = {}

    def add(self, packet):
        """Takes note of one packet.

        Arguments
        ---------
        packet : av.Packet
            As demuxed.
        """
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not packet.size or is_attached(packet.stream):
            return
        time = float(stamp * packet.time_base) - self.origin
        end = time + float((packet.duration or 0) * packet.time_base)
        span = self.spans.get(packet.stream.index)
        if span is None:
            self.spans[packet.stream.index] = _Span(time, time, end)
            return
        span.first = min(span.first, time)
        span.step = max(span.step, time - span.last)
        span.last = max(span.last, time)
        span.end = max(span.end, end)
        span.count += 1

    @property
    def end(self):
        """Where the last packet of all ends, seconds."""
        return max((s.end for s in self.spans.values()), default=0.0)

    def duration(self, stream):
        """Seconds from a stream's first packet (or 0) to its last one's end.

        Arguments
        ---------
        stream : av.stream.Stream or None
            A stream of the container.

        Returns
        -------
        float
            Exact to about one packet; 0.0 without any packet.
        """
        span = self.spans.get(stream.index) if stream is not None else None
        if span is None:
            return 0.0
        end = span.end
        if end == span.last and span.count > 1:  # packets without a duration
            end += (span.last - span.first) / (span.count - 1)
        # What lies before the start is a codec's priming and is never heard.
        return max(0.0, end - max(0.0, span.first))

    def ends_before(self, promised):
        """Whether the packets end clearly before a promised duration.

        Clearly is by more than 0.2 s (1 % of the duration, if that is more)
        and the widest step between two packets of a stream on top, since the
        last frame of a slide show lasts long and often says nothing of it.

        Arguments
        ---------
        promised : float or None
            Seconds that the header states, or None.

        Returns
        -------
        bool
        """
        if promised is None:
            return False
        step = max((s.step for s in self.spans.values()), default=0.0)
        # Some writers count from zero, others from the first time stamp.
        end = self.end + max(0.0, self.origin)
        return end < promised - max(0.2, 0.01 * promised) - step
