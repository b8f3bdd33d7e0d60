"""Face detection, and face alignment by the eyes.

Detection is by MTCNN (Zhang et al., "Joint Face Detection and Alignment using
Multi-task Cascaded Convolutional Networks", IEEE Signal Processing Letters
23(10), 2016) with the weights in the wheel of facenet-pytorch.

In a square crop of side 1 the eyes are level, 0.40 below the top and 0.32
apart, and centred. In MTCNN's boxes of frontal faces the eyes are 0.39 of the
height below the top and a third of it apart (means over the CREMA-D and RAVDESS
clips: 0.392 and 0.336). A crop therefore shows about the same as a square
around the box, enlarged by 5 %: the whole face with brows, chin and open mouth,
as in the training data of emotion encoders.
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

# Smaller faces leave no 12-pixel window for MTCNN's first network.
LEAST_FACE_PIXELS = 20

EYE_HEIGHT = 0.40
EYE_DISTANCE = 0.32

# Lower limit of the eye distance, relative to the height of the box (a third
# for frontal faces): a turned face has closer eyes, but is not smaller.
LEAST_EYE_DISTANCE = 0.25

# Limit on the samples per pixel, along each axis, that are averaged in crops.
MOST_SHRINKING = 8


@dataclass(frozen=True)
class Detection:
    """One detected face.

    In pixels of the picture: ``box``, float64 (4,), x0 y0 x1 y1; and ``eyes``,
    float64 (2, 2), x y of the eye on the left of the picture, then of the one
    on the right.
    """

    box: np.ndarray
    eyes: np.ndarray
    score: float = 1.0

    @property
    def area(self) -> float:
        """Area of the box, in pixels."""
        return float(np.prod(np.maximum(self.box[2:] - self.box[:2], 0.0)))


class MTCNNDetector:
    """Detects faces with MTCNN; its network is loaded when first needed.

    Pictures are first downscaled to ``longest_side``. With the defaults,
    detection takes about 20 ms per picture on one core, and the eyes differ
    from those of a search at full size for faces of 20 pixels by 3 % of their
    distance on average.

    Arguments
    ---------
    device : str or torch.device
        Device of the network.
    longest_side : int
        Pixels to which the longer side of a picture is downscaled.
    min_face : float
        Size of the smallest face to detect, relative to the longer side.
    min_score : float
        Faces with a lower score are dropped. Most false positives of MTCNN have
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
        """Returns the settings that affect detections, for a fingerprint."""
        return {
            "name": "mtcnn",
            "longest_side": self.longest_side,
            "min_face": self.min_face,
            "min_score": self.min_score,
        }

    def load(self) -> None:
        """Loads the network, if it is not loaded yet."""
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
        # A third faster on a CPU.
        network = network.to(memory_format=torch.channels_last)
        # Assigned last: other threads must not use it before it is ready.
        self.network = _move(network, self.device)

    def to(self, device: str | torch.device) -> "MTCNNDetector":
        """Moves the network to a device, now or when it is loaded."""
        self.device = torch.device(device)
        if self.network is not None:
            _move(self.network, self.device)
        return self

    def detect(self, frames: np.ndarray) -> list[list[Detection]]:
        """Detects the faces in pictures of one size, uint8 (n, H, W, 3), RGB.

        Returns an unordered list for each picture.
        """
        self.load()
        height, width = frames.shape[1:3]
        shrink = min(1.0, self.longest_side / max(height, width))
        size = (round(height * shrink), round(width * shrink))
        face = max(LEAST_FACE_PIXELS, round(self.min_face * max(size)))
        if min(size) < face:  # MTCNN fails on a picture smaller than a face
            return [[] for _ in frames]
        # A copy, since other threads may use the network with another size.
        network = copy.copy(self.network)
        network.min_face_size = face
        # One by one: full-size pictures as floats take four times the memory.
        images = torch.cat([self._image(frame, size) for frame in frames])
        results = _search(network, images.permute(0, 2, 3, 1))
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
            for picture in results
        ]

    def _image(self, frame, size):
        """Resizes a picture to float (1, 3, height, width)."""
        image = torch.from_numpy(np.ascontiguousarray(frame))[None]
        image = image.to(self.device).permute(0, 3, 1, 2).float()
        if image.shape[2:] != size:
            image = torch.nn.functional.interpolate(
                image, size=size, mode="area"
            )
        return image


def _move(network, device):
    """Moves MTCNN to a device, which it also stores as an attribute."""
    network.device = device
    return network.to(device)


def _search(network, images):
    """Returns boxes, scores and landmarks of each image (n, H, W, 3)."""
    try:
        results = network.detect(images, landmarks=True)
    except (IndexError, ValueError, RuntimeError) as error:
        # MTCNN fails on a candidate outside its picture, for the whole batch.
        outside = isinstance(error, IndexError)
        if not outside and "non-empty list" not in str(error):
            raise
        if len(images) > 1:
            return [_search(network, image[None])[0] for image in images]
        logger.warning("MTCNN failed on a frame, which counts as without face")
        return [((), (), ())]
    return [
        ((), (), ()) if boxes is None else (boxes, scores, points)
        for boxes, scores, points in zip(*results, strict=True)
    ]


def align_face(
    frame: np.ndarray, eyes: np.ndarray, box: np.ndarray, size: int
) -> torch.Tensor:
    """Crops a face with its eyes at fixed positions: uint8 (3, size, size).

    Applies a similarity transform (rotation, uniform scale, translation) with
    bilinear interpolation. When it downscales, it averages several samples per
    pixel against aliasing. Outside the frame, the border is repeated.

    ``frame`` is uint8 (H, W, 3), RGB; ``eyes`` (2, 2) and ``box`` (4,) are
    those of a :class:`Detection`, with 0, 0 at the centre of the first pixel.
    The height of the box limits the scale.

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
    """Returns the transform from crop to frame: (middle, step), frame pixels.

    ``middle`` (2,) is the point between the eyes; ``step`` (2,) is one pixel to
    the right in the crop; x y each.
    """
    left, right = np.asarray(eyes, np.float64)
    between = right - left
    distance = math.hypot(*between)
    least = LEAST_EYE_DISTANCE * max(float(box[3] - box[1]), 1.0)
    scale = max(distance, least) / (EYE_DISTANCE * size)
    along = between / distance if distance else np.array([1.0, 0.0])
    return (left + right) / 2, along * scale


def _sample(frame, x, y):
    """Samples a frame at x, y (h, w) bilinearly: (1, C, h, w)."""
    # Convert only the sampled part to float.
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
    """Crops the largest centred square of a frame, uint8 (H, W, 3).

    Returns the crop, uint8 (3, size, size), resized bilinearly with
    antialiasing, and the box of the square, float64 (4,), x0 y0 x1 y1 in pixels
    of the frame.

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
    """Rounds values in [0, 255] to uint8."""
    return values.round().clamp(0, 255).to(torch.uint8)
