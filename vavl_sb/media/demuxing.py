"""Media containers: opens them, ranks their streams, reads their packets.

Nothing here decodes. Times are seconds from the start of the presentation,
which is the same for all streams of a container, so that audio and video stay
synchronous.
"""

import collections
import contextlib
import functools
import io
import logging
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from vavl_sb.media.riff import trailing_chunks
from vavl_sb.utils.errors import MediaError

if TYPE_CHECKING:
    import av

# FFmpeg's unit for the times of a container: microseconds.
AV_TIME_BASE = 1_000_000

# Limits on header values, so that a few damaged or hostile bytes cannot make
# the decoder allocate gigabytes. Pixels of a picture: 8K (7680 x 4320) fits.
MAX_PIXELS = 2**25
# Seconds from the start to any time stamp.
MAX_TIME = 24 * 3600.0

# Bytes that FFmpeg scans for streams if the container has no list of them at
# its start (.ts, .mpg); a stream that begins later is ignored.
PROBE = 2**26

# Time stamps that step back by more than this, seconds, mark a joined file.
JUMP_BACK = 0.5

# Words for the kinds of streams in messages.
WORDS = {"audio": "sound", "video": "picture"}

# FFmpeg renders text files as pictures of a terminal.
FORMATS_OF_TEXT = {"tty", "bin", "xbin", "adf", "idf"}

# Demuxers that open other files: playlists, scripts, session descriptions and
# formats that consist of several files.
FORMATS_OF_MANY_FILES = {
    *("avisynth", "concat", "concatf", "dash", "hls", "imf"),
    *("mlv", "rtp", "rtsp", "sap", "sdp", "vapoursynth", "vobsub"),
    "webm_dash_manifest",
}

# Beginnings of such files, for a specific error message.
PLAYLIST = re.compile(
    rb"^\s*(#EXTM3U|ffconcat version|\[playlist\]|v=0\s)"
    rb"|<(\w+:)?(MPD|CompositionPlaylist|asx|smil|playlist)\b",
    re.IGNORECASE,
)

# FFmpeg prepends this to its next message, which may be about another file.
REPEATED = re.compile(r"\(repeated \d+ more times\)")


class MediaFault(Exception):
    """A fault in a file; the caller turns it into a MediaError."""


@contextlib.contextmanager
def captured_log() -> Iterator[list[str]]:
    """Captures FFmpeg's error messages; the list is filled after the block.

    FFmpeg's decoders conceal damage and report it only in log lines without a
    file name. Messages of this thread do not reach the terminal.

    Example
    -------
    >>> import av
    >>> with captured_log() as lines:
    ...     av.logging.log(av.logging.ERROR, "flv", "Packet mismatch\\n")
    >>> lines
    ['Packet mismatch']
    """
    log = import_av().logging
    # PyAV captures messages only if a log level is set, which applies to the
    # whole process. The null handler keeps it silent; a level set by the
    # program is not changed.
    if log.get_level() is None:
        libav = logging.getLogger("libav")
        libav.addHandler(logging.NullHandler())
        libav.propagate = False
        log.set_level(log.ERROR)
    lines: list[str] = []
    with log.Capture() as messages:
        yield lines
    texts = (" ".join(t.split()) for n, _, t in messages if n <= log.ERROR)
    lines += [text for text in texts if text and not REPEATED.search(text)]


@contextlib.contextmanager
def open_media(
    path: str | os.PathLike,
) -> Iterator[tuple["av.container.InputContainer", io.RawIOBase]]:
    """Opens a media file for reading, as a context manager.

    Yields the container, which has at least one audio or video stream, and the
    open file. Raises a one-line MediaError if the file is missing, a directory,
    empty, unreadable, a playlist or not media, or has neither audio nor video.
    """
    path = os.fspath(path)
    check_file(path)
    with _open(path) as (container, file):
        kinds = [rank_streams(container, kind) for kind in WORDS]
        if container.format.name in FORMATS_OF_TEXT or not any(kinds):
            raise MediaError(
                f"{path}: has neither audio nor video in it, or is cut off "
                "before they begin; give a clip that has at least one of them"
            )
        if container.format.name == "webp_pipe" and _is_animated(file):
            raise MediaError(
                f"{path}: an animated WebP, which FFmpeg cannot decode; "
                "convert it to mp4 or gif"
            )
        yield container, file


def _is_animated(file):
    """Whether a WebP is animated; FFmpeg reads it as a still picture."""
    at = file.tell()
    file.seek(0)
    head = file.read(21)
    file.seek(at)
    return head[12:16] == b"VP8X" and bool(head[20] & 2)


@contextlib.contextmanager
def _open(path):
    """Yields PyAV's container and its file, or raises a MediaError.

    FFmpeg gets the open file instead of its name, and no protocol, so that a
    file cannot make it open another one.
    """
    av = import_av()
    with contextlib.ExitStack() as stack:
        try:
            # Unbuffered reads run in C, where no callback swallows Ctrl-C.
            file = stack.enter_context(open(path, "rb", buffering=0))
            options = {
                "format_whitelist": _formats_of_one_file(),
                "protocol_whitelist": "none",
                "max_pixels": str(MAX_PIXELS),
                "probesize": str(PROBE),
                "analyzeduration": str(int(MAX_TIME) * AV_TIME_BASE),
            }
            if trailing_chunks(file) is None:
                options["ignore_length"] = "1"  # Read to the end.
            file.seek(0)
            with captured_log():
                container = av.open(
                    file, metadata_errors="ignore", options=options
                )
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(f"{path}: {_why_not(path, error)}") from error
        yield stack.enter_context(container), file


@functools.cache
def _formats_of_one_file():
    """Names of all demuxers that open no other files or devices."""
    av = import_av()
    names = set()
    for name in av.formats_available - FORMATS_OF_MANY_FILES:
        with contextlib.suppress(ValueError):  # Formats for writing only.
            if not av.format.ContainerFormat(name, "r").no_file:
                names.update(name.split(","))
    return ",".join(sorted(names - FORMATS_OF_MANY_FILES))


def _why_not(path, error):
    """Message for a file that FFmpeg cannot open."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if PLAYLIST.search(file.read(4096)):
            return (
                "a playlist, which names other files, not a clip; give the "
                "clip itself"
            )
    return (
        f"not a media file that can be read ({reason(error)}); it may be "
        "damaged or cut off: get it again"
    )


def import_av() -> ModuleType:
    """Imports PyAV when it is first needed."""
    try:
        import av
    except ImportError as error:
        raise MediaError(
            "media files are decoded by PyAV, which is missing: pip install av"
        ) from error
    return av


def check_file(path: str) -> None:
    """Raises a MediaError if a path is not a regular, non-empty file."""
    if not os.path.exists(path):
        raise MediaError(f"{path}: no such file; check the path")
    if not os.path.isfile(path):
        raise MediaError(f"{path}: not a file; give the path of one clip")
    if os.path.getsize(path) == 0:
        raise MediaError(f"{path}: empty (0 bytes); get it again")


def reason(error: Exception) -> str:
    """Short text of an FFmpeg error, without number and path."""
    return getattr(error, "strerror", None) or str(error) or "unknown error"


def rank_streams(container: "av.container.InputContainer", kind: str) -> list:
    """Returns the streams of a kind ("audio" or "video"), best first.

    FFmpeg's choice of the best stream comes first. Streams without a decoder,
    and single pictures beside a video (AVIF), come last. Cover art is excluded.
    """
    best = getattr(container.streams.best(kind), "index", None)
    return sorted(
        (s for s in getattr(container.streams, kind) if not is_attached(s)),
        key=lambda s: (
            s.codec_context is None,
            kind == "video" and s.frames == 1,
            s.index != best,
        ),
    )


def describe(stream: "av.stream.Stream") -> str:
    """Describes a stream: "sound: stream 1 (aac, 48000 Hz, 2 channels)"."""
    codec = stream.codec_context
    words = ["no decoder"] if codec is None else [codec.name]
    if codec is not None and stream.type == "video":
        words.append(f"{codec.width}x{codec.height}")
    elif codec is not None:
        count = codec.layout.nb_channels
        channels = f"{count} channel{'s' if count > 1 else ''}"
        words += [f"{codec.sample_rate} Hz", channels]
    kind = "cover picture" if is_attached(stream) else WORDS[stream.type]
    return f"{kind}: stream {stream.index} ({', '.join(words)})"


def is_attached(stream: "av.stream.Stream") -> bool:
    """Whether a stream is a still picture attached to the file (cover art)."""
    # 0x400 is AV_DISPOSITION_ATTACHED_PIC.
    return stream.type == "video" and bool(stream.disposition.value & 0x400)


def read_packets(
    container: "av.container.InputContainer", timeline: "Timeline"
) -> Iterator["av.Packet"]:
    """Yields all packets of a container, and adds each to the timeline.

    Raises a MediaFault if the file cannot be read to its end.
    """
    av = import_av()
    packets = container.demux()
    while True:
        try:
            # Messages of demuxers are often about tags, not about damage.
            with captured_log():
                packet = next(packets)
        except StopIteration:
            return
        except IndexError:
            # At the end, PyAV may or may not look up a stream that was found
            # only in the middle of a damaged flv; such a stream is ignored.
            timeline.notes.append("a stream that begins too late to be found")
            return
        except (av.error.FFmpegError, OSError) as error:
            raise MediaFault(
                f"cannot be read beyond {timeline.end:.2f} s ({error.strerror})"
            ) from error
        timeline.add(packet)
        yield packet


@dataclass
class Span:
    """First start, last end and largest step of a stream's packets, seconds."""

    first: float = math.inf
    last: float = -math.inf
    end: float = 0.0
    step: float = 0.0
    count: int = 0

    @property
    def duration(self) -> float:
        """Seconds from the first packet (or 0) to the last one's end."""
        end = self.end
        if end == self.last and self.count > 1:  # packets without a duration
            end += (self.last - self.first) / (self.count - 1)
        # Packets before the start are a codec's priming, which is not played.
        return max(0.0, end - max(0.0, self.first))


class Timeline:
    """Start and end of each stream, from its packets."""

    def __init__(self, container: "av.container.InputContainer", path: str):
        self.path = path
        # Time stamp at which the presentation starts, seconds.
        self.origin = (container.start_time or 0) / AV_TIME_BASE
        self.spans: dict[int, Span] = collections.defaultdict(Span)
        # Offset of the time stamps of each joined file; the first has none.
        self.shifts = [0.0]
        self.parts: dict[int, int] = {}  # stream to the joined file it is in
        self.stamps: dict[int, float] = {}  # stream to its last raw time stamp
        self.notes: list[str] = []  # one line for each irregularity

    def add(self, packet: "av.Packet") -> None:
        """Adds a packet; raises a MediaError if its time is impossible."""
        self._join(packet)
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not packet.size or is_attached(packet.stream):
            return
        time = float(stamp * packet.time_base) - self.origin
        end = time + float((packet.duration or 0) * packet.time_base)
        if max(abs(time), abs(end)) > MAX_TIME:
            raise MediaError(
                f"{self.path}: a time stamp of {max(time, end, key=abs):g} s "
                f"is beyond the limit of {MAX_TIME / 3600:g} hours; get it "
                "again or leave it out"
            )
        span = self.spans[packet.stream.index]
        if span.count:
            span.step = max(span.step, time - span.last)
        span.first = min(span.first, time)
        span.last = max(span.last, time)
        span.end = max(span.end, end)
        span.count += 1

    def _join(self, packet):
        """Shifts time stamps that restart where files were joined.

        The first stream that steps back sets the offset of all streams.
        """
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            return
        index, time = packet.stream.index, float(stamp * packet.time_base)
        part = self.parts.setdefault(index, len(self.shifts) - 1)
        if time < self.stamps.get(index, time) - JUMP_BACK:
            self.parts[index] = part = part + 1
            if part == len(self.shifts):
                self.shifts.append(self.end + self.origin - time)
                self.notes.append(
                    f"time stamps begin anew at {self.end:.2f} s, where "
                    "another file was joined: read as one clip"
                )
        self.stamps[index] = time
        if part:
            ticks = round(self.shifts[part] / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    @property
    def end(self) -> float:
        """End of the last packet of any stream, seconds."""
        return max((s.end for s in self.spans.values()), default=0.0)

    def span(self, stream: "av.stream.Stream | None") -> Span:
        """Span of a stream; empty for None and for a stream without packets."""
        return self.spans.get(getattr(stream, "index", -1), Span())

    def ends_before(self, stated: float | None) -> bool:
        """Whether the packets end clearly before a stated duration, seconds.

        The tolerance is 0.2 s, or 1 % of the duration if that is more, plus the
        largest step between two packets of a stream, since the long last frame
        of a slide show often has no duration.
        """
        if stated is None:
            return False
        step = max((s.step for s in self.spans.values()), default=0.0)
        # Writers count the duration from zero or from the first time stamp.
        end = self.end + max(0.0, self.origin)
        return end < stated - max(0.2, 0.01 * stated) - step
