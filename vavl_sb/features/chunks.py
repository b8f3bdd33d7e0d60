"""A clip of any length in pieces, each with the features of a short clip.

A speech encoder's attention grows with the square of what it is given, and
features of an hour do not fit in memory. So a clip is cut at whole multiples
of ``seconds``, and each piece is encoded by itself as soon as it is read. A
clip that is not longer than one piece has the very features of
:meth:`vavl_sb.features.extractor.FeatureExtractor.encode`.

Authors
 * The vavl_sb authors 2026
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from vavl_sb.faces.tracker import Decided
from vavl_sb.features.extractor import (
    SAMPLE_RATE,
    ClipFeatures,
    FaceChunk,
    end_of,
)
from vavl_sb.media.frames import AudioChunk
from vavl_sb.utils.profiler import Stopwatch


@dataclass
class Piece:
    """A stretch of a clip.

    Arguments
    ---------
    start, end : float
        Seconds from the start of the presentation.
    features : ClipFeatures
        Of what it holds.
    audio_times, visual_times : np.ndarray
        When each frame of the features begins, float64; empty where there is
        no feature.
    peaks : np.ndarray
        Lowest and highest sample within each audio frame, shape (Ta, 2).
    sound : list of AudioChunk
        What the audio features were computed from, at 16 kHz.
    """

    start: float
    end: float
    features: ClipFeatures
    audio_times: np.ndarray
    visual_times: np.ndarray
    peaks: np.ndarray
    sound: list = field(default_factory=list)


@dataclass
class _Open:
    """What is known of a piece that is being read."""

    sound: list = field(default_factory=list)  # AudioChunk
    faces: list = field(default_factory=list)  # (features, times)


def read_pieces(
    encoder, wav, video, seconds, duration, expected, watch=None, on_crops=None
):
    """Reads a clip piece by piece.

    Memory holds one piece and what is needed of the next, unless the file has
    its sound and its picture far apart.

    Arguments
    ---------
    encoder : vavl_sb.features.extractor.FeatureExtractor
        What encodes.
    wav, video : str
        As for ``encoder.stream``.
    seconds : float
        Length of a piece.
    duration : float
        Seconds that the clip lasts, where the last piece ends.
    expected : sequence of str
        Of "audio" and "visual": the streams that the files have.
    watch : vavl_sb.utils.profiler.Stopwatch
        Counts the stages.
    on_crops : callable
        Gets (crops, times) of each face chunk.

    Yields
    ------
    Piece
        In order of time. One without sound or face is left out, but not one
        whose sound is silence.
    """
    watch = watch or Stopwatch()
    started, done = {}, 0
    reached = dict.fromkeys(expected, 0.0)
    for item in encoder.stream(wav, video, watch):
        if isinstance(item, AudioChunk):
            number = int(max(item.start, 0.0) // seconds)
            started.setdefault(number, _Open()).sound.append(item)
            reached["audio"] = end_of(item)
        elif isinstance(item, FaceChunk):
            _sort_in(started, item, seconds)
            if on_crops is not None:
                on_crops(item.crops, item.times)
        elif isinstance(item, Decided):
            reached["visual"] = item.until
        until = min(reached.values(), default=0.0)
        while until >= (done + 1) * seconds and any(
            number > done for number in started
        ):
            yield from _close(started, done, encoder, wav, seconds, None, watch)
            done += 1
    last = max(started, default=0)
    for number in sorted(started):
        end = duration if number == last else None
        yield from _close(started, number, encoder, wav, seconds, end, watch)


def _sort_in(started, chunk, seconds):
    """Hands the frames of a face chunk to the pieces that they belong to."""
    numbers = (np.maximum(chunk.times, 0.0) // seconds).astype(int)
    for number in np.unique(numbers).tolist():
        rows = numbers == number
        part = (chunk.features[rows], chunk.times[rows])
        started.setdefault(number, _Open()).faces.append(part)


def _close(started, number, encoder, wav, seconds, end, watch):
    """The finished piece of a number, if there is anything in it."""
    found = started.pop(number, None)
    if found is None:
        return
    features = ClipFeatures()
    audio_times, peaks = np.zeros(0), np.zeros((0, 2), np.float32)
    visual_times = np.zeros(0)
    if found.sound:
        samples = np.concatenate([c.samples for c in found.sound])
        with watch("audio encoder"):
            features.audio = encoder.encode_audio(
                torch.from_numpy(samples), wav
            )
    if features.audio is not None:
        audio_times, peaks = _time_frames(
            found.sound,
            samples,
            len(features.audio),
            encoder.audio_encoder.frame_rate,
        )
    if found.faces:
        parts, times = zip(*found.faces, strict=True)
        features.visual = np.concatenate(parts)
        visual_times = np.concatenate(times)
    if not found.sound and features.visual is None:
        return
    yield Piece(
        start=number * seconds,
        end=(number + 1) * seconds if end is None else end,
        features=features,
        audio_times=audio_times,
        visual_times=visual_times,
        peaks=peaks,
        sound=found.sound,
    )


def _time_frames(chunks, samples, count, frame_rate):
    """When each frame of a piece's sound begins, and its extreme samples."""
    first = np.arange(count) * (SAMPLE_RATE / frame_rate)
    first = np.minimum(first.round().astype(int), len(samples) - 1)
    lengths = [len(chunk.samples) for chunk in chunks]
    offsets = np.cumsum([0, *lengths[:-1]])
    chunk = np.searchsorted(offsets, first, side="right") - 1
    starts = np.array([c.start for c in chunks])
    times = starts[chunk] + (first - offsets[chunk]) / SAMPLE_RATE
    peaks = [
        extreme.reduceat(samples, first) for extreme in (np.minimum, np.maximum)
    ]
    return times, np.stack(peaks, axis=-1)
