"""Clips that are tensors already, made ready for a feature extractor."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from vavl_sb.faces.detector import centre_square
from vavl_sb.features.extractor import ClipFeatures, FeatureExtractor
from vavl_sb.media.decoders import RatePicker
from vavl_sb.utils.errors import MediaError, VAVLError

# Beyond it no sound goes that is meant to be in [-1, 1]; 16-bit samples that
# were made floats without a division do, unless they are all but silent.
MOST_AMPLITUDE = 8.0

# Anything of the batch's or row's shape that can be made a tensor.
Values: TypeAlias = torch.Tensor | np.ndarray | Sequence


def to_tensor(values: Values, name: str) -> torch.Tensor:
    """Values of an array, a tensor or nested lists of them, as one tensor on
    the CPU.

    VAVLError, in one line that calls them by ``name``: rows differ in length or
    are no numbers.

    Example
    -------
    >>> to_tensor([np.zeros(2), torch.ones(2)], "wavs").tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    try:
        if isinstance(values, torch.Tensor):
            return values.detach().cpu()
        if isinstance(values, list | tuple) and not np.isscalar(values[0]):
            return torch.stack([to_tensor(row, name) for row in values])
        # A copy: PyTorch takes neither steps back nor what is read-only.
        return torch.from_numpy(np.array(values, order="C"))
    except (TypeError, ValueError, IndexError, RuntimeError):
        raise VAVLError(
            f"{name}: must be numbers, with rows (or pictures) of one size; "
            "pad or resize them first"
        ) from None


def unpad(
    wavs: Values | None = None,
    wav_lens: Values | None = None,
    crops: Values | None = None,
    crop_lens: Values | None = None,
) -> list[tuple]:
    """The clips of a batch without their padding: samples (n,) and crops (N, 3,
    H, W) of each, None where there are none.

    ``wavs`` has the shape (B, n): floats in [-1, 1], or int16 or int32, which
    are scaled as those of a file are; a list may have rows of different
    lengths. ``crops`` are uint8 (B, N, 3, H, W). The lengths (B,) are relative
    to each row's, or None for rows that are full.

    Example
    -------
    >>> ((samples, crops),) = unpad(torch.zeros(1, 10), torch.tensor([0.5]))
    >>> samples.shape, crops
    (torch.Size([5]), None)
    """
    sounds = _batch(wavs, "wavs", _samples)
    faces = _batch(crops, "crops", _crops)
    counts = {len(batch) for batch in (sounds, faces) if batch is not None}
    if len(counts) != 1:
        raise VAVLError(
            "predict_batch: give wavs, crops, or both of as many clips"
        )
    (count,) = counts
    sounds = _rows(sounds, wav_lens, count, "wav_lens")
    for number, row in enumerate(sounds):
        # Also with inf in it, which is a fault of its row alone.
        peak = (
            0.0 if row is None else float(row.nan_to_num(0, 0, 0).abs().max())
        )
        if peak > MOST_AMPLITUDE:
            raise VAVLError(
                f"wavs: row {number} reaches {peak:.0f}, where floats must be "
                "in [-1, 1]; divide 16-bit samples by 32768"
            )
    return list(zip(sounds, _rows(faces, crop_lens, count, "crop_lens")))


def _batch(values, name, check):
    """The rows of a batch, each a checked tensor; None for None."""
    if values is None:
        return None
    try:
        rows = list(values)
    except TypeError:
        raise VAVLError(
            f"{name}: must be a batch, not {values!r:.40}"
        ) from None
    return [check(to_tensor(row, name)) for row in rows]


def _samples(row):
    """A row of sound, as floats."""
    whole = row.dtype in (torch.int16, torch.int32)
    if row.ndim != 1 or not (whole or row.is_floating_point()):
        raise VAVLError(
            "wavs: must be floats in [-1, 1], int16 or int32, of shape (B, n), "
            f"not rows of {row.dtype} {tuple(row.shape)}"
        )
    if whole:
        row = row.double() / -torch.iinfo(row.dtype).min
    return row.float()


def _crops(row):
    """A row of pictures."""
    row = _bytes(row)
    if row.ndim != 4 or row.shape[1] != 3 or row.dtype != torch.uint8:
        raise VAVLError(
            "crops: must be uint8 of shape (B, N, 3, H, W), not rows of "
            f"{row.dtype} {tuple(row.shape)}"
        )
    return row


def _bytes(pictures):
    """Pictures as uint8, where they are lists of such numbers."""
    if pictures.dtype != torch.int64 or pictures.numel() == 0:
        return pictures
    fits = pictures.min() >= 0 and pictures.max() <= 255
    return pictures.to(torch.uint8) if fits else pictures


def unpad_features(
    extractor: FeatureExtractor,
    audio: Values | None,
    audio_lens: Values | None,
    visual: Values | None,
    visual_lens: Values | None,
) -> tuple[list[ClipFeatures], bool]:
    """The features of each clip, without padding; and whether there are
    several.

    ``audio`` and ``visual`` are (T, D) of one clip or (B, T, D) of several, or
    None, their lengths (B,) relative or None for rows that are full.
    """
    given = {"audio": (audio, audio_lens), "visual": (visual, visual_lens)}
    batches = {
        name: to_tensor(frames, name)
        for name, (frames, _) in given.items()
        if frames is not None
    }
    kinds = {batch.ndim for batch in batches.values()}
    if len(kinds) != 1 or not kinds <= {2, 3}:
        raise VAVLError(
            "predict_features: give audio, visual or both, of shape (T, D) of "
            "one clip or (B, T, D) of several"
        )
    several = kinds == {3}
    if not several:
        batches = {name: batch[None] for name, batch in batches.items()}
    if len({len(batch) for batch in batches.values()}) != 1:
        raise VAVLError(
            "predict_features: audio and visual are of different numbers of "
            "clips"
        )
    count = len(next(iter(batches.values())))
    clips = [ClipFeatures() for _ in range(count)]
    for name, (_, lens) in given.items():
        rows = _rows(batches.get(name), lens, count, f"{name}_lens")
        for number, row in enumerate(rows):
            if row is not None:
                what = f"clip {number} of the batch" if several else "features"
                frames = row.float().numpy()
                frames = extractor.read_features(name, frames, what)
                setattr(clips[number], name, frames)
    return clips, several


def _rows(batch, lens, count, name):
    """Each row cut to its length; None where there is nothing of it."""
    if batch is None:
        return [None] * count
    lens = torch.ones(count) if lens is None else to_tensor(lens, name)
    if lens.shape != (count,) or not bool(((lens >= 0) & (lens <= 1)).all()):
        raise VAVLError(f"{name}: must be {count} numbers from 0 to 1")
    lengths = [round(n * len(row)) for n, row in zip(lens.tolist(), batch)]
    return [row[:n] if n else None for row, n in zip(batch, lengths)]


def prepare_frames(
    frames: Values,
    frame_rate: float | None,
    wanted_rate: float | None,
    size: int,
) -> torch.Tensor:
    """Pictures of a face as a visual encoder takes them: uint8 (n, 3, size,
    size).

    ``frames`` are uint8, RGB, (N, H, W, 3) or (N, 3, H, W), at a
    ``frame_rate``, of which at most the ``wanted_rate`` is kept; all of them
    where one is None.

    Example
    -------
    >>> frames = np.zeros((30, 40, 30, 3), np.uint8)
    >>> prepare_frames(frames, 30.0, wanted_rate=10.0, size=24).shape
    torch.Size([10, 3, 24, 24])
    """
    pictures: np.ndarray = _bytes(to_tensor(frames, "frames")).numpy()
    if pictures.ndim == 4 and pictures.shape[1] == 3 and pictures.shape[3] != 3:
        pictures = pictures.transpose(0, 2, 3, 1)
    if (
        pictures.ndim != 4
        or pictures.shape[3] != 3
        or pictures.dtype != np.uint8
    ):
        raise VAVLError(
            "frames: must be uint8 of shape (N, H, W, 3) or (N, 3, H, W), not "
            f"{pictures.dtype} {pictures.shape}"
        )
    if pictures.size == 0:
        raise MediaError("frames: there is no picture in it")
    if frame_rate is not None:
        if not frame_rate > 0:
            raise VAVLError(f"frame_rate: must be above 0, not {frame_rate}")
        picker = RatePicker(wanted_rate)
        kept = [n for n in range(len(pictures)) if picker.pick(n / frame_rate)]
        pictures = pictures[kept]
    return torch.stack([centre_square(frame, size)[0] for frame in pictures])


def encode_tensors(
    extractor: FeatureExtractor,
    samples: torch.Tensor | None,
    crops: torch.Tensor | None,
    name: str,
) -> ClipFeatures:
    """Features of samples (n,) at 16 kHz and of crops (N, 3, H, W).

    ``name`` is what an error calls the clip.
    """
    features = ClipFeatures()
    if samples is not None:
        if not bool(torch.isfinite(samples).all()):
            raise MediaError(f"{name}: its sound is not a number")
        features.audio = extractor.encode_audio(samples.float(), name)
    if crops is not None and len(crops):
        features.visual = extractor.encode_faces(crops, name)
    return features
