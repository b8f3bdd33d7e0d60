"""Media containers: open them, choose their streams, read their packets.

Nothing here decodes. Times are seconds from the start of the presentation,
which is the start of the container and the same for all of its streams, so
that sound and picture stay in step.
"""

import contextlib
import functools
import io
import itertools
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from vavl_sb.utils.errors import MediaError

if TYPE_CHECKING:
    import av

# FFmpeg counts the times of a container in microseconds.
AV_TIME_BASE = 1_000_000

# Limits of what a header may claim, so that a few damaged or hostile bytes do
# not ask for gigabytes. Pixels of a picture: 8K (7680 x 4320) fits.
MAX_PIXELS = 2**25
# Seconds from the start to any time stamp.
MAX_TIME = 24 * 3600.0

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

# Comes with the next message of all, and may be of another file.
REPEATED = re.compile(r"\(repeated \d+ more times\)")


class MediaFault(Exception):
    """A fault within a file, of which the caller makes a MediaError."""


class FFmpegLog:
    """Captures FFmpeg's messages of errors: their number, and the first.

    Its decoders hide damage rather than stop at it, and tell of it only in log
    lines that name no file. A message counts once :meth:`settle` says that
    sound or picture went on behind it. So what stands behind the end, such as
    a tag, does not count, nor what a stream that was cut out of a longer one
    refers to and lacks.

    Arguments
    ---------
    av : module
        PyAV.

    Example
    -------
    >>> import av
    >>> log = FFmpegLog(av)
    >>> with log.capture():
    ...     av.logging.log(av.logging.ERROR, "flv", "Packet mismatch\\n")
    >>> log.settle(True, 1)
    >>> log.count, log.first
    (1, 'Packet mismatch')
    """

    def __init__(self, av: ModuleType):
        self.logging = av.logging
        # PyAV hands messages on only where a level is set. It holds for the
        # whole process, which is to stay as silent as it was; a program that
        # has set a level of its own keeps it.
        if self.logging.get_level() is None:
            libav = logging.getLogger("libav")
            libav.addHandler(logging.NullHandler())
            libav.propagate = False
            self.logging.set_level(self.logging.ERROR)
        self.count, self.first = 0, None
        self.pending = []

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Within it, what FFmpeg says in this thread is kept here."""
        with self.logging.Capture() as lines:
            try:
                yield
            finally:
                self.pending += [
                    " ".join(text.split())
                    for level, _, text in lines
                    if level <= self.logging.ERROR
                    and text.strip()
                    and not REPEATED.search(text)
                ]

    def settle(self, counts: bool, number: int) -> None:
        """Counts the first ``number`` pending messages, or drops them."""
        if counts and number:
            self.count += number
            self.first = self.first or self.pending[0]
        del self.pending[:number]


@contextlib.contextmanager
def open_media(
    path: str | os.PathLike,
) -> Iterator[tuple["av.container.InputContainer", io.RawIOBase]]:
    """Opens a media file for reading, and closes it at the end.

    Arguments
    ---------
    path : str or os.PathLike
        A regular file in any container that FFmpeg knows, but no playlist.

    Yields
    ------
    container : av.container.InputContainer
        With at least one stream of audio or video.
    file : io.RawIOBase
        What the container reads.

    Raises
    ------
    MediaError
        The file is missing, a directory, empty, unreadable, not media, or has
        neither audio nor video.
    """
    path = os.fspath(path)
    check_file(path)
    with _open(path) as (container, file):
        name = container.format.name
        still = name == "image2" or name.endswith("_pipe")
        if still or (name == "gif" and _is_one_picture(path)):
            raise MediaError(
                f"{path}: a still picture; give a clip with sound or a moving "
                "picture"
            )
        if name in FORMATS_OF_TEXT or not any(choose_streams(container)):
            raise MediaError(
                f"{path}: has neither audio nor video in it, or is cut off "
                "before they begin; give a clip that has at least one of them"
            )
        yield container, file


@contextlib.contextmanager
def _open(path):
    """PyAV's container and its file; a MediaError where there is none.

    FFmpeg is handed the open file and not its name, and no protocol at all:
    whatever a file asks for, FFmpeg cannot open another.
    """
    av = import_av()
    with contextlib.ExitStack() as stack:
        try:
            # Unbuffered: all C, where Ctrl-C is not lost in a callback.
            file = stack.enter_context(open(path, "rb", buffering=0))
            with FFmpegLog(av).capture():
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
        yield stack.enter_context(container), file


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
    with _open(path) as (container, _), FFmpegLog(av).capture():
        packets = (p for p in container.demux() if p.size)
        try:
            return len(list(itertools.islice(packets, 2))) < 2
        except av.error.FFmpegError:
            return False


def import_av() -> ModuleType:
    """PyAV, imported when it is first needed."""
    try:
        import av
    except ImportError as error:
        raise MediaError(
            "media files are decoded by PyAV, which is missing: pip install av"
        ) from error
    return av


def check_file(path: str) -> None:
    """Raises a MediaError if a path is not a regular file with bytes in it."""
    if not os.path.exists(path):
        raise MediaError(f"{path}: no such file; check the path")
    if not os.path.isfile(path):
        raise MediaError(f"{path}: not a file; give the path of one clip")
    if os.path.getsize(path) == 0:
        raise MediaError(f"{path}: empty (0 bytes); get it again")


def reason(error: Exception) -> str:
    """Text of an FFmpeg error in a few words, without its number and path."""
    return getattr(error, "strerror", None) or str(error) or "unknown error"


def choose_streams(container: "av.container.InputContainer") -> tuple:
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
    video = container.streams.best("video")
    if video is not None and _is_attached(video):
        moving = [s for s in container.streams.video if not _is_attached(s)]
        video = moving[0] if moving else None
    return container.streams.best("audio"), video


def _is_attached(stream):
    """Whether a stream is a still picture attached to the file."""
    # 0x400 is AV_DISPOSITION_ATTACHED_PIC.
    return stream.type == "video" and bool(stream.disposition.value & 0x400)


def read_packets(
    container: "av.container.InputContainer", timeline: "Timeline"
) -> Iterator["av.Packet"]:
    """Yields all packets of a container, in the order of the file.

    Each is noted in the timeline. A MediaFault says that the file cannot be
    read to its end.
    """
    av = import_av()
    # What a container's reader says is often of a tag, and does not count.
    log = FFmpegLog(av)
    packets = container.demux()
    while True:
        try:
            with log.capture():
                packet = next(packets)
        except StopIteration:
            return
        except IndexError:
            # PyAV, after all else is read, asks for a stream that was found
            # only in the middle (damaged flv), which it does not know. By
            # chance it does so or not: the stream does not count either way.
            return
        except (av.error.FFmpegError, OSError) as error:
            raise MediaFault(
                f"cannot be read beyond {timeline.end:.2f} s ({error.strerror})"
            ) from error
        timeline.add(packet)
        yield packet


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
        Whose packets are then shown to :meth:`add`.
    """

    def __init__(self, container: "av.container.InputContainer"):
        # Time stamp at which the presentation starts, seconds.
        self.origin = (container.start_time or 0) / AV_TIME_BASE
        self.spans = {}

    def add(self, packet: "av.Packet") -> None:
        """Takes note of a packet, an ``av.Packet`` as demuxed."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not packet.size or _is_attached(packet.stream):
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
    def end(self) -> float:
        """Where the last packet of all ends, seconds."""
        return max((s.end for s in self.spans.values()), default=0.0)

    def end_of(self, stream: "av.stream.Stream | None") -> float:
        """Where a stream's last packet ends, seconds; 0.0 without any."""
        span = self.spans.get(stream.index) if stream is not None else None
        return span.end if span is not None else 0.0

    def duration(self, stream: "av.stream.Stream | None") -> float:
        """Seconds from a stream's first packet (or 0) to its last one's end.

        Exact to about one packet; 0.0 for None and without any packet.
        """
        span = self.spans.get(stream.index) if stream is not None else None
        if span is None:
            return 0.0
        end = span.end
        if end == span.last and span.count > 1:  # packets without a duration
            end += (span.last - span.first) / (span.count - 1)
        # What lies before the start is a codec's priming and is never heard.
        return max(0.0, end - max(0.0, span.first))

    def ends_before(self, stated: float | None) -> bool:
        """Whether the packets end clearly before a stated duration, seconds.

        Clearly is by more than 0.2 s (1 % of the duration, if that is more)
        and the widest step between two packets of a stream on top, since the
        last frame of a slide show lasts long and often says nothing of it.
        """
        if stated is None:
            return False
        step = max((s.step for s in self.spans.values()), default=0.0)
        # Some writers count from zero, others from the first time stamp.
        end = self.end + max(0.0, self.origin)
        return end < stated - max(0.2, 0.01 * stated) - step
