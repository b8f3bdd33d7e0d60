"""Intermediate attention fusion: convolutions, frames weighted by attention."""

import torch
from torch import nn

from vavl_sb.lobes.fusion.joint import Frames, JointFusion
from vavl_sb.lobes.fusion.transformer import feature_layers
from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.nnet.masking import masked_mean


class Convolutions(nn.Module):
    """Convolutions over time with kernel size 3, independent of padding.

    The arguments are the widths of the input and of each layer's output.

    Example
    -------
    >>> none = torch.zeros(2, 5, dtype=torch.bool)
    >>> Convolutions(3, 8, 4)(torch.rand(2, 5, 3), none).shape
    torch.Size([2, 5, 4])
    """

    def __init__(self, *widths: int):
        super().__init__()
        pairs = list(zip(widths, widths[1:]))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(*pair, kernel_size=3, padding=1) for pair in pairs
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _, width in pairs)

    def forward(
        self, x: torch.Tensor, padding_mask: torch.Tensor
    ) -> torch.Tensor:
        """Convolves frames (n, T, widths[0]) to (n, T, widths[-1]); the mask
        (n, T) is True where a frame is padding."""
        for convolution, norm in zip(self.convolutions, self.norms):
            # Like the zero padding at the end of a single clip.
            x = x.masked_fill(padding_mask.unsqueeze(-1), 0.0)
            x = convolution(x.transpose(1, 2)).transpose(1, 2)
            x = norm(x).relu()
        return x


def attention_received(
    queries: torch.Tensor,
    keys: torch.Tensor,
    query_padding: torch.Tensor,
    key_padding: torch.Tensor,
) -> torch.Tensor:
    """Computes the attention (n, K) that keys (n, K, D) receive from all
    queries (n, Q, D); its mean over keys is 1.

    The paper sums the attention over queries. Here it is averaged and
    multiplied by the number of keys, so that the scale does not depend on the
    lengths. The masks (n, Q) and (n, K) are True where a frame is padding.

    Example
    -------
    >>> none = torch.zeros(1, 2, dtype=torch.bool)
    >>> same = torch.ones(1, 2, 3)
    >>> attention_received(same, same, none, none)
    tensor([[1., 1.]])
    """
    scores = queries @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5
    scores = scores.masked_fill(key_padding.unsqueeze(1), float("-inf"))
    weights = masked_mean(scores.softmax(dim=-1), query_padding)
    return weights * (~key_padding).sum(dim=1, keepdim=True)


class IntermediateAttention(JointFusion):
    """Intermediate attention fusion (Chumachenko et al., 2022, 2201.11095).

    Two convolutions per modality, weighting of each frame by the attention that
    it receives from the other modality, two more convolutions, and a linear
    layer on the concatenated means over time. The paper's modality dropout
    ("soft-hard") trains on each clip in full, without audio, without the face,
    and with audio scaled by a random factor s and visual by 1 - s. Here the
    losses of the audio and visual heads cover the missing modalities, and the
    scaling is applied to half of the clips of the audio-visual head. Zeros
    replace a missing modality. LayerNorm replaces batch normalization.

    Arguments
    ---------
    audio_dim, visual_dim, num_outputs, d_model, feature_noise
        See :class:`vavl_sb.lobes.vavl.VAVL`.

    Example
    -------
    >>> net = IntermediateAttention(10, 12, num_outputs=6, d_model=16)
    >>> net(torch.rand(2, 7, 10), visual=torch.rand(2, 5, 12)).audiovisual.shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        audio_dim: int = 1024,
        visual_dim: int = 1408,
        num_outputs: int = 6,
        d_model: int = 512,
        feature_noise: float = 0.0,
    ):
        super().__init__()
        half = max(d_model // 2, 1)
        widths = {
            "audio": (half, d_model, 2 * d_model, d_model),
            "visual": (half, half, d_model, d_model),
        }
        for modality, dim in zip(MODALITIES, (audio_dim, visual_dim)):
            branch = feature_layers(dim, 1, feature_noise)
            del branch["projection"]
            one, two, three, four = widths[modality]
            branch["first"] = Convolutions(dim, one, two)
            branch["query"] = nn.Linear(two, d_model, bias=False)
            branch["key"] = nn.Linear(two, d_model, bias=False)
            branch["second"] = Convolutions(two, three, four)
            self.add_module(f"{modality}_branch", branch)
        self.prediction_head = nn.Linear(2 * d_model, num_outputs)

    def predict(self, head: str, inputs: dict[str, Frames]) -> torch.Tensor:
        """Predictions of a head; see the base class."""
        if self.training and head == "audiovisual":
            inputs = self._scale_down(inputs)
        return self.fuse(**inputs)

    def fuse(self, audio: Frames, visual: Frames) -> torch.Tensor:
        """Predicts from both modalities; see the base class."""
        branches = (self.audio_branch, self.visual_branch)
        own = [
            Frames(branch["first"](*frames), frames.padding_mask)
            for branch, frames in zip(branches, (audio, visual))
        ]
        means = []
        for branch, other, frames, source in zip(
            branches, branches[::-1], own, own[::-1]
        ):
            weights = attention_received(
                other["query"](source.frames),
                branch["key"](frames.frames),
                source.padding_mask,
                frames.padding_mask,
            )
            x = branch["second"](
                frames.frames * weights.unsqueeze(-1), frames.padding_mask
            )
            means.append(masked_mean(x, frames.padding_mask))
        return self.prediction_head(torch.cat(means, dim=-1))

    def _scale_down(self, inputs):
        """Scales audio by a random s and visual by 1 - s, in half of the
        clips."""
        audio = inputs["audio"].frames
        share = torch.rand(len(audio), 1, 1, device=audio.device)
        unscaled = torch.rand(len(audio), 1, 1, device=audio.device) < 0.5
        shares = {"audio": share, "visual": 1 - share}
        return {
            modality: Frames(
                frames * shares[modality].masked_fill(unscaled, 1.0), padding
            )
            for modality, (frames, padding) in inputs.items()
        }
