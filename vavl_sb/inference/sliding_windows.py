"""Windows over a clip: what the heads say as time goes on.

Features are computed once for the whole clip, and a window takes the frames of
its time. Where an encoder averages so many frames that a window would have a
few at the most, as in RAVDESS's recipe, the sound of each window is encoded by
itself.

Authors
 * The vavl_sb authors 2026
"""

import math

import numpy as np
import torch

from vavl_sb.features.extractor import SAMPLE_RATE, ClipFeatures, end_of
from vavl_sb.media.reader import is_silent
from vavl_sb.utils.errors import VAVLError

LEAST_HOP = 0.05
# With fewer audio frames, a window's sound is encoded by itself.
LEAST_FRAMES = 5
# Not for frames that are short, however short the windows.
SHORT_FRAME = 0.2


def spans(duration, window, hop, longest):
    """Where windows start and end.

    They start every ``hop`` seconds, until one reaches the end of the clip;
    the last ends with the clip.

    Arguments
    ---------
    duration : float
        Seconds of the clip.
    window, hop : float
        Seconds of a window, and between the starts of two.
    longest : float
        No window may be longer.

    Returns
    -------
    list of (float, float)
        Start and end, at least one pair.

    Raises
    ------
    VAVLError
        In one line: a window or a hop that cannot be.

    Example
    -------
    >>> spans(5.5, window=3.0, hop=1.0, longest=30.0)
    [(0.0, 3.0), (1.0, 4.0), (2.0, 5.0), (3.0, 5.5)]
    """
    if not 0 < window <= longest:
        raise VAVLError(
            f"window: must be above 0 and at most {longest:g} s, not {window}"
        )
    if not LEAST_HOP <= hop < math.inf:
        raise VAVLError(f"hop: must be at least {LEAST_HOP} s, not {hop}")
    count = 1
    while (count - 1) * hop + window < duration and count * hop < duration:
        count += 1
    starts = [number * hop for number in range(count)]
    # The first lasts as long as the clip, also where the clip has no length.
    return [(start, min(start + window, duration)) for start in starts]


class FeatureWindows:
    """Cuts windows out of a clip's pieces, and forgets what lies behind.

    Arguments
    ---------
    spans : list of (float, float)
        From :func:`spans`.
    duration : float
        Seconds of the clip.
    frame_rate : float
        Audio frames a second.
    encode : callable
        From a window's samples, a tensor (n,) at 16 kHz, to its audio
        features, None for silence; used where windows would have fewer than
        ``LEAST_FRAMES`` frames.
    """

    def __init__(self, spans, duration, frame_rate, encode):
        self.spans, self.duration = list(spans), duration
        longest = max(end - start for start, end in self.spans)
        few = longest * frame_rate < LEAST_FRAMES
        self.encode = encode if few and 1 / frame_rate > SHORT_FRAME else None
        self.sound = []  # AudioChunk
        self.kept = {"audio": [], "visual": []}  # of (times, features, peaks)

    def add(self, piece):
        """Takes a piece in, and gives the windows that it completes.

        Arguments
        ---------
        piece : vavl_sb.features.chunks.Piece
            The next one.

        Yields
        ------
        start, end : float
            Seconds.
        features : ClipFeatures
            Of the frames that begin within the window.
        """
        if not self.spans:
            return
        found = piece.features
        if self.encode is not None:
            self.sound += piece.sound
            self._forget()
        elif found.audio is not None:
            rows = (piece.audio_times, found.audio, piece.peaks)
            self.kept["audio"].append(rows)
        if found.visual is not None:
            rows = (piece.visual_times, found.visual, piece.visual_times)
            self.kept["visual"].append(rows)
        # What ends with the clip waits for all of it.
        known = min(piece.end, math.nextafter(self.duration, -math.inf))
        while self.spans and self.spans[0][1] <= known:
            yield self._next()

    def finish(self):
        """Gives the windows that are left, at the end of the clip.

        Yields
        ------
        tuple
            As :meth:`add`.
        """
        while self.spans:
            yield self._next()

    def _next(self):
        """Cuts out the first window that is left."""
        start, end = self.spans.pop(0)
        # What lies at the very end of a clip, or is rounded to lie behind it.
        until = math.inf if end >= self.duration else end
        audio = self._audio(start, until)
        visual, _ = self._cut("visual", start, until)
        self._forget()
        return start, end, ClipFeatures(audio, visual)

    def _audio(self, start, end):
        """Audio features of a stretch; None for silence."""
        if self.encode is None:
            features, peaks = self._cut("audio", start, end)
            silent = peaks is not None and is_silent(peaks)
            return None if silent else features
        parts = [_between(chunk, start, end) for chunk in self.sound]
        if not any(len(part) for part in parts):
            return None
        return self.encode(torch.from_numpy(np.concatenate(parts)))

    def _forget(self):
        """Sound before the windows that are left."""
        start = self.spans[0][0] if self.spans else math.inf
        self.sound = [chunk for chunk in self.sound if end_of(chunk) > start]

    def _cut(self, kind, start, end):
        """Features and peaks of the frames that begin in a stretch."""
        # The next window starts here or later.
        self.kept[kind] = [
            rows for rows in self.kept[kind] if rows[0][-1] >= start
        ]
        features, peaks = [], []
        for times, found, extremes in self.kept[kind]:
            inside = (times >= start) & (times < end)
            features.append(found[inside])
            peaks.append(extremes[inside])
        if not any(len(part) for part in features):
            return None, None
        return np.concatenate(features), np.concatenate(peaks)


def _between(chunk, start, end):
    """The samples of a chunk of sound that lie in a stretch of time."""
    places = [(time - chunk.start) * SAMPLE_RATE for time in (start, end)]
    first, last = np.clip(np.round(places), 0, len(chunk.samples)).astype(int)
    return chunk.samples[first:last]
