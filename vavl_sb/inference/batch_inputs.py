"""Prepares clips given as tensors for the feature extractor."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from vavl_sb.faces.detector import centre_square
from vavl_sb.features.extractor import ClipFeatures, FeatureExtractor
from vavl_sb.media.decoders import RatePicker
from vavl_sb.utils.errors import MediaError, VAVLError

# Above this peak, samples were converted from 16 bit without scaling: audio in
# [-1, 1] never reaches it.
MAX_AMPLITUDE = 8.0

Values: TypeAlias = torch.Tensor | np.ndarray | Sequence


def to_tensor(values: Values, name: str) -> torch.Tensor:
    """Converts an array, a tensor or nested lists of them to a CPU tensor.

    Raises VAVLError, with ``name`` in the message, if rows differ in length or
    values are not numbers.

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
        # Copied, as PyTorch rejects negative strides and read-only arrays.
        return torch.from_numpy(np.array(values, order="C"))
    except (TypeError, ValueError, IndexError, RuntimeError):
        raise VAVLError(
            f"{name}: must be numbers, with rows (or images) of one size; "
            "pad or resize them first"
        ) from None


def unpad(
    wavs: Values | None = None,
    wav_lens: Values | None = None,
    crops: Values | None = None,
    crop_lens: Values | None = None,
) -> list[tuple]:
    """Splits a batch into clips without padding: pairs of samples (n,) and
    crops (N, 3, H, W), None for a missing modality.

    ``wavs`` has shape (B, n): floats in [-1, 1], or int16 or int32, which are
    scaled as in a file; a list may have rows of different lengths. ``crops``
    are uint8 (B, N, 3, H, W). Lengths (B,) are relative, or None for no
    padding.

    Example
    -------
    >>> ((samples, crops),) = unpad(torch.zeros(1, 10), torch.tensor([0.5]))
    >>> samples.shape, crops
    (torch.Size([5]), None)
    """
    audio = _batch(wavs, "wavs", _samples)
    faces = _batch(crops, "crops", _crops)
    counts = {len(batch) for batch in (audio, faces) if batch is not None}
    if len(counts) != 1:
        raise VAVLError(
            "predict_batch: give wavs, crops, or both for the same clips"
        )
    (count,) = counts
    audio = _rows(audio, wav_lens, count, "wav_lens")
    for number, row in enumerate(audio):
        # inf and NaN are reported later, for their clip alone.
        peak = (
            0.0 if row is None else float(row.nan_to_num(0, 0, 0).abs().max())
        )
        if peak > MAX_AMPLITUDE:
            raise VAVLError(
                f"wavs: row {number} reaches {peak:.0f}, where floats must be "
                "in [-1, 1]; divide 16-bit samples by 32768"
            )
    return list(zip(audio, _rows(faces, crop_lens, count, "crop_lens")))


def _batch(values, name, check):
    """Returns the rows of a batch as checked tensors; None for None."""
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
    """Checks a row of samples and converts it to float32."""
    integer = row.dtype in (torch.int16, torch.int32)
    if row.ndim != 1 or not (integer or row.is_floating_point()):
        raise VAVLError(
            "wavs: must be floats in [-1, 1], int16 or int32, of shape (B, n), "
            f"not rows of {row.dtype} {tuple(row.shape)}"
        )
    if integer:
        row = row.double() / -torch.iinfo(row.dtype).min
    return row.float()


def _crops(row):
    """Checks a row of images."""
    row = _to_uint8(row)
    if row.ndim != 4 or row.shape[1] != 3 or row.dtype != torch.uint8:
        raise VAVLError(
            "crops: must be uint8 of shape (B, N, 3, H, W), not rows of "
            f"{row.dtype} {tuple(row.shape)}"
        )
    return row


def _to_uint8(images):
    """Converts int64 images, made from lists, to uint8 if values fit."""
    if images.dtype != torch.int64 or images.numel() == 0:
        return images
    fits = images.min() >= 0 and images.max() <= 255
    return images.to(torch.uint8) if fits else images


def unpad_features(
    extractor: FeatureExtractor,
    audio: Values | None,
    audio_lens: Values | None,
    visual: Values | None,
    visual_lens: Values | None,
) -> tuple[list[ClipFeatures], bool]:
    """Returns the features of each clip without padding, and whether the input
    is a batch.

    ``audio`` and ``visual`` have shape (T, D) for one clip or (B, T, D) for a
    batch, or are None. Lengths (B,) are relative, or None for no padding.
    """
    given = {"audio": (audio, audio_lens), "visual": (visual, visual_lens)}
    batches = {
        name: to_tensor(frames, name)
        for name, (frames, _) in given.items()
        if frames is not None
    }
    ndims = {batch.ndim for batch in batches.values()}
    if len(ndims) != 1 or not ndims <= {2, 3}:
        raise VAVLError(
            "predict_features: give audio, visual or both, of shape (T, D) for "
            "one clip or (B, T, D) for several"
        )
    is_batch = ndims == {3}
    if not is_batch:
        batches = {name: batch[None] for name, batch in batches.items()}
    if len({len(batch) for batch in batches.values()}) != 1:
        raise VAVLError(
            "predict_features: audio and visual have different numbers of clips"
        )
    count = len(next(iter(batches.values())))
    clips = [ClipFeatures() for _ in range(count)]
    for name, (_, lens) in given.items():
        rows = _rows(batches.get(name), lens, count, f"{name}_lens")
        for number, row in enumerate(rows):
            if row is not None:
                label = (
                    f"clip {number} of the batch" if is_batch else "features"
                )
                frames = row.float().numpy()
                frames = extractor.read_features(name, frames, label)
                setattr(clips[number], name, frames)
    return clips, is_batch


def _rows(batch, lens, count, name):
    """Cuts each row to its relative length; None for an empty row."""
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
    """Resamples, crops and resizes face frames for a visual encoder: uint8
    (n, 3, size, size).

    ``frames`` are uint8, RGB, (N, H, W, 3) or (N, 3, H, W), at ``frame_rate``.
    At most ``wanted_rate`` frames a second are kept; all if either is None.

    Example
    -------
    >>> frames = np.zeros((30, 40, 30, 3), np.uint8)
    >>> prepare_frames(frames, 30.0, wanted_rate=10.0, size=24).shape
    torch.Size([10, 3, 24, 24])
    """
    images: np.ndarray = _to_uint8(to_tensor(frames, "frames")).numpy()
    if images.ndim == 4 and images.shape[1] == 3 and images.shape[3] != 3:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise VAVLError(
            "frames: must be uint8 of shape (N, H, W, 3) or (N, 3, H, W), not "
            f"{images.dtype} {images.shape}"
        )
    if images.size == 0:
        raise MediaError("frames: contains no image")
    if frame_rate is not None:
        if not frame_rate > 0:
            raise VAVLError(f"frame_rate: must be above 0, not {frame_rate}")
        picker = RatePicker(wanted_rate)
        kept = [n for n in range(len(images)) if picker.pick(n / frame_rate)]
        images = images[kept]
    return torch.stack([centre_square(image, size)[0] for image in images])


def encode_tensors(
    extractor: FeatureExtractor,
    samples: torch.Tensor | None,
    crops: torch.Tensor | None,
    name: str,
) -> ClipFeatures:
    """Encodes samples (n,) at 16 kHz and crops (N, 3, H, W).

    ``name`` stands for the clip in error messages.
    """
    features = ClipFeatures()
    if samples is not None:
        if not bool(torch.isfinite(samples).all()):
            raise MediaError(f"{name}: its audio has NaN or infinity")
        features.audio = extractor.encode_audio(samples.float(), name)
    if crops is not None and len(crops):
        features.visual = extractor.encode_faces(crops, name)
    return features
