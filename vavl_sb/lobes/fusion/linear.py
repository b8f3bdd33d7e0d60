"""Linear models of what a clip's features are over time."""

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
    """A regression on each modality's mean and deviation over time.

    Logistic regression for classes, ridge regression for attributes
    (:mod:`vavl_sb.nnet.regression`); from both, the product of the two, or
    their mean. It is fitted to the training clips before the first epoch, to
    the optimum, and has nothing left to train. A clip that lacks a modality
    has no part in that modality's fit. Where the training clips have one frame
    each, the deviation says nothing and has no weight.

    Arguments
    ---------
    audio_dim, visual_dim, num_outputs : int
        As of :class:`vavl_sb.lobes.vavl.VAVL`.
    strength : float
        Inverse penalty C; None: chosen by cross-validation over the training
        speakers, for each modality.
    discriminant : bool
        Whether a linear discriminant analysis of the same features has the
        same say in classes: the mean of the two models' logits is itself
        linear. Its covariance within the classes is also how speakers differ.

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

        To the statistics (N, 2 D), of
        :func:`vavl_sb.nnet.masking.masked_statistics`, of the N training clips
        that have the modality; their targets are class indices, int64 (N,), or
        attributes in the network's scale, float (N, num_outputs); ``speakers``
        says who speaks in each.
        """
        branch = self.get_submodule(f"{modality}_branch")
        x = statistics.double()
        mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
        # What does not vary is left as it is, and gets no weight.
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
            other, shift, shrinkage, scale = fit_discriminant(
                x, targets, self.num_outputs, speakers
            )
            weight, bias = (weight + other) / 2, (bias + shift) / 2
            logger.info(
                "Beside it, discriminants: shrinkage %g, logits x %g",
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
    """VAVL beside linear models, for corpora of hundreds of clips.

    Such a corpus has more features than clips, and models in closed form learn
    from it what a network does not, and the other way round. Each modality has
    a :class:`LinearFusion` with discriminants; VAVL is trained by its own
    losses, as if it were alone. In use (eval mode) a head's logits are the mean
    of the two; with both modalities, the mean over the audio and the visual
    head, the geometric mean of their probabilities, for which no pairs are
    needed. For attributes all are means of values.

    Arguments
    ---------
    fuse : str
        What predicts from both: "product" of the two modalities' heads; "head",
        VAVL's audio-visual head; or "both", the mean of those two.
    **settings
        As of :class:`vavl_sb.lobes.vavl.VAVL`.

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
        """As of VAVL; in eval mode with the linear models' say."""
        out = super().forward_rows(inputs, freeze_backbone, detach_pair)
        if self.training:
            return out
        linear = self.linear.forward_rows(inputs)
        for head in MODALITIES:
            own, other = getattr(out, head), getattr(linear, head)
            if own is not None:
                setattr(out, head, (own + other) / 2)
        if out.audiovisual is not None and self.fuse != "head":
            heads = [getattr(out, modality) for modality in MODALITIES]
            product = torch.stack(heads).mean(dim=0)
            # Rows of clips that lack a modality hold 0.
            product = product * out.audiovisual.any(dim=-1, keepdim=True)
            both = (product + out.audiovisual) / 2
            out.audiovisual = product if self.fuse == "product" else both
        return out
