"""Speaker normalization: removes differences between speakers from features.

Voices and faces differ more between speakers than between emotions. A few
unlabelled clips of a speaker suffice to estimate the difference.

Source: Busso, Metallinou and Narayanan, "Iterative feature normalization for
emotional speech detection", ICASSP 2011; the shrinkage is empirical Bayes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.utils.errors import VAVLError

# Values of `speaker_normalization` in the YAML.
MODES = ("none", "speaker", "iterative")
# Weight, in clips, of the training speakers' variance in a speaker's.
PRIOR_CLIPS = 10
# Weight, in clips, of the corpus's emotions in the estimate of a speaker's.
PRIOR_EMOTIONS = 8
# Minimum between-speaker variance, relative to the within-speaker variance:
# with few training speakers its estimate may be 0 by chance.
LEAST_BETWEEN = 0.01
# Minimum within-speaker variance, relative to the variance of the corpus.
LEAST_WITHIN = 1e-4


@dataclass(eq=False)
class SpeakerStatistics:
    """Feature statistics of B speakers in one modality.

    Arguments
    ---------
    count : torch.Tensor
        Number of clips, float, shape (B,); 0 for an unknown speaker.
    mean : torch.Tensor
        Mean over clips of the features' time mean, shape (B, D).
    variance : torch.Tensor
        Biased variance over clips of the time mean, shape (B, D).
    """

    count: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor

    @classmethod
    def of(cls, clips: torch.Tensor) -> "SpeakerStatistics":
        """Computes the statistics of one speaker's clips (n, D), whatever their
        order.

        Example
        -------
        >>> statistics = SpeakerStatistics.of(torch.tensor([[1.0], [3.0]]))
        >>> statistics.count, statistics.mean, statistics.variance
        (tensor([2.]), tensor([[2.]]), tensor([[1.]]))
        """
        # Sorted, so that rounding does not depend on the order of the clips.
        clips = clips.detach().double().cpu().sort(dim=0).values
        count, mean = torch.tensor([float(len(clips))]), clips.mean(dim=0)
        variance = (clips - mean).square().mean(dim=0)
        return cls(count, mean.float()[None], variance.float()[None])

    @classmethod
    def stack(
        cls, statistics: Sequence["SpeakerStatistics | None"], dim: int
    ) -> "SpeakerStatistics":
        """Stacks statistics of speakers; None is a speaker without clips."""
        empty = cls(torch.zeros(1), torch.zeros(1, dim), torch.zeros(1, dim))
        rows = [empty if row is None else row for row in statistics]
        columns = zip(*(vars(row).values() for row in rows))
        return cls(*map(torch.cat, columns))

    def to(self, device: torch.device | str) -> "SpeakerStatistics":
        """Copies the statistics to a device."""
        return SpeakerStatistics(*(x.to(device) for x in vars(self).values()))


class SpeakerNormalization(nn.Module):
    """Maps the mean and variance of a speaker's features to the corpus's.

    Let m be the mean of a speaker's n clips, mu the mean of the corpus, and b
    and w the variances between and within the training speakers. The speaker's
    mean is estimated by the posterior mean ``mu + n b / (n b + w) (m - mu)``,
    the variance by that of the n clips and 10 more clips of variance w.
    Features become ``(x - mean) sqrt(w / variance) + mu``, per dimension and
    with the same mean and variance for all frames. For n = 0 they do not
    change.

    Arguments
    ---------
    audio_dim, visual_dim : int
        Feature sizes.
    num_outputs : int
        Number of classes or attributes.
    iterative : bool
        Whether to correct the statistics for the emotions in the enrolment
        clips: see :meth:`without_emotion`.

    Example
    -------
    >>> normalization = SpeakerNormalization(1, 1, num_outputs=2)
    >>> x = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> normalization.fit("audio", x, torch.eye(2).repeat(2, 1), list("aabb"))
    >>> clips = SpeakerStatistics.of(torch.full((1000, 1), 30.0))
    >>> normalization("audio", torch.tensor([[[30.0]]]), clips).round()
    tensor([[[6.]]])
    """

    def __init__(
        self,
        audio_dim: int,
        visual_dim: int,
        num_outputs: int,
        iterative: bool = False,
    ):
        super().__init__()
        self.iterative = iterative
        self.settings = dict(
            audio_dim=audio_dim,
            visual_dim=visual_dim,
            num_outputs=num_outputs,
            iterative=iterative,
        )
        for modality, dim in zip(MODALITIES, (audio_dim, visual_dim)):
            for name, shape in (
                ("mean", (dim,)),
                ("between", (dim,)),
                ("within", (dim,)),
                *((("slopes", (num_outputs, dim)),) if iterative else ()),
                ("target_mean", (num_outputs,)),
            ):
                value = torch.ones if name == "within" else torch.zeros
                self.register_buffer(f"{modality}_{name}", value(shape))

    def dim(self, modality: str) -> int:
        """Returns the feature size of a modality."""
        return self.settings[f"{modality}_dim"]

    def fit(
        self,
        modality: str,
        x: torch.Tensor,
        targets: torch.Tensor,
        speakers: Sequence[str],
    ) -> None:
        """Estimates the variances between and within the training speakers.

        Arguments
        ---------
        modality : str
            "audio" or "visual".
        x : torch.Tensor
            Time means of the features of N clips, shape (N, D).
        targets : torch.Tensor
            Classes as one-hot vectors, or attributes, shape (N, num_outputs).
        speakers : sequence of str
            Speaker of each clip.
        """
        x, targets = x.detach().double().cpu(), targets.double().cpu()
        names = sorted(set(speakers))
        row = torch.tensor([names.index(speaker) for speaker in speakers])
        counts = torch.bincount(row).double().unsqueeze(1)

        def means(values):
            zeros = values.new_zeros(len(names), values.shape[1])
            return zeros.index_add(0, row, values) / counts

        centered, total = x - means(x)[row], x.var(dim=0, correction=0)
        freedom = len(x) - len(names)
        within, between = total, torch.zeros_like(total)
        if freedom > 0:
            within = centered.square().sum(dim=0) / freedom
        within = torch.maximum(within, LEAST_WITHIN * total).clamp(min=1e-12)
        if freedom > 0 and len(names) > 1:
            # Sampling error alone gives means of n clips a variance of w / n.
            sampling = within * (1 / counts).mean()
            between = means(x).var(dim=0) - sampling
            between = between.clamp(min=LEAST_BETWEEN * within)
        values = {
            "mean": x.mean(dim=0),
            "between": between,
            "within": within,
            "target_mean": targets.mean(dim=0),
        }
        if self.iterative:
            varied = targets - means(targets)[row]
            least_squares = torch.linalg.lstsq(varied, centered, driver="gelsd")
            values["slopes"] = least_squares.solution
        for name, value in values.items():
            self.get_buffer(f"{modality}_{name}").copy_(value)

    def without_emotion(
        self,
        modality: str,
        statistics: SpeakerStatistics,
        targets: torch.Tensor,
    ) -> SpeakerStatistics:
        """Subtracts the average effect of the clips' emotions from the mean.

        Iterative feature normalization uses only clips predicted as neutral.
        Here all clips are used, and the mean effect of their predicted
        emotions, estimated by least squares on the training clips, is
        subtracted. So if a speaker's clips are all happy, happiness does not
        become the speaker's average. The predictions for n clips have the
        weight n / (2 n + 8), below a half, since they are least reliable for
        speakers far from the average.

        Arguments
        ---------
        modality : str
            "audio" or "visual".
        statistics : SpeakerStatistics
            Statistics of B speakers.
        targets : torch.Tensor
            Predicted class probabilities or attributes, averaged over each
            speaker's clips, shape (B, num_outputs).

        Returns
        -------
        SpeakerStatistics
        """
        slopes = self.get_buffer(f"{modality}_slopes")
        target_mean = self.get_buffer(f"{modality}_target_mean")
        count = statistics.count.unsqueeze(1)
        weight = count / (2 * count + PRIOR_EMOTIONS)
        effect = (weight * (targets.to(slopes) - target_mean)) @ slopes
        mean = statistics.mean - effect
        return SpeakerStatistics(statistics.count, mean, statistics.variance)

    def forward(
        self,
        modality: str,
        x: torch.Tensor,
        statistics: SpeakerStatistics,
        lens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Normalizes each clip by its speaker.

        Arguments
        ---------
        modality : str
            "audio" or "visual".
        x : torch.Tensor
            Features, shape (B, T, D).
        statistics : SpeakerStatistics
            Statistics of each clip's speaker, B rows or 1 row for all.
        lens : torch.Tensor
            Relative lengths, shape (B,); None: no padding.

        Returns
        -------
        torch.Tensor
            Shape (B, T, D), 0 past a clip's end.
        """
        mu = self.get_buffer(f"{modality}_mean")
        between = self.get_buffer(f"{modality}_between")
        within = self.get_buffer(f"{modality}_within")
        count = statistics.count.unsqueeze(1)
        share = count * between / (count * between + within)
        mean = mu + share * (statistics.mean - mu)
        squares = statistics.variance + (statistics.mean - mean).square()
        variance = count * squares + PRIOR_CLIPS * within
        variance = variance / (count + PRIOR_CLIPS)
        scale = (within / variance).sqrt()
        moved = (x - mean.unsqueeze(1)) * scale.unsqueeze(1) + mu
        moved = torch.where(count.unsqueeze(2) > 0, moved.to(x.dtype), x)
        if lens is None:
            return moved
        frame = torch.arange(x.shape[1], device=x.device)
        ends = (lens * x.shape[1]).round().unsqueeze(1)
        return moved.masked_fill((frame >= ends).unsqueeze(2), 0.0)


def make_normalizer(
    mode: str,
    audio_dim: int,
    visual_dim: int,
    num_outputs: int,
    frozen: bool = True,
) -> SpeakerNormalization | None:
    """Creates the module for ``speaker_normalization`` in the YAML; None for
    "none".

    Raises a VAVLError if the speech encoder is not ``frozen``: statistics
    require features that do not change.

    Example
    -------
    >>> make_normalizer("none", 4, 4, 6) is None
    True
    >>> make_normalizer("iterative", 4, 4, 6).iterative
    True
    """
    if mode not in MODES:
        raise VAVLError(
            f"speaker_normalization: must be one of {', '.join(MODES)}, not "
            f"{mode!r}"
        )
    if mode == "none":
        return None
    if not frozen:
        raise VAVLError(
            "speaker_normalization: requires a frozen speech encoder; set "
            "freeze_audio_encoder to True, or speaker_normalization to none"
        )
    return SpeakerNormalization(
        audio_dim, visual_dim, num_outputs, iterative=mode == "iterative"
    )
