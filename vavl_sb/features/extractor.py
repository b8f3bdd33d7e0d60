"""The one path from a clip to features: training's cache and inference.

Whatever turns a media file into the numbers that VAVL reads is here, so that
an exported model sees a clip of at most 30 s exactly as training saw it,
half-precision rounding included. (A speech encoder that learned was trained
without that rounding, which moves its model's probabilities by about 1e-3.)
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vavl_sb.faces.tracker import CropBatch, CropsUntil, FaceTracker
from vavl_sb.lobes.feature_encoder import FeatureEncoder
from vavl_sb.lobes.precomputed import Precomputed
from vavl_sb.media.reader import (
    SAMPLE_RATE,
    AudioChunk,
    decode,
    decode_stream,
    is_silent,
    refuse_endless,
)
from vavl_sb.utils.errors import EncoderError, MediaError, VAVLError
from vavl_sb.utils.feature_files import read_features
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

# How a clip's frames become one vector, and how many times as long that is.
POOLINGS = {None: 1, "mean": 1, "statistics": 2}

# Raised when this file changes what features a clip gives.
PATH_VERSION = 2

# A clip of so many seconds at most is one chunk, as in training, where only
# the rarest clip is longer.
WHOLE = 30.0

# A longer clip is cut into chunks of so many seconds, about as long as the
# longest clips of the corpora: benchmarks/README.md has the memory.
CHUNK = 6.0

# Where a file has several pictures, so many of each are searched for a face,
# one a second.
SEARCHED = 30


@dataclass
class ClipFeatures:
    """Features of one clip; None where the clip lacks the modality.

    ``audio`` is float16 (Ta, audio_dim), ``visual`` float16 (Tv, visual_dim):
    frames that show a face.
    """

    audio: np.ndarray | None = None
    visual: np.ndarray | None = None

    @property
    def modalities(self) -> set[str]:
        """Which of "audio" and "visual" the clip has."""
        return {m for m, frames in vars(self).items() if frames is not None}


@dataclass
class FaceChunk:
    """Features of a clip's face for a stretch of time.

    ``features`` is float16 (n, visual_dim), ``crops`` what they were computed
    from, uint8 (n, 3, H, W), RGB, and ``times`` float64 (n,), seconds from the
    start of the presentation.
    """

    features: np.ndarray
    crops: torch.Tensor
    times: np.ndarray


@dataclass
class Chunk:
    """A stretch of a clip, and the ``features`` of what it holds.

    Attributes
    ----------
    start, end : float
        Seconds from the start of the presentation.
    last : bool
        Whether the clip ends with it.
    audio_times, visual_times : np.ndarray
        When each frame of the features begins, float64; empty where there is
        no feature.
    sound : list of AudioChunk
        What the audio features were computed from, at 16 kHz.
    """

    start: float
    end: float
    last: bool
    features: ClipFeatures = field(default_factory=ClipFeatures)
    audio_times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    visual_times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sound: list = field(default_factory=list)


class Stopwatch:
    """Adds up the ``seconds`` of each stage of work that is interleaved.

    A stage that starts inside another stops that one's clock until it ends, so
    that the stages' times never overlap.

    Example
    -------
    >>> watch = Stopwatch()
    >>> with watch("heads"):
    ...     list(watch.each("decode", iter("ab")))
    ['a', 'b']
    >>> sorted(watch.seconds)
    ['decode', 'heads']
    """

    def __init__(self):
        self.seconds = {}
        self._running, self._since = [], 0.0

    @contextlib.contextmanager
    def __call__(self, stage):
        """Counts what happens inside of a ``with`` for a stage."""
        self._count()
        self._running.append(stage)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def each(self, stage: str, items: Iterable) -> Iterator:
        """Counts the work of an iterator, not that of who uses its items."""
        items, end = iter(items), object()
        while True:
            with self(stage):
                item = next(items, end)
            if item is end:
                return
            yield item

    def _count(self):
        """Adds the time since the last call to the stage that runs."""
        now = time.perf_counter()
        for stage in self._running[-1:]:
            spent = now - self._since
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        self._since = now


class FeatureExtractor:
    """Decodes a clip and runs the frozen encoders on it.

    Memory does not grow with the picture: frames are decoded, cropped and
    encoded a batch at a time, and only features are kept.

    Arguments
    ---------
    audio_encoder : vavl_sb.lobes.audio_encoder.AudioEncoder
        Or any :class:`vavl_sb.lobes.feature_encoder.FeatureEncoder` whose
        ``forward(wavs, wav_lens)`` maps 16 kHz mono (B, n) in [-1, 1] and
        relative lengths (B,), or None, to features (B, T, D) and their
        lengths; with ``output_dim`` and ``frame_rate``.
    visual_encoder : vavl_sb.lobes.visual_encoder.VisualEncoder
        Or any that maps uint8 crops (N, 3, H, W) to (N, D), with
        ``output_dim``. In place of each there may be a
        :class:`vavl_sb.lobes.precomputed.Precomputed`: then no file is decoded
        for the modality, and clips bring features.
    face_tracker : vavl_sb.faces.tracker.FaceTracker
        What turns frames into crops.
    frame_rate : float
        At most that many pictures a second are encoded; None for all.
    batch_frames : int
        Frames that are decoded and encoded together.
    audio_pooling, visual_pooling : str
        Of a frozen encoder: "mean" or "statistics" (mean and deviation side by
        side) make one frame of all those of a clip, or of a window of a
        timeline. None keeps the frames.
    """

    def __init__(
        self,
        audio_encoder: FeatureEncoder,
        visual_encoder: FeatureEncoder,
        face_tracker: FaceTracker,
        frame_rate: float | None = 10.0,
        batch_frames: int = 32,
        audio_pooling: str | None = None,
        visual_pooling: str | None = None,
    ):
        self.pooling = {"audio": audio_pooling, "visual": visual_pooling}
        for modality, pooling in self.pooling.items():
            if pooling not in POOLINGS:
                raise EncoderError(
                    f"{modality}_pooling: must be null, mean or statistics, "
                    f"not {pooling!r}"
                )
        if not getattr(visual_encoder, "freeze", True):
            raise EncoderError(
                "visual_encoder: must be frozen; of the two encoders, the "
                "speech encoder alone can be fine-tuned"
            )
        if audio_pooling and not getattr(audio_encoder, "freeze", True):
            raise EncoderError(
                "audio_pooling: is for features of a frozen encoder; leave it "
                "null, or freeze_audio_encoder True"
            )
        self.audio_encoder = audio_encoder
        self.visual_encoder = visual_encoder
        self.face_tracker = face_tracker
        self.frame_rate = frame_rate
        self.batch_frames = batch_frames
        # Those that are no objects, for an export.
        self.arguments = {
            "frame_rate": frame_rate,
            "batch_frames": batch_frames,
            "audio_pooling": audio_pooling,
            "visual_pooling": visual_pooling,
        }

    def to(self, device: str | torch.device) -> "FeatureExtractor":
        """Moves encoders and face detector to a device."""
        self.audio_encoder.to(device)
        self.visual_encoder.to(device)
        self.face_tracker.to(device)
        return self

    def fingerprint(self, modality: str) -> str:
        """Names everything but the clip that a feature of a modality ("audio"
        or "visual") depends on: 16 hexadecimal digits."""
        parts: dict[str, Any] = {
            "version": PATH_VERSION,
            "sample_rate": SAMPLE_RATE,
            "pooling": self.pooling[modality],
            "encoder": getattr(self, f"{modality}_encoder").fingerprint(),
        }
        if modality == "visual" and not self.takes_features(modality):
            parts["faces"] = self.face_tracker.settings()
            parts["frame_rate"] = self.frame_rate
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def dim(self, modality: str) -> int:
        """Numbers that the network reads a frame, of "audio" or "visual"."""
        encoder = getattr(self, f"{modality}_encoder")
        return encoder.output_dim * POOLINGS[self.pooling[modality]]

    # For an hparams file's !ref.
    audio_dim = property(lambda self: self.dim("audio"))
    visual_dim = property(lambda self: self.dim("visual"))

    def takes_features(self, modality: str) -> bool:
        """Whether clips must bring the features of "audio" or "visual"."""
        return isinstance(getattr(self, f"{modality}_encoder"), Precomputed)

    def read_features(
        self, modality: str, source: str | Path | np.ndarray, name: str = ""
    ) -> np.ndarray:
        """Features that others computed, in place of the encoder's: float16 (T,
        D).

        The source is a reference (see :mod:`vavl_sb.utils.feature_files`) or
        frames (T, D), which an error calls by ``name``. Frame by frame: see
        :meth:`pool`. MediaError, in one line: they cannot be read, or are of
        another dimension.
        """
        encoder = getattr(self, f"{modality}_encoder")
        if isinstance(source, np.ndarray):
            frames, what = source, name
        else:
            columns = getattr(encoder, "columns", None)
            frames, what = read_features(source, columns), str(source)
        wanted = encoder.output_dim
        if frames.ndim != 2 or frames.shape[1] != wanted or not len(frames):
            raise MediaError(
                f"{what}: {modality} features must be of shape (T, {wanted}), "
                f"not {frames.shape}"
            )
        return _half(frames, what, "the file")

    def pool(self, features: ClipFeatures) -> ClipFeatures:
        """Features as the network reads them, from frames as they come: pooled
        over time, where the extractor pools."""
        return ClipFeatures(
            **{
                modality: None
                if frames is None
                else pool_frames(frames, self.pooling[modality])
                for modality, frames in vars(features).items()
            }
        )

    def encode(
        self, wav: str | None = None, video: str | None = None
    ) -> ClipFeatures:
        """Features of a clip, frame by frame: see :meth:`pool`.

        The sound is that of the file ``wav``, of any container, the picture
        that of ``video``; None for none. Where they are the same file, both are
        read in one pass. ``audio`` is None for digital silence or no sound,
        ``visual`` where no frame shows a face. MediaError: a file cannot be
        decoded, or a feature is not finite.
        """
        samples, visual = self.read(wav, video)
        audio = None if samples is None else self.encode_audio(samples, wav)
        return ClipFeatures(audio, visual)

    def read(self, wav: str | None = None, video: str | None = None) -> tuple:
        """Sound of a clip as samples, and the features of its picture.

        For whoever changes the sound before :meth:`encode_audio`: 16 kHz mono
        in [-1, 1], shape (n,), n = 0 for a file without sound, None without
        ``wav``; and ``visual`` of :class:`ClipFeatures`.
        """
        samples, visual, seconds = [np.zeros(0, np.float32)], [], 0.0
        _, streams = self._open(wav, video, Stopwatch())
        for item in _side_by_side(streams):
            if isinstance(item, AudioChunk):
                samples.append(item.samples)
                seconds += len(item.samples) / SAMPLE_RATE
                refuse_endless(str(wav), seconds)
            elif isinstance(item, FaceChunk):
                visual.append(item.features)
        return (
            torch.from_numpy(np.concatenate(samples)) if wav else None,
            np.concatenate(visual) if visual else None,
        )

    def chunks(
        self,
        wav: str | None = None,
        video: str | None = None,
        watch: Stopwatch | None = None,
        on_crops: Callable | None = None,
        given: ClipFeatures | None = None,
        infos: dict | None = None,
    ) -> Iterator[Chunk]:
        """Features of a clip of any length: of the whole, or chunk by chunk.

        A speech encoder's attention grows with the square of what it is given,
        and features of an hour do not fit in memory. So a clip of more than
        ``WHOLE`` seconds is cut at whole multiples of ``CHUNK``, and each chunk
        is encoded by itself as soon as it is read. Any other clip is one chunk,
        with the very features of :meth:`encode`.

        Gives each :class:`Chunk` in order of time. One without sound or face is
        left out, but not one whose sound is silence. ``watch`` counts the
        stages; ``on_crops`` gets crops and times of each FaceChunk; ``given``
        are features that others computed, for whole the clip; ``infos`` gets
        each file's :class:`vavl_sb.media.reader.MediaInfo` by path.
        """
        watch = watch or Stopwatch()
        given = given or ClipFeatures()
        found, streams = self._open(wav, video, watch)
        infos = {} if infos is None else infos
        infos.update(found)
        parts = _Parts(infos.get(wav), infos.get(video))
        for item in _side_by_side(streams):
            if isinstance(item, FaceChunk) and on_crops is not None:
                on_crops(item.crops, item.times)
            parts.add(item)
            for chunk, items in parts.complete():
                yield self._encode(chunk, items, wav, watch, given)
        duration = max((i.duration for i in infos.values()), default=0.0)
        rest = list(parts.rest(duration))
        if not rest and parts.done == 0 and given.modalities:
            rest = [(Chunk(0.0, duration, True), [])]  # Features are all.
        for chunk, items in rest:
            yield self._encode(chunk, items, wav, watch, given)
        for modality, path, stream in (
            ("audio", wav, "has_audio"),
            ("visual", video, "has_video"),
        ):
            there = getattr(infos.get(path), stream, False)
            if there and self.takes_features(modality):
                logger.warning("%s: %s", path, needs_features(modality))

    def _open(self, wav, video, watch):
        """Each file's info by path, and the items of each file bit by bit.

        They are AudioChunk; FaceChunk; and CropsUntil, how far the latter are
        complete. The ``watch`` counts "decode", "faces" and "visual encoder".
        """
        infos, streams = {}, []
        wav = None if self.takes_features("audio") else wav
        video = None if self.takes_features("visual") else video
        for path in dict.fromkeys(p for p in (wav, video) if p is not None):
            stream = decode(
                path,
                sample_rate=SAMPLE_RATE,
                frame_rate=self.frame_rate,
                audio=path == wav,
                video=path == video,
                batch_frames=self.batch_frames,
                choose_picture=partial(picture_with_face, self.face_tracker),
            )
            infos[path] = stream.info
            streams.append(self._find_faces(stream, path, path == video, watch))
        return infos, streams

    def _find_faces(self, stream, path, video, watch):
        """A decoded file with the features of its face in place of frames."""
        stream = watch.each("decode", stream)
        if video:
            stream = watch.each("faces", self.face_tracker.track(stream))
        for item in stream:
            if isinstance(item, CropBatch):
                with watch("visual encoder"):
                    features = self.encode_faces(item.crops, path)
                item = FaceChunk(features, item.crops, item.times)
            yield item

    def _encode(self, chunk, items, wav, watch, given):
        """A chunk with the features of its items, and what is given of them."""
        faces = [i for i in items if isinstance(i, FaceChunk)]
        chunk.sound = [i for i in items if isinstance(i, AudioChunk)]
        found = chunk.features
        if chunk.sound:
            samples = np.concatenate([c.samples for c in chunk.sound])
            with watch("audio encoder"):
                found.audio = self.encode_audio(torch.from_numpy(samples), wav)
            if found.audio is not None:
                rate = self.audio_encoder.frame_rate
                chunk.audio_times = _time_frames(
                    chunk.sound, len(found.audio), rate
                )
        if faces:
            found.visual = np.concatenate([f.features for f in faces])
            chunk.visual_times = np.concatenate([f.times for f in faces])
        self._add_given(chunk, given)
        return chunk

    def _add_given(self, chunk, given):
        """Adds what is given of a chunk's time."""
        for modality, frames in vars(given).items():
            if frames is None:
                continue
            rate = getattr(self, f"{modality}_encoder").frame_rate
            whole = chunk.start == 0 and chunk.last
            times = np.zeros(len(frames))
            if rate is not None:
                times = np.arange(len(frames)) / rate
                chunk.end = max(chunk.end, len(frames) / rate * whole)
            elif not whole:
                raise VAVLError(
                    f"the {modality} features of a clip of more than "
                    f"{WHOLE:g} s need their frame rate: train with "
                    f"--{modality}_features_rate, or give a shorter clip"
                )
            inside = (times >= chunk.start) & (times < chunk.end)
            inside |= whole
            if inside.any():
                setattr(chunk.features, modality, frames[inside])
                setattr(chunk, f"{modality}_times", times[inside])

    @torch.inference_mode()
    def encode_audio(
        self, samples: torch.Tensor, name: str = "<tensor>"
    ) -> np.ndarray | None:
        """Audio features float16 (Ta, audio_dim) of samples (n,), 16 kHz mono
        in [-1, 1]; None for silence or no samples.

        ``name`` is what an error calls the clip.
        """
        self._refuse_raw("audio", name)
        if is_silent(samples):
            return None
        device = _device(self.audio_encoder)
        features, _ = self.audio_encoder(samples[None].to(device), None)
        return _half(features[0].float().cpu().numpy(), name)

    def encode_faces(
        self, crops: torch.Tensor, name: str = "<tensor>"
    ) -> np.ndarray:
        """Visual features float16 (N, visual_dim) of crops uint8 (N, 3, H, W).

        ``name`` is what an error calls the clip.
        """
        self._refuse_raw("visual", name)
        return _half(self.encode_crops(crops), name)

    def _refuse_raw(self, modality, name):
        """Refuses what only an encoder could take."""
        if self.takes_features(modality):
            raise MediaError(f"{name}: {needs_features(modality)}")

    @torch.inference_mode()
    def encode_crops(self, crops: torch.Tensor) -> np.ndarray:
        """Visual features as the encoder gives them: float32."""
        device = _device(self.visual_encoder)
        return self.visual_encoder(crops.to(device)).float().cpu().numpy()


class _Parts:
    """Items of a clip by chunk; with the MediaInfo of its files, or None."""

    def __init__(self, sound, picture):
        self.sound, self.picture = sound, picture
        self.items = {}  # number of a chunk to its AudioChunk and FaceChunk
        self.heard = self.seen = 0.0  # how far sound and picture are complete
        self.longest = 0.0  # the clip lasts at least so long
        self.done = 0

    def add(self, item):
        """Takes in an item of :meth:`FeatureExtractor._open`."""
        if isinstance(item, AudioChunk):
            self.heard = end_of(item)
            self.longest = max(self.longest, self.heard)
            number = int(max(item.start, 0.0) // CHUNK)
            self.items.setdefault(number, []).append(item)
        elif isinstance(item, FaceChunk):
            self.longest = max(self.longest, item.times[-1])
            numbers = (np.maximum(item.times, 0.0) // CHUNK).astype(int)
            for number in np.unique(numbers).tolist():
                rows = numbers == number
                part = FaceChunk(item.features[rows], None, item.times[rows])
                self.items.setdefault(number, []).append(part)
        else:
            self.seen = item.time

    def complete(self):
        """Yields (chunk, items) of those of which no more will come.

        A container may round a clip of ``WHOLE`` seconds up by less than one.
        """
        known = []
        if self.sound is not None and self.sound.has_audio:
            known.append(self.heard)
        if self.picture is not None and self.picture.has_video:
            known.append(self.seen)
        known = min(known, default=0.0)
        while (
            self.longest > WHOLE + 1.0
            and known >= (self.done + 1) * CHUNK
            and max(self.items) > self.done
        ):
            start, items = self.done * CHUNK, self.items.pop(self.done, None)
            self.done += 1
            if items:
                yield Chunk(start, start + CHUNK, False), items

    def rest(self, duration):
        """Yields (chunk, items) of what is left at the end of the clip."""
        if duration <= WHOLE and self.done == 0 and self.items:
            numbers = sorted(self.items)
            self.items = {0: [i for n in numbers for i in self.items[n]]}
        last = max(self.items, default=0)
        for number in sorted(self.items):
            start = number * CHUNK
            end = duration if number == last else start + CHUNK
            yield Chunk(start, end, number == last), self.items[number]


def _time_frames(chunks, count, frame_rate):
    """When each frame of some sound begins, seconds."""
    lengths = [len(chunk.samples) for chunk in chunks]
    offsets = np.cumsum([0, *lengths])
    first = (np.arange(count) * (SAMPLE_RATE / frame_rate)).round().astype(int)
    first = np.minimum(first, offsets[-1] - 1)
    place = np.searchsorted(offsets[:-1], first, side="right") - 1
    starts = np.array([chunk.start for chunk in chunks])
    return starts[place] + (first - offsets[place]) / SAMPLE_RATE


def end_of(chunk: AudioChunk) -> float:
    """Where a stretch of 16 kHz sound ends, seconds from the start."""
    return chunk.start + len(chunk.samples) / SAMPLE_RATE


def _side_by_side(streams):
    """Items of several streams, always of the one that is furthest behind."""
    reached = {id(stream): 0.0 for stream in streams}
    while streams:
        stream = min(streams, key=lambda stream: reached[id(stream)])
        item = next(stream, None)
        if item is None:
            streams.remove(stream)
            continue
        if isinstance(item, AudioChunk):
            reached[id(stream)] = end_of(item)
        elif isinstance(item, CropsUntil):
            reached[id(stream)] = item.time
        yield item


def picture_with_face(
    tracker: FaceTracker, path: str, numbers: list[int]
) -> int:
    """The picture, of several in a file, that shows a face most often.

    The ``numbers`` are those of its streams, the one to prefer first; without a
    detector, that one it is.
    """
    if tracker.detector is None:
        return numbers[0]

    def count(number):
        faces = searched = 0
        with contextlib.suppress(MediaError):  # Of one that is used, it counts.
            for batch in decode_stream(path, number, frame_rate=1.0):
                faces += sum(map(bool, tracker.detector.detect(batch.frames)))
                searched += len(batch.frames)
                if searched >= SEARCHED:
                    break
        return faces

    return max(numbers, key=count)


def pool_frames(frames: np.ndarray, pooling: str | None) -> np.ndarray:
    """Frames (T, D) as one of them, float16 (1, D) or (1, 2D).

    None, or no frame at all: frames as they are. "mean": their mean.
    "statistics": mean and standard deviation side by side, as in SpeechBrain's
    ``StatisticsPooling``; the deviation is that of these frames, divided by T,
    and so 0 for a single one.

    Example
    -------
    >>> pool_frames(np.array([[1.0], [3.0]]), "statistics").tolist()
    [[2.0, 1.0]]
    """
    if pooling is None or len(frames) == 0:
        return frames
    frames = frames.astype(np.float64)
    parts = [frames.mean(axis=0)]
    if pooling == "statistics":
        parts.append(frames.std(axis=0))
    return np.concatenate(parts)[None].astype(np.float16)


def needs_features(modality: str) -> str:
    """What to do where features are needed, to stand after a clip's name."""
    return (
        f"the model takes {modality} features, not raw clips; give "
        f"{modality}_features"
    )


def _half(features, name, what="the encoder"):
    """Features in half precision, checked to be finite."""
    with np.errstate(over="ignore"):
        features = features.astype(np.float16)
    if not np.isfinite(features).all():
        raise MediaError(
            f"{name}: {what} gave numbers that half precision cannot hold "
            "(NaN or above 65504); scale them, or leave the clip out"
        )
    return features


def _device(module):
    """Device of a module's first tensor; CPU if it has none."""
    tensors = (*module.parameters(), *module.buffers())
    return next(iter(tensors)).device if tensors else torch.device("cpu")
