"""Sliding windows over the features of a clip, and a sample of its crops.

Features are computed once per clip and cut into windows. If the audio encoder
averages so many frames that a window would have very few, as in the RAVDESS
recipe, the audio of each window is encoded separately.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from vavl_sb.features.extractor import (
    WHOLE,
    Chunk,
    ClipFeatures,
    FeatureExtractor,
    Stopwatch,
    end_of,
)
from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.media.reader import SAMPLE_RATE, is_silent
from vavl_sb.utils.errors import VAVLError

MIN_HOP = 0.05
# A window with fewer audio frames than this, each longer than SHORT_FRAME
# seconds, is encoded separately.
MIN_FRAMES = 5
SHORT_FRAME = 0.2


class SlidingWindows:
    """Cuts the chunks of a clip into windows, and drops frames it has passed.

    Windows start every ``hop`` seconds and last ``window`` seconds, until one
    reaches the end of the clip; the last window ends with the clip. ``watch``
    times the audio encoder. Raises VAVLError for an invalid window or hop.
    """

    def __init__(
        self,
        window: float,
        hop: float,
        extractor: FeatureExtractor,
        watch: Stopwatch,
    ):
        if not 0 < window <= WHOLE:
            raise VAVLError(
                f"window: must be above 0 and at most {WHOLE:g} s, not {window}"
            )
        if not MIN_HOP <= hop < math.inf:
            raise VAVLError(f"hop: must be at least {MIN_HOP} s, not {hop}")
        self.window, self.hop = window, hop
        self.extractor, self.watch = extractor, watch
        self.number = 0  # of the next window
        self.separately = None  # whether audio is encoded for each window
        self.audio_chunks = []
        self.kept = {"audio": [], "visual": []}  # (times, features) per chunk

    def add(self, chunk: Chunk) -> Iterator[tuple[float, float, ClipFeatures]]:
        """Adds a chunk, and yields start, end (seconds) and features of each
        window that it completes. A frame belongs to a window if it begins
        within it."""
        if self.separately is None:
            self.separately = self._encodes_windows(chunk)
        self.audio_chunks += chunk.sound
        for modality in chunk.features.modalities:
            times = getattr(chunk, f"{modality}_times")
            rows = (times, getattr(chunk.features, modality))
            self.kept[modality].append(rows)
        self._drop_passed()
        while (span := self._next_span(chunk)) is not None:
            start, end = span
            # Include frames at the very end, or rounded to after it.
            until = math.inf if chunk.last and end >= chunk.end else end
            audio = self._audio(start, until)
            visual = self._cut("visual", start, until)
            self.number += 1
            self._drop_passed()
            yield start, end, ClipFeatures(audio, visual)

    def _encodes_windows(self, chunk):
        """Whether the audio of each window is encoded separately."""
        for modality in MODALITIES:
            encoder = getattr(self.extractor, f"{modality}_encoder")
            features = getattr(chunk.features, modality)
            takes = self.extractor.takes_features(modality)
            if takes and features is not None and encoder.frame_rate is None:
                raise VAVLError(
                    f"a timeline needs the frame rate of the model's "
                    f"{modality} features: train with --{modality}_features_"
                    "rate, or leave the timeline out"
                )
        if self.extractor.takes_features("audio"):
            return False
        rate = self.extractor.audio_encoder.frame_rate
        longest = min(self.window, chunk.end) if chunk.last else self.window
        return longest * rate < MIN_FRAMES and 1 / rate > SHORT_FRAME

    def _next_span(self, chunk):
        """Returns start and end of the next window, None if incomplete."""
        start = self.number * self.hop
        end = start + self.window
        if not chunk.last:
            return (start, end) if end <= chunk.end else None
        done = end - self.hop >= chunk.end or start >= chunk.end
        # Even an empty clip has one window.
        if self.number > 0 and done:
            return None
        return start, min(end, chunk.end)

    def _audio(self, start, end):
        """Returns audio features of a window; None for silence."""
        parts = [_between(chunk, start, end) for chunk in self.audio_chunks]
        samples = np.concatenate([np.zeros(0, np.float32), *parts])
        if self.audio_chunks and is_silent(samples):
            return None
        if not self.separately:
            return self._cut("audio", start, end)
        with self.watch("audio encoder"):
            return self.extractor.encode_audio(torch.from_numpy(samples))

    def _drop_passed(self):
        """Drops chunks that end before the next window."""
        start = self.number * self.hop
        self.audio_chunks = [c for c in self.audio_chunks if end_of(c) > start]
        for modality, kept in self.kept.items():
            self.kept[modality] = [r for r in kept if r[0][-1] >= start]

    def _cut(self, modality, start, end):
        """Returns the features of frames that begin in a window, or None."""
        rows = [
            features[(times >= start) & (times < end)]
            for times, features in self.kept[modality]
        ]
        return np.concatenate(rows) if any(map(len, rows)) else None


def _between(chunk, start, end):
    """Returns the samples of an audio chunk between two times."""
    limits = [(time - chunk.start) * SAMPLE_RATE for time in (start, end)]
    first, last = np.clip(np.round(limits), 0, len(chunk.samples)).astype(int)
    return chunk.samples[first:last]


class CropSample:
    """Samples at most ``count`` crops, evenly spaced over a clip of unknown
    length.

    Example
    -------
    >>> sample = CropSample(3)
    >>> sample.add(torch.zeros(9, 3, 2, 2, dtype=torch.uint8), np.arange(9.0))
    >>> [time for time, _ in sample.chosen()]
    [0.0, 4.0, 8.0]
    """

    def __init__(self, count: int):
        self.count = count
        self.step, self.total, self.kept = 1, 0, []

    def add(self, crops: torch.Tensor, times: np.ndarray) -> None:
        """Adds crops, uint8 (n, 3, H, W), and their times in seconds (n,), in
        order of time."""
        for crop, time in zip(crops, times.tolist(), strict=True):
            if self.total % self.step == 0:
                picture = crop.permute(1, 2, 0).contiguous().cpu().numpy()
                self.kept.append((time, picture))
            self.total += 1
            # Keep every other crop, to bound the memory.
            if len(self.kept) > 4 * self.count:
                self.kept = self.kept[::2]
                self.step *= 2

    def chosen(self) -> list:
        """Returns the sampled crops: (time, picture), uint8 (H, W, 3)."""
        count = min(self.count, len(self.kept))
        places = np.linspace(0, len(self.kept) - 1, count)
        return [self.kept[int(place)] for place in places.round()]
