"""Late fusion: networks that average the predictions of the modalities.

For classes the logits are averaged: the softmax of the mean is the normalized
geometric mean of the probabilities. For attributes the values are averaged.
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
    """Predicts from each modality; averages the two predictions.

    Training requires no pairs: the audio-visual prediction has no loss, and a
    clip without a modality fully trains the other's part. Subclasses define the
    prediction from one modality.
    """

    updates: tuple[str, ...] = ("visual", "audio")

    def predict(self, modality: str, rows: PresentRows) -> torch.Tensor:
        """Predicts (n, num_outputs) from "audio" or "visual" features of the n
        clips that have them."""
        raise NotImplementedError

    def forward_rows(
        self,
        inputs: dict[str, PresentRows],
        freeze_backbone: bool = False,
        detach_pair: bool = False,
    ) -> VAVLOutput:
        """Predicts from the modalities that each clip has; see the base
        class."""
        predictions = {
            modality: rows.scatter(self.predict(modality, rows))
            for modality, rows in inputs.items()
            if rows.count
        }
        both = have_all(inputs.values())
        if both is not None:
            mean = (predictions["audio"] + predictions["visual"]) / 2
            mean = mean.detach() if detach_pair else mean
            predictions["audiovisual"] = mean * both.unsqueeze(-1)
        return VAVLOutput(**predictions)


class LateFusion(MeanOfHeads):
    """Two separately trained networks, one per modality, as deep as VAVL.

    Arguments
    ---------
    encoder_layers, shared_layers : int
        Each network has ``encoder_layers + shared_layers`` conformer layers,
        none of which are shared.
    others
        See :class:`vavl_sb.lobes.vavl.VAVL`.

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

    Each modality has its own layers; both share further layers and one
    classifier. Each step uses one modality alone, and the prediction from both
    is the mean of their logits. The paper samples one modality per batch; here
    a batch takes one step with each.

    Arguments
    ---------
    encoder_layers, shared_layers : int
        Transformer layers of each modality, and shared ones; 3 and 3 in the
        paper.
    others
        See :class:`vavl_sb.lobes.vavl.VAVL`.

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
