"""Which of the faces in a picture is the one that a clip is about.

The largest one at first, then whichever detection continues it (by overlap, or
else by nearness at a similar size), though another may have grown larger. If it
stays away for longer than ``lost_after``, the largest face is taken up anew.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np


class Follower:
    """Chooses, search by search, the detection that is the followed face.

    Arguments
    ---------
    lost_after : float
        Seconds without the face after which the largest one is taken.

    Example
    -------
    >>> from vavl_sb.faces.detector import Detection
    >>> small, large = (
    ...     Detection(np.array(box), eyes=np.zeros((2, 2)))
    ...     for box in ([0.0, 0.0, 30.0, 40.0], [60.0, 0.0, 120.0, 80.0])
    ... )
    >>> follower = Follower(lost_after=1.0)
    >>> follower.follow([small, large], time=0.0)[0] is large
    True
    >>> follower.follow([small], time=0.2)
    (None, False)
    >>> follower.follow([small], time=1.2)[0] is small
    True
    """

    def __init__(self, lost_after):
        self.lost_after = lost_after
        self.last = None
        self.seen = None
        self.missing = False

    def follow(self, detections, time):
        """The followed face, and whether it continues the last one.

        Arguments
        ---------
        detections : list of Detection
            All faces of one frame.
        time : float
            Time of the frame, seconds.

        Returns
        -------
        detection : Detection or None
            None if the followed face is not there.
        continued : bool
            False at the start and where another face was taken up.
        """
        chosen, continued = None, False
        if self.last is not None:
            linked = [d for d in detections if _continues(self.last, d)]
            # Overlap first; where there is none, the nearest.
            chosen = max(
                linked, key=lambda d: _closeness(self.last, d), default=None
            )
            continued = chosen is not None
        lost = self.last is None or (
            self.missing and time - self.seen > self.lost_after
        )
        if chosen is None and lost:
            chosen = max(detections, key=lambda d: d.area, default=None)
        self.missing = chosen is None
        if chosen is not None:
            self.last, self.seen = chosen, time
        return chosen, continued


def _closeness(a, b):
    """(overlap, minus distance of the centres) of two detections' boxes."""
    low = np.maximum(a.box[:2], b.box[:2])
    high = np.minimum(a.box[2:], b.box[2:])
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    overlap = shared / (a.area + b.area - shared) if shared else 0.0
    return overlap, -_distance(a, b)


def _distance(a, b):
    middle_a, middle_b = (d.box[:2] + d.box[2:] for d in (a, b))
    return float(np.linalg.norm(middle_a - middle_b)) / 2


def _continues(last, new):
    """Whether a detection can be the last one's face a moment later.

    Either the boxes overlap by 0.3 (intersection over union), or the centre
    moved by less than three quarters of a face at less than twice or half the
    size.
    """
    if _closeness(last, new)[0] >= 0.3:
        return True
    side, other = np.sqrt(max(last.area, 1.0)), np.sqrt(max(new.area, 1.0))
    similar = 0.5 < other / side < 2.0
    return bool(similar and _distance(last, new) < 0.75 * max(side, other))
