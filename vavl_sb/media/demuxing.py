"""Media containers: open them, choose their streams, read their packets.

Nothing here decodes. Times are seconds from the start of the presentation,
which is the start of the container and the same for all of its streams, so
that sound and picture stay in step.
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

from vavl_sb.media.riff import chunks_behind
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

# Bytes in which streams are looked for, where the container does not list them
# at its start (.ts, .mpg): one that begins later than this is not known.
PROBE = 2**26

# Seconds by which a stream's stamps step back where another file was joined.
JUMP_BACK = 0.5

# What users call the kinds of streams.
WORDS = {"audio": "sound", "video": "picture"}

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


@contextlib.contextmanager
def captured_log() -> Iterator[list[str]]:
    """Gives a list that has FFmpeg's messages of errors after the block.

    Its decoders hide damage rather than stop at it, and tell of it only in log
    lines that name no file. Those of this thread are kept from the terminal.

    Example
    -------
    >>> import av
    >>> with captured_log() as lines:
    ...     av.logging.log(av.logging.ERROR, "flv", "Packet mismatch\\n")
    >>> lines
    ['Packet mismatch']
    """
    log = import_av().logging
    # PyAV hands messages on only where a level is set. It holds for the whole
    # process, which is to stay as silent as it was; a program that has set a
    # level of its own keeps it.
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
    """Opens a media file for reading, and closes it at the end.

    Gives the container, with at least one stream of audio or video, and the
    file that it reads. MediaError, in one line: the file is missing, a
    directory, empty, unreadable, a playlist, not media, or has neither audio
    nor video.
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
                f"{path}: an animated WebP, which FFmpeg cannot decode; convert "
                "it to mp4 or gif"
            )
        yield container, file


def _is_animated(file):
    """Whether a WebP moves, which FFmpeg takes for a still picture."""
    at = file.tell()
    file.seek(0)
    head = file.read(21)
    file.seek(at)
    return head[12:16] == b"VP8X" and bool(head[20] & 2)


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
            options = {
                "format_whitelist": _formats_of_one_file(),
                "protocol_whitelist": "none",
                "max_pixels": str(MAX_PIXELS),
                "probesize": str(PROBE),
                "analyzeduration": str(int(MAX_TIME) * AV_TIME_BASE),
            }
            if chunks_behind(file) is None:
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


def rank_streams(container: "av.container.InputContainer", kind: str) -> list:
    """The streams of sound ("audio") or of moving pictures ("video"), the one
    to use first.

    FFmpeg's own choice of the best stream comes first, but never one without a
    decoder, nor a single picture beside moving ones (AVIF). Cover art is none.
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
    """A stream in words, such as "sound: stream 1 (aac, 48000 Hz, 2 channels)"."""
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
    packets = container.demux()
    while True:
        try:
            # What a container's reader says is often of a tag: no damage.
            with captured_log():
                packet = next(packets)
        except StopIteration:
            return
        except IndexError:
            # PyAV, after all else is read, asks for a stream that was found
            # only in the middle (damaged flv), which it does not know. By
            # chance it does so or not: the stream does not count either way.
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
    """First start, last end and widest step of a stream's packets, seconds."""

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
        # What lies before the start is a codec's priming and is never heard.
        return max(0.0, end - max(0.0, self.first))


class Timeline:
    """Where each stream starts and ends, learnt from its packets."""

    def __init__(self, container: "av.container.InputContainer", path: str):
        self.path = path
        # Time stamp at which the presentation starts, seconds.
        self.origin = (container.start_time or 0) / AV_TIME_BASE
        self.spans: dict[int, Span] = collections.defaultdict(Span)
        # Of each file that was joined to the first: what its stamps lack.
        self.shifts = [0.0]
        self.parts: dict[int, int] = {}  # which file a stream is in
        self.stamps: dict[int, float] = {}  # its last one as it stands there
        self.notes: list[str] = []  # one line for each thing out of the way

    def add(self, packet: "av.Packet") -> None:
        """Takes note of a packet; a MediaError where its time cannot be."""
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
        """Lets stamps that begin anew go on from where they were.

        So it is where files were joined byte by byte. The first stream that
        steps back tells where the others are to go on as well.
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
                    f"time stamps begin anew at {self.end:.2f} s, where another "
                    "file was joined: read as one clip"
                )
        self.stamps[index] = time
        if part:
            ticks = round(self.shifts[part] / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    @property
    def end(self) -> float:
        """Where the last packet of all ends, seconds."""
        return max((s.end for s in self.spans.values()), default=0.0)

    def span(self, stream: "av.stream.Stream | None") -> Span:
        """That of a stream; an empty one for None and without any packet."""
        return self.spans.get(getattr(stream, "index", -1), Span())

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
