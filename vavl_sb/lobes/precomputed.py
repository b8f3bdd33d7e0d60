"""Encoder for features that were computed by other tools."""

from collections.abc import Callable
from pathlib import Path

import torch

from vavl_sb.lobes.feature_encoder import FeatureEncoder
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.feature_files import describe_features


class Precomputed(FeatureEncoder):
    """Identity encoder for features that were computed by other tools.

    A manifest has their files as ``audio_features`` or ``visual_features``; see
    :mod:`vavl_sb.utils.feature_files` for the file formats.

    Arguments
    ---------
    output_dim : int
        Feature size.
    frame_rate : float
        Frames per second; None if unknown or with one frame per clip.
        Timelines, and clips of more than 30 s, require it.
    columns : list of str
        Names of the features, selected from .csv files with a header; None if
        the features have no names.

    Example
    -------
    >>> encoder = Precomputed(35, frame_rate=29.97)
    >>> encoder(torch.rand(1, 90, 35))[0].shape
    torch.Size([1, 90, 35])
    """

    def __init__(
        self,
        output_dim: int,
        frame_rate: float | None = None,
        columns: list[str] | None = None,
    ):
        super().__init__()
        if output_dim < 1 or (frame_rate is not None and not frame_rate > 0):
            raise EncoderError(
                f"Precomputed: {output_dim} numbers a frame and {frame_rate} "
                "frames a second; give positive numbers"
            )
        if columns is not None and len(columns) != output_dim:
            raise EncoderError(
                f"Precomputed: {output_dim} numbers a frame, but "
                f"{len(columns)} columns"
            )
        self.output_dim, self.frame_rate = output_dim, frame_rate
        self.columns = columns
        self.set_freeze(True)

    def settings(self) -> dict:
        """Returns the settings that features depend on."""
        return {"output_dim": self.output_dim, "columns": self.columns}

    def export(self, folder: Path) -> dict:
        """Returns the constructor arguments; writes nothing."""
        return {**self.settings(), "frame_rate": self.frame_rate}

    def forward(
        self, features: torch.Tensor, lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns features (B, T, output_dim) and lengths (B,) unchanged."""
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
    """Returns :class:`Precomputed` if features are given, else the recipe's
    encoder.

    ``encoder`` creates the encoder of raw clips; ``features`` is a folder or a
    table, None for raw clips; ``frame_rate`` is in frames per second, if known.
    """
    if features is None:
        return encoder()
    dim, columns = describe_features(features)
    return Precomputed(dim, frame_rate, columns)
