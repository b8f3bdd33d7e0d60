"""Transformer layers over one modality's frames, or from one to another."""

import torch
from torch import nn

from vavl_sb.nnet.masking import PresentRows
from vavl_sb.nnet.normalization import FeatureNoise, InputNormalization


class TransformerLayer(nn.Module):
    """Attention and a feed-forward module, each normalized before.

    Arguments
    ---------
    d_model, nhead, d_ffn : int
        Width, heads of attention, and width of the feed-forward module.
    dropout : float
        Dropout rate in all of it.

    Example
    -------
    >>> layer = TransformerLayer(16, nhead=2, d_ffn=32, dropout=0.1)
    >>> none = torch.zeros(2, 5, dtype=torch.bool)
    >>> layer(torch.rand(2, 7, 16), torch.rand(2, 5, 16), none).shape
    torch.Size([2, 7, 16])
    """

    def __init__(self, d_model: int, nhead: int, d_ffn: int, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = nn.MultiheadAttention(
            d_model, nhead, dropout, batch_first=True
        )
        self.ffn_norm = nn.LayerNorm(d_model)
        self.ffn = nn.Sequential(
            nn.Linear(d_model, d_ffn),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(d_ffn, d_model),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, source: torch.Tensor, padding_mask: torch.Tensor
    ) -> torch.Tensor:
        """Each frame of ``x`` attends to the frames of ``source``.

        Arguments
        ---------
        x : torch.Tensor
            Shape (B, T, d_model).
        source : torch.Tensor
            Shape (B, S, d_model); ``x`` itself for self-attention.
        padding_mask : torch.Tensor
            True where a frame of the source is padding, shape (B, S).

        Returns
        -------
        torch.Tensor
            Shape (B, T, d_model).
        """
        query = self.attention_norm(x)
        key = query if source is x else self.attention_norm(source)
        found, _ = self.attention(
            query, key, key, key_padding_mask=padding_mask, need_weights=False
        )
        x = x + self.dropout(found)
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class Transformer(nn.Module):
    """Layers of a transformer, and a normalization at the end.

    Arguments
    ---------
    num_layers : int
        Number of layers.
    *layer
        As of :class:`TransformerLayer`.
    """

    def __init__(self, num_layers: int, *layer):
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(*layer) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(layer[0])

    def forward(
        self,
        x: torch.Tensor,
        padding_mask: torch.Tensor,
        source: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encodes frames by themselves, or by those of another modality.

        Arguments
        ---------
        x : torch.Tensor
            Shape (B, T, d_model).
        padding_mask : torch.Tensor
            True where a frame of what is attended to is padding.
        source : torch.Tensor
            What every layer attends to, shape (B, S, d_model); None: the
            frames themselves.

        Returns
        -------
        torch.Tensor
            Shape (B, T, d_model); padded frames hold nothing of use.
        """
        for layer in self.layers:
            x = layer(x, x if source is None else source, padding_mask)
        return self.norm(x)


def feature_layers(
    dim: int, d_model: int, feature_noise: float
) -> nn.ModuleDict:
    """What stands between features and a transformer.

    Arguments
    ---------
    dim, d_model : int
        Size of a feature vector, and of a frame.
    feature_noise : float
        As of :class:`vavl_sb.lobes.vavl.VAVL`.

    Returns
    -------
    nn.ModuleDict
        ``normalize``, ``noise`` and ``projection``.
    """
    return nn.ModuleDict(
        {
            "normalize": InputNormalization(dim),
            "noise": FeatureNoise(feature_noise),
            "projection": nn.Linear(dim, d_model),
        }
    )


def normalized(branch: nn.ModuleDict, rows: PresentRows) -> torch.Tensor:
    """Features as a network reads them: normalized, and in training noisy.

    Arguments
    ---------
    branch : nn.ModuleDict
        Of :func:`feature_layers`.
    rows : PresentRows
        n clips.

    Returns
    -------
    torch.Tensor
        Shape (n, T, dim).
    """
    return branch["noise"](branch["normalize"](rows.features))


def project(branch: nn.ModuleDict, features: torch.Tensor) -> torch.Tensor:
    """Frames with their places in time, as sines and cosines.

    Arguments
    ---------
    branch : nn.ModuleDict
        Of :func:`feature_layers`.
    features : torch.Tensor
        Shape (n, T, dim).

    Returns
    -------
    torch.Tensor
        Shape (n, T, d_model).
    """
    x = branch["projection"](features)
    place = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
    half = torch.arange(0, x.shape[2], 2, device=x.device) / x.shape[2]
    angles = place.unsqueeze(1) / 10000.0**half
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return x + waves[:, : x.shape[2]].to(x.dtype)
