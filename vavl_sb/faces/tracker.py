"""The face of a clip, followed and aligned, frame by frame.

Faces are looked for a few times a second; between two detections of the same
face its box and eyes are interpolated linearly in time. Frames go in and crops
come out: memory depends on the spacing of detections and never on the length
of the clip.

Which face: the largest one at first, then whichever detection continues it (by
overlap, or else by nearness at a similar size), though another may have grown
larger. If it stays away for longer than ``lost_after``, the largest face is
taken up anew.

Which frames:

- a frame that was searched and shows the face gives a crop;
- a frame between two detections of the face gives one by interpolation, if the
  two are neighbours, or no more than ``max_gap`` apart with searches in between
  that missed it (a hand before the face, a blink of the detector);
- any other frame gives none. A clip without a face gives nothing at all.

The last frame is always searched, so that a clip's end has a detection.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vavl_sb.faces.detector import (
    EYE_DISTANCE,
    EYE_HEIGHT,
    LEAST_EYE_DISTANCE,
    MTCNNDetector,
    align_face,
    centre_square,
)
from vavl_sb.media.decoders import FrameBatch, RatePicker
from vavl_sb.utils.errors import VAVLError

# Raised whenever this code changes what crops a clip gives.
VERSION = 1

# Frames that wait for a detection, or their crops, fill about this much.
MAX_WAITING_BYTES = 128 * 2**20
# Where the next search, or the next face, is so many bytes of frames away, it
# is searched now, or not bridged.
MAX_HELD_BYTES = 512 * 2**20


@dataclass
class CropBatch:
    """Crops of one clip, in the order of time.

    ``crops`` are uint8 (n, 3, size, size), RGB; ``times`` float64 (n,), seconds
    from the start of the presentation; ``boxes`` float64 (n, 4): the face (or,
    without a detector, the part of the frame that the crop shows), x0 y0 x1 y1
    in pixels of the frame.
    """

    crops: torch.Tensor
    times: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class CropsUntil:
    """A mark in a stream of crops: no crop before this time will follow,
    seconds from the start of the presentation."""

    time: float


class FaceTracker:
    """Turns frames into aligned crops of the face that a clip shows.

    One object serves many clips: it keeps nothing of a clip.
    ``FaceTracker(**tracker.arguments)`` gives the same crops.

    Arguments
    ---------
    detector : str or None or object
        "mtcnn"; or None for whole frames (the largest square in the middle,
        resized; each frame gives a crop); or an object with
        ``detect(frames)`` and ``settings()`` like :class:`MTCNNDetector`.
    size : int
        Side of the crops, pixels.
    detection_rate : float or None
        Searches a second at most; None searches each frame.
    device : str or torch.device
        Where the detector runs.
    max_gap : float
        Longest time (seconds) between two detections of the face that is
        bridged although searches in between missed it.
    lost_after : float
        Seconds without the followed face after which the largest is taken.
    detection_batch : int
        Frames that are searched together.

    Example
    -------
    >>> from vavl_sb.media.reader import FrameBatch
    >>> frames = np.zeros((5, 90, 120, 3), np.uint8)
    >>> clip = [FrameBatch(frames, np.arange(5) / 10)]
    >>> batch, *_ = FaceTracker(detector=None).track(clip)
    >>> batch.crops.shape
    torch.Size([5, 3, 224, 224])
    """

    def __init__(
        self,
        detector: Any = "mtcnn",
        size: int = 224,
        detection_rate: float | None = 5.0,
        device: str | torch.device = "cpu",
        max_gap: float = 0.5,
        lost_after: float = 1.0,
        detection_batch: int = 8,
    ):
        self.arguments = {
            "detector": detector,
            "size": size,
            "detection_rate": detection_rate,
            "max_gap": max_gap,
            "lost_after": lost_after,
            "detection_batch": detection_batch,
        }
        if detector == "mtcnn":
            detector = MTCNNDetector(device)
        elif detector is not None and not hasattr(detector, "detect"):
            raise VAVLError(
                f"face_detector is {detector!r}: give mtcnn, or null for whole "
                "frames"
            )
        if detection_rate is not None and not detection_rate > 0:
            raise VAVLError(
                f"detection_rate is {detection_rate}: give a number above 0, "
                "or null to search every frame"
            )
        self.detector = detector
        self.size = size
        self.detection_rate = detection_rate
        self.max_gap = max_gap
        self.lost_after = lost_after
        self.detection_batch = detection_batch

    def settings(self) -> dict:
        """All that changes the crops, fit for JSON and a cache's fingerprint.

        The device and the size of batches are not in it: they change no more
        than the last bit of a detector's sums.
        """
        settings: dict[str, Any] = {
            "version": VERSION,
            "size": self.size,
            "detector": None,
        }
        if self.detector is not None:
            settings.update(
                detector=self.detector.settings(),
                detection_rate=self.detection_rate,
                max_gap=self.max_gap,
                lost_after=self.lost_after,
                eyes=[EYE_HEIGHT, EYE_DISTANCE, LEAST_EYE_DISTANCE],
            )
        return settings

    def load(self) -> None:
        """Loads the detector now, so that one that is missing is told early."""
        if hasattr(self.detector, "load"):
            self.detector.load()

    def to(self, device: str | torch.device) -> "FaceTracker":
        """Moves the detector to a device."""
        if hasattr(self.detector, "to"):
            self.detector.to(device)
        return self

    def track(self, stream: Iterable) -> Iterator:
        """Crops of one clip, among all that its stream gives.

        The stream has FrameBatch objects in order of time, of any size, which
        does not change the crops; and anything else. Gives CropBatch objects,
        none empty; after each FrameBatch and at the end a CropsUntil, how far
        they are complete; and what was no FrameBatch, where it stood.
        """
        clip = _Clip(self)
        for item in stream:
            if not isinstance(item, FrameBatch):
                yield item
            elif self.detector is None:
                cut = [centre_square(frame, self.size) for frame in item.frames]
                crops, boxes = zip(*cut, strict=True)
                yield CropBatch(torch.stack(crops), item.times, np.stack(boxes))
                yield CropsUntil(float(item.times[-1]))
            else:
                for frame, time in zip(item.frames, item.times.tolist()):
                    yield from self._cut(clip.push(frame, time))
                yield CropsUntil(clip.decided())
        yield from self._cut(clip.finish())
        yield CropsUntil(math.inf)

    def _cut(self, found):
        """A CropBatch of (frame, time, box, eyes), or nothing for none."""
        if not found:
            return
        frames, times, boxes, eyes = zip(*found, strict=True)
        crops = [
            align_face(frame, eye, box, self.size)
            for frame, eye, box in zip(frames, eyes, boxes, strict=True)
        ]
        yield CropBatch(torch.stack(crops), np.array(times), np.stack(boxes))


class _Clip:
    """What is remembered of the clip at hand.

    Frames wait in ``waiting`` until a batch of searches is due, and those of
    them behind the last detection (the anchor) then in ``held``, until the
    next detection tells where the face was.
    """

    def __init__(self, tracker):
        self.tracker = tracker
        self.shape = None
        self.time = 0.0
        self.reset()

    def reset(self):
        """Forgets all, as at the start of a clip."""
        self.picker = RatePicker(self.tracker.detection_rate)
        self.waiting = []  # [frame, time, whether to search it]
        self.unsearched = 0  # bytes since the last one to search
        self.held = []  # (frame, time)
        self.anchor = None  # (time, detection)
        self.missed = False  # whether a search after the anchor was in vain
        self.face = self.seen = None  # the followed face, and when it was seen
        self.away = False  # whether the last search missed it

    def decided(self):
        """Time before which no frame can give a crop any more."""
        times = [item[1] for item in (*self.held[:1], *self.waiting[:1])]
        return min(times, default=self.time)

    def push(self, frame, time):
        """Takes a frame in; gives (frame, time, box, eyes) that are due."""
        found = []
        self.time = time
        if self.shape != frame.shape:
            # Places in frames of two sizes cannot be compared.
            found = self.finish()
            self.reset()
            self.shape = frame.shape
        size = max(frame.nbytes, 3 * self.tracker.size**2)
        self.unsearched += size
        search = self.picker.pick(time) or self.unsearched >= MAX_HELD_BYTES
        self.unsearched = 0 if search else self.unsearched
        self.waiting.append([frame, time, search])
        if search and (
            sum(s for _, _, s in self.waiting) >= self.tracker.detection_batch
            or len(self.waiting) * size >= MAX_WAITING_BYTES
        ):
            found += self._search()
        return found

    def finish(self):
        """Gives what is left, at the end of a clip."""
        if not self.waiting:
            return []
        self.waiting[-1][2] = True
        return self._search()

    def _search(self):
        searched = [frame for frame, _, search in self.waiting if search]
        results = iter(self.tracker.detector.detect(np.stack(searched)))
        found = []
        for frame, time, search in self.waiting:
            if search:
                found += self._advance(frame, time, next(results))
            elif self.anchor is not None:
                self.held.append((frame, time))
        self.waiting = []
        return found

    def _advance(self, frame, time, detections):
        """Frames whose face is known now that ``frame`` was searched."""
        detection, continued = self._choose(detections, time)
        if detection is None:
            self.missed = True
            late = self.anchor and time - self.anchor[0] > self.tracker.max_gap
            if late or len(self.held) * frame.nbytes >= MAX_HELD_BYTES:
                self.anchor = None
            self.held = self.held + [(frame, time)] if self.anchor else []
            return []
        found = []
        if self.anchor is not None and continued:
            gap = time - self.anchor[0]
            if not self.missed or gap <= self.tracker.max_gap:
                found = self._interpolate(time, detection)
        found.append((frame, time, detection.box, detection.eyes))
        self.anchor, self.held, self.missed = (time, detection), [], False
        return found

    def _choose(self, detections, time):
        """The followed face or None, and whether it continues the last one."""
        chosen = None
        if self.face is not None:
            # Overlap first; where there is none, the nearest.
            chosen = max(
                (d for d in detections if _continues(self.face, d)),
                key=lambda d: (_overlap(self.face, d), -_away(self.face, d)),
                default=None,
            )
        continued = chosen is not None
        lost = self.face is None or (
            self.away and time - self.seen > self.tracker.lost_after
        )
        if chosen is None and lost:
            chosen = max(detections, key=lambda d: d.area, default=None)
        self.away = chosen is None
        if chosen is not None:
            self.face, self.seen = chosen, time
        return chosen, continued

    def _interpolate(self, end, last):
        """The held frames, with the face on the line between detections."""
        start, first = self.anchor
        found = []
        for frame, time in self.held:
            share = (time - start) / (end - start) if end > start else 1.0
            box = (1 - share) * first.box + share * last.box
            eyes = (1 - share) * first.eyes + share * last.eyes
            found.append((frame, time, box, eyes))
        return found


def _continues(last, new):
    """Whether a detection can be the last one's face a moment later.

    Either the boxes overlap by 0.3, or the centre moved by less than three
    quarters of a face at less than twice or half the size.
    """
    if _overlap(last, new) >= 0.3:
        return True
    side, other = np.sqrt(max(last.area, 1.0)), np.sqrt(max(new.area, 1.0))
    similar = 0.5 < other / side < 2.0
    return bool(similar and _away(last, new) < 0.75 * max(side, other))


def _overlap(a, b):
    """Intersection over union of two detections' boxes."""
    low = np.maximum(a.box[:2], b.box[:2])
    high = np.minimum(a.box[2:], b.box[2:])
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    return shared / (a.area + b.area - shared) if shared else 0.0


def _away(a, b):
    """Distance of the centres of two detections' boxes, pixels."""
    middle_a, middle_b = (d.box[:2] + d.box[2:] for d in (a, b))
    return float(np.linalg.norm(middle_a - middle_b)) / 2
