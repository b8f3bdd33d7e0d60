"""Transformer layers within a modality, or across modalities."""

import torch
from torch import nn

from vavl_sb.lobes.conformer import check_width
from vavl_sb.nnet.masking import PresentRows
from vavl_sb.nnet.normalization import FeatureNoise, InputNormalization


class TransformerLayer(nn.Module):
    """Pre-norm transformer layer with dropout; ``d_ffn`` is 4 ``d_model`` if
    None.

    Example
    -------
    >>> layer = TransformerLayer(16, nhead=2, d_ffn=32, dropout=0.1)
    >>> none = torch.zeros(2, 5, dtype=torch.bool)
    >>> layer(torch.rand(2, 7, 16), torch.rand(2, 5, 16), none).shape
    torch.Size([2, 7, 16])
    """

    def __init__(
        self, d_model: int, nhead: int, d_ffn: int | None, dropout: float
    ):
        super().__init__()
        check_width(d_model, nhead)
        d_ffn = d_ffn or 4 * d_model
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
        """Attends from frames ``x`` (B, T, d_model) to frames ``source`` (B, S,
        d_model), which is ``x`` itself for self-attention.

        The mask (B, S) is True where a frame of ``source`` is padding.
        """
        query = self.attention_norm(x)
        key = query if source is x else self.attention_norm(source)
        attended, _ = self.attention(
            query, key, key, key_padding_mask=padding_mask, need_weights=False
        )
        x = x + self.dropout(attended)
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class Transformer(nn.Module):
    """A stack of :class:`TransformerLayer` and a final LayerNorm."""

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
        """Encodes frames (B, T, d_model) by self-attention, or by attention of
        every layer to ``source`` (B, S, d_model).

        The mask is True where a frame attended to is padding. The output at
        padded frames is undefined.
        """
        for layer in self.layers:
            x = layer(x, x if source is None else source, padding_mask)
        return self.norm(x)


def feature_layers(
    dim: int, d_model: int, feature_noise: float
) -> nn.ModuleDict:
    """Creates the input layers of a modality: ``normalize``, ``noise`` and
    ``projection`` to ``d_model``."""
    return nn.ModuleDict(
        {
            "normalize": InputNormalization(dim),
            "noise": FeatureNoise(feature_noise),
            "projection": nn.Linear(dim, d_model),
        }
    )


def normalized(branch: nn.ModuleDict, rows: PresentRows) -> torch.Tensor:
    """Normalizes features (n, T, dim); adds noise in training."""
    return branch["noise"](branch["normalize"](rows.features))


def project(branch: nn.ModuleDict, features: torch.Tensor) -> torch.Tensor:
    """Projects features (n, T, dim) to frames (n, T, d_model) and adds
    sinusoidal position encodings."""
    x = branch["projection"](features)
    position = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
    half = torch.arange(0, x.shape[2], 2, device=x.device) / x.shape[2]
    angles = position.unsqueeze(1) / 10000.0**half
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return x + waves[:, : x.shape[2]].to(x.dtype)
