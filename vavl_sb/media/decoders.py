"""Decoders of audio and video packets, for :func:`vavl_sb.media.reader.decode`.

Each reader decodes the packets of one stream and buffers at most one batch.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vavl_sb.media.demuxing import (
    MAX_PIXELS,
    MediaFault,
    captured_log,
    import_av,
    reason,
)
from vavl_sb.utils.errors import MediaError

if TYPE_CHECKING:
    import av

# Sample rate of all decoded audio, Hz: the input of the speech encoders.
SAMPLE_RATE = 16000

MAX_BATCH_BYTES = 128 * 2**20

# Larger frames are downscaled (2560 x 1440 is kept, 4K is halved); face crops
# need no more pixels.
MAX_KEPT_PIXELS = 2**22

# Limit on the pixels to decode per second of a clip: 8K at 30 frames per second
# fits, or 4K at 120. Bursts of SAVED_SECONDS times as many are allowed.
MAX_PIXELS_A_SECOND = 2**30
SAVED_SECONDS = 4

# Valid sample rates, Hz: no speech below, no recorder above.
SAMPLE_RATES = (1000, 768_000)

# A step between time stamps of more than this, seconds, is a gap. Those of flv
# and matroska are rounded to 1 ms, and audio comes in packets.
GAP = 0.1

# A file is refused if more than this fraction of a stream's packets, and more
# than one, cannot be decoded. Less damage gives a warning.
MAX_DAMAGE = 0.1

# Undecodable data in this many seconds at the end of a stream is not damage:
# it may be a tag after the last packet, or an incomplete last packet.
LOSS_AT_END = 0.2

# HDR transfer characteristics, by their number in ITU-T H.273.
HDR = {16: "PQ", 18: "HLG"}

# Linear RGB of BT.2020 to linear RGB of BT.709 (ITU-R BT.2087).
TO_BT709 = np.array(
    [
        [1.6605, -0.5876, -0.0728],
        [-0.1246, 1.1329, -0.0083],
        [-0.0182, -0.1006, 1.1187],
    ],
    np.float32,
)

# For this many seconds a stream that was cut out of a longer one may refer to
# frames that are not in it.
LEAD = 0.5


@dataclass
class AudioChunk:
    """A chunk of audio: ``samples`` float32 (n,), mono in [-1, 1].

    ``start`` is the time of the first sample, seconds from the start of the
    presentation. Chunks are contiguous unless the file has a gap.
    """

    samples: np.ndarray
    start: float


@dataclass
class FrameBatch:
    """Consecutive ``frames``: uint8 (n, H, W, 3), RGB, upright.

    H and W may change between batches, if the stream changes its size.
    ``times`` are float64 (n,), seconds from the start of the presentation,
    non-decreasing.
    """

    frames: np.ndarray
    times: np.ndarray


class RatePicker:
    """Picks at most one item in each 1 / rate seconds; all for rate None.

    Picks the first item, then the first of each interval counted from it.
    Intervals start a tenth of their length earlier, so that time stamps rounded
    to 1 ms do not drop every other frame if the rate is that of the file.

    Example
    -------
    >>> picker = RatePicker(10)
    >>> [picker.pick(time) for time in (0.5, 0.533, 0.567, 0.6, 0.9)]
    [True, False, False, True, True]
    """

    def __init__(self, rate: float | None):
        self.rate = rate
        self.first: float | None = None
        self.interval: int | None = None

    def pick(self, time: float) -> bool:
        """Whether to pick an item; times (seconds) must not decrease."""
        if self.rate is None:
            return True
        if self.first is None:
            self.first = time
        interval = math.floor((time - self.first) * self.rate + 0.1)
        if self.interval is not None and interval <= self.interval:
            return False
        self.interval = interval
        return True


class _StreamReader:
    """Decodes the packets of one stream and counts faults.

    Times are relative to ``origin``, the start of the presentation.
    """

    kind = hint = ""

    def __init__(self, stream, origin, path):
        self.stream, self.origin, self.path = stream, origin, path
        self.error = import_av().error.FFmpegError
        self.begin = None  # time of the first good frame, seconds
        self.clock = None  # where the last good frame ends, seconds
        self.demuxed = None  # time of the last packet, seconds
        self.packets = 0
        self.bad = 0  # undecodable packets before the last good frame
        self.bad_since = 0  # undecodable packets after the last good frame
        self.fault = ""  # time and reason of the first undecodable packet
        self.messages = []  # of FFmpeg, since the last good frame
        self.mended = []  # messages that were followed by a good frame
        self.left_out = []  # one line for each part left out or altered
        if stream.codec_context is None:
            raise MediaError(
                f"{path}: no decoder for its {self.kind}; convert the clip "
                "with a common codec (H.264, AAC)"
            )
        # One thread makes the decoding of damaged files deterministic.
        stream.codec_context.thread_count = 1

    def decode(self, packet):
        """Yields (frame, time) for each good frame that a packet completes.

        Undecodable packets before the first good frame are not counted: a
        stream that was cut out of a longer one starts with them. FFmpeg's
        messages count as damage only if a good frame follows; at the end they
        may be about a tag.
        """
        self.packets += packet.size > 0
        if packet.pts is not None:
            self.demuxed = float(packet.pts * packet.time_base) - self.origin
        decoded = []
        with captured_log() as lines:
            try:
                decoded = packet.decode()
            except self.error as error:
                self._note(reason(error))
        self._pay(max(1, len(decoded)))
        for frame in decoded:
            if frame.is_corrupt:
                self._note("its data is incomplete")
                continue
            time = self._time(frame)
            self._check(frame)
            self.bad, self.bad_since = self.bad + self.bad_since, 0
            self.begin = time if self.begin is None else self.begin
            if time - self.begin > LEAD:
                self.mended += self.messages
            self.messages = []
            self.clock = time + self._length(frame)
            yield frame, time
        self.messages += lines

    def fault_at_end(self) -> MediaFault | None:
        """Returns a MediaFault if too much is damaged, after the last packet.

        Less damage is added to ``left_out``.
        """
        if self.demuxed is None:
            return None
        if self.clock is None:
            return MediaFault(
                f"nothing of its {self.kind} can be decoded{self.hint}"
            )
        if self.demuxed - self.clock > LOSS_AT_END:
            self.bad += self.bad_since
        if self.bad:
            text = f"{self.fault}, {self.bad} of {self.packets} packets in all"
            if self.bad > max(1, MAX_DAMAGE * self.packets):
                return MediaFault(text)
            self.left_out.append(text)
        elif self.mended:
            self.left_out.append(
                f"its {self.kind} is damaged in places, which FFmpeg has "
                f"concealed ({len(self.mended)} messages, first: "
                f"{self.mended[0][:100]})"
            )
        return None

    def _pay(self, count):
        """Raises a MediaFault if decoding costs more than allowed."""

    def _note(self, why):
        if self.clock is None:
            return
        self.bad_since += 1
        self.fault = self.fault or (
            f"decoding its {self.kind} fails at {self.clock:.2f} s ({why})"
        )

    def _time(self, frame):
        """Time of a frame; without a time stamp, the end of the last frame."""
        if frame.pts is None or not frame.time_base:
            return self.clock or 0.0
        # Round to microseconds, the precision of FFmpeg's origin.
        stamp = float(frame.pts * frame.time_base)
        return round(stamp - self.origin, 6) + 0.0


class AudioReader(_StreamReader):
    """Decodes an audio stream to 16 kHz mono, in chunks of up to a second.

    Resamples each channel as float, then averages the channels: swresample's
    own downmix of float stereo to mono is 3 dB louder and supports common
    layouts only. If channels cancel each other, see :meth:`_mix`.
    """

    kind = "audio"

    def __init__(
        self,
        stream: "av.AudioStream",
        origin: float,
        path: str,
    ):
        super().__init__(stream, origin, path)
        self.form: tuple | None = None
        self.resampler = None
        self.parts, self.kept, self.start = [], 0, 0.0
        self.channel: int | None = None  # the loudest, if they cancel
        self.cancelled = 0.0  # seconds in which only this channel is used

    def read(self, packet: "av.Packet") -> Iterator[AudioChunk]:
        """Yields a chunk per full second; an empty packet marks the end."""
        expected = self.clock
        for frame, time in self.decode(packet):
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            gap = 0.0 if expected is None else time - expected
            if form != self.form or gap > GAP:
                if gap > GAP:
                    self.left_out.append(
                        f"{gap:.2f} s of sound are missing at {expected:.2f} s"
                    )
                yield from self.flush()
                self.form, self.start = form, time
                self.resampler = import_av().AudioResampler(
                    format="fltp", rate=SAMPLE_RATE
                )
            expected = self.clock
            frame.pts = None  # The resampler must not fill gaps.
            self._keep(self._resample(frame))
            while self.kept >= SAMPLE_RATE:
                yield self._take(SAMPLE_RATE)

    def flush(self) -> Iterator[AudioChunk]:
        """Yields the rest of the resampler's and this reader's buffers."""
        if self.resampler is not None:
            buffered = self._resample(None)
            self.resampler = None
            self._keep(buffered)
        while self.kept:
            yield self._take(min(self.kept, SAMPLE_RATE))
        self.parts = []  # Later frames may have other channels.

    def _length(self, frame):
        return frame.samples / frame.sample_rate

    def _check(self, frame):
        low, high = SAMPLE_RATES
        if not low <= frame.sample_rate <= high:
            raise MediaFault(
                f"sound of {frame.sample_rate} samples a second is outside of "
                f"{low} to {high}"
            )

    def _resample(self, frame):
        """Resamples a frame; None drains the resampler."""
        try:
            return self.resampler.resample(frame)
        except self.error as error:
            raise MediaFault(
                f"its audio cannot be resampled ({error})"
            ) from None

    def _keep(self, frames):
        for frame in frames:
            if frame is None:
                continue
            samples = frame.to_ndarray()
            if not np.isfinite(samples).all():
                at = self.start + self.kept / SAMPLE_RATE
                raise MediaFault(f"its audio is not a number at {at:.2f} s")
            self.parts.append(samples)
            self.kept += samples.shape[1]

    def _take(self, count):
        samples = np.concatenate(self.parts, axis=1)
        chunk = AudioChunk(self._mix(samples[:, :count]), self.start)
        self.parts = [samples[:, count:]]
        self.kept -= count
        self.start += count / SAMPLE_RATE
        return chunk

    def _mix(self, channels):
        """Mixes channels (channels, n) to mono (n,): the mean of the channels.

        If they cancel each other, one of the loudest channels: if the mean has
        less than half of the power that it would have for uncorrelated
        channels. For two channels, it is then 6 dB below them.
        """
        mean = channels.mean(axis=0, dtype=np.float32)
        powers = np.square(channels, dtype=np.float64).sum(axis=1)
        power = np.square(mean, dtype=np.float64).sum() * len(channels) ** 2
        if power < powers.sum() / 2:
            # Do not switch between channels of similar loudness.
            if self.channel is None or (
                powers[self.channel] < powers.max() / 2
            ):
                self.channel = int(powers.argmax())
            mean = channels[self.channel]
            self.cancelled += len(mean) / SAMPLE_RATE
        # Lossy codecs overshoot full scale.
        return mean.clip(-1.0, 1.0)

    def fault_at_end(self) -> MediaFault | None:
        """Also adds unused channels to ``left_out``."""
        if self.cancelled:
            self.left_out.append(
                f"its channels cancel each other for {self.cancelled:.2f} s, "
                "of which the loudest alone is used"
            )
        return super().fault_at_end()


class VideoReader(_StreamReader):
    """Decodes a video stream to upright frames with square pixels.

    Yields at most ``frame_rate`` frames per second (None: all), in batches of
    ``batch_frames``.
    """

    kind = "video"
    # FFmpeg opens no decoder for a larger picture, without giving this reason.
    hint = f" ({MAX_PIXELS} pixels is the limit of a picture)"

    def __init__(
        self,
        stream: "av.VideoStream",
        origin: float,
        path: str,
        frame_rate: float | None,
        batch_frames: int,
    ):
        super().__init__(stream, origin, path)
        self.picker = RatePicker(frame_rate)
        self.batch_frames = batch_frames
        self.room: np.ndarray | None = None
        self.times = []
        self.latest = self.paid = -math.inf
        self.credit = SAVED_SECONDS * MAX_PIXELS_A_SECOND
        codec = stream.codec_context
        if codec.width * codec.height > MAX_PIXELS:
            fault = too_large(codec.width, codec.height)
            raise MediaError(f"{path}: {fault}; scale it down or leave it out")
        # The size in the bitstream may differ from that in the container.
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        rate = stream.average_rate or stream.base_rate
        self.spacing = 1 / float(rate) if rate else 0.04
        self.pixel_ratio = float(stream.sample_aspect_ratio or 1)
        # From version 17 on, PyAV converts with one thread per core by default,
        # which is far slower on busy cores.
        version = int(import_av().__version__.split(".")[0])
        self.threads = {"threads": 1} if version >= 17 else {}

    def read(self, packet: "av.Packet") -> Iterator[FrameBatch]:
        """Yields full batches; an empty packet marks the end of the stream."""
        for frame, time in self.decode(packet):
            time = self.latest = max(time, self.latest)
            if not self.picker.pick(time):
                continue
            try:
                image = self._image(frame)
            except (self.error, OSError) as error:
                raise MediaFault(
                    f"its picture cannot be converted ({error.strerror})"
                ) from None
            if self.room is not None and image.shape != self.room.shape[1:]:
                yield from self.flush()
            if self.room is None:
                fitting = max(1, MAX_BATCH_BYTES // image.nbytes)
                count = min(self.batch_frames, fitting)
                self.room = np.empty((count, *image.shape), np.uint8)
            self.room[len(self.times)] = image
            self.times.append(time)
            if len(self.times) == len(self.room):
                yield from self.flush()

    def flush(self) -> Iterator[FrameBatch]:
        """Yields the frames that are still buffered."""
        if self.room is not None:
            frames = self.room[: len(self.times)]
            yield FrameBatch(frames, np.array(self.times, np.float64))
        self.room, self.times = None, []

    def _length(self, frame):
        return self.spacing

    def _check(self, frame):
        if self._width(frame) * frame.height > MAX_PIXELS:
            raise MediaFault(too_large(self._width(frame), frame.height))

    def _pay(self, count):
        """Spends a budget of pixels that grows with the time of the packets.

        A few kilobytes can contain thousands of frames with one time stamp.
        """
        if self.demuxed is not None and self.demuxed > self.paid:
            earned = (self.demuxed - self.paid) * MAX_PIXELS_A_SECOND
            most = SAVED_SECONDS * MAX_PIXELS_A_SECOND
            self.credit = min(self.credit + earned, most)
            self.paid = self.demuxed
        codec = self.stream.codec_context
        self.credit -= count * codec.width * codec.height
        if self.credit < 0:
            raise MediaFault(
                f"more than {MAX_PIXELS_A_SECOND / 1e6:.0f} million pixels a "
                "second to decode"
            )

    def _image(self, frame):
        """Converts a frame to RGB, upright, uint8 (H, W, 3)."""
        width, height = kept_size(self._width(frame), frame.height)
        # Frames have no color_trc before PyAV 15.
        codec = self.stream.codec_context
        transfer = int(getattr(frame, "color_trc", codec.color_trc))
        hdr = HDR.get(transfer)
        image = frame.to_ndarray(
            format="rgb48le" if hdr else "rgb24",
            width=width,
            height=height,
            **self.threads,
        )
        if hdr is not None:
            image = tone_map(image, hdr)
            text = f"its picture is HDR ({hdr}): highlights are compressed"
            if text not in self.left_out:
                self.left_out.append(text)
        # frame.side_data makes a reference cycle: frames would stay in memory
        # until the garbage collector runs.
        side_data = import_av().sidedata.sidedata.SideDataContainer(frame)
        matrix = side_data.get("DISPLAYMATRIX")
        return image if matrix is None else upright(image, bytes(matrix))

    def _width(self, frame):
        """Width of a frame after conversion to square pixels."""
        return max(1, round(frame.width * self.pixel_ratio))


def too_large(width: int, height: int) -> str:
    """Returns the message for a picture with more than ``MAX_PIXELS``."""
    return (
        f"a picture of {width} x {height} pixels is above the limit of "
        f"{MAX_PIXELS}"
    )


def kept_size(width: int, height: int) -> tuple[int, int]:
    """Returns the size to which a picture is downscaled, to limit memory.

    Divides both sides by the smallest integer that ``MAX_KEPT_PIXELS`` allows.

    Example
    -------
    >>> kept_size(1920, 1080), kept_size(3840, 2160), kept_size(8192, 4096)
    ((1920, 1080), (1920, 1080), (2731, 1365))
    """
    kept, factor = (width, height), 1
    while kept[0] * kept[1] > MAX_KEPT_PIXELS:
        factor += 1
        kept = (max(1, round(width / factor)), max(1, round(height / factor)))
    return kept


@functools.cache
def _linear(transfer):
    """Linear light of each 12-bit code; PQ in units of SDR white, 100 cd/m2."""
    code = np.arange(4096) / 4095
    if transfer == "PQ":  # SMPTE ST 2084
        root = code ** (32 / 2523)
        light = (root - 0.8359375).clip(0) / (18.8515625 - 18.6875 * root)
        return (100 * light ** (8192 / 1305)).astype(np.float32)
    # HLG, ITU-R BT.2100: scene light in [0, 1].
    bright = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(code <= 0.5, code**2 / 3, bright).astype(np.float32)


def tone_map(image: np.ndarray, transfer: str) -> np.ndarray:
    """Converts an HDR picture ("PQ" or "HLG") to SDR, uint8 (H, W, 3).

    The input is uint16 (H, W, 3), coded RGB of BT.2020. Light up to three
    quarters of SDR white (100 cd/m2) is kept, brighter light is compressed
    smoothly towards white, and colours are converted to BT.709. HLG is rendered
    for a display of 1000 cd/m2.

    Example
    -------
    >>> codes = np.full((1, 1, 3), 0.508 * 65535, np.uint16)  # 100 cd/m2
    >>> tone_map(codes, "PQ").tolist(), tone_map(codes * 0, "HLG").tolist()
    ([[[245, 245, 245]]], [[[0, 0, 0]]])
    """
    mapped = np.empty(image.shape, np.uint8)
    for top in range(0, len(image), 64):  # In strips, to limit memory.
        light = _linear(transfer)[image[top : top + 64] >> 4]
        if transfer == "HLG":
            luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
            light *= 10 * luminance[..., None] ** 0.2
        light = (light @ TO_BT709.T).clip(0)
        over = 0.25 * np.exp(-(light - 0.75).clip(0) / 0.25)
        light = np.where(light < 0.75, light, 1 - over)
        mapped[top : top + 64] = (255 * light ** (1 / 2.4)).round()
    return mapped


def upright(image: np.ndarray, matrix: bytes) -> np.ndarray:
    """Rotates and mirrors an image (H, W, 3) by a display matrix.

    The matrix is nine int32 in native order, in rows [a b u], [c d v], [x y w]:
    (x, y) is displayed at (a x + c y, b x + d y), y downwards (ISO/IEC 14496-12
    section 6.2.2). Angles are rounded to multiples of 90 degrees.

    Example
    -------
    >>> image = np.array([[[1], [2], [3]]])
    >>> turn = np.array([0, -1, 0, 1, 0, 0, 0, 0, 1], np.int32) << 16
    >>> upright(image, turn.tobytes())[..., 0].tolist()
    [[3], [2], [1]]
    """
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    across, down = a, d
    if max(abs(b), abs(c)) > max(abs(a), abs(d)):
        image = image.transpose(1, 0, 2)
        across, down = c, b
    if across < 0:
        image = image[:, ::-1]
    return image[::-1] if down < 0 else image
