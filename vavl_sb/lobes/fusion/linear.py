"""Linear models of the mean and deviation of features over time."""

from collections.abc import Sequence

import torch
from torch import nn

from vavl_sb.lobes.fusion.late import MeanOfHeads
from vavl_sb.lobes.vavl import MODALITIES, VAVL, VAVLOutput
from vavl_sb.nnet.masking import PresentRows, masked_statistics
from vavl_sb.nnet.normalization import InputNormalization
from vavl_sb.nnet.regression import fit_discriminant, fit_linear
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)


class LinearFusion(MeanOfHeads):
    """A regression on the mean and standard deviation of features over time.

    Logistic regression for classes, ridge regression for attributes
    (:mod:`vavl_sb.nnet.regression`), one per modality. The audio-visual
    prediction is their product for classes, their mean for attributes. The
    regressions are fitted to their optimum before the first epoch; there is no
    other training. Each uses the clips that have its modality. If the training
    clips have one frame each, the deviation gets no weight.

    Arguments
    ---------
    audio_dim, visual_dim, num_outputs : int
        See :class:`vavl_sb.lobes.vavl.VAVL`.
    strength : float
        Inverse penalty C; None: selected for each modality by cross-validation
        over the training speakers.
    discriminant : bool
        Whether to average the logits of the logistic regression with those of a
        linear discriminant analysis. Its covariance within the classes includes
        the differences between speakers.

    Example
    -------
    >>> net = LinearFusion(2, 3, num_outputs=2, strength=1.0)
    >>> clips = torch.tensor([[[0.0, 1.0]], [[0.0, -1.0]]])
    >>> none = torch.zeros(2, 1, dtype=torch.bool)
    >>> net.fit_statistics(
    ...     "audio", masked_statistics(clips, none), torch.tensor([0, 1]), ["a"]
    ... )
    >>> net(audio=clips).audio.argmax(dim=-1)
    tensor([0, 1])
    """

    updates = ()

    def __init__(
        self,
        audio_dim: int = 1024,
        visual_dim: int = 1408,
        num_outputs: int = 6,
        strength: float | None = None,
        discriminant: bool = False,
    ):
        super().__init__()
        self.strength, self.discriminant = strength, discriminant
        for modality, dim in zip(MODALITIES, (audio_dim, visual_dim)):
            branch = nn.ModuleDict(
                {
                    "standardize": InputNormalization(2 * dim),
                    "prediction_head": nn.Linear(2 * dim, num_outputs),
                }
            ).requires_grad_(False)
            for parameter in branch.parameters():
                parameter.zero_()
            self.add_module(f"{modality}_branch", branch)

    def fit_statistics(
        self,
        modality: str,
        statistics: torch.Tensor,
        targets: torch.Tensor,
        speakers: Sequence[str],
    ) -> None:
        """Fits the regression of "audio" or "visual".

        ``statistics`` (N, 2 D) are
        :func:`vavl_sb.nnet.masking.masked_statistics` of the N training clips
        that have the modality; ``targets`` are class indices, int64 (N,), or
        attributes in the network's scale, float (N, num_outputs); ``speakers``
        has the speaker of each clip.
        """
        branch = self.get_submodule(f"{modality}_branch")
        x = statistics.double()
        mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
        # Constant features are not scaled, and get no weight.
        deviation[deviation <= 1e-6 * mean.abs().clamp(min=1.0)] = 1.0
        x = (x - mean) / deviation
        weight, bias, strength = fit_linear(
            x, targets, self.num_outputs, self.strength, speakers
        )
        logger.info(
            "Fitted the %s regression to %d clips, C = %g",
            *(modality, len(x), strength),
        )
        if self.discriminant and not targets.is_floating_point():
            lda_weight, lda_bias, shrinkage, scale = fit_discriminant(
                x, targets, self.num_outputs, speakers
            )
            weight, bias = (weight + lda_weight) / 2, (bias + lda_bias) / 2
            logger.info(
                "Fitted discriminants: shrinkage %g, logits scaled by %g",
                *(shrinkage, scale),
            )
        branch["standardize"].mean.copy_(mean)
        branch["standardize"].deviation.copy_(deviation)
        branch["prediction_head"].weight.copy_(weight)
        branch["prediction_head"].bias.copy_(bias)

    def predict(self, modality: str, rows: PresentRows) -> torch.Tensor:
        """Predicts from one modality; see the base class."""
        branch = self.get_submodule(f"{modality}_branch")
        statistics = masked_statistics(rows.features, rows.padding_mask)
        return branch["prediction_head"](branch["standardize"](statistics))


class VAVLLinear(VAVL):
    """Ensemble of VAVL and linear models, for corpora of hundreds of clips.

    On corpora with more features than clips, linear models and networks
    complement each other. VAVL is trained as usual, and :class:`LinearFusion`
    with discriminants is fitted separately. In eval mode a head's logits are
    the mean of the two models'. By default the audio-visual logits are the mean
    of the audio and visual heads' (the geometric mean of their probabilities),
    which requires no training on pairs. For attributes, values are averaged.

    Arguments
    ---------
    fuse : str
        Audio-visual prediction: "product" of the audio and visual heads;
        "head", VAVL's audio-visual head; or "both", the mean of these two.
    **settings
        See :class:`vavl_sb.lobes.vavl.VAVL`.

    Example
    -------
    >>> net = VAVLLinear(10, 12, num_outputs=6, d_model=16).eval()
    >>> out = net(torch.rand(2, 7, 10), visual=torch.rand(2, 5, 12))
    >>> torch.allclose(out.audiovisual, (out.audio + out.visual) / 2)
    True
    """

    def __init__(
        self,
        audio_dim: int = 1024,
        visual_dim: int = 1408,
        num_outputs: int = 6,
        fuse: str = "product",
        **settings,
    ):
        sizes = (audio_dim, visual_dim, num_outputs)
        super().__init__(*sizes, **settings)
        if fuse not in ("product", "head", "both"):
            raise VAVLError(f"fuse: must be product, head or both, not {fuse}")
        self.fuse = fuse
        self.linear = LinearFusion(*sizes, discriminant=True)

    def fit_statistics(self, *arguments, **named) -> None:
        """As :meth:`LinearFusion.fit_statistics`."""
        self.linear.fit_statistics(*arguments, **named)

    def forward_rows(
        self,
        inputs: dict[str, PresentRows],
        freeze_backbone: bool = False,
        detach_pair: bool = False,
    ) -> VAVLOutput:
        """Predicts as VAVL does; in eval mode averaged with the linear
        models."""
        out = super().forward_rows(inputs, freeze_backbone, detach_pair)
        if self.training:
            return out
        linear = self.linear.forward_rows(inputs)
        for head in MODALITIES:
            logits = getattr(out, head)
            if logits is not None:
                setattr(out, head, (logits + getattr(linear, head)) / 2)
        if out.audiovisual is not None and self.fuse != "head":
            heads = [getattr(out, modality) for modality in MODALITIES]
            product = torch.stack(heads).mean(dim=0)
            # Rows of clips that lack a modality must be 0.
            product = product * out.audiovisual.any(dim=-1, keepdim=True)
            both = (product + out.audiovisual) / 2
            out.audiovisual = product if self.fuse == "product" else both
        return out
