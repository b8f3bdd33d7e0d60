"""SpeechBrain's conformer encoder, independent of padding and faster.

In SpeechBrain's ``ConvolutionModule`` padded frames leak into valid ones
through the depthwise convolution, so that a clip's output depends on the length
of its batch. Here padded frames are set to zero before the convolution, like
the convolution's own zero padding of a single clip.

The modules compute the same function as SpeechBrain's, with the same
``state_dict`` keys. They are faster because frames keep the layout (B, T, C),
and because attention is PyTorch's ``scaled_dot_product_attention``.
"""

import torch
from speechbrain.lobes.models.transformer.Conformer import (
    ConformerEncoder,
    ConvolutionModule,
)
from speechbrain.nnet.attention import RelPosEncXL, RelPosMHAXL
from torch import nn
from torch.nn import functional as F

from vavl_sb.utils.errors import VAVLError


class MaskedConvolutionModule(ConvolutionModule):
    """Conformer convolution that ignores padded frames.

    Takes the arguments of SpeechBrain's ``ConvolutionModule`` and has the same
    ``state_dict`` keys. Causal and chunked convolution are not supported.

    Example
    -------
    >>> module = MaskedConvolutionModule(8, kernel_size=3).eval()
    >>> x = torch.rand(1, 5, 8)
    >>> mask = torch.tensor([[[False], [False], [False], [True], [True]]])
    >>> alone, padded = module(x[:, :3]), module(x, mask)
    >>> torch.allclose(alone, padded[:, :3], atol=1e-6)
    True
    """

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None = None,
        dynchunktrain_config: None = None,
    ) -> torch.Tensor:
        """Applies the convolution to frames (B, T, input_size); the output at
        padded frames is undefined.

        The mask is True where a frame is padding, shape (B, T, 1).
        ``dynchunktrain_config`` must be None: chunks are not supported.
        """
        if self.causal or dynchunktrain_config is not None:
            raise ValueError("causal and chunked convolution do not mask")
        pointwise = self.bottleneck[0]
        # A convolution with kernel size 1 is a linear layer.
        out = F.linear(
            self.layer_norm(x), pointwise.weight.squeeze(-1), pointwise.bias
        )
        out = F.glu(out, dim=-1)
        if mask is not None:
            # The bottleneck's bias makes padded frames non-zero.
            out = out.masked_fill(mask, 0.0)
        return self.after_conv(self._depthwise(out))

    def _depthwise(self, x: torch.Tensor) -> torch.Tensor:
        """Depthwise convolution over frames (B, T, C).

        As a 2-D convolution on channels-last images of height 1: frames have
        this memory layout already, and its kernel is the fastest.
        """
        out = F.conv2d(
            x.transpose(1, 2).unsqueeze(2),
            self.conv.weight.unsqueeze(2),
            self.conv.bias,
            padding=(0, self.padding),
            dilation=(1, *self.conv.dilation),
            groups=self.conv.groups,
        )
        return out.squeeze(2).transpose(1, 2)


class RelativeAttention(RelPosMHAXL):
    """Self-attention with relative positions, by
    ``scaled_dot_product_attention``.

    Takes the arguments of SpeechBrain's ``RelPosMHAXL`` and has the same
    ``state_dict`` keys. The scores of the relative positions are passed as an
    additive attention mask.

    Example
    -------
    >>> x, positions = torch.rand(2, 6, 8), torch.rand(1, 11, 8)
    >>> theirs, ours = RelPosMHAXL(8, 2).eval(), RelativeAttention(8, 2).eval()
    >>> _ = ours.load_state_dict(theirs.state_dict())
    >>> expected, _ = theirs(x, x, x, positions)
    >>> torch.allclose(ours(x, x, x, positions)[0], expected, atol=1e-6)
    True
    """

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        pos_embs: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        attn_mask: None = None,
        return_attn_weights: bool = False,
    ) -> tuple[torch.Tensor, None]:
        """Attends over the frames of each clip.

        Query, key and value are the same frames (B, T, embed_dim); ``pos_embs``
        is the output of ``RelPosEncXL`` (1, 2 T - 1, embed_dim);
        ``key_padding_mask`` is True where a frame is padding, shape (B, T), or
        None. The other arguments have no effect, and no attention weights are
        returned: they are part of the base class's interface.
        """
        if query is not key or key is not value or attn_mask is not None:
            raise ValueError("this attention is over one sequence, unmasked")
        batch, frames, _ = query.shape
        heads = (self.num_heads, self.head_dim)
        query, key, value = (
            F.linear(query, self.in_proj_weight)
            .view(batch, frames, self.num_heads, 3 * self.head_dim)
            .transpose(1, 2)
            .chunk(3, dim=-1)
        )
        positions = self.linear_pos(pos_embs).view(1, -1, *heads)
        # SpeechBrain stores these biases head by head, whatever their shape.
        bias_u = self.pos_bias_u.view(1, self.num_heads, 1, self.head_dim)
        bias_v = self.pos_bias_v.view(1, self.num_heads, 1, self.head_dim)
        scores = ((query + bias_v) * self.scale) @ positions.permute(0, 2, 3, 1)
        scores = self._shift(scores, frames)
        if key_padding_mask is not None:
            scores = scores.masked_fill(
                key_padding_mask[:, None, None, :], self.attn_fill_value
            )
        out = F.scaled_dot_product_attention(
            query + bias_u,
            key,
            value,
            attn_mask=scores,
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        out = out.transpose(1, 2).reshape(batch, frames, self.embed_dim)
        return self.out_proj(out), None

    @staticmethod
    def _shift(scores: torch.Tensor, frames: int) -> torch.Tensor:
        """Takes T scores from row i of (B, heads, T, 2 T - 1), starting at
        T - 1 - i."""
        if frames == 1:
            return scores
        # Distance in memory between the first scores of consecutive rows.
        step = 2 * frames - 2
        start = frames - 1
        flat = scores.flatten(2)[..., start : start + frames * step]
        return flat.unflatten(-1, (frames, step))[..., :frames]


class MaskedConformerEncoder(nn.Module):
    """Conformer layers with relative positions, independent of padding.

    Arguments
    ---------
    num_layers : int
        Number of conformer layers, at least 1.
    d_model : int
        Size of a frame; a multiple of ``nhead``.
    nhead : int
        Number of attention heads.
    d_ffn : int
        Width of the feed-forward modules; None for 4 ``d_model``.
    kernel_size : int
        Kernel of the depthwise convolution, in frames; odd.
    dropout : float
        Dropout rate in [0, 1).

    Example
    -------
    >>> encoder = MaskedConformerEncoder(1, d_model=16, nhead=2, d_ffn=32)
    >>> padding = torch.zeros(2, 9, dtype=torch.bool)
    >>> encoder(torch.rand(2, 9, 16), padding).shape
    torch.Size([2, 9, 16])
    """

    def __init__(
        self,
        num_layers: int,
        d_model: int,
        nhead: int = 8,
        d_ffn: int | None = None,
        kernel_size: int = 31,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_width(d_model, nhead)
        self.positions = RelPosEncXL(d_model)
        self.conformer = ConformerEncoder(
            num_layers=num_layers,
            d_model=d_model,
            d_ffn=d_ffn or 4 * d_model,
            nhead=nhead,
            kernel_size=kernel_size,
            dropout=dropout,
            attention_type="RelPosMHAXL",
        )
        for layer in self.conformer.layers:
            layer.convolution_module = MaskedConvolutionModule(
                d_model, kernel_size, dropout=dropout
            )
            layer.mha_layer = RelativeAttention(d_model, nhead, dropout)

    def forward(
        self, x: torch.Tensor, padding_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Encodes frames (B, T, d_model); the output at padded frames is
        undefined.

        The mask is True where a frame is padding, shape (B, T); None: no
        padding.
        """
        encoded, _ = self.conformer(
            x,
            src_key_padding_mask=padding_mask,
            pos_embs=self.positions(x),
        )
        return encoded


def check_width(d_model: int, nhead: int) -> None:
    """Raises a VAVLError if d_model is not a multiple of nhead."""
    if d_model % nhead:
        raise VAVLError(
            f"d_model: must be a multiple of nhead ({nhead}), not {d_model}"
        )


def compile_conformers(module: nn.Module, **how) -> None:
    """Compiles the conformers of a network in place with ``torch.compile``.

    They take nearly all of a step's time. The layers around them are not
    compiled, since their shapes depend on which clips lack a modality.
    """
    # Training or evaluation, and one or both modalities, compile separately.
    torch._dynamo.config.recompile_limit = 64
    for part in module.modules():
        if isinstance(part, MaskedConformerEncoder):
            part.compile(**how)
