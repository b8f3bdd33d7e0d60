"""Packets of one stream in, sound or frames out.

The two halves of :func:`vavl_sb.media.reader.decode`: each reader turns the
packets of its stream into what is yielded, and keeps no more than one batch.
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

MAX_BATCH_BYTES = 128 * 2**20

# Pixels of a picture beyond which it is kept at a smaller size (2560 x 1440
# is kept as it is, 4K at half its size). No crop of a face needs more.
MAX_KEPT_PIXELS = 2**22

# Pixels to decode for a second of a clip: 8K at 30 frames a second fits, or
# 4K at 120. So many seconds' worth may come at once.
MAX_PIXELS_A_SECOND = 2**30
SAVED_SECONDS = 4

# Samples a second: below is no speech, above no recorder.
SAMPLE_RATES = (1000, 768_000)

# Time stamps of flv and matroska are rounded to 1 ms, and sound is cut into
# packets; a step ahead of more than this is a gap.
GAP = 0.1

# How much damage is too much: the share of a stream's packets that cannot be
# decoded above which a file is refused. Less gives a warning, and one packet
# is never too much.
MAX_DAMAGE = 0.1

# Seconds of the very end of a stream that are no damage where they cannot be
# decoded: a tag behind the last packet, or a last packet that is cut off.
LOSS_AT_END = 0.2

# Transfer characteristics of HDR, by their number in ITU-T H.273.
HDR = {16: "PQ", 18: "HLG"}

# Linear RGB of BT.2020 to that of BT.709 (ITU-R BT.2087).
TO_BT709 = np.array(
    [
        [1.6605, -0.5876, -0.0728],
        [-0.1246, 1.1329, -0.0083],
        [-0.0182, -0.1006, 1.1187],
    ],
    np.float32,
)

# For so many seconds a stream that was cut out of a longer one may refer to
# pictures that it does not have.
LEAD = 0.5


@dataclass
class AudioChunk:
    """A stretch of sound: ``samples`` float32 (n,), mono in [-1, 1].

    ``start`` is the time of the first, seconds from the start of the
    presentation. Chunks follow each other without a gap unless the file has
    one.
    """

    samples: np.ndarray
    start: float


@dataclass
class FrameBatch:
    """Some frames that follow each other: uint8 (n, H, W, 3), RGB, upright.

    H and W may differ between two batches if the stream changes its size.
    ``times`` are float64 (n,), seconds from the start of the presentation,
    never falling.
    """

    frames: np.ndarray
    times: np.ndarray


class RatePicker:
    """Picks items by their time, at most one in each 1 / rate seconds; all for
    None.

    The first item is picked, and then the first of each interval counted from
    it. An interval is taken to start a tenth of itself earlier, so that time
    stamps rounded to 1 ms do not drop every other frame when the rate is that
    of the file.

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
        """Whether to pick an item; times (seconds) never fall."""
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
    """Decodes one stream's packets and keeps account of faults.

    Times are counted from ``origin``, where the presentation starts.
    """

    kind = hint = ""

    def __init__(self, stream, origin, path):
        self.stream, self.origin, self.path = stream, origin, path
        self.error = import_av().error.FFmpegError
        self.begin = None  # time of the first good frame, seconds
        self.clock = None  # where the last good frame ends, seconds
        self.demuxed = None  # time of the last packet, seconds
        self.packets = 0
        self.bad = 0  # packets that cannot be decoded, before the last good one
        self.bad_behind = 0  # such packets since then
        self.fault = ""  # where the first of them is, and why
        self.said = []  # by FFmpeg, since the last good frame
        self.mended = []  # what it said, where good frames came behind it
        self.left_out = []  # one line for each thing that is not as it was
        if stream.codec_context is None:
            raise MediaError(
                f"{path}: no decoder for its {self.kind}; convert the clip "
                "with a common codec (H.264, AAC)"
            )
        # The same file gives the same frames so, also where it is damaged.
        stream.codec_context.thread_count = 1

    def decode(self, packet):
        """Yields (frame, time) for each good frame that a packet completes.

        Undecodable packets before the first good frame do not count: a stream
        that was cut out of a longer one starts with such. What FFmpeg says of
        damage counts where good frames come behind it: what stands behind the
        end, such as a tag, is no damage.
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
            self.bad, self.bad_behind = self.bad + self.bad_behind, 0
            self.begin = time if self.begin is None else self.begin
            if time - self.begin > LEAD:
                self.mended += self.said
            self.said = []
            self.clock = time + self._length(frame)
            yield frame, time
        self.said += lines

    def fault_at_end(self) -> MediaFault | None:
        """The MediaFault to tell of once all packets are read, or None.

        What is no fault is added to ``left_out``.
        """
        if self.demuxed is None:
            return None
        if self.clock is None:
            return MediaFault(
                f"nothing of its {self.kind} can be decoded{self.hint}"
            )
        if self.demuxed - self.clock > LOSS_AT_END:
            self.bad += self.bad_behind
        if self.bad:
            text = f"{self.fault}, {self.bad} of {self.packets} packets in all"
            if self.bad > max(1, MAX_DAMAGE * self.packets):
                return MediaFault(text)
            self.left_out.append(text)
        elif self.mended:
            self.left_out.append(
                f"its {self.kind} is damaged in places, which FFmpeg has "
                f"mended as it could ({len(self.mended)} messages, first: "
                f"{self.mended[0][:100]})"
            )
        return None

    def _pay(self, count):
        """Raises a MediaFault where decoding costs more than allowed."""

    def _note(self, why):
        if self.clock is None:
            return
        self.bad_behind += 1
        self.fault = self.fault or (
            f"decoding its {self.kind} fails at {self.clock:.2f} s ({why})"
        )

    def _time(self, frame):
        """Time of a frame; where it has none, it follows the last one."""
        if frame.pts is None or not frame.time_base:
            return self.clock or 0.0
        # FFmpeg gives the origin in whole microseconds.
        stamp = float(frame.pts * frame.time_base)
        return round(stamp - self.origin, 6) + 0.0


class AudioReader(_StreamReader):
    """Sound of one stream, as mono of one rate, in chunks of a second or less.

    Each channel is resampled as float, and the mean of the channels taken after
    that: swresample's own downmix of float stereo to mono is 3 dB louder, and
    knows only common layouts. Where channels cancel each other, the loudest is
    taken: see :meth:`_mix`.
    """

    kind = "audio"

    def __init__(
        self,
        stream: "av.AudioStream",
        origin: float,
        path: str,
        sample_rate: int,
    ):
        super().__init__(stream, origin, path)
        self.sample_rate = sample_rate
        self.form: tuple | None = None
        self.resampler = None
        self.parts, self.kept, self.start = [], 0, 0.0
        self.channel: int | None = None  # the loudest, where they cancel
        self.cancelled = 0.0  # seconds of which only that one is used

    def read(self, packet: "av.Packet") -> Iterator[AudioChunk]:
        """Yields an AudioChunk for each full second; the empty packet ends."""
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
                    format="fltp", rate=self.sample_rate
                )
            expected = self.clock
            frame.pts = None  # gaps are dealt with here
            self._keep(self._resample(frame))
            while self.kept >= self.sample_rate:
                yield self._take(self.sample_rate)

    def flush(self) -> Iterator[AudioChunk]:
        """Yields what the resampler and this reader still hold."""
        if self.resampler is not None:
            # Closed first: after a fault it is not asked again.
            held = self._resample(None)
            self.resampler = None
            self._keep(held)
        while self.kept:
            yield self._take(min(self.kept, self.sample_rate))
        self.parts = []  # What comes next may have other channels.

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
        """What the resampler gives for a frame; None drains it."""
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
                at = self.start + self.kept / self.sample_rate
                raise MediaFault(f"its audio is not a number at {at:.2f} s")
            self.parts.append(samples)
            self.kept += samples.shape[1]

    def _take(self, count):
        samples = np.concatenate(self.parts, axis=1)
        chunk = AudioChunk(self._mix(samples[:, :count]), self.start)
        self.parts = [samples[:, count:]]
        self.kept -= count
        self.start += count / self.sample_rate
        return chunk

    def _mix(self, channels):
        """Mono (n,) of some sound (channels, n): the mean of the channels.

        Or one channel, where they cancel each other: where the mean has less
        than half of the power that it would have if they had nothing in
        common. Of two channels, it then is 6 dB below them.
        """
        mean = channels.mean(axis=0, dtype=np.float32)
        powers = np.square(channels, dtype=np.float64).sum(axis=1)
        power = np.square(mean, dtype=np.float64).sum() * len(channels) ** 2
        if power < powers.sum() / 2:
            # Two that are about as loud do not take turns.
            if self.channel is None or (
                powers[self.channel] < powers.max() / 2
            ):
                self.channel = int(powers.argmax())
            mean = channels[self.channel]
            self.cancelled += len(mean) / self.sample_rate
        # Lossy codecs overshoot full scale.
        return mean.clip(-1.0, 1.0)

    def fault_at_end(self) -> MediaFault | None:
        """As of any stream; and tells of channels that were not used."""
        if self.cancelled:
            self.left_out.append(
                f"its channels cancel each other for {self.cancelled:.2f} s, "
                "of which the loudest alone is used"
            )
        return super().fault_at_end()


class VideoReader(_StreamReader):
    """Frames of one stream, picked by time, upright, with square pixels.

    At most ``frame_rate`` frames a second, or all for None, ``batch_frames`` in
    a batch.
    """

    kind = "video"
    # FFmpeg does not say why: it just opens no decoder for a larger one.
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
        # The picture's own header may say otherwise than the container's.
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        rate = stream.average_rate or stream.base_rate
        self.spacing = 1 / float(rate) if rate else 0.04
        self.pixel_ratio = float(stream.sample_aspect_ratio or 1)
        # From version 17 on, PyAV converts in as many threads as there are
        # cores unless told otherwise, which on busy cores is far slower.
        version = int(import_av().__version__.split(".")[0])
        self.threads = {"threads": 1} if version >= 17 else {}

    def read(self, packet: "av.Packet") -> Iterator[FrameBatch]:
        """Yields a FrameBatch for each full one; the empty packet ends."""
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
        """Yields the frames that this reader still holds."""
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
        """Each second of a clip brings some pixels that may be decoded.

        A few kilobytes can hold thousands of pictures with one time stamp.
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
        """A frame as RGB, upright, uint8 (H, W, 3)."""
        width, height = kept_size(self._width(frame), frame.height)
        # Frames of PyAV before 15 do not know it.
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
            text = f"its picture is HDR ({hdr}), of which highlights are cut"
            if text not in self.left_out:
                self.left_out.append(text)
        # Not frame.side_data: that is a cycle of references, and frames would
        # pile up until Python collects its garbage.
        side_data = import_av().sidedata.sidedata.SideDataContainer(frame)
        matrix = side_data.get("DISPLAYMATRIX")
        return image if matrix is None else upright(image, bytes(matrix))

    def _width(self, frame):
        """Width of a frame whose pixels were made square."""
        return max(1, round(frame.width * self.pixel_ratio))


def too_large(width: int, height: int) -> str:
    """What to say of a picture that has more pixels than are decoded."""
    return (
        f"a picture of {width} x {height} pixels is above the limit of "
        f"{MAX_PIXELS}"
    )


def kept_size(width: int, height: int) -> tuple[int, int]:
    """Size at which a picture is kept, so that large ones fill no memory.

    Both divided by the least whole number that ``MAX_KEPT_PIXELS`` allows.

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
    """Light of each 12-bit code; of PQ in units of SDR's white (100 cd/m2)."""
    code = np.arange(4096) / 4095
    if transfer == "PQ":  # SMPTE ST 2084
        root = code ** (32 / 2523)
        light = (root - 0.8359375).clip(0) / (18.8515625 - 18.6875 * root)
        return (100 * light ** (8192 / 1305)).astype(np.float32)
    # HLG, ITU-R BT.2100: light of the scene, of which the brightest is 1.
    bright = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(code <= 0.5, code**2 / 3, bright).astype(np.float32)


def tone_map(image: np.ndarray, transfer: str) -> np.ndarray:
    """An HDR picture ("PQ" or "HLG"), uint16 (H, W, 3) RGB as coded, as one of
    SDR, uint8 (H, W, 3).

    Light up to three quarters of SDR's white (100 cd/m2) stays as it is, what
    is brighter goes towards white in a smooth curve, and colours of BT.2020
    become those of BT.709. HLG is taken for a screen of 1000 cd/m2.

    Example
    -------
    >>> codes = np.full((1, 1, 3), 0.508 * 65535, np.uint16)  # 100 cd/m2
    >>> tone_map(codes, "PQ").tolist(), tone_map(codes * 0, "HLG").tolist()
    ([[[245, 245, 245]]], [[[0, 0, 0]]])
    """
    mapped = np.empty(image.shape, np.uint8)
    for top in range(0, len(image), 64):  # Floats of all would fill memory.
        light = _linear(transfer)[image[top : top + 64] >> 4]
        if transfer == "HLG":
            seen = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
            light *= 10 * seen[..., None] ** 0.2
        light = (light @ TO_BT709.T).clip(0)
        over = 0.25 * np.exp(-(light - 0.75).clip(0) / 0.25)
        light = np.where(light < 0.75, light, 1 - over)
        mapped[top : top + 64] = (255 * light ** (1 / 2.4)).round()
    return mapped


def upright(image: np.ndarray, matrix: bytes) -> np.ndarray:
    """Turns and mirrors an image (H, W, 3) as a display matrix says.

    That is nine int32 in native order, in rows [a b u], [c d v], [x y w]: the
    point (x, y) is shown at (a x + c y, b x + d y), y downwards (ISO/IEC
    14496-12, 6.2.2). Angles between the four right ones count as none.

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
