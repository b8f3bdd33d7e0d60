"""Faces in pictures: boxes, eyes and scores.

MTCNN (Zhang et al., "Joint Face Detection and Alignment using Multi-task
Cascaded Convolutional Networks", IEEE Signal Processing Letters 23(10), 2016)
with the weights that are in the wheel of facenet-pytorch.
"""

from dataclasses import dataclass

import numpy as np
import torch

from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

# No 12-pixel window of MTCNN's first network is left below this.
LEAST_FACE_PIXELS = 20


@dataclass(frozen=True)
class Detection:
    """One face in one picture.

    Arguments
    ---------
    box : np.ndarray
        float64, shape (4,), x0 y0 x1 y1 in pixels of the picture.
    eyes : np.ndarray
        float64, shape (2, 2), x y of the eye on the left of the picture and
        of the one on the right, in pixels.
    score : float
        In [0, 1].
    """

    box: np.ndarray
    eyes: np.ndarray
    score: float = 1.0

    @property
    def area(self):
        """Area of the box, square pixels."""
        return float(np.prod(np.maximum(self.box[2:] - self.box[:2], 0.0)))


class MTCNNDetector:
    """Finds faces with MTCNN; its network is loaded when first needed.

    Pictures are shrunk first to ``longest_side``. At 480 pixels and with
    faces of a tenth of that or more, detection takes about 20 ms a picture on
    one core, and eyes stay within 3 % of their distance (on average) of where
    a search at full size and for faces of 20 pixels finds them.

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

    Example
    -------
    >>> MTCNNDetector().settings()["name"]
    'mtcnn'
    """

    def __init__(
        self, device="cpu", longest_side=480, min_face=0.1, min_score=0.9
    ):
        self.device = torch.device(device)
        self.longest_side = longest_side
        self.min_face = min_face
        self.min_score = min_score
        self.network = None

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
        self.network = network.to(memory_format=torch.channels_last)
        self.to(self.device)

    def to(self, device: str | torch.device) -> "MTCNNDetector":
        """Moves the network to a device, now or when it is loaded."""
        self.device = torch.device(device)
        if self.network is not None:
            self.network.device = self.device
            self.network.to(self.device)
        return self

    def detect(self, frames: np.ndarray) -> list[list[Detection]]:
        """Finds the faces of some pictures of one size.

        Arguments
        ---------
        frames : np.ndarray
            uint8, shape (n, H, W, 3), RGB.

        Returns
        -------
        list of list of Detection
            One list for each picture, in no special order.
        """
        self.load()
        height, width = frames.shape[1:3]
        shrink = min(1.0, self.longest_side / max(height, width))
        size = (round(height * shrink), round(width * shrink))
        face = max(LEAST_FACE_PIXELS, round(self.min_face * max(size)))
        if min(size) < face:  # MTCNN fails on a picture smaller than a face
            return [[] for _ in frames]
        self.network.min_face_size = face
        # One by one: as floats, the pictures fill four times their memory.
        images = torch.cat([self._image(frame, size) for frame in frames])
        found = self._search(images.permute(0, 2, 3, 1))
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

    def _search(self, images):
        """Boxes, scores and points of each image (n, H, W, 3)."""
        try:
            results = self.network.detect(images, landmarks=True)
        except (IndexError, ValueError, RuntimeError) as error:
            # MTCNN trips over a candidate that lies wholly outside of its
            # picture, and takes the whole batch with it.
            stray = isinstance(error, IndexError)
            if not stray and "non-empty list" not in str(error):
                raise
            if len(images) > 1:
                return [self._search(image[None])[0] for image in images]
            logger.warning("MTCNN failed on a frame; taken as without a face")
            return [((), (), ())]
        return [
            ((), (), ()) if boxes is None else (boxes, scores, points)
            for boxes, scores, points in zip(*results, strict=True)
        ]
