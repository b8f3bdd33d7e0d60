"""Networks whose prediction from both is the mean of those from each alone.

The softmax of a mean of logits is the geometric mean of the probabilities,
scaled to sum to one: for classes the mean of logits is their product, for
attributes it is a mean of values.
"""

import torch
from torch import nn

from vavl_sb.lobes.fusion.transformer import (
    Transformer,
    feature_layers,
    normalized,
    project,
)
from vavl_sb.lobes.vavl import (
    MODALITIES,
    AudioVisualNetwork,
    VAVLOutput,
    modality_branch,
)
from vavl_sb.nnet.masking import PresentRows, have_all, masked_mean


class MeanOfHeads(AudioVisualNetwork):
    """Predicts from each modality; from both, the mean of the two.

    Nothing learns from pairs: the audio-visual prediction has no loss of its
    own, and a clip that lacks a modality trains the other's part in full.
    Subclasses say what one modality's prediction is.
    """

    updates: tuple[str, ...] = ("visual", "audio")

    def predict(self, modality: str, rows: PresentRows) -> torch.Tensor:
        """Predicts, (n, num_outputs), from "audio" or "visual" of the n clips
        that have it."""
        raise NotImplementedError

    def forward_rows(
        self,
        inputs: dict[str, PresentRows],
        freeze_backbone: bool = False,
        detach_pair: bool = False,
    ) -> VAVLOutput:
        """Predicts from whatever the batch has; see the base class."""
        found = {
            modality: rows.scatter(self.predict(modality, rows))
            for modality, rows in inputs.items()
            if rows.count
        }
        both = have_all(inputs.values())
        if both is not None:
            mean = (found["audio"] + found["visual"]) / 2
            mean = mean.detach() if detach_pair else mean
            found["audiovisual"] = mean * both.unsqueeze(-1)
        return VAVLOutput(**found)


class LateFusion(MeanOfHeads):
    """Two networks of one modality each, trained apart.

    Each has VAVL's depth: what VAVL shares, each has of its own. Without a
    modality, the other's network predicts.

    Arguments
    ---------
    audio_dim, visual_dim, num_outputs, d_model, projection_dim : int
        As of :class:`vavl_sb.lobes.vavl.VAVL`.
    encoder_layers, shared_layers : int
        Each network has as many conformer layers as both together.
    nhead, d_ffn, kernel_size : int
        As of VAVL.
    dropout, head_dropout, feature_noise : float
        As of VAVL.

    Example
    -------
    >>> net = LateFusion(10, 12, num_outputs=6, d_model=16)
    >>> out = net(torch.rand(2, 7, 10), visual=torch.rand(2, 5, 12))
    >>> torch.allclose(out.audiovisual, (out.audio + out.visual) / 2)
    True
    """

    def __init__(
        self,
        audio_dim: int = 1024,
        visual_dim: int = 1408,
        num_outputs: int = 6,
        d_model: int = 512,
        projection_dim: int = 50,
        encoder_layers: int = 3,
        shared_layers: int = 2,
        nhead: int = 8,
        d_ffn: int | None = None,
        kernel_size: int = 31,
        dropout: float = 0.1,
        head_dropout: float = 0.2,
        feature_noise: float = 0.0,
    ):
        super().__init__()
        for modality, dim in zip(MODALITIES, (audio_dim, visual_dim)):
            branch = modality_branch(
                dim,
                num_outputs,
                d_model,
                projection_dim,
                encoder_layers + shared_layers,
                feature_noise,
                head_dropout,
                nhead=nhead,
                d_ffn=d_ffn,
                kernel_size=kernel_size,
                dropout=dropout,
            )
            self.add_module(f"{modality}_branch", branch)

    def predict(self, modality: str, rows: PresentRows) -> torch.Tensor:
        """Predicts from one modality; see the base class."""
        branch = self.get_submodule(f"{modality}_branch")
        frames = branch["projection"](normalized(branch, rows))
        frames = branch["encoder"](frames, rows.padding_mask)
        return branch["prediction_head"](masked_mean(frames, rows.padding_mask))


class UAVM(MeanOfHeads):
    """Unified audio-visual model (Gong et al., 2022, arXiv 2208.00061).

    Layers of each modality's own, layers and one classifier that both share,
    and one modality at a time: each step sees frames of one modality alone,
    and the prediction from both is the mean of logits. Where the paper draws
    a batch's modality at random, a batch here takes a step with each. Without a
    modality, the other's logits are the prediction.

    Arguments
    ---------
    audio_dim, visual_dim, num_outputs, d_model : int
        As of :class:`vavl_sb.lobes.vavl.VAVL`.
    encoder_layers, shared_layers : int
        Transformer layers of each modality's own, and of both; 3 and 3 in the
        paper.
    nhead, d_ffn : int
        As of VAVL.
    dropout, feature_noise : float
        As of VAVL.

    Example
    -------
    >>> net = UAVM(10, 12, num_outputs=6, d_model=16)
    >>> net(visual=torch.rand(2, 5, 12)).visual.shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        audio_dim: int = 1024,
        visual_dim: int = 1408,
        num_outputs: int = 6,
        d_model: int = 512,
        encoder_layers: int = 3,
        shared_layers: int = 3,
        nhead: int = 8,
        d_ffn: int | None = None,
        dropout: float = 0.1,
        feature_noise: float = 0.0,
    ):
        super().__init__()
        layer = (d_model, nhead, d_ffn, dropout)
        for modality, dim in zip(MODALITIES, (audio_dim, visual_dim)):
            branch = feature_layers(dim, d_model, feature_noise)
            branch["encoder"] = Transformer(encoder_layers, *layer)
            self.add_module(f"{modality}_branch", branch)
        self.shared = Transformer(shared_layers, *layer)
        self.prediction_head = nn.Linear(d_model, num_outputs)

    def predict(self, modality: str, rows: PresentRows) -> torch.Tensor:
        """Predicts from one modality; see the base class."""
        branch = self.get_submodule(f"{modality}_branch")
        frames = project(branch, normalized(branch, rows))
        frames = branch["encoder"](frames, rows.padding_mask)
        frames = self.shared(frames, rows.padding_mask)
        return self.prediction_head(masked_mean(frames, rows.padding_mask))
