"""Tracks and aligns the face of a clip, frame by frame.

Faces are detected a few times per second; between two detections of the same
face its box and eyes are interpolated linearly in time. Memory depends on the
spacing of detections, not on the length of the clip.

The tracker starts with the largest face and follows the detection that
continues it: the one with most overlap, or else the nearest one of similar
size. If the face is missing for longer than ``lost_after``, it starts again
with the largest face.

A frame gives a crop if

- detection ran on it and found the face, or
- it is between two detections of the face, either consecutive ones or ones at
  most ``max_gap`` apart with missed detections in between, such as a hand in
  front of the face.

Detection always runs on the last frame, so that the end of a clip has one.
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

# Part of the fingerprint: increased when a change of this code changes crops.
VERSION = 1

# Limit on the frames that wait for detection, or on their crops.
MAX_WAITING_BYTES = 128 * 2**20
# Limit on the frames between detections: beyond it, detection runs early, and a
# gap is not bridged.
MAX_HELD_BYTES = 512 * 2**20


@dataclass
class CropBatch:
    """Crops of one clip, in order of time.

    ``crops`` are uint8 (n, 3, size, size), RGB; ``times`` float64 (n,), seconds
    from the start of the presentation; ``boxes`` float64 (n, 4), x0 y0 x1 y1 in
    pixels of the frame: the face, or without a detector the cropped square.
    """

    crops: torch.Tensor
    times: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class CropsUntil:
    """Marks that a stream yields no more crops before ``time``, in seconds from
    the start of the presentation."""

    time: float


class FaceTracker:
    """Turns the frames of a clip into aligned crops of its face.

    One object can be used for any number of clips.
    ``FaceTracker(**tracker.arguments)`` returns the same crops.

    Arguments
    ---------
    detector : str or None or object
        "mtcnn"; or None for whole frames (the largest centred square of every
        frame, resized); or an object with ``detect(frames)`` and ``settings()``
        like :class:`MTCNNDetector`.
    size : int
        Side of the crops, pixels.
    detection_rate : float or None
        Maximum number of detections per second; None: every frame.
    device : str or torch.device
        Device of the detector.
    max_gap : float
        Longest gap (seconds) between two detections of the face that is bridged
        if detections in between missed it.
    lost_after : float
        Seconds without the tracked face after which the largest one is tracked.
    detection_batch : int
        Frames per call of the detector.

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
        """Returns the settings that affect crops, for the cache's fingerprint.

        Device and batch size are not included: they change results by rounding
        errors only.
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
        """Loads the detector, so that a missing package is an early error."""
        if hasattr(self.detector, "load"):
            self.detector.load()

    def to(self, device: str | torch.device) -> "FaceTracker":
        """Moves the detector to a device."""
        if hasattr(self.detector, "to"):
            self.detector.to(device)
        return self

    def track(self, stream: Iterable) -> Iterator:
        """Yields the crops of one clip.

        ``stream`` contains FrameBatch objects in order of time, whose size does
        not affect the crops; other items are passed through. Yields non-empty
        CropBatches, and a CropsUntil after each FrameBatch and at the end.
        """
        clip = _Clip(self)
        for item in stream:
            if not isinstance(item, FrameBatch):
                yield item
            elif self.detector is None:
                squares = [centre_square(f, self.size) for f in item.frames]
                crops, boxes = zip(*squares, strict=True)
                yield CropBatch(torch.stack(crops), item.times, np.stack(boxes))
                yield CropsUntil(float(item.times[-1]))
            else:
                for frame, time in zip(item.frames, item.times.tolist()):
                    yield from self._crop(clip.push(frame, time))
                yield CropsUntil(clip.complete_until())
        yield from self._crop(clip.finish())
        yield CropsUntil(math.inf)

    def _crop(self, faces):
        """Yields a CropBatch of (frame, time, box, eyes) tuples, if any."""
        if not faces:
            return
        frames, times, boxes, eyes = zip(*faces, strict=True)
        crops = [
            align_face(frame, eye, box, self.size)
            for frame, eye, box in zip(frames, eyes, boxes, strict=True)
        ]
        yield CropBatch(torch.stack(crops), np.array(times), np.stack(boxes))


class _Clip:
    """State of tracking in one clip.

    Frames are in ``waiting`` until a batch for the detector is full. Frames
    after the last detection (the anchor) are then in ``held`` until the next
    detection, for interpolation.
    """

    def __init__(self, tracker):
        self.tracker = tracker
        self.shape = None
        self.time = 0.0
        self.reset()

    def reset(self):
        """Resets the state to the start of a clip."""
        self.picker = RatePicker(self.tracker.detection_rate)
        self.waiting = []  # [frame, time, whether to run detection]
        self.skipped_bytes = 0  # frames since the last one for detection
        self.held = []  # (frame, time)
        self.anchor = None  # (time, detection)
        self.missed = False  # whether detection failed after the anchor
        self.face = self.face_time = None  # the last detection of the face
        self.absent = False  # whether the last search missed the face

    def complete_until(self):
        """Time before which no more crops can follow."""
        times = [item[1] for item in (*self.held[:1], *self.waiting[:1])]
        return min(times, default=self.time)

    def push(self, frame, time):
        """Adds a frame; returns the (frame, time, box, eyes) that are ready."""
        faces = []
        self.time = time
        if self.shape != frame.shape:
            # Positions in frames of different sizes cannot be compared.
            faces = self.finish()
            self.reset()
            self.shape = frame.shape
        size = max(frame.nbytes, 3 * self.tracker.size**2)
        self.skipped_bytes += size
        search = self.picker.pick(time) or self.skipped_bytes >= MAX_HELD_BYTES
        self.skipped_bytes = 0 if search else self.skipped_bytes
        self.waiting.append([frame, time, search])
        if search and (
            sum(s for _, _, s in self.waiting) >= self.tracker.detection_batch
            or len(self.waiting) * size >= MAX_WAITING_BYTES
        ):
            faces += self._search()
        return faces

    def finish(self):
        """Returns the remaining faces, at the end of a clip."""
        if not self.waiting:
            return []
        self.waiting[-1][2] = True
        return self._search()

    def _search(self):
        searched = [frame for frame, _, search in self.waiting if search]
        results = iter(self.tracker.detector.detect(np.stack(searched)))
        faces = []
        for frame, time, search in self.waiting:
            if search:
                faces += self._advance(frame, time, next(results))
            elif self.anchor is not None:
                self.held.append((frame, time))
        self.waiting = []
        return faces

    def _advance(self, frame, time, detections):
        """Returns the faces that are known after detection on ``frame``."""
        detection, continued = self._choose(detections, time)
        if detection is None:
            self.missed = True
            late = self.anchor and time - self.anchor[0] > self.tracker.max_gap
            if late or len(self.held) * frame.nbytes >= MAX_HELD_BYTES:
                self.anchor = None
            self.held = self.held + [(frame, time)] if self.anchor else []
            return []
        faces = []
        if self.anchor is not None and continued:
            gap = time - self.anchor[0]
            if not self.missed or gap <= self.tracker.max_gap:
                faces = self._interpolate(time, detection)
        faces.append((frame, time, detection.box, detection.eyes))
        self.anchor, self.held, self.missed = (time, detection), [], False
        return faces

    def _choose(self, detections, time):
        """Returns the tracked face or None, and whether the track continues."""
        chosen = None
        if self.face is not None:
            # Most overlap; the nearest if none overlaps.
            chosen = max(
                (d for d in detections if _continues(self.face, d)),
                key=lambda d: (_iou(self.face, d), -_distance(self.face, d)),
                default=None,
            )
        continued = chosen is not None
        lost = self.face is None or (
            self.absent and time - self.face_time > self.tracker.lost_after
        )
        if chosen is None and lost:
            chosen = max(detections, key=lambda d: d.area, default=None)
        self.absent = chosen is None
        if chosen is not None:
            self.face, self.face_time = chosen, time
        return chosen, continued

    def _interpolate(self, end, last):
        """Interpolates the face in the held frames, linearly in time."""
        start, first = self.anchor
        faces = []
        for frame, time in self.held:
            weight = (time - start) / (end - start) if end > start else 1.0
            box = (1 - weight) * first.box + weight * last.box
            eyes = (1 - weight) * first.eyes + weight * last.eyes
            faces.append((frame, time, box, eyes))
        return faces


def _continues(last, new):
    """Whether a detection can be the same face as the last one.

    Either the boxes have an IoU of 0.3, or the centre moved by less than three
    quarters of a face and the size changed by less than a factor of two.
    """
    if _iou(last, new) >= 0.3:
        return True
    side, new_side = np.sqrt(max(last.area, 1.0)), np.sqrt(max(new.area, 1.0))
    similar = 0.5 < new_side / side < 2.0
    return bool(similar and _distance(last, new) < 0.75 * max(side, new_side))


def _iou(a, b):
    """Intersection over union of two detections' boxes."""
    low = np.maximum(a.box[:2], b.box[:2])
    high = np.minimum(a.box[2:], b.box[2:])
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    return shared / (a.area + b.area - shared) if shared else 0.0


def _distance(a, b):
    """Distance of the centres of two detections' boxes, pixels."""
    centre_a, centre_b = (d.box[:2] + d.box[2:] for d in (a, b))
    return float(np.linalg.norm(centre_a - centre_b)) / 2
