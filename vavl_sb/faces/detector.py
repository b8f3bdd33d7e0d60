"""Faces in pictures: found, and cut out upright.

MTCNN (Zhang et al., "Joint Face Detection and Alignment using Multi-task
Cascaded Convolutional Networks", IEEE Signal Processing Letters 23(10), 2016)
with the weights that are in the wheel of facenet-pytorch.

The geometry, in shares of the side of the square crop: the eyes are level, 40 %
below the top, and 32 % apart, their middle at half the width. MTCNN's boxes of
frontal faces have the eyes 39 % below their top and a third of their height
apart (mean over the CREMA-D and RAVDESS clips: 0.392 and 0.336), so that a crop
shows what a square around the box with 5 % more on it would show: the whole
face with brows, chin and open mouth, as encoders for emotion are trained on.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

# No 12-pixel window of MTCNN's first network is left below this.
LEAST_FACE_PIXELS = 20

EYE_HEIGHT = 0.40
EYE_DISTANCE = 0.32

# A head that turns away brings its eyes together in the picture, which must
# not be taken for a face far away: the distance of the eyes counts as at least
# this share of the height of the box (a third where the face is frontal).
LEAST_EYE_DISTANCE = 0.25

# Taken together, the pixels of this many rows make one of the crop.
MOST_SHRINKING = 8


@dataclass(frozen=True)
class Detection:
    """One face in one picture.

    ``box`` is float64 (4,), x0 y0 x1 y1, and ``eyes`` float64 (2, 2), x y of
    the eye on the left of the picture and of the one on the right, in pixels of
    the picture.
    """

    box: np.ndarray
    eyes: np.ndarray
    score: float = 1.0

    @property
    def area(self) -> float:
        """Area of the box, square pixels."""
        return float(np.prod(np.maximum(self.box[2:] - self.box[:2], 0.0)))


class MTCNNDetector:
    """Finds faces with MTCNN; its network is loaded when first needed.

    Pictures are shrunk first to ``longest_side``. At 480 pixels and with faces
    of a tenth of that or more, detection takes about 20 ms a picture on one
    core, and eyes stay within 3 % of their distance (on average) of where a
    search at full size and for faces of 20 pixels finds them.

    Arguments
    ---------
    device : str or torch.device
        Where the network runs.
    longest_side : int
        Pixels to which the longer side of a picture is shrunk.
    min_face : float
        Size of the smallest face looked for, as a share of the longer side.
    min_score : float
        Faces with a lower score are dropped; MTCNN's false alarms mostly have
        less than 0.9, faces that look at the camera more than 0.99.
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        longest_side: int = 480,
        min_face: float = 0.1,
        min_score: float = 0.9,
    ):
        self.device = torch.device(device)
        self.longest_side = longest_side
        self.min_face = min_face
        self.min_score = min_score
        self.network: Any = None  # facenet-pytorch's

    def settings(self) -> dict:
        """All that changes what is found, as a plain dict."""
        return {
            "name": "mtcnn",
            "longest_side": self.longest_side,
            "min_face": self.min_face,
            "min_score": self.min_score,
        }

    def load(self) -> None:
        """Loads the network, unless it is loaded."""
        if self.network is not None:
            return
        try:
            from facenet_pytorch import MTCNN
        except ImportError as error:
            raise EncoderError(
                "face_detector mtcnn needs facenet-pytorch, which cannot be "
                f"imported ({error}): pip install --no-deps "
                "facenet-pytorch==2.6.0, or set face_detector to null to use "
                "whole frames"
            ) from error
        network = MTCNN(keep_all=True, select_largest=False).eval()
        # Its convolutions and poolings are a third faster so, on a CPU.
        network = network.to(memory_format=torch.channels_last)
        # Whole before another thread can see it.
        self.network = _on(network, self.device)

    def to(self, device: str | torch.device) -> "MTCNNDetector":
        """Moves the network to a device, now or when it is loaded."""
        self.device = torch.device(device)
        if self.network is not None:
            _on(self.network, self.device)
        return self

    def detect(self, frames: np.ndarray) -> list[list[Detection]]:
        """Finds the faces of some pictures of one size, uint8 (n, H, W, 3),
        RGB: a list for each picture, in no special order."""
        self.load()
        height, width = frames.shape[1:3]
        shrink = min(1.0, self.longest_side / max(height, width))
        size = (round(height * shrink), round(width * shrink))
        face = max(LEAST_FACE_PIXELS, round(self.min_face * max(size)))
        if min(size) < face:  # MTCNN fails on a picture smaller than a face
            return [[] for _ in frames]
        # Of this call alone: other threads search other pictures meanwhile.
        network = copy.copy(self.network)
        network.min_face_size = face
        # One by one: as floats, the pictures fill four times their memory.
        images = torch.cat([self._image(frame, size) for frame in frames])
        found = _search(network, images.permute(0, 2, 3, 1))
        scale = np.array([width / size[1], height / size[0]])
        return [
            [
                Detection(
                    box=np.asarray(box, np.float64) * np.tile(scale, 2),
                    eyes=np.asarray(points[:2], np.float64) * scale,
                    score=float(score),
                )
                for box, score, points in zip(*picture, strict=True)
                if score >= self.min_score
            ]
            for picture in found
        ]

    def _image(self, frame, size):
        """A picture (1, 3, height, width) of a size, as floats."""
        image = torch.from_numpy(np.ascontiguousarray(frame))[None]
        image = image.to(self.device).permute(0, 3, 1, 2).float()
        if image.shape[2:] != size:
            image = torch.nn.functional.interpolate(
                image, size=size, mode="area"
            )
        return image


def _on(network, device):
    """MTCNN on a device, which it keeps beside its weights."""
    network.device = device
    return network.to(device)


def _search(network, images):
    """Boxes, scores and points of each image (n, H, W, 3)."""
    try:
        results = network.detect(images, landmarks=True)
    except (IndexError, ValueError, RuntimeError) as error:
        # MTCNN trips over a candidate that lies wholly outside of its
        # picture, and takes the whole batch with it.
        stray = isinstance(error, IndexError)
        if not stray and "non-empty list" not in str(error):
            raise
        if len(images) > 1:
            return [_search(network, image[None])[0] for image in images]
        logger.warning("MTCNN failed on a frame; taken as without a face")
        return [((), (), ())]
    return [
        ((), (), ()) if boxes is None else (boxes, scores, points)
        for boxes, scores, points in zip(*results, strict=True)
    ]


def align_face(
    frame: np.ndarray, eyes: np.ndarray, box: np.ndarray, size: int
) -> torch.Tensor:
    """Cuts a face out so that its eyes come to fixed places: uint8 (3, size,
    size).

    A similarity transform (rotation, one scale, translation) with bilinear
    interpolation; where the frame is larger than the crop, several samples are
    averaged for each pixel, against aliasing. Beyond the frame its border is
    repeated.

    The frame is uint8 (H, W, 3), RGB; eyes (2, 2) and box (4,) are as those of
    a :class:`Detection`, and the centre of the first pixel is 0, 0. The height
    of the box limits the scale.

    Example
    -------
    >>> frame = np.zeros((100, 100, 3), np.uint8)
    >>> frame[40, 34] = 255  # the left eye
    >>> crop = align_face(
    ...     frame,
    ...     eyes=np.array([[34.0, 40.0], [66.0, 40.0]]),
    ...     box=np.array([0.0, 0.0, 100.0, 100.0]),
    ...     size=200,
    ... )
    >>> bright = (crop[0] == crop.max()).nonzero() + 0.5  # centres of pixels
    >>> bright.mean(dim=0).tolist()  # 40 % of 200, and (50 - 32 / 2) % of it
    [80.0, 68.0]
    """
    middle, step = _similarity(eyes, box, size)
    shrinking = int(np.clip(round(math.hypot(*step)), 1, MOST_SHRINKING))
    # Sample positions, in pixels of the crop, from the middle of the eyes.
    fine = (np.arange(size * shrinking) + 0.5) / shrinking
    across, down = fine - 0.5 * size, fine - EYE_HEIGHT * size
    x = middle[0] + step[0] * across[None, :] - step[1] * down[:, None]
    y = middle[1] + step[1] * across[None, :] + step[0] * down[:, None]
    crop = _sample(frame, x, y)
    if shrinking > 1:
        crop = torch.nn.functional.avg_pool2d(crop, shrinking)
    return _to_uint8(crop)[0]


def _similarity(eyes, box, size):
    """The transform from crop to frame: (middle, step), pixels of the frame.

    ``middle`` (2,) lies between the eyes; ``step`` (2,) is how far one pixel
    to the right in the crop goes, each x y.
    """
    left, right = np.asarray(eyes, np.float64)
    between = right - left
    distance = math.hypot(*between)
    least = LEAST_EYE_DISTANCE * max(float(box[3] - box[1]), 1.0)
    scale = max(distance, least) / (EYE_DISTANCE * size)
    along = between / distance if distance else np.array([1.0, 0.0])
    return (left + right) / 2, along * scale


def _sample(frame, x, y):
    """Values (1, C, h, w) of a frame at places x, y (h, w), bilinear."""
    # Only the part that is looked at is converted to float.
    height, width = frame.shape[:2]
    x = np.clip(x, 0, width - 1)
    y = np.clip(y, 0, height - 1)
    x0, y0 = int(x.min()), int(y.min())
    part = frame[y0 : int(y.max()) + 2, x0 : int(x.max()) + 2]
    part = torch.from_numpy(part.transpose(2, 0, 1).astype(np.float32))
    grid = np.stack(
        [
            (2 * (x - x0) + 1) / part.shape[2] - 1,
            (2 * (y - y0) + 1) / part.shape[1] - 1,
        ],
        axis=-1,
    )
    return torch.nn.functional.grid_sample(
        part[None],
        torch.from_numpy(grid[None].astype(np.float32)),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


def centre_square(
    frame: np.ndarray, size: int
) -> tuple[torch.Tensor, np.ndarray]:
    """The middle of a frame, as large a square as fits, without squashing.

    Of uint8 (H, W, 3): the crop, uint8 (3, size, size), resized bilinearly with
    antialiasing, and the square's box, float64 (4,), x0 y0 x1 y1 in pixels of
    the frame.

    Example
    -------
    >>> crop, box = centre_square(np.zeros((360, 480, 3), np.uint8), 224)
    >>> crop.shape, box.tolist()
    (torch.Size([3, 224, 224]), [60.0, 0.0, 420.0, 360.0])
    """
    height, width = frame.shape[:2]
    side = min(height, width)
    x0, y0 = (width - side) // 2, (height - side) // 2
    square = frame[y0 : y0 + side, x0 : x0 + side].transpose(2, 0, 1)
    square = torch.from_numpy(square.astype(np.float32))[None]
    crop = torch.nn.functional.interpolate(
        square,
        size=(size, size),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    box = np.array([x0, y0, x0 + side, y0 + side], np.float64)
    return _to_uint8(crop)[0], box


def _to_uint8(values):
    """Values in [0, 255], rounded to whole ones."""
    return values.round().clamp(0, 255).to(torch.uint8)
