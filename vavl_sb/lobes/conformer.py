"""SpeechBrain's conformer encoder, made safe for padding and quicker.

In SpeechBrain's ``ConvolutionModule`` padded frames reach valid ones through
the depthwise convolution, so that a clip's output depends on how far its
batch happens to be padded. Here padded frames are zero when the convolution
reads them, which is what the convolution's own zero padding gives to a clip
that stands alone.

The modules below compute what SpeechBrain's compute, with the same weights
under the same names, and take less time for it: frames stay in the layout
(B, T, C) throughout, and attention is PyTorch's own.
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
    """Conformer convolution that never reads a padded frame.

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
        """Applies the convolution to frames (B, T, input_size); padded frames
        hold nothing of use afterwards.

        The mask is True where a frame is padding, shape (B, T, 1).
        ``dynchunktrain_config`` is only for the interface of the base class.
        """
        if self.causal or dynchunktrain_config is not None:
            raise ValueError("causal and chunked convolution do not mask")
        pointwise = self.bottleneck[0]
        # A convolution over one frame is a linear map of the frame.
        out = F.linear(
            self.layer_norm(x), pointwise.weight.squeeze(-1), pointwise.bias
        )
        out = F.glu(out, dim=-1)
        if mask is not None:
            # The bottleneck's bias makes padding non-zero: clear it here.
            out = out.masked_fill(mask, 0.0)
        return self.after_conv(self._depthwise(out))

    def _depthwise(self, x: torch.Tensor) -> torch.Tensor:
        """The depthwise convolution over frames (B, T, C).

        As pictures one row high, whose channels come last in memory just as
        those of frames do: nothing is moved, and that kernel is the quick one.
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
    """Self-attention with relative positions, by PyTorch's own attention.

    Takes the arguments of SpeechBrain's ``RelPosMHAXL`` and has the same
    ``state_dict`` keys. The scores of the relative positions go in where a
    mask would.

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
        of ``RelPosEncXL`` (1, 2 T - 1, embed_dim); ``key_padding_mask`` is True
        where a frame is padding, shape (B, T), or None. The other arguments,
        and the weights that are None, are only for the interface of the base
        class.
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
        # The heads' biases lie in memory head by head, whatever their shape.
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
        """Row i of (B, heads, T, 2 T - 1) from place T - 1 - i on, T long."""
        if frames == 1:
            return scores
        # From one row's first wanted place to the next row's: a row less one.
        step = 2 * frames - 2
        start = frames - 1
        flat = scores.flatten(2)[..., start : start + frames * step]
        return flat.unflatten(-1, (frames, step))[..., :frames]


class MaskedConformerEncoder(nn.Module):
    """Conformer layers with relative positions, exact under any padding.

    Arguments
    ---------
    num_layers : int
        Number of conformer layers, at least 1.
    d_model : int
        Width of a frame; a multiple of ``nhead``.
    nhead : int
        Number of attention heads.
    d_ffn : int
        Width of the feed-forward modules; None for 4 ``d_model``.
    kernel_size : int
        Frames that the depthwise convolution spans; odd.
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
        """Encodes frames (B, T, d_model) in the context of their clip; padded
        frames hold nothing of use afterwards.

        The mask is True where a frame is padding, shape (B, T); None for none.
        """
        encoded, _ = self.conformer(
            x,
            src_key_padding_mask=padding_mask,
            pos_embs=self.positions(x),
        )
        return encoded


def check_width(d_model: int, nhead: int) -> None:
    """Raises a VAVLError where heads of attention cannot share a width."""
    if d_model % nhead:
        raise VAVLError(
            f"d_model: must be a multiple of nhead ({nhead}), not {d_model}"
        )


def compile_conformers(module: nn.Module, **how) -> None:
    """Compiles the conformers of a network, in place, by ``torch.compile``.

    Nearly all of a step's time goes there. What is around them depends on which
    clips of a batch lack what, and stays as it is.
    """
    # Each of training and evaluation, one modality or both, is one more.
    torch._dynamo.config.recompile_limit = 64
    for part in module.modules():
        if isinstance(part, MaskedConformerEncoder):
            part.compile(**how)
