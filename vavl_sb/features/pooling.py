"""A clip's frames as one frame: what is left of them without their order."""

import numpy as np

from vavl_sb.utils.errors import EncoderError

# How many numbers a frame has after it, for each before.
POOLINGS = {None: 1, "mean": 1, "statistics": 2}


def check_pooling(pooling: str | None, modality: str) -> None:
    """Refuses what is no pooling.

    Arguments
    ---------
    pooling : str
        One of :data:`POOLINGS`.
    modality : str
        For the error.
    """
    if pooling not in POOLINGS:
        raise EncoderError(
            f"{modality}_pooling: must be null, mean or statistics, not "
            f"{pooling!r}"
        )


def pool_frames(frames: np.ndarray, pooling: str | None) -> np.ndarray:
    """Pools frames over time.

    Arguments
    ---------
    frames : np.ndarray
        Shape (T, D).
    pooling : str
        None: frames as they are. "mean": their mean. "statistics": mean and
        standard deviation side by side, as in SpeechBrain's
        ``StatisticsPooling``; the deviation is that of these frames, divided
        by T, and so 0 for a single one.

    Returns
    -------
    np.ndarray
        float16, shape (1, D) or (1, 2D); for None, or for no frame at all,
        ``frames``.

    Example
    -------
    >>> pool_frames(np.array([[1.0], [3.0]]), "statistics").tolist()
    [[2.0, 1.0]]
    """
    if pooling is None or len(frames) == 0:
        return frames
    frames = frames.astype(np.float64)
    parts = [frames.mean(axis=0)]
    if pooling == "statistics":
        parts.append(frames.std(axis=0))
    return np.concatenate(parts)[None].astype(np.float16)
