"""Clips that are tensors already, made ready for a feature extractor."""

import numpy as np
import torch

from vavl_sb.faces.detector import centre_square
from vavl_sb.features.extractor import ClipFeatures, FeatureExtractor
from vavl_sb.media.decoders import RatePicker
from vavl_sb.utils.errors import MediaError, VAVLError


def unpad(
    wavs: torch.Tensor | None = None,
    wav_lens: torch.Tensor | None = None,
    crops: torch.Tensor | None = None,
    crop_lens: torch.Tensor | None = None,
) -> list[tuple]:
    """The clips of a batch without their padding.

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
    counts = {len(batch) for batch in (wavs, crops) if batch is not None}
    if len(counts) != 1:
        raise VAVLError(
            "predict_batch: give wavs, crops, or both of as many clips"
        )
    (count,) = counts
    samples = _rows(wavs, wav_lens, count, "wav_lens")
    return list(zip(samples, _rows(crops, crop_lens, count, "crop_lens")))


def unpad_features(
    audio: np.ndarray | torch.Tensor | None,
    audio_lens: torch.Tensor | None,
    visual: np.ndarray | torch.Tensor | None,
    visual_lens: torch.Tensor | None,
) -> tuple[list[dict], bool]:
    """The features of each clip, without padding.

    Arguments
    ---------
    audio, visual : np.ndarray or torch.Tensor
        Shape (T, D) or (B, T, D), or None.
    audio_lens, visual_lens : torch.Tensor
        Relative lengths, shape (B,), or None for rows that are full.

    Returns
    -------
    clips : list of dict
        "audio" and "visual" to float32 (T, D), or None.
    several : bool
        Whether they came as (B, T, D).

    Example
    -------
    >>> clips, several = unpad_features(torch.rand(7, 3), None, None, None)
    >>> clips[0]["audio"].shape, clips[0]["visual"], several
    ((7, 3), None, False)
    """
    batches = {
        "audio": None if audio is None else torch.as_tensor(audio),
        "visual": None if visual is None else torch.as_tensor(visual),
    }
    kinds = {batch.ndim for batch in batches.values() if batch is not None}
    if len(kinds) != 1 or not kinds <= {2, 3}:
        raise VAVLError(
            "predict_features: give audio, visual or both, of shape (T, D) of "
            "one clip or (B, T, D) of several"
        )
    if kinds == {2}:
        batches = {
            k: None if b is None else b[None] for k, b in batches.items()
        }
    counts = {len(b) for b in batches.values() if b is not None}
    if len(counts) != 1:
        raise VAVLError(
            "predict_features: audio and visual are of different numbers of "
            "clips"
        )
    (count,) = counts
    rows = {
        name: _rows(batches[name], lens, count, f"{name}_lens")
        for name, lens in (("audio", audio_lens), ("visual", visual_lens))
    }
    clips = [
        {
            name: None if row[i] is None else row[i].float().cpu().numpy()
            for name, row in rows.items()
        }
        for i in range(count)
    ]
    return clips, kinds == {3}


def _rows(batch, lens, count, name):
    """Each row cut to its length; None where there is nothing of it."""
    if batch is None:
        return [None] * count
    lens = torch.ones(count) if lens is None else torch.as_tensor(lens)
    if lens.shape != (count,) or not bool(((lens >= 0) & (lens <= 1)).all()):
        raise VAVLError(f"{name}: must be {count} numbers from 0 to 1")
    lengths = (lens.double() * batch.shape[1]).round().long().tolist()
    return [row[:n] if n else None for row, n in zip(batch, lengths)]


def prepare_frames(
    frames: np.ndarray | torch.Tensor,
    frame_rate: float | None,
    wanted_rate: float | None,
    size: int,
) -> torch.Tensor:
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
        picker = RatePicker(wanted_rate)
        kept = [n for n in range(len(frames)) if picker.pick(n / frame_rate)]
        frames = frames[kept]
    return torch.stack([centre_square(frame, size)[0] for frame in frames])


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
