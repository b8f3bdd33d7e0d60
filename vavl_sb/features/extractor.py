"""Extracts features from clips, for training and inference alike.

An exported model gets the same features of a clip of at most 30 s as in
training, including the rounding to half precision. (A fine-tuned speech encoder
was trained without this rounding, which changes the probabilities of its model
by about 1e-3.)
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
    check_length,
    decode,
    decode_stream,
    is_silent,
)
from vavl_sb.utils.errors import EncoderError, MediaError, VAVLError
from vavl_sb.utils.feature_files import read_features
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

# Pooling over time, and the factor by which it multiplies the dimension.
POOLINGS = {None: 1, "mean": 1, "statistics": 2}

# Part of the fingerprint: increased when a change of code changes features.
PATH_VERSION = 2

# Clips of at most this many seconds are one chunk, as in training, where longer
# clips are very rare.
WHOLE = 30.0

# Longer clips are cut into chunks of this many seconds, about as long as the
# longest clips of the corpora; for memory see benchmarks/README.md.
CHUNK = 6.0

# If a file has several video streams, faces are detected in this many frames of
# each, one per second, to choose one.
SEARCHED = 30


@dataclass
class ClipFeatures:
    """Features of one clip; None for a missing modality.

    ``audio`` is float16 (Ta, audio_dim); ``visual`` is float16 (Tv,
    visual_dim), of the frames that show a face.
    """

    audio: np.ndarray | None = None
    visual: np.ndarray | None = None

    @property
    def modalities(self) -> set[str]:
        """The modalities of the clip: "audio", "visual" or both."""
        return {m for m, frames in vars(self).items() if frames is not None}


@dataclass
class FaceChunk:
    """Features of the face in consecutive frames.

    ``features`` is float16 (n, visual_dim); ``crops`` are the encoder's input,
    uint8 (n, 3, H, W), RGB; ``times`` is float64 (n,), seconds from the start
    of the presentation.
    """

    features: np.ndarray
    crops: torch.Tensor
    times: np.ndarray


@dataclass
class Chunk:
    """A chunk of a clip, with its ``features``.

    Attributes
    ----------
    start, end : float
        Seconds from the start of the presentation.
    last : bool
        Whether it is the last chunk of the clip.
    audio_times, visual_times : np.ndarray
        Start time of each feature frame, float64; empty without features.
    sound : list of AudioChunk
        Input of the audio encoder, at 16 kHz.
    """

    start: float
    end: float
    last: bool
    features: ClipFeatures = field(default_factory=ClipFeatures)
    audio_times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    visual_times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sound: list = field(default_factory=list)


class Stopwatch:
    """Measures the ``seconds`` of each of several interleaved stages.

    A stage that starts inside another one pauses the outer stage, so that their
    times do not overlap.

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
        """Context manager that measures a stage."""
        self._count()
        self._running.append(stage)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def each(self, stage: str, items: Iterable) -> Iterator:
        """Measures the work of an iterator, without that of its consumer."""
        items, end = iter(items), object()
        while True:
            with self(stage):
                item = next(items, end)
            if item is end:
                return
            yield item

    def _count(self):
        """Adds the time since the last call to the running stage."""
        now = time.perf_counter()
        for stage in self._running[-1:]:
            spent = now - self._since
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        self._since = now


class FeatureExtractor:
    """Decodes clips and runs the frozen encoders on them.

    Frames are decoded, cropped and encoded batch by batch, so that memory does
    not grow with the length of the video.

    Arguments
    ---------
    audio_encoder : vavl_sb.lobes.audio_encoder.AudioEncoder
        Or any :class:`vavl_sb.lobes.feature_encoder.FeatureEncoder` whose
        ``forward(wavs, wav_lens)`` maps 16 kHz mono (B, n) in [-1, 1] and
        relative lengths (B,), or None, to features (B, T, D) and their
        lengths; with ``output_dim`` and ``frame_rate``.
    visual_encoder : vavl_sb.lobes.visual_encoder.VisualEncoder
        Or any that maps uint8 crops (N, 3, H, W) to (N, D), with
        ``output_dim``. Either encoder may be a
        :class:`vavl_sb.lobes.precomputed.Precomputed`: then clips must come
        with features of this modality, and no file is decoded for it.
    face_tracker : vavl_sb.faces.tracker.FaceTracker
        Turns frames into crops.
    frame_rate : float
        Maximum number of frames per second to encode; None: all.
    batch_frames : int
        Frames per batch of decoding and encoding.
    audio_pooling, visual_pooling : str
        For frozen encoders: "mean" or "statistics" (mean and standard
        deviation, concatenated) pools all frames of a clip, or of a window of
        a timeline, into one. None keeps the frames.
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
                "visual_encoder: must be frozen; only the speech encoder can "
                "be fine-tuned"
            )
        if audio_pooling and not getattr(audio_encoder, "freeze", True):
            raise EncoderError(
                "audio_pooling: needs a frozen encoder; set it to null, or "
                "freeze_audio_encoder to True"
            )
        self.audio_encoder = audio_encoder
        self.visual_encoder = visual_encoder
        self.face_tracker = face_tracker
        self.frame_rate = frame_rate
        self.batch_frames = batch_frames
        # The arguments with plain values, for the export.
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
        """Returns a hash, 16 hexadecimal digits, of everything but the clip
        that features of "audio" or "visual" depend on."""
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
        """Returns the feature dimension of "audio" or "visual"."""
        encoder = getattr(self, f"{modality}_encoder")
        return encoder.output_dim * POOLINGS[self.pooling[modality]]

    # For !ref in an hparams file.
    audio_dim = property(lambda self: self.dim("audio"))
    visual_dim = property(lambda self: self.dim("visual"))

    def takes_features(self, modality: str) -> bool:
        """Whether "audio" or "visual" takes precomputed features only."""
        return isinstance(getattr(self, f"{modality}_encoder"), Precomputed)

    def read_features(
        self, modality: str, source: str | Path | np.ndarray, name: str = ""
    ) -> np.ndarray:
        """Reads precomputed features: float16 (T, D), before :meth:`pool`.

        ``source`` is a reference (see :mod:`vavl_sb.utils.feature_files`), or
        frames (T, D), which error messages call ``name``. Raises a one-line
        MediaError if they cannot be read or have another dimension.
        """
        encoder = getattr(self, f"{modality}_encoder")
        if isinstance(source, np.ndarray):
            frames = source
        else:
            columns = getattr(encoder, "columns", None)
            frames, name = read_features(source, columns), str(source)
        dim = encoder.output_dim
        if frames.ndim != 2 or frames.shape[1] != dim or not len(frames):
            raise MediaError(
                f"{name}: {modality} features must be of shape (T, {dim}), "
                f"not {frames.shape}"
            )
        return _half(frames, name, "the file")

    def pool(self, features: ClipFeatures) -> ClipFeatures:
        """Pools each modality over time, as set for this extractor."""
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
        """Extracts the features of a clip, before :meth:`pool`.

        ``wav`` and ``video`` are files in any container, or None; the same file
        is decoded once. The features ``audio`` are None for no audio or digital
        silence, ``visual`` if no frame shows a face. Raises a MediaError if a
        file cannot be decoded or a feature is not finite.
        """
        samples, visual = self.read(wav, video)
        audio = None if samples is None else self.encode_audio(samples, wav)
        return ClipFeatures(audio, visual)

    def read(self, wav: str | None = None, video: str | None = None) -> tuple:
        """Reads the audio samples of a clip, and extracts its visual features.

        Use it to change the audio before :meth:`encode_audio`. Returns samples
        (n,), 16 kHz mono in [-1, 1], with n = 0 for a file without audio and
        None without ``wav``; and ``visual`` of :class:`ClipFeatures`.
        """
        samples, visual, seconds = [np.zeros(0, np.float32)], [], 0.0
        _, streams = self._open(wav, video, Stopwatch())
        for item in _interleave(streams):
            if isinstance(item, AudioChunk):
                samples.append(item.samples)
                seconds += len(item.samples) / SAMPLE_RATE
                check_length(str(wav), seconds)
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
        """Extracts the features of a clip of any length, in chunks.

        The attention of a speech encoder grows with the square of its input,
        and the features of an hour do not fit in memory. Clips of more than
        ``WHOLE`` seconds are therefore cut at multiples of ``CHUNK``, and each
        chunk is encoded separately as soon as it is decoded. A shorter clip is
        one chunk, with the features of :meth:`encode`.

        Arguments
        ---------
        wav, video : str or None
            Files in any container.
        watch : Stopwatch
            Measures the stages.
        on_crops : callable
            Called with crops and times of each FaceChunk.
        given : ClipFeatures
            Precomputed features of the whole clip.
        infos : dict
            Receives the :class:`vavl_sb.media.reader.MediaInfo` of each path.

        Yields
        ------
        Chunk
            In order of time. Chunks without audio stream and face are left out;
            digital silence counts as audio.
        """
        watch = watch or Stopwatch()
        given = given or ClipFeatures()
        opened, streams = self._open(wav, video, watch)
        infos = {} if infos is None else infos
        infos.update(opened)
        chunker = _Chunker(infos.get(wav), infos.get(video))
        for item in _interleave(streams):
            if isinstance(item, FaceChunk) and on_crops is not None:
                on_crops(item.crops, item.times)
            chunker.add(item)
            for chunk, items in chunker.complete():
                yield self._encode(chunk, items, wav, watch, given)
        duration = max((i.duration for i in infos.values()), default=0.0)
        remaining = list(chunker.remaining(duration))
        if not remaining and chunker.done == 0 and given.modalities:
            # The clip has precomputed features only.
            remaining = [(Chunk(0.0, duration, True), [])]
        for chunk, items in remaining:
            yield self._encode(chunk, items, wav, watch, given)
        for modality, path, stream in (
            ("audio", wav, "has_audio"),
            ("visual", video, "has_video"),
        ):
            has_stream = getattr(infos.get(path), stream, False)
            if has_stream and self.takes_features(modality):
                logger.warning("%s: %s", path, needs_features(modality))

    def _open(self, wav, video, watch):
        """Returns the MediaInfo of each path, and an iterator for each file.

        The iterators yield AudioChunk, FaceChunk and CropsUntil objects.
        ``watch`` measures "decode", "faces" and "visual encoder".
        """
        infos, streams = {}, []
        wav = None if self.takes_features("audio") else wav
        video = None if self.takes_features("visual") else video
        for path in dict.fromkeys(p for p in (wav, video) if p is not None):
            stream = decode(
                path,
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
        """Replaces the frames of a decoded file by features of its face."""
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
        """Adds the features of its items, and precomputed ones, to a chunk."""
        faces = [i for i in items if isinstance(i, FaceChunk)]
        chunk.sound = [i for i in items if isinstance(i, AudioChunk)]
        features = chunk.features
        if chunk.sound:
            samples = torch.from_numpy(
                np.concatenate([c.samples for c in chunk.sound])
            )
            with watch("audio encoder"):
                features.audio = self.encode_audio(samples, wav)
            if features.audio is not None:
                rate = self.audio_encoder.frame_rate
                chunk.audio_times = _time_frames(
                    chunk.sound, len(features.audio), rate
                )
        if faces:
            features.visual = np.concatenate([f.features for f in faces])
            chunk.visual_times = np.concatenate([f.times for f in faces])
        self._add_given(chunk, given)
        return chunk

    def _add_given(self, chunk, given):
        """Adds the precomputed features in the time of a chunk."""
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
        """Encodes samples (n,), 16 kHz mono in [-1, 1].

        Returns float16 (Ta, audio_dim), or None for digital silence or no
        samples. Error messages call the clip ``name``.
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
        """Encodes crops, uint8 (N, 3, H, W): float16 (N, visual_dim).

        Error messages call the clip ``name``.
        """
        self._refuse_raw("visual", name)
        return _half(self.encode_crops(crops), name)

    def _refuse_raw(self, modality, name):
        """Raises a MediaError if the modality has no encoder for raw input."""
        if self.takes_features(modality):
            raise MediaError(f"{name}: {needs_features(modality)}")

    @torch.inference_mode()
    def encode_crops(self, crops: torch.Tensor) -> np.ndarray:
        """Encodes crops to float32, the output of the encoder."""
        device = _device(self.visual_encoder)
        return self.visual_encoder(crops.to(device)).float().cpu().numpy()


class _Chunker:
    """Groups the items of a clip by chunk.

    Takes the MediaInfo of the audio and of the video file, or None.
    """

    def __init__(self, audio_info, video_info):
        self.audio_info, self.video_info = audio_info, video_info
        self.items = {}  # number of a chunk to its AudioChunk and FaceChunk
        self.audio_until = self.video_until = 0.0  # complete up to here, s
        self.longest = 0.0  # lower limit of the clip's duration, s
        self.done = 0  # number of the next chunk of a long clip

    def add(self, item):
        """Adds an item of :meth:`FeatureExtractor._open`."""
        if isinstance(item, AudioChunk):
            self.audio_until = end_of(item)
            self.longest = max(self.longest, self.audio_until)
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
            self.video_until = item.time

    def complete(self):
        """Yields (chunk, items) of the complete chunks of a long clip.

        A container may round ``WHOLE`` seconds up by less than one second.
        """
        ends = []
        if self.audio_info is not None and self.audio_info.has_audio:
            ends.append(self.audio_until)
        if self.video_info is not None and self.video_info.has_video:
            ends.append(self.video_until)
        until = min(ends, default=0.0)
        while (
            self.longest > WHOLE + 1.0
            and until >= (self.done + 1) * CHUNK
            and max(self.items) > self.done
        ):
            start, items = self.done * CHUNK, self.items.pop(self.done, None)
            self.done += 1
            if items:
                yield Chunk(start, start + CHUNK, False), items

    def remaining(self, duration):
        """Yields (chunk, items) of the remaining chunks, at the clip's end."""
        if duration <= WHOLE and self.done == 0 and self.items:
            numbers = sorted(self.items)
            self.items = {0: [i for n in numbers for i in self.items[n]]}
        last = max(self.items, default=0)
        for number in sorted(self.items):
            start = number * CHUNK
            end = duration if number == last else start + CHUNK
            yield Chunk(start, end, number == last), self.items[number]


def _time_frames(chunks, count, frame_rate):
    """Returns the start times of feature frames of AudioChunks, seconds."""
    lengths = [len(chunk.samples) for chunk in chunks]
    offsets = np.cumsum([0, *lengths])
    first = (np.arange(count) * (SAMPLE_RATE / frame_rate)).round().astype(int)
    first = np.minimum(first, offsets[-1] - 1)
    place = np.searchsorted(offsets[:-1], first, side="right") - 1
    starts = np.array([chunk.start for chunk in chunks])
    return starts[place] + (first - offsets[place]) / SAMPLE_RATE


def end_of(chunk: AudioChunk) -> float:
    """Returns the end of 16 kHz audio, in seconds from the start."""
    return chunk.start + len(chunk.samples) / SAMPLE_RATE


def _interleave(streams):
    """Interleaves several streams, always advancing the one furthest behind."""
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
    """Returns the number of the video stream that shows a face most often.

    The first of the stream ``numbers`` is preferred; without a detector, it is
    returned.
    """
    if tracker.detector is None:
        return numbers[0]

    def count(number):
        faces = searched = 0
        # If this stream is chosen, decoding it raises the error again.
        with contextlib.suppress(MediaError):
            for batch in decode_stream(path, number, frame_rate=1.0):
                faces += sum(map(bool, tracker.detector.detect(batch.frames)))
                searched += len(batch.frames)
                if searched >= SEARCHED:
                    break
        return faces

    return max(numbers, key=count)


def pool_frames(frames: np.ndarray, pooling: str | None) -> np.ndarray:
    """Pools frames (T, D) over time into one: float16 (1, D) or (1, 2D).

    "mean" is their mean, "statistics" mean and standard deviation,
    concatenated, as in SpeechBrain's ``StatisticsPooling``, but with a divisor
    of T, so that a single frame has deviation 0. With None, or without frames,
    the input is returned.

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
    """Returns the error message for a clip without the required features."""
    return (
        f"the model takes {modality} features, not raw clips; give "
        f"{modality}_features"
    )


def _half(features, name, what="the encoder"):
    """Converts features to half precision; raises if they are not finite."""
    with np.errstate(over="ignore"):
        features = features.astype(np.float16)
    if not np.isfinite(features).all():
        raise MediaError(
            f"{name}: {what} gave numbers that half precision cannot hold "
            "(NaN or above 65504); scale them, or leave the clip out"
        )
    return features


def _device(module):
    """Device of a module's first tensor; CPU for a module without tensors."""
    tensors = (*module.parameters(), *module.buffers())
    return next(iter(tensors)).device if tensors else torch.device("cpu")
