"""Windows over a clip: what the heads say as time goes on.

Authors
 * The vavl_sb authors 2026
"""

import math

import numpy as np

from vavl_sb.dataio.clip import ClipFeatures
from vavl_sb.dataio.media import is_silent
from vavl_sb.utils.errors import VAVLError

LEAST_HOP = 0.05


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
    """

    def __init__(self, spans):
        self.spans = list(spans)
        self.kept = {"audio": [], "visual": []}  # of (times, features, peaks)

    def add(self, piece):
        """Takes a piece in, and gives the windows that it completes.

        Arguments
        ---------
        piece : vavl_sb.dataio.pieces.Piece
            The next one.

        Yields
        ------
        start, end : float
            Seconds.
        features : ClipFeatures
            Of the frames that begin within the window.
        """
        found = piece.features
        if found.audio is not None:
            rows = (piece.audio_times, found.audio, piece.peaks)
            self.kept["audio"].append(rows)
        if found.visual is not None:
            rows = (piece.visual_times, found.visual, piece.visual_times)
            self.kept["visual"].append(rows)
        while len(self.spans) > 1 and self.spans[0][1] <= piece.end:
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
        until = end if self.spans else math.inf
        audio, peaks = self._cut("audio", start, until)
        if peaks is not None and is_silent(peaks):
            audio = None
        visual, _ = self._cut("visual", start, until)
        return start, end, ClipFeatures(audio, visual)

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
