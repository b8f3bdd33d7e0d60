"""Packets of one stream in, sound or frames out.

The two halves of :func:`vavl_sb.media.reader.decode`: each reader turns the
packets of its stream into what is yielded, and keeps no more than one batch.

Authors
 * The vavl_sb authors 2026
"""

import math

import numpy as np

from vavl_sb.media.demuxing import import_av, reason
from vavl_sb.media.frames import AudioChunk, FrameBatch, RatePicker, upright
from vavl_sb.media.limits import (
    MAX_PIXELS,
    DecodingCredit,
    fault_of_format,
    fault_of_picture,
    fault_of_rate,
    fault_of_time,
    kept_size,
)
from vavl_sb.utils.errors import MediaError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

MAX_BATCH_BYTES = 128 * 2**20

# Time stamps of flv and matroska are rounded to 1 ms, and sound is cut into
# packets; a step ahead of more than this is a gap.
GAP = 0.1

# Sound or picture that may be lost at the very end of a stream: a tag behind
# the last packet, or a last packet that is cut off.
LOSS_AT_END = 0.2


# So many seconds a stream that was cut out of a longer one may complain
# of pictures that it refers to and does not have.
LEAD = 0.5


class Fault(Exception):
    """A fault in a file, before it is known what the caller wants of it."""


class _Reader:
    """Decodes one stream's packets and keeps account of faults."""

    kind = hint = ""

    def open(self, stream, origin, path, complaints):
        """Gets ready for a stream.

        Arguments
        ---------
        stream : av.stream.Stream
            The stream whose packets follow.
        origin : float
            Time stamp of the start of the presentation, seconds.
        path : str
            The file, for messages.
        complaints : vavl_sb.media.ffmpeg_log.Complaints
            Hears what FFmpeg says of the stream.
        """
        self.stream, self.origin, self.path = stream, origin, path
        self.complaints = complaints
        self.error = import_av().error.FFmpegError
        self.begin = None  # time of the first good frame, seconds
        self.clock = None  # where the last good frame ends, seconds
        self.heard_of = None  # time of the last packet, seconds
        self.fault = None  # (time, reason) of the first undecodable packet
        if stream.codec_context is None:
            raise MediaError(
                f"{path}: no decoder for its {self.kind}; convert the clip "
                "with a common codec (H.264, AAC)"
            )
        stream.codec_context.thread_count = 1

    def frames(self, packet):
        """Yields (frame, time) for each good frame that a packet completes.

        Raises a Fault at a good frame behind an undecodable packet. Packets
        before the first good frame do not count: a stream that was cut out of
        a longer one starts with such.
        """
        if packet.pts is not None:
            self.heard_of = float(packet.pts * packet.time_base) - self.origin
        before = len(self.complaints.open)
        try:
            with self.complaints.heard():
                decoded = packet.decode()
        except self.error as error:
            decoded = []
            self._note(reason(error))
        self.pay(max(1, len(decoded)))
        for frame in decoded:
            if frame.is_corrupt:
                self._note("its data is incomplete")
                continue
            time = self._time(frame)
            beyond = self.beyond(frame) or fault_of_time(time)
            if beyond is not None:
                raise Fault(beyond)
            if self.fault is not None and time >= self.fault[0]:
                raise self._as_fault()
            self.begin = time if self.begin is None else self.begin
            self.complaints.settle(time - self.begin > LEAD, before)
            before = 0
            self.clock = time + self.length(frame)
            yield frame, time

    def pay(self, count):
        """Raises a Fault where decoding costs more than the clip is worth.

        Arguments
        ---------
        count : int
            Frames that were decoded.
        """

    def length(self, frame):
        """How long a frame lasts, seconds.

        Arguments
        ---------
        frame : av.frame.Frame
            A decoded frame of this stream.

        Returns
        -------
        float
        """
        raise NotImplementedError

    def beyond(self, frame):
        """Which of the limits a frame breaks.

        Arguments
        ---------
        frame : av.frame.Frame
            A decoded frame of this stream.

        Returns
        -------
        str
            In words; None where it breaks none.
        """
        raise NotImplementedError

    def fault_at_end(self):
        """The Fault to tell of once all packets are read, or None."""
        if self.heard_of is None or self.clock is None:
            if self.heard_of is not None:
                return Fault(
                    f"nothing of its {self.kind} can be decoded{self.hint}"
                )
            return None
        if self.fault and self.heard_of - self.clock > LOSS_AT_END:
            return self._as_fault()
        return None

    def _note(self, why):
        if self.fault is None and self.clock is not None:
            self.fault = (self.clock, why)

    def _as_fault(self):
        time, why = self.fault
        return Fault(f"decoding its {self.kind} fails at {time:.2f} s ({why})")

    def _time(self, frame):
        """Time of a frame; where it has none, it follows the last one."""
        if frame.pts is None or not frame.time_base:
            return self.clock or 0.0
        # FFmpeg gives the origin in whole microseconds.
        stamp = float(frame.pts * frame.time_base)
        return round(stamp - self.origin, 6) + 0.0


class AudioReader(_Reader):
    """Sound of one stream, as mono of one rate.

    Each channel is resampled as float, and the mean of the channels taken
    after that: swresample's own downmix of float stereo to mono is 3 dB
    louder, and knows only common layouts.

    Arguments
    ---------
    sample_rate : int
        Samples a second to yield; a chunk holds as many or fewer.
    """

    kind = "audio"

    def __init__(self, sample_rate):
        self.sample_rate = sample_rate
        self.resampler = self.form = None
        self.parts, self.kept, self.start = [], 0, 0.0

    def length(self, frame):
        """How long a frame lasts, seconds.

        Arguments
        ---------
        frame : av.frame.Frame
            A decoded frame of this stream.

        Returns
        -------
        float
        """
        return frame.samples / frame.sample_rate

    def beyond(self, frame):
        """Which of the limits a frame breaks; see the base class."""
        return fault_of_rate(frame.sample_rate)

    def read(self, packet):
        """Yields an AudioChunk for each full second.

        Arguments
        ---------
        packet : av.Packet
            Of this stream; the empty one ends it.
        """
        expected = self.clock
        for frame, time in self.frames(packet):
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            gap = 0.0 if expected is None else time - expected
            if form != self.form or gap > GAP:
                if gap > GAP:
                    logger.warning(
                        "%s: %.2f s of sound are missing at %.2f s",
                        self.path,
                        gap,
                        expected,
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

    def flush(self):
        """Yields what the resampler and this reader still hold."""
        if self.resampler is not None:
            # Closed first: after a fault it is not asked again.
            held = self._resample(None)
            self.resampler = None
            self._keep(held)
        while self.kept:
            yield self._take(min(self.kept, self.sample_rate))

    def _resample(self, frame):
        """What the resampler gives for a frame; None drains it."""
        try:
            return self.resampler.resample(frame)
        except import_av().FFmpegError as error:
            raise Fault(f"its audio cannot be resampled ({error})") from None

    def _keep(self, frames):
        for frame in frames:
            if frame is None:
                continue
            samples = frame.to_ndarray().mean(axis=0, dtype=np.float32)
            if not np.isfinite(samples).all():
                at = self.start + self.kept / self.sample_rate
                raise Fault(f"its audio is not a number at {at:.2f} s")
            # Lossy codecs overshoot full scale.
            self.parts.append(samples.clip(-1.0, 1.0))
            self.kept += len(samples)

    def _take(self, count):
        samples = np.concatenate(self.parts)
        chunk = AudioChunk(samples[:count], self.start)
        self.parts = [samples[count:]]
        self.kept -= count
        self.start += count / self.sample_rate
        return chunk


class VideoReader(_Reader):
    """Frames of one stream, picked by time, upright, with square pixels.

    Arguments
    ---------
    frame_rate : float or None
        Frames a second at most; None yields all.
    batch_frames : int
        Frames in a batch.
    """

    kind = "video"
    # FFmpeg does not say why: it just opens no decoder for a larger one.
    hint = f" ({MAX_PIXELS} pixels is the limit of a picture)"

    def __init__(self, frame_rate, batch_frames):
        self.picker = RatePicker(frame_rate)
        self.batch_frames = batch_frames
        self.room, self.times = None, []

    def open(self, stream, origin, path, complaints):
        """Gets ready for a stream; see the base class."""
        super().open(stream, origin, path, complaints)
        codec = stream.codec_context
        beyond = _beyond(codec.width, codec.height, codec.format)
        if beyond is not None:
            raise MediaError(f"{path}: {beyond}; scale it down or leave it out")
        # The picture's own header may say otherwise than the container's.
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        kept, _ = kept_size(codec.width, codec.height)
        if codec.name == "mjpeg" and kept < codec.width:
            # No more is decoded than is kept. The MPEG decoders would drift
            # away so, and FFV1's gives other pictures.
            halvings = int(math.log2(codec.width / kept))
            codec.options["lowres"] = str(halvings)
        self.credit = DecodingCredit()
        rate = stream.average_rate or stream.base_rate
        self.spacing = 1 / float(rate) if rate else 0.04
        ratio = stream.sample_aspect_ratio
        self.pixel_ratio = float(ratio) if ratio else 1.0
        self.latest = -math.inf
        # From version 17 on, PyAV converts in as many threads as there are
        # cores unless told otherwise, which on busy cores is far slower.
        version = int(import_av().__version__.split(".")[0])
        self.threads = {"threads": 1} if version >= 17 else {}

    def length(self, frame):
        """How long a frame lasts (by the average rate), seconds.

        Arguments
        ---------
        frame : av.frame.Frame
            A decoded frame of this stream.

        Returns
        -------
        float
        """
        return self.spacing

    def beyond(self, frame):
        """Which of the limits a frame breaks; see the base class."""
        return _beyond(self._width(frame), frame.height, frame.format)

    def pay(self, count):
        """Raises a Fault where decoding costs too much; see the base class."""
        codec = self.stream.codec_context
        pixels = count * codec.width * codec.height
        fault = self.credit.spend(pixels, self.heard_of)
        if fault is not None:
            raise Fault(fault)

    def read(self, packet):
        """Yields a FrameBatch for each full one.

        Arguments
        ---------
        packet : av.Packet
            Of this stream; the empty one ends it.
        """
        for frame, time in self.frames(packet):
            time = self.latest = max(time, self.latest)
            if not self.picker.pick(time):
                continue
            try:
                image = self._image(frame)
            except (self.error, OSError) as error:
                raise Fault(
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

    def flush(self):
        """Yields the frames that this reader still holds."""
        if self.times:
            frames = self.room[: len(self.times)]
            yield FrameBatch(frames, np.array(self.times, np.float64))
        self.room, self.times = None, []

    def _image(self, frame):
        width, height = kept_size(self._width(frame), frame.height)
        image = frame.to_ndarray(
            format="rgb24", width=width, height=height, **self.threads
        )
        # Not frame.side_data: that is a cycle of references, and frames would
        # pile up until Python collects its garbage.
        side_data = import_av().sidedata.sidedata.SideDataContainer(frame)
        matrix = side_data.get("DISPLAYMATRIX")
        return image if matrix is None else upright(image, bytes(matrix))

    def _width(self, frame):
        """Width of a frame whose pixels were made square."""
        return max(1, round(frame.width * self.pixel_ratio))


def _beyond(width, height, form):
    """Which limit a picture breaks; ``form`` is a format of pixels or None."""
    bits = form.padded_bits_per_pixel if form is not None else 0
    return fault_of_picture(width, height) or fault_of_format(
        width, height, bits
    )
