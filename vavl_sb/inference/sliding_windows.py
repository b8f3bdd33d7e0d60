"""What stands beside a clip's prediction: windows over time, and crops.

Features are computed once for the whole clip, and a window takes the frames of
its time. Where an encoder averages so many frames that a window would have a
few at the most, as in RAVDESS's recipe, the sound of each window is encoded by
itself.
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

LEAST_HOP = 0.05
# With fewer audio frames, a window's sound is encoded by itself.
LEAST_FRAMES = 5
# Not for frames that are short, however short the windows.
SHORT_FRAME = 0.2


class SlidingWindows:
    """Cuts windows out of a clip's chunks, and forgets what lies behind.

    They start every ``hop`` seconds and last ``window`` seconds, until one
    reaches the end of the clip; the last ends with the clip. The ``watch``
    counts the audio encoder. VAVLError, in one line: a window or a hop that
    cannot be.
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
        if not LEAST_HOP <= hop < math.inf:
            raise VAVLError(f"hop: must be at least {LEAST_HOP} s, not {hop}")
        self.window, self.hop = window, hop
        self.extractor, self.watch = extractor, watch
        self.number = 0  # of the next window
        self.by_itself = None  # whether a window's sound is encoded by itself
        self.sound = []  # AudioChunk
        self.kept = {"audio": [], "visual": []}  # of (times, features)

    def add(self, chunk: Chunk) -> Iterator[tuple[float, float, ClipFeatures]]:
        """Takes a chunk in, and gives start, end (seconds) and features of each
        window that it completes: of the frames that begin within it."""
        if self.by_itself is None:
            self.by_itself = self._encodes_windows(chunk)
        self.sound += chunk.sound
        for modality in chunk.features.modalities:
            times = getattr(chunk, f"{modality}_times")
            rows = (times, getattr(chunk.features, modality))
            self.kept[modality].append(rows)
        self._forget()
        while (span := self._next_span(chunk)) is not None:
            start, end = span
            # What lies at the very end, or is rounded to lie behind it.
            until = math.inf if chunk.last and end >= chunk.end else end
            audio = self._audio(start, until)
            visual = self._cut("visual", start, until)
            self.number += 1
            self._forget()
            yield start, end, ClipFeatures(audio, visual)

    def _encodes_windows(self, chunk):
        """Whether a window's sound is encoded by itself."""
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
        return longest * rate < LEAST_FRAMES and 1 / rate > SHORT_FRAME

    def _next_span(self, chunk):
        """Start and end of the next window, if all of it is there."""
        start = self.number * self.hop
        end = start + self.window
        if not chunk.last:
            return (start, end) if end <= chunk.end else None
        done = end - self.hop >= chunk.end or start >= chunk.end
        # The first lasts as long as the clip, also if that has no length.
        if self.number > 0 and done:
            return None
        return start, min(end, chunk.end)

    def _audio(self, start, end):
        """Audio features of a stretch; None for silence."""
        parts = [_between(chunk, start, end) for chunk in self.sound]
        samples = np.concatenate([np.zeros(0, np.float32), *parts])
        if self.sound and is_silent(samples):
            return None
        if not self.by_itself:
            return self._cut("audio", start, end)
        with self.watch("audio encoder"):
            return self.extractor.encode_audio(torch.from_numpy(samples))

    def _forget(self):
        """Drops what lies before the next window."""
        start = self.number * self.hop
        self.sound = [chunk for chunk in self.sound if end_of(chunk) > start]
        for kind, kept in self.kept.items():
            self.kept[kind] = [rows for rows in kept if rows[0][-1] >= start]

    def _cut(self, kind, start, end):
        """Features of the frames that begin in a stretch; None for none."""
        found = [
            features[(times >= start) & (times < end)]
            for times, features in self.kept[kind]
        ]
        return np.concatenate(found) if any(map(len, found)) else None


def _between(chunk, start, end):
    """The samples of a chunk of sound that lie in a stretch of time."""
    places = [(time - chunk.start) * SAMPLE_RATE for time in (start, end)]
    first, last = np.clip(np.round(places), 0, len(chunk.samples)).astype(int)
    return chunk.samples[first:last]


class CropSample:
    """Keeps a few crops, ``count`` at the most, evenly over a clip whose length
    is not known.

    Example
    -------
    >>> sample = CropSample(3)
    >>> sample.add(torch.zeros(9, 3, 2, 2, dtype=torch.uint8), np.arange(9.0))
    >>> [time for time, _ in sample.chosen()]
    [0.0, 4.0, 8.0]
    """

    def __init__(self, count: int):
        self.count = count
        self.step, self.seen, self.kept = 1, 0, []

    def add(self, crops: torch.Tensor, times: np.ndarray) -> None:
        """Takes crops in, uint8 (n, 3, H, W), with their times in seconds (n,),
        in order of time."""
        for crop, time in zip(crops, times.tolist(), strict=True):
            if self.seen % self.step == 0:
                picture = crop.permute(1, 2, 0).contiguous().cpu().numpy()
                self.kept.append((time, picture))
            self.seen += 1
            # A few times as many as are wanted, and then every other of them.
            if len(self.kept) > 4 * self.count:
                self.kept = self.kept[::2]
                self.step *= 2

    def chosen(self) -> list:
        """The crops to show: (time, picture), uint8 (H, W, 3)."""
        count = min(self.count, len(self.kept))
        places = np.linspace(0, len(self.kept) - 1, count)
        return [self.kept[int(place)] for place in places.round()]
