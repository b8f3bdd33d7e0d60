"""SpeechBrain's conformer encoder, made safe for padding.

In SpeechBrain's ``ConvolutionModule`` padded frames reach valid ones through
the depthwise convolution, so that a clip's output depends on how far its
batch happens to be padded. Here padded frames are zero when the convolution
reads them, which is what the convolution's own zero padding gives to a clip
that stands alone.

Authors
 * The vavl_sb authors 2026
"""

from speechbrain.lobes.models.transformer.Conformer import (
    ConformerEncoder,
    ConvolutionModule,
)
from speechbrain.nnet.attention import RelPosEncXL
from torch import nn


class MaskedConvolutionModule(ConvolutionModule):
    """Conformer convolution that never reads a padded frame.

    Takes the arguments of SpeechBrain's ``ConvolutionModule`` and has the same
    ``state_dict`` keys. Causal and chunked convolution are not supported.

    Example
    -------
    >>> import torch
    >>> module = MaskedConvolutionModule(8, kernel_size=3).eval()
    >>> x = torch.rand(1, 5, 8)
    >>> mask = torch.tensor([[[False], [False], [False], [True], [True]]])
    >>> alone, padded = module(x[:, :3]), module(x, mask)
    >>> torch.allclose(alone, padded[:, :3], atol=1e-6)
    True
    """

    def forward(self, x, mask=None, dynchunktrain_config=None):
        """Applies the convolution.

        Arguments
        ---------
        x : torch.Tensor
            Frames, shape (B, T, input_size).
        mask : torch.Tensor
            True where a frame is padding, shape (B, T, 1).
        dynchunktrain_config : None
            Only for the interface of the base class.

        Returns
        -------
        torch.Tensor
            Shape (B, T, input_size), 0 in padded frames.
        """
        if self.causal or dynchunktrain_config is not None:
            raise ValueError("causal and chunked convolution do not mask")
        out = self.bottleneck(self.layer_norm(x).transpose(1, 2))
        if mask is not None:
            # The bottleneck's bias makes padding non-zero: clear it here.
            out = out.masked_fill(mask.transpose(1, 2), 0.0)
        out = self.after_conv(self.conv(out).transpose(1, 2))
        if mask is not None:
            out = out.masked_fill(mask, 0.0)
        return out


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
        Width of the feed-forward modules.
    kernel_size : int
        Frames that the depthwise convolution spans; odd.
    dropout : float
        Dropout rate in [0, 1).

    Example
    -------
    >>> import torch
    >>> encoder = MaskedConformerEncoder(1, d_model=16, nhead=2, d_ffn=32)
    >>> padding = torch.zeros(2, 9, dtype=torch.bool)
    >>> encoder(torch.rand(2, 9, 16), padding).shape
    torch.Size([2, 9, 16])
    """

    def __init__(
        self,
        num_layers,
        d_model,
        nhead=8,
        d_ffn=2048,
        kernel_size=31,
        dropout=0.1,
    ):
        super().__init__()
        self.positions = RelPosEncXL(d_model)
        self.conformer = ConformerEncoder(
            num_layers=num_layers,
            d_model=d_model,
            d_ffn=d_ffn,
            nhead=nhead,
            kernel_size=kernel_size,
            dropout=dropout,
            attention_type="RelPosMHAXL",
        )
        for layer in self.conformer.layers:
            layer.convolution_module = MaskedConvolutionModule(
                d_model, kernel_size, dropout=dropout
            )

    def forward(self, x, padding_mask=None):
        """Encodes frames in the context of their clip.

        Arguments
        ---------
        x : torch.Tensor
            Frames, shape (B, T, d_model).
        padding_mask : torch.Tensor
            True where a frame is padding, shape (B, T); None for none.

        Returns
        -------
        torch.Tensor
            Shape (B, T, d_model); padded frames hold nothing of use.
        """
        encoded, _ = self.conformer(
            x,
            src_key_padding_mask=padding_mask,
            pos_embs=self.positions(x),
        )
        return encoded
