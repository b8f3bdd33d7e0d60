"""In place of an encoder: features that others computed."""

from collections.abc import Callable
from pathlib import Path

import torch

from vavl_sb.lobes.feature_encoder import FeatureEncoder
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.feature_files import feature_dim


class Precomputed(FeatureEncoder):
    """Stands for whatever computed the features of a modality.

    Clips bring them as ``audio_features`` or ``visual_features``; see
    :mod:`vavl_sb.utils.feature_files` for the files.

    Arguments
    ---------
    output_dim : int
        Numbers a frame.
    frame_rate : float
        Frames a second. None where it is not known or there is one frame a
        clip; a timeline, and clips of more than 30 s, need it.

    Example
    -------
    >>> encoder = Precomputed(35, frame_rate=29.97)
    >>> encoder(torch.rand(1, 90, 35))[0].shape
    torch.Size([1, 90, 35])
    """

    def __init__(self, output_dim: int, frame_rate: float | None = None):
        super().__init__()
        if output_dim < 1 or (frame_rate is not None and not frame_rate > 0):
            raise EncoderError(
                f"Precomputed: {output_dim} numbers a frame and {frame_rate} "
                "frames a second; give positive numbers"
            )
        self.output_dim, self.frame_rate = output_dim, frame_rate
        self.set_freeze(True)

    def settings(self) -> dict:
        """All that features depend on: how many numbers a frame has."""
        return {"output_dim": self.output_dim}

    def export(self, folder: Path) -> dict:
        """The arguments that make it anew; nothing is written."""
        return {"output_dim": self.output_dim, "frame_rate": self.frame_rate}

    def forward(
        self, features: torch.Tensor, lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features as they are.

        Arguments
        ---------
        features : torch.Tensor
            Shape (B, T, output_dim).
        lens : torch.Tensor
            Relative lengths, shape (B,), or None.

        Returns
        -------
        features, lens
        """
        if features.ndim != 3 or features.shape[-1] != self.output_dim:
            raise EncoderError(
                f"features must be of shape (B, T, {self.output_dim}), not "
                f"{tuple(features.shape)}: there is no encoder of raw clips"
            )
        return features, lens


def choose_encoder(
    encoder: Callable[[], FeatureEncoder],
    features: str | Path | None = None,
    frame_rate: float | None = None,
) -> FeatureEncoder:
    """A recipe's encoder, or what stands for it where there are features.

    Arguments
    ---------
    encoder : callable
        Makes the encoder of raw clips.
    features : str or Path
        A folder or a table of features; None for raw clips.
    frame_rate : float
        Frames a second of the features, if known.

    Returns
    -------
    FeatureEncoder
    """
    if features is None:
        return encoder()
    return Precomputed(feature_dim(features), frame_rate)
