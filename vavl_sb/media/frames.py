"""What decoding a media file gives, and the choice of frames by time.

Light: neither PyAV nor torch is imported here.

Authors
 * The vavl_sb authors 2026
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class AudioChunk:
    """A stretch of sound.

    Arguments
    ---------
    samples : np.ndarray
        float32, shape (n,), mono in [-1, 1].
    start : float
        Time of the first sample, seconds from the start of the presentation.
        Chunks follow each other without a gap unless the file has one.
    """

    samples: np.ndarray
    start: float


@dataclass
class FrameBatch:
    """Some frames that follow each other.

    Arguments
    ---------
    frames : np.ndarray
        uint8, shape (n, H, W, 3), RGB, upright. H and W may differ between
        two batches if the stream changes its size.
    times : np.ndarray
        float64, shape (n,), seconds from the start of the presentation, never
        falling.
    """

    frames: np.ndarray
    times: np.ndarray


class RatePicker:
    """Picks items by their time, at most one in each 1 / rate seconds.

    The first item is picked, and then the first of each interval counted from
    it. An interval is taken to start a tenth of itself earlier, so that time
    stamps rounded to 1 ms do not drop every other frame when the rate is that
    of the file.

    Arguments
    ---------
    rate : float or None
        Items a second; None picks all.

    Example
    -------
    >>> picker = RatePicker(10)
    >>> [picker.pick(time) for time in (0.5, 0.533, 0.567, 0.6, 0.9)]
    [True, False, False, True, True]
    """

    def __init__(self, rate):
        self.rate = rate
        self.first = None
        self.interval = None

    def pick(self, time):
        """Whether to pick an item.

        Arguments
        ---------
        time : float
            Of the item, seconds; never falling from call to call.

        Returns
        -------
        bool
        """
        if self.rate is None:
            return True
        if self.first is None:
            self.first = time
        interval = math.floor((time - self.first) * self.rate + 0.1)
        if self.interval is not None and interval <= self.interval:
            return False
        self.interval = interval
        return True


def upright(image, matrix):
    """Turns and mirrors an image as a display matrix says.

    Arguments
    ---------
    image : np.ndarray
        Shape (H, W, 3).
    matrix : bytes
        Nine int32 in native order, in rows [a b u], [c d v], [x y w]: the
        point (x, y) is shown at (a x + c y, b x + d y), y downwards (ISO/IEC
        14496-12, 6.2.2). Angles between the four right ones count as none.

    Returns
    -------
    np.ndarray
        Shape (H, W, 3) or (W, H, 3).

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
