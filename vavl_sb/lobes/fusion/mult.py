"""MulT and AuxFormer: each modality's frames attend to the other's."""

import torch
from torch import nn

from vavl_sb.lobes.fusion.joint import Frames, JointFusion
from vavl_sb.lobes.fusion.transformer import (
    Transformer,
    feature_layers,
    project,
)
from vavl_sb.lobes.vavl import MODALITIES


class CrossTransformers(nn.Module):
    """``cross_layers`` layers of attention to the other modality, then
    ``self_layers`` layers of self-attention, each a
    :class:`vavl_sb.lobes.fusion.transformer.TransformerLayer`."""

    def __init__(self, cross_layers: int, self_layers: int, *layer):
        super().__init__()
        self.cross = Transformer(cross_layers, *layer)
        self.memory = Transformer(self_layers, *layer)

    def forward(self, own: Frames, other: Frames) -> torch.Tensor:
        """Encodes projected frames; returns the last frame, (n, d_model)."""
        x = self.cross(own.frames, other.padding_mask, source=other.frames)
        return last_frame(self.memory(x, own.padding_mask), own.padding_mask)


def last_frame(x: torch.Tensor, padding_mask: torch.Tensor) -> torch.Tensor:
    """Returns the last valid frame (n, D) of frames (n, T, D); the mask (n, T)
    is True where a frame is padding."""
    last = (~padding_mask).sum(dim=1) - 1
    return x[torch.arange(len(x), device=x.device), last]


class ResidualHead(nn.Module):
    """Two linear layers with a residual connection and dropout between them,
    then a linear prediction layer."""

    def __init__(self, width: int, num_outputs: int, dropout: float):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
        )
        self.out = nn.Linear(width, num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predicts from (n, width)."""
        return self.out(x + self.residual(x))


class MulT(JointFusion):
    """Multimodal transformer (Tsai et al., 2019, arXiv 1906.00295).

    Each modality's frames attend to the other's in cross-modal layers, then to
    themselves. The prediction is computed from the concatenated last frames of
    both. Here it has two modalities, whose sequences need not be aligned. The
    paper has no missing modality: here zeros replace it, in training too
    (:class:`JointFusion`).

    Arguments
    ---------
    encoder_layers, shared_layers : int
        Cross-modal layers of each modality (4 or 5 in the paper), and layers
        of self-attention after them (3 in the paper).
    others
        See :class:`vavl_sb.lobes.vavl.VAVL`.

    Example
    -------
    >>> net = MulT(10, 12, num_outputs=6, d_model=16)
    >>> net(torch.rand(2, 7, 10), visual=torch.rand(2, 5, 12)).audiovisual.shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        audio_dim: int = 1024,
        visual_dim: int = 1408,
        num_outputs: int = 6,
        d_model: int = 512,
        encoder_layers: int = 4,
        shared_layers: int = 3,
        nhead: int = 8,
        d_ffn: int | None = None,
        dropout: float = 0.1,
        head_dropout: float = 0.2,
        feature_noise: float = 0.0,
    ):
        super().__init__()
        layer = (d_model, nhead, d_ffn, dropout)
        for modality, dim in zip(MODALITIES, (audio_dim, visual_dim)):
            branch = feature_layers(dim, d_model, feature_noise)
            branch["transformers"] = CrossTransformers(
                encoder_layers, shared_layers, *layer
            )
            self.add_module(f"{modality}_branch", branch)
        self.prediction_head = ResidualHead(
            2 * d_model, num_outputs, head_dropout
        )

    def fuse(self, audio: Frames, visual: Frames) -> torch.Tensor:
        """Predicts from both modalities; see the base class."""
        audio = Frames(project(self.audio_branch, audio.frames), audio[1])
        visual = Frames(project(self.visual_branch, visual.frames), visual[1])
        last_frames = [
            self.audio_branch["transformers"](audio, visual),
            self.visual_branch["transformers"](visual, audio),
        ]
        return self.prediction_head(torch.cat(last_frames, dim=-1))


class AuxFormer(MulT):
    """AuxFormer (Goncalves and Busso, ICASSP 2022).

    The main network is MulT. Each modality also has an auxiliary network: a
    transformer applied three times, and layers shared by both modalities. The
    three losses are summed, so that the main network keeps the information of
    each modality alone. In training, the main network gets zeros for audio in a
    fifth of the clips and for visual in another fifth. With both modalities the
    prediction is the mean of the three networks'; with one, that of its
    auxiliary network. (In the released code a missing modality is zeros in all
    three networks, so that two of them predict from zeros.)

    Arguments
    ---------
    encoder_layers : int
        Layers of each transformer.
    modality_dropout : float
        Share of training clips that lose audio, and share that lose visual.
    others
        See :class:`vavl_sb.lobes.vavl.VAVL`.

    Example
    -------
    >>> net = AuxFormer(10, 12, num_outputs=6, d_model=16).eval()
    >>> net(audio=torch.rand(2, 7, 10)).audio.shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        audio_dim: int = 1024,
        visual_dim: int = 1408,
        num_outputs: int = 6,
        d_model: int = 512,
        encoder_layers: int = 4,
        nhead: int = 8,
        d_ffn: int | None = None,
        dropout: float = 0.1,
        head_dropout: float = 0.2,
        feature_noise: float = 0.0,
        modality_dropout: float = 0.2,
    ):
        super().__init__(
            audio_dim,
            visual_dim,
            num_outputs,
            d_model,
            encoder_layers,
            encoder_layers,
            nhead,
            d_ffn,
            dropout,
            head_dropout,
            feature_noise,
        )
        self.modality_dropout = modality_dropout
        layer = (d_model, nhead, d_ffn, dropout)
        for branch in (self.audio_branch, self.visual_branch):
            branch["auxiliary"] = Transformer(encoder_layers, *layer)
        residual = nn.Sequential(
            nn.Linear(d_model, d_model),
            nn.ReLU(),
            nn.Dropout(head_dropout),
            nn.Linear(d_model, max(d_model // 2, 1)),
            nn.ReLU(),
            nn.Dropout(head_dropout),
            nn.Linear(max(d_model // 2, 1), d_model),
        )
        self.auxiliary = nn.ModuleDict(
            {
                "residual": residual,
                "prediction_head": nn.Linear(d_model, num_outputs),
            }
        )

    def predict(self, head: str, inputs: dict[str, Frames]) -> torch.Tensor:
        """Predictions of a head; see the base class.

        In training "audiovisual" is the main network alone, for its own loss.
        """
        if head != "audiovisual":
            return self._auxiliary(head, inputs[head])
        if self.training:
            return self.fuse(**self._drop(inputs))
        alone = [self._auxiliary(m, inputs[m]) for m in MODALITIES]
        return torch.stack([self.fuse(**inputs), *alone]).mean(dim=0)

    def _auxiliary(self, modality, clips):
        """Predicts with an auxiliary network."""
        branch = self.get_submodule(f"{modality}_branch")
        x = project(branch, clips.frames)
        for _ in range(3):
            x = branch["auxiliary"](x, clips.padding_mask)
        x = last_frame(x, clips.padding_mask)
        x = x + self.auxiliary["residual"](x)
        return self.auxiliary["prediction_head"](x)

    def _drop(self, inputs):
        """Modality dropout: sets one modality to zeros in random clips."""
        audio = inputs["audio"].frames
        random = torch.rand(len(audio), 1, 1, device=audio.device)
        dropped = {
            "audio": random < self.modality_dropout,
            "visual": random > 1 - self.modality_dropout,
        }
        return {
            modality: Frames(
                frames.masked_fill(dropped[modality], 0.0), padding
            )
            for modality, (frames, padding) in inputs.items()
        }
