"""Clips that are tensors already, made ready for a feature extractor."""

import numpy as np
import torch

from vavl_sb.faces.detector import centre_square
from vavl_sb.features.extractor import ClipFeatures
from vavl_sb.media.decoders import RatePicker
from vavl_sb.utils.errors import MediaError, VAVLError


def unpad(wavs=None, wav_lens=None, crops=None, crop_lens=None):
    """The rows of a batch without their padding.

    Arguments
    ---------
    wavs : torch.Tensor
        Shape (B, n), or None.
    wav_lens : torch.Tensor
        Relative lengths, shape (B,), or None for rows that are full.
    crops : torch.Tensor
        uint8, shape (B, N, 3, H, W), or None.
    crop_lens : torch.Tensor
        As ``wav_lens``.

    Returns
    -------
    list of (torch.Tensor or None, torch.Tensor or None)
        Samples and crops of each clip.

    Example
    -------
    >>> ((samples, crops),) = unpad(torch.zeros(1, 10), torch.tensor([0.5]))
    >>> samples.shape, crops
    (torch.Size([5]), None)
    """
    if wavs is None and crops is None:
        raise VAVLError("predict_batch: give wavs, crops or both")
    if wavs is not None and (wavs.ndim != 2 or not wavs.is_floating_point()):
        raise VAVLError(
            f"wavs: must be floats of shape (B, n), not {wavs.dtype} "
            f"{tuple(wavs.shape)}"
        )
    if crops is not None and (
        crops.ndim != 5 or crops.shape[2] != 3 or crops.dtype != torch.uint8
    ):
        raise VAVLError(
            "crops: must be uint8 of shape (B, N, 3, H, W), not "
            f"{crops.dtype} {tuple(crops.shape)}"
        )
    sizes = {len(batch) for batch in (wavs, crops) if batch is not None}
    if len(sizes) != 1:
        raise VAVLError(
            f"predict_batch: {len(wavs)} clips in wavs, but {len(crops)} in "
            "crops"
        )
    count = sizes.pop()
    rows = [
        _cut(batch, lens, count, name)
        for batch, lens, name in (
            (wavs, wav_lens, "wav_lens"),
            (crops, crop_lens, "crop_lens"),
        )
    ]
    return list(zip(*rows, strict=True))


def _cut(batch, lens, count, name):
    """Each row cut to its length; None where there is nothing of it."""
    if batch is None:
        return [None] * count
    if lens is None:
        return list(batch)
    lens = torch.as_tensor(lens).double()
    if lens.shape != (count,) or not bool(((lens >= 0) & (lens <= 1)).all()):
        raise VAVLError(f"{name}: must be {count} numbers from 0 to 1")
    lengths = (lens * batch.shape[1]).round().long().tolist()
    return [
        row[:length] if length else None
        for row, length in zip(batch, lengths, strict=True)
    ]


def prepare_frames(frames, frame_rate, wanted_rate, size):
    """Pictures of a face as a visual encoder takes them.

    Arguments
    ---------
    frames : np.ndarray or torch.Tensor
        uint8, RGB, shape (N, H, W, 3) or (N, 3, H, W).
    frame_rate : float
        Of the frames; None to take them all.
    wanted_rate : float
        Frames a second at most; None for all.
    size : int
        Side of the squares.

    Returns
    -------
    torch.Tensor
        uint8, shape (n, 3, size, size).

    Example
    -------
    >>> frames = np.zeros((30, 40, 30, 3), np.uint8)
    >>> prepare_frames(frames, 30.0, wanted_rate=10.0, size=24).shape
    torch.Size([10, 3, 24, 24])
    """
    frames = np.asarray(frames)
    if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[3] != 3:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise VAVLError(
            "frames: must be uint8 of shape (N, H, W, 3) or (N, 3, H, W), not "
            f"{frames.dtype} {frames.shape}"
        )
    if frames.size == 0:
        raise MediaError("frames: there is no picture in it")
    if frame_rate is not None:
        if not frame_rate > 0:
            raise VAVLError(f"frame_rate: must be above 0, not {frame_rate}")
        picker = RatePicker(wanted_rate)
        kept = [n for n in range(len(frames)) if picker.pick(n / frame_rate)]
        frames = frames[kept]
    return torch.stack([centre_square(frame, size)[0] for frame in frames])


def encode_tensors(encoder, samples, crops, name):
    """ClipFeatures of samples (n,) at 16 kHz and crops (N, 3, H, W), or None.

    ``name`` is what an error calls the clip.
    """
    features = ClipFeatures()
    if samples is not None:
        if not bool(torch.isfinite(samples).all()):
            raise MediaError(f"{name}: its sound is not a number")
        features.audio = encoder.encode_audio(samples.float(), name)
    if crops is not None and len(crops):
        features.visual = encoder.encode_faces(crops, name)
    return features
